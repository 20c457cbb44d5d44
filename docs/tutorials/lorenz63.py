# %% [markdown]
# # Lorenz-63, end to end
#
# Lorenz-63 is a classic chaotic system of three variables. It is small enough to run every step of
# data assimilation with a learned prior in a minute on two cores:
#
# 1. simulate the system for a long time, as the climatology to learn from;
# 2. train a score network on short windows of this run;
# 3. observe a new truth, sparsely and with noise;
# 4. draw an ensemble of trajectories given these observations;
# 5. compare the ensemble with the exact posterior, here available from a particle filter.
#
# Only the first code cell is specific to Lorenz-63. The rest is the same for fields on a sphere:
# arrays are (time, latitude, longitude, channel), and here the grid is a single point.

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from slams_jax import CosineSchedule, SamplerConfig
from slams_jax.baselines import particle_filter
from slams_jax.data import window_loader
from slams_jax.diffusion import guide, sample, sample_ensemble
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.dynamics import Lorenz63, lorenz63
from slams_jax.gaussian import fit_prior
from slams_jax.models import score
from slams_jax.observe import Diagonal, Identity, make_stream, whitened_innovations
from slams_jax.training import OptimiserConfig, fit

SYSTEM = Lorenz63()
INTERVAL = {"dt": 0.01, "substeps": 5}  # between two frames: 0.05 units of time
run, _ = lorenz63.nature_run(SYSTEM, jax.random.key(0), length=20_000, spin_up=200, **INTERVAL)
run = np.asarray(run)
run.shape

# %% [markdown]
# ## The prior: a score network for windows
#
# Diffusion starts from unit variance, so we standardise the states. The first 18,000 frames are for
# training; the truth comes from the rest.

# %%
training, later = run[:18_000], run[18_000:]
mean, std = training.mean(axis=0), training.std(axis=0)
states = ((training - mean) / std)[:, None, None, :]  # (time, 1, 1, channel)

# %% [markdown]
# The network sees nine consecutive frames and predicts the velocity $v = \alpha\epsilon - \sigma
# x_0$ (see [Method](../method.md)). On a grid of one point, its convolutions have kernels of
# size 1.

# %%
schedule = CosineSchedule()
config = score.ScoreConfig(
    window=9,
    channels=3,
    widths=(128,),
    blocks=2,
    kernel=1,
    padding="edge",
    coordinates="none",
    prediction="v",
)


def loss_fn(params, model_state, key, batch):
    loss, info = score.loss(config, schedule, params, key, batch["state"])
    return loss, (model_state, info)


trained = fit(
    tempfile.mkdtemp(),  # a real run keeps its directory: it resumes from there
    loss_fn,
    lambda key: (score.init(config, key, (1, 1)), {}),
    window_loader({"state": states}, length=config.window, batch_size=128, seed=0),
    optimiser=OptimiserConfig(steps=3000, learning_rate=2e-3, warmup_steps=100),
    seed=0,
)

# %% [markdown]
# A sampler needs only a *denoiser*, $(x_t, t) \mapsto E[x_0 \mid x_t]$. We turn the network into a
# denoiser of windows, and compose windows into a denoiser of trajectories of any length. Use `ema`,
# the moving average of the parameters.

# %%
params = jax.device_get(trained.ema)
window = score.window_denoiser(config, schedule, params)
prior = trajectory_denoiser(window, config.window)

# %% [markdown]
# ## The observations
#
# The truth is a new trajectory of 25 frames. All three variables are observed at every fourth
# frame, with an error standard deviation of 2; missing values are NaN.

# %%
FRAMES, EVERY, ERROR = 25, 4, 2.0
truth = later[1000 : 1000 + FRAMES]
noise = ERROR * np.random.default_rng(1).standard_normal(truth.shape)
values = np.where(np.arange(FRAMES)[:, None] % EVERY == 0, truth + noise, np.nan)

stream = make_stream(
    "states", values[:, None, None, :], Identity(), Diagonal(jnp.float32(ERROR**2)), scale=std
)

# %% [markdown]
# ## The posterior
#
# Observations are in physical units and the prior is standardised; `to_state` converts. Guidance
# turns the prior's denoiser into the posterior's, given the innovations $y - H(x)$ divided by the
# observation errors. `fit_prior` provides the climatological covariance, used while there is more
# noise than signal. In few dimensions and far from Gaussian, `mmps` is the rule to choose
# ([which rule when](../guides/guidance.md#which-rule-when)).

# %%
center, scale = (jnp.asarray(a, jnp.float32) for a in (mean, std))


def to_state(x):
    return center + scale * x


def innovations(x, extra):
    return whitened_innovations([stream], x, to_state, extra)


posterior = guide(
    prior,
    innovations,
    schedule,
    rule="mmps",
    iterations=1,
    covariance=fit_prior(states[-4000:]).over(FRAMES).solve,
)

# %% [markdown]
# A draw integrates the reverse SDE from noise to data. An ensemble is a set of draws with different
# keys.

# %%
MEMBERS = 64


@jax.jit
def ensemble_of(key):
    shape, solver = (FRAMES, 1, 1, 3), SamplerConfig(steps=64)
    draw = lambda key: sample(key, posterior, shape, schedule, solver)
    return to_state(sample_ensemble(key, draw, MEMBERS))


members = np.asarray(ensemble_of(jax.random.key(3)))[:, :, 0, 0]  # (member, time, variable)
members.shape

# %% [markdown]
# ## The exact posterior
#
# The system is deterministic, so the initial state determines the trajectory. A particle filter
# that starts from many states on the attractor and never resamples is exact up to its number of
# particles.


# %%
@jax.jit
def filtered(key, values):
    spin_up = 10.0 * jax.random.normal(key, (40_000, 3)) + jnp.array([0.0, 0.0, 25.0])
    first = lorenz63.trajectory(SYSTEM, spin_up, dt=0.01, length=1, substeps=1000)[0]
    advance = lambda key, x: lorenz63.trajectory(SYSTEM, x, length=1, **INTERVAL)[0]

    def log_likelihood(x, y):
        misfit = jnp.where(jnp.isfinite(y), (y - x) / ERROR, 0.0)
        return -0.5 * jnp.sum(misfit**2, axis=-1)

    return particle_filter(key, first, advance, log_likelihood, values, resample_below=0.0)


particles = filtered(jax.random.key(5), jnp.asarray(values, jnp.float32))
weights = np.asarray(particles.weights)[:, None, None]
exact_mean = np.sum(weights * particles.trajectories, axis=0)
exact_spread = np.sqrt(np.sum(weights * (particles.trajectories - exact_mean) ** 2, axis=0))
print(f"effective number of particles: {float(particles.effective[-1]):.0f}")

# %% [markdown]
# ## How good is the ensemble?


# %%
def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


spread = members.std(axis=0, ddof=1)
print("                       error of the mean   spread")
print(f"climatology            {rms(truth - mean):17.2f}   {rms(std):6.2f}")
print(f"one observation        {rms(noise):17.2f}   {ERROR:6.2f}")
print(f"ensemble               {rms(members.mean(axis=0) - truth):17.2f}   {rms(spread):6.2f}")
print(f"exact posterior        {rms(exact_mean - truth):17.2f}   {rms(exact_spread):6.2f}")

# %% tags=["check"]
assert rms(members.mean(axis=0) - truth) < 0.5 * ERROR
assert 0.8 < rms(spread) / rms(exact_spread) < 1.7
assert rms((members.mean(axis=0) - exact_mean) / exact_spread) < 1.0
assert float(particles.effective[-1]) > 30

# %%
time = np.arange(FRAMES) * INTERVAL["dt"] * INTERVAL["substeps"]
figure, axes = plt.subplots(3, 1, figsize=(8, 6.5), sharex=True, layout="constrained")
for i, (axis, name) in enumerate(zip(axes, "xyz", strict=True)):
    axis.plot(time, members[:, :, i].T, color="tab:blue", alpha=0.12, linewidth=0.8)
    axis.plot(time, members[:, :, i].mean(axis=0), color="tab:blue", label="ensemble")
    for sign in (-2, 2):
        bound = exact_mean[:, i] + sign * exact_spread[:, i]
        axis.plot(
            time,
            bound,
            color="tab:orange",
            linestyle="--",
            linewidth=1,
            label="exact posterior, 2 standard deviations" if sign > 0 else None,
        )
    axis.plot(time, truth[:, i], color="black", linewidth=1, label="truth")
    axis.plot(time, values[:, i], "k.", markersize=8, label="observations")
    axis.set_ylabel(name)
axes[0].legend(ncols=2, frameon=False, fontsize=8)
axes[-1].set_xlabel("time")
plt.show()

# %% [markdown]
# For this truth, the ensemble mean is about as good as it can be, but the spread is larger than
# that of the exact posterior. There are two reasons. The network is small and was trained for half
# a minute: its error adds uncertainty that the exact posterior does not have. And guidance
# approximates the uncertainty of $x_0$ given $x_t$ as Gaussian. [Calibration](../calibration.md)
# measures both on problems with known posteriors.
#
# ## Next steps
#
# - The same with files, checkpoints and scores, and longer training: `configs/lorenz63.py`.
# - Real fields: [your own data](own_data.py).
# - Other observations: [your own observation operator](own_operator.py).
# - Another network: [your own network](own_network.py).
