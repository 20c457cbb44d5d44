"""Every field of a configuration, with its default.

A run's file starts from here,

    from configs import base

    def get_config():
        config = base.get_config()
        config.workdir = "runs/mine"
        config.data.state = base.field("state.nc")
        ...

and holds only what differs; --config.NAME=VALUE can override every other field too.

Groups that a run may lack are None here, and made by a function: `autoencoder()`,
`held_suarez()`, `kolmogorov()`, `lorenz63()` and `moist()`. Groups with names of the user's own are
empty here, and filled with `field()` (data.modalities), `censored()` (data.transforms) and
`stream()` (assimilation.streams). `small(config)` makes the networks and the training those of the
demo.

Results are typed as Any because ConfigDict's types know nothing of its fields.
"""

from typing import Any

from ml_collections import ConfigDict, FieldReference

BOUNDARIES = (0.0, 0.012, 0.03, 0.06, 0.095, 0.14, 0.2, 0.27, 0.35, 0.44, 0.54, 0.64, 0.74, 0.83)
BOUNDARIES = (*BOUNDARIES, 0.9, 0.955, 1.0)


def get_config() -> Any:
    """A configuration without data: set at least `data.state`, `data.variables`, `data.periods`."""
    return ConfigDict(
        {
            # Seed of everything random but the nature run.
            "seed": 0,
            # Folder of the trained model and the scores.
            "workdir": "runs/base",
            # Generated unless data.root is set: None, `held_suarez()`, `kolmogorov()`, `lorenz63()`
            # or `moist()`.
            "nature": None,
            "data": data(),
            "schedule": {
                # Smallest alpha and sigma of the noise schedule, in (0, 0.1).
                "eta": 1e-3,
            },
            # None diffuses the state itself; `autoencoder()` diffuses its latents.
            "autoencoder": None,
            # As score_training, for a run with an autoencoder.
            "autoencoder_training": None,
            "score": score(),
            "score_training": training(),
            "sampler": sampler(),
            "guidance": guidance(),
            "refinement": refinement(),
            "ensemble": ensemble(),
            "assimilation": assimilation(),
            "compare": compare(),
        }
    )


def small(config: Any) -> None:
    """Networks, training and analysis that suit a T21 grid and two cores: minutes each."""
    config.autoencoder = autoencoder(16, compression=2, width=48)
    config.autoencoder_training = training(
        steps=500,
        batch_size=16,
        learning_rate=2e-3,
        warmup_steps=50,
        weight_decay=1e-4,
        ema_decay=0.99,
        checkpoint_every=250,
    )
    config.score.update(window=3, widths=(48, 96), blocks=2)
    config.score_training.update(
        steps=1200,
        batch_size=16,
        learning_rate=2e-3,
        warmup_steps=50,
        weight_decay=1e-4,
        ema_decay=0.995,
        checkpoint_every=400,
    )
    config.sampler.steps = 16
    config.guidance.iterations = 24


def data() -> dict[str, Any]:
    """What is read, and which period serves which purpose."""
    return {
        # Folder or URL that relative paths start from; "" for the nature run.
        "root": "",
        # The truth.
        "state": field("state.nc"),
        # The background: path "" for none, "previous" for the state one time earlier.
        "background": field("background.nc"),
        # Variables of the state, in the library's vocabulary.
        "variables": ("temperature",),
        # Levels of those of them that lie on levels, hPa; () if none does.
        "levels": (),
        # Variables of the state whose amounts are censored, such as rain: name -> `censored(...)`.
        "transforms": {},
        # What the encoder sees beside the background: name -> `field(...)`.
        "modalities": {},
        # First and last date of each period.
        "periods": {"train": ("", ""), "validation": ("", ""), "test": ("", "")},
        # Common grid: "" for the state's own, degrees, (rows, columns), or a file that has it.
        "grid": _any(""),
        # First and last date of the state's times that are used; () for all.
        "period": (),
        # Hours of the day of the state's times that are used; () for all.
        "hours": (),
        # Harmonics of the yearly cycle in the climatology; 0 for the mean.
        "harmonics": 0,
        # One climatology a grid point, not one a channel.
        "per_point": True,
        # Folder of the memory-mapped archive.
        "cache": "cache",
    }


def field(path: str, **changes: Any) -> Any:
    """State, background or a modality."""
    return _changed(
        {
            # File, store, glob pattern, URL, or a tuple of these.
            "path": _any(path),
            # Of a modality: its name in the library's vocabulary.
            "variable": "",
            # Station data, averaged over the cells of the grid.
            "stations": False,
            # Station tables without positions: the file that has them.
            "metadata": "",
            # Of station tables, and of files that do not give theirs.
            "units": "",
            # Regridding: "conservative", "bilinear", "nearest", or "" for the variable's own.
            "method": "",
            # Share of a cell, or of a mean over time, that must be known.
            "known": 0.5,
            # Of times: "exact", "nearest", or the "mean" or "sum" of the interval that ends.
            "matching": "exact",
            # Tolerance of "nearest", length of the interval; 0 for half the step, and the step.
            "hours": 0.0,
            # Hours added to its timestamps: 24 where a day is dated by its beginning.
            "shift": 0.0,
            # Of a modality, before it is standardised: "log1p", "log1p+wet" or "".
            "transform": "",
            # Of the transform, in the library's units: log(1 + x / scale).
            "scale": 1.0,
        },
        changes,
    )


def censored(**changes: Any) -> Any:
    """Rain in the state: a power of a normal variable where this is above a threshold, else 0."""
    return _changed(
        {
            # Power of the normal variable: 2 to 3 for daily rain.
            "power": 2.5,
            # Amount where that variable is one, in the library's units.
            "scale": 1e-3,
            # Amount up to which it counts as dry, likewise.
            "trace": 1e-4,
        },
        changes,
    )


def autoencoder(latent_channels: int, **changes: Any) -> Any:
    """Shape of the autoencoder and of its training loss."""
    return _changed(
        {
            # Channels of the code.
            "latent_channels": latent_channels,
            # "conv" (linear code and residual correction) or "slams" (as published).
            "architecture": "conv",
            # Points of the state to one of the code, in each direction: 1, 2 or 4.
            "compression": 1,
            # Channels of the residual blocks ("conv").
            "width": 64,
            # Residual blocks in each half ("conv").
            "blocks": 2,
            # Channels of the encoder's inner convolutions ("slams").
            "hidden": (9, 8, 7, 6),
            # Size of the convolutions, odd.
            "kernel": 3,
            # Beyond the edges: "sphere", "channel", "edge" or "torus"; "" as the grid has it.
            "padding": "",
            # Position channels seen by both halves ("conv"): "none", "latitude" or "both".
            "coordinates": "latitude",
            # Probability that the state is among the inputs in training.
            "state_probability": 0.5,
            # Probability that the state, where present, is the only input.
            "alone": 0.5,
            # Probability of leaving out each other input; also (name, probability) pairs.
            "drop": _any(0.3),
            # p >= 1 of the p-norm over channels: larger p weights the worst channels more.
            "level_power": 2.0,
            # Standard deviation of the noise on codes in training.
            "latent_noise": 0.02,
            # Weight of the mean square of the codes.
            "latent_penalty": 1e-3,
            # Precision of the residual networks: "float32" or "bfloat16" ("conv").
            "compute": "float32",
        },
        changes,
    )


def score() -> dict[str, Any]:
    """Shape of the score network."""
    return {
        # Frames in a window, odd.
        "window": 5,
        # Channels of each level of the U-Net; each level halves the resolution.
        "widths": (32, 64, 128),
        # Residual blocks on the way down, and up, at each level.
        "blocks": 3,
        # Size of the embedding of diffusion time.
        "embedding": 64,
        # Size of the convolutions, odd; 1 on a grid of one point.
        "kernel": 3,
        # Beyond the edges: "sphere", "channel", "edge" or "torus"; "" as the grid has it.
        "padding": "",
        # Position channels beside the frames: "none", "latitude" or "both".
        "coordinates": "latitude",
        # What the network predicts: "departure" from the Gaussian prior, "v" or "eps".
        "prediction": "departure",
        # A noise level for each frame of a window, so that frames may be absent; or one for all.
        "frame_noise": True,
        # Precision of convolutions and activations: "float32" or "bfloat16".
        "compute": "float32",
    }


def training(**changes: Any) -> Any:
    """One stage of training."""
    return _changed(
        {
            # Length of the stage.
            "steps": 10000,
            # Samples a step, on all devices together.
            "batch_size": 64,
            # Peak learning rate of AdamW, reached after the warm-up.
            "learning_rate": 1e-3,
            # Steps of the linear rise from 0.
            "warmup_steps": 0,
            # After the warm-up: "cosine" or "linear" to 0 at the last step, or "constant".
            "decay": "cosine",
            # Decoupled, on kernels only.
            "weight_decay": 0.0,
            # Largest global norm of the gradient; None for no clipping.
            "clip_norm": _any(1.0),
            # Decay of the moving average of the parameters.
            "ema_decay": 0.999,
            # Decay of the mean of the gradients.
            "b1": 0.9,
            # Decay of the mean of their squares.
            "b2": 0.999,
            # Added to the root of the latter.
            "epsilon": 1e-8,
            # Steps between records.
            "log_every": 50,
            # Steps between checkpoints, the most that a kill can cost.
            "checkpoint_every": 500,
            # Parts of each batch, taken one after the other to save memory.
            "accumulate": 1,
            # Share parameters and the optimiser's state over the devices.
            "shard_state": False,
            # How often a diverging loss returns the run to its last good checkpoint.
            "rollbacks": 0,
            # A loss above this has diverged; None for one that is not finite.
            "loss_limit": _any(None),
        },
        changes,
    )


def sampler() -> dict[str, Any]:
    """How the reverse SDE is solved."""
    return {
        # "dpmpp_2m", "ddim", "euler_maruyama", "heun", "pc", "dpmpp_2m_ode", "dpmpp_3m_ode", "ode".
        "solver": "dpmpp_2m",
        # Number of steps; with adaptive ones, the most that are tried.
        "steps": 32,
        # Times equidistant in "log_snr", in t ("uniform"), or those of "edm".
        "grid": "log_snr",
        # "ddim": share of fresh noise, 0 for the ODE, 1 for the ancestral step of DDPM.
        "eta": 0.0,
        # "pc": Langevin corrections after each step.
        "corrections": 1,
        # "pc": length of a correction, in (0, 2).
        "tau": 0.5,
        # "ode": the solver of diffrax.
        "method": "Heun",
        # "ode": relative tolerance of adaptive steps; 0 for fixed steps.
        "rtol": 0.0,
        # "ode": absolute tolerance; both are positive, or neither.
        "atol": 0.0,
        # "split_gibbs": draws of x_0 at each level.
        "sweeps": 1,
        # "split_gibbs": moves of each draw, for operators that are not linear.
        "slices": 0,
    }


def guidance() -> dict[str, Any]:
    """How observations guide the reverse SDE."""
    return {
        # "gaussian", "sda", "dps", "pigdm", "tmpd", "mmps" or "exact".
        "rule": "gaussian",
        # Variance of x_0 given x_t over sigma^2 / alpha^2 ("sda").
        "gamma": 1e-2,
        # Largest number of conjugate-gradient iterations ("gaussian", "pigdm", "mmps").
        "iterations": 30,
        # Stop them at this share of the first residual ("gaussian", "mmps"); 0 takes all.
        "tolerance": 1e-3,
        # How often they are solved, each time from where the last one ended ("gaussian", "mmps").
        "outer": 1,
        # Differentiate through the network ("pigdm").
        "jacobian": True,
    }


def refinement() -> dict[str, Any]:
    """Metropolis moves of each member after its draw."""
    return {
        # Number of moves; 0 for none.
        "moves": 0,
        # Smallest noise level t of a move; small moves are accepted more often.
        "lowest": 0.2,
        # Largest noise level t of a move; large moves go from one mode to another.
        "highest": 0.95,
        # Of the reverse SDE of a move, with fresh noise.
        "sampler": sampler(),
    }


def ensemble() -> dict[str, Any]:
    """What the members of a background tell, where it has several (--background)."""
    return {
        # Share of the members in the covariance of their errors; the statistics have the rest.
        "weight": 0.5,
        # Factor of the departures of the members from their mean.
        "inflation": 1.0,
        # Of localisation, km; 0 for none.
        "radius": 2000.0,
        # Of the members' covariance that are kept, at most.
        "patterns": 400,
        # Let draws start from the members at this noise level t instead; 0 for the above.
        "level": 0.0,
    }


def assimilation() -> dict[str, Any]:
    """An analysis of a period, or of its first times."""
    return {
        # Observations that enter through their operators: name -> `stream(...)`.
        "streams": {},
        # Ensemble members.
        "members": 16,
        # Times from the start of the period; 0 for all.
        "frames": 0,
        # The period that is analysed.
        "period": "test",
        # Let the background enter, as an observation of the state.
        "background": True,
        # Fields that enter through the encoder, as one observation of the latent.
        "latent_inputs": (),
        # Factor on all error variances.
        "inflation": 1.0,
        # Reject observations so many standard deviations from the background; 0 for no check.
        "gross_error": 0.0,
        # The prior: the trained "network", or the "gaussian" of the model's own statistics.
        "score": "network",
        # Guided paths for each member, resampled by their weights; 1 resamples nothing.
        "paths": 1,
        # Windows a device evaluates at a time; 0 for all.
        "window_chunk": 0,
        # Recompute activations for gradients instead of keeping them.
        "remat": True,
        # Members a device draws at a time; 0 for all.
        "member_batch": 0,
        # Devices that share the windows of each member.
        "window_devices": 1,
        # Devices that share the latitudes of each field.
        "space_devices": 1,
        # EOFs of a block of the prior, and patterns of the error covariance, at most.
        "rank": 400,
    }


def compare() -> dict[str, Any]:
    """A comparison with classical methods over the test period."""
    return {
        # Number of analyses; fewer where the test period is too short.
        "windows": 60,
        # Times between them.
        "every": 5,
        # Times before that of the analysis in its window.
        "before": 4,
        # Times after it, which smoothers see and filters do not.
        "after": 2,
        # Members of every ensemble.
        "members": 8,
        # EOFs of each wavenumber (or of the domain) in the linear baselines.
        "rank": 60,
        # What is compared; () for all.
        "systems": (),
        # Sets of assimilation.latent_inputs, each seen by systems of its own; () for all together.
        "inputs": (),
    }


def flow(**changes: Any) -> Any:
    """Trajectories of a Kolmogorov flow, for `experiments.compare`."""
    return _changed(
        {
            # What is observed: "coarse", "sparse", "saturating".
            "problems": ("coarse", "sparse", "saturating"),
            # Of the comparison: "letkf", "4dvar", "gaussian", "score", "sda".
            "systems": ("letkf", "4dvar", "gaussian", "score", "sda"),
            # Number of trajectories.
            "trajectories": 12,
            # States between the starts of two of them.
            "every": 90,
            # The period which they are part of.
            "period": "test",
            # States of each.
            "frames": 9,
            # Of the trained model, of its statistics and of "sda".
            "draws": 4,
            # Of the LETKF.
            "members": 24,
            # Of the LETKF: a factor of the departures of an analysis, or "adaptive".
            "inflation": _any(1.2),
            # Where its localisation reaches zero, in points of the state's grid.
            "radius": 16.0,
            # Linearisations of "4dvar" for each shorter window that it begins with.
            "growing": 1,
            # For the whole one.
            "outer": 2,
            # Of conjugate gradients for each of them.
            "iterations": 12,
        },
        changes,
    )


def cycle(**changes: Any) -> Any:
    """A twin experiment of many cycles, for `experiments.cycle`."""
    return _changed(
        {
            # "lorenz63", "lorenz96", or "two-scale", Lorenz-96 with forecasts of one scale.
            "system": "lorenz96",
            # Variables of Lorenz-96.
            "variables": 40,
            # Seed of everything random.
            "seed": 0,
            # Number of analyses.
            "cycles": 1460,
            # First of them that the summary leaves out.
            "spin_up": 200,
            # Time step.
            "dt": 0.05,
            # Time steps in a cycle.
            "substeps": 1,
            # "identity" observes every variable, "arctan" and "square" every second one.
            "operator": "identity",
            # Standard deviation of each observation.
            "error": 1.0,
            # Share of the observations that are missing.
            "missing": 0.0,
            # "etkf", "letkf", "enkf", "iterative", "particle filter", "3dvar", "hybrid", "score".
            "method": "etkf",
            # Of the ensemble.
            "members": 20,
            # Factor of the departures of an analysis; "adaptive" estimates it ("etkf", "letkf").
            "inflation": _any(1.0),
            # Where localisation ("letkf", "hybrid", "score") reaches zero, in variables.
            "radius": 14.0,
            # Variance of the background ("3dvar", "hybrid") over that of the climate.
            "variance": 0.05,
            # Of the ensemble in the covariance of "hybrid".
            "weight": 0.5,
            # Analyse the cycle before, and forecast again ("iterative", "hybrid", "score").
            "smooth": False,
            # Cycles of which later observations still change the state ("etkf", "letkf", "enkf").
            "lag": 0,
            # Steps of training the prior ("score"); 0 for a Gaussian one.
            "training": 3000,
            # Cycles between two checkpoints.
            "every": 100,
        },
        changes,
    )


def moist_cycle(**changes: Any) -> Any:
    """Cycles of the moist atmosphere, for `experiments.cycle`."""
    return _changed(
        {
            # Date of the first analysis.
            "first": "2004-07-01",
            # Number of analyses, one a day.
            "cycles": 60,
            # First of them that the scores leave out.
            "spin_up": 10,
            # "3dvar", "letkf", and "score", the trained model given the forecasts of the LETKF.
            "methods": ("3dvar", "letkf", "score"),
            # Of the ensembles.
            "members": 40,
            # Draws of the trained model.
            "draws": 8,
            # Factor of the departures of an analysis.
            "inflation": 1.15,
            # Of localisation, km: exp(-d^2 / 2 radius^2).
            "radius": 1500.0,
            # Of the background of "3dvar", over that of the weather.
            "variance": 0.1,
            # Of gauges for filters, in log(1 + mm); 0 keeps gauges from them.
            "rain_error": 1.0,
            # Of outgoing longwave radiation for filters, W/m2; 0 keeps it from them.
            "longwave_error": 15.0,
            # Cycles between two checkpoints.
            "every": 5,
        },
        changes,
    )


def stream(kind: str, **changes: Any) -> Any:
    """One stream of observations."""
    return _changed(
        {
            # "points", "grid", "coarse", "stride", "sounder" or "olr".
            "kind": kind,
            # File below data.root; "" simulates the stream from the true state.
            "path": "",
            # What is observed.
            "variable": "temperature",
            # Standard deviation; 0 for those in the file, or estimated ones.
            "error": 0.0,
            # Estimate bias and error of each station in the training period.
            "estimate": False,
            # Of simulated "coarse" and "stride" streams.
            "factor": 1,
            # Simulated streams observe every n-th time, beginning with the first.
            "every": 1,
            # Stations kept for verification: a share of them, or their names.
            "withhold": _any(0.0),
            # Station tables without positions: the file that has them.
            "metadata": "",
            # Of station tables.
            "units": "",
        },
        changes,
    )


def held_suarez(**changes: Any) -> Any:
    """A Held-Suarez nature run, daily."""
    return _changed(
        {
            "system": "held_suarez",
            # Seed of everything random.
            "seed": 0,
            # Length.
            "days": 450,
            # Days from rest that are discarded first.
            "spin_up": 150,
            # Of temperature, hPa.
            "levels": (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0),
            # Standard deviation of outgoing longwave radiation, W/m2.
            "longwave_error": 5.0,
            "model": {
                # Largest wavenumber T; T21 has a grid of 32 x 64.
                "truncation": 21,
                # Of the layers in sigma, from 0 to 1, top first.
                "boundaries": BOUNDARIES,
                # Time steps.
                "steps_per_day": 12,
                # E-folding time of the smallest scale, days.
                "diffusion_days": 1.0,
                # Power of the Laplacian in the diffusion.
                "diffusion_order": 4,
                "forcing": {
                    # Time scale of the friction of wind at the surface, days.
                    "friction_days": 1.0,
                    # Time scale of the relaxation of temperature in the free atmosphere, days.
                    "cooling_days": 40.0,
                    # The same at the surface on the equator, days.
                    "surface_cooling_days": 4.0,
                    # Difference of equilibrium temperature between equator and poles, K.
                    "meridional_contrast": 60.0,
                    # Increase of equilibrium potential temperature with height, K.
                    "vertical_contrast": 10.0,
                },
            },
            # The imperfect model that makes the backgrounds, and its daily analysis of radiosondes.
            "forecast": {
                # Of the backgrounds, hours; a multiple of 24.
                "lead": 24,
                **_cycle(spin_up=40, interval=3),
                # As that of the model, but wrong.
                "forcing": {
                    # Time scale of the friction of wind at the surface, days.
                    "friction_days": 1.15,
                    # Time scale of the relaxation of temperature in the free atmosphere, days.
                    "cooling_days": 45.0,
                    # The same at the surface on the equator, days.
                    "surface_cooling_days": 4.5,
                    # Difference of equilibrium temperature between equator and poles, K.
                    "meridional_contrast": 63.0,
                    # Increase of equilibrium potential temperature with height, K.
                    "vertical_contrast": 9.5,
                },
            },
            "stations": _stations(),
            "sounder": {
                # Peaks of its weighting functions, hPa.
                "peaks": (20.0, 60.0, 120.0, 250.0, 450.0, 750.0),
                # Standard deviation of each channel, K.
                "error": (0.5, 0.4, 0.3, 0.3, 0.3, 0.4),
            },
            # Folder that holds the run.
            "cache": "cache",
        },
        changes,
    )


def kolmogorov(**changes: Any) -> Any:
    """Velocities of a Kolmogorov flow; one interval is called a day."""
    return _changed(
        {
            "system": "kolmogorov",
            # Seed of everything random.
            "seed": 0,
            # Number of intervals.
            "days": 2000,
            # Intervals that are discarded first.
            "spin_up": 200,
            # Along each side, of the means over cells that are kept.
            "points": 64,
            "model": {
                # Of the grid along each side.
                "points": 128,
                # Kinematic, of lengths of the torus over 2 pi.
                "viscosity": 1e-3,
                # Linear, of large scales.
                "drag": 0.1,
                # Of the force, which acts along x and varies as a sine along y.
                "amplitude": 1.0,
                # Its periods along y.
                "wavenumber": 4,
                # Between two states.
                "interval": 0.2,
                # Time steps in an interval.
                "substeps": 80,
            },
            # Folder that holds the run.
            "cache": "cache",
        },
        changes,
    )


def lorenz63(**changes: Any) -> Any:
    """A Lorenz-63 nature run; one interval is called a day."""
    return _changed(
        {
            "system": "lorenz63",
            # Seed of everything random.
            "seed": 0,
            # Number of intervals.
            "days": 10000,
            # Intervals that are discarded first.
            "spin_up": 200,
            # Time step.
            "dt": 0.01,
            # Time steps in an interval.
            "substeps": 10,
            # Each time step adds N(0, noise^2 dt) to each variable; 0 for none.
            "noise": 0.0,
            "model": {
                # Prandtl number.
                "sigma": 10.0,
                # Rayleigh number over its critical value.
                "rho": 28.0,
                # Geometric factor.
                "beta": 8.0 / 3.0,
            },
            # The imperfect model that makes the backgrounds, and its analysis at every time.
            "forecast": {
                # Standard deviation of the observations of each variable.
                "error": 4.0,
                # Of the background's error over that of the climate, in the analysis.
                "variance": 0.1,
                "model": {
                    # Prandtl number.
                    "sigma": 10.0,
                    # Rayleigh number over its critical value.
                    "rho": 30.0,
                    # Geometric factor.
                    "beta": 8.0 / 3.0,
                },
            },
            # Folder that holds the run.
            "cache": "cache",
        },
        changes,
    )


def moist(**changes: Any) -> Any:
    """A nature run of the moist atmosphere, daily from 2000-01-01."""
    return _changed(
        {
            "system": "moist",
            # Seed of everything random.
            "seed": 0,
            # Length.
            "days": 450,
            # Days from the spun-up restart that are discarded first.
            "spin_up": 60,
            # Of temperature, hPa.
            "levels": (30.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0),
            # Standard deviation of outgoing longwave radiation, W/m2.
            "longwave_error": 5.0,
            "model": {
                # Largest wavenumber T: 21 (a grid of 32 x 64) or 31 (48 x 96).
                "truncation": 21,
                "convection": {
                    # Time scale of the relaxation towards the reference profile, hours.
                    "relaxation_hours": 6.0,
                    # Largest entrainment, as a share of the mass flux at cloud base.
                    "entrainment": 0.5,
                },
            },
            # The imperfect model that makes the backgrounds, and its daily analysis of radiosondes.
            "forecast": {
                **_cycle(spin_up=20, interval=1),
                # As that of the model, but wrong.
                "convection": {
                    # Time scale of the relaxation towards the reference profile, hours.
                    "relaxation_hours": 12.0,
                    # Largest entrainment, as a share of the mass flux at cloud base.
                    "entrainment": 0.3,
                },
            },
            "gauges": {
                # Number of rain gauges, on land.
                "count": 400,
                # Regions where most of them gather; 0 for none.
                "clusters": 20,
                # Standard deviation of the logarithm of their multiplicative error.
                "spread": 0.5,
                # Smallest amount that is reported, mm/day; less is 0.
                "trace": 0.1,
                # Share of reports that are missing, in spells.
                "missing": 0.05,
            },
            "stations": _stations(),
            "radiosondes": {
                # Number of places, on land.
                "count": 40,
                # Standard deviation, K.
                "error": 0.7,
                # Share of soundings that are missing, in spells.
                "missing": 0.05,
            },
            # Folder that holds the run.
            "cache": "cache",
        },
        changes,
    )


def _cycle(spin_up: int, interval: int) -> dict[str, Any]:
    """The daily analysis of radiosondes from which the backgrounds of an atmosphere start."""
    return {
        # Last days of the run's spin-up, over which forecast and analysis settle.
        "spin_up": spin_up,
        # Number of radiosondes a day, at fixed places.
        "soundings": 80,
        # Standard deviation of their temperature, K.
        "temperature_error": 1.0,
        # Of each component of their wind, m/s.
        "wind_error": 2.0,
        # Of surface pressure, hPa.
        "pressure_error": 1.0,
        # Of the static ensemble of the analysis.
        "members": 80,
        # Days between two of them.
        "interval": interval,
        # Of the background's error over that of the static ensemble, in the analysis.
        "variance": 0.2,
        # Of localisation, km.
        "radius": 1500.0,
    }


def _stations() -> dict[str, Any]:
    """Surface stations that measure temperature."""
    return {
        # Number of them; those of the moist atmosphere stand on land.
        "count": 150,
        # Regions where most of them gather; 0 for none.
        "clusters": 12,
        # Standard deviation, K.
        "error": 0.5,
        # Share of reports that are missing, in spells.
        "missing": 0.05,
    }


def _changed(fields: dict[str, Any], changes: dict[str, Any]) -> ConfigDict:
    """The fields with some set; ml_collections refuses unknown names and other types."""
    group = ConfigDict(fields)
    group.lock()
    group.update(changes)
    return group


def _any(value: Any) -> FieldReference:
    """A field that takes values of several types."""
    return FieldReference(value, field_type=object)
