# %% [markdown]
# # Lorenz-63, end to end
#
# Lorenz-63 is the smallest chaotic flow: three numbers that change in time. It is small enough to
# do everything that a data assimilation with a learned prior does in a minute on two cores:
#
# 1. make a long run of the system, the climatology to learn from;
# 2. train a score network on short windows of it;
# 3. observe a new truth, rarely and with noise;
# 4. draw an ensemble of trajectories given these observations;
# 5. hold the ensemble against the exact posterior, which a particle filter gives here.
#
# All that is particular to Lorenz-63 is in the first cell of code. The rest is the same for
# fields on a sphere: arrays are (time, latitude, longitude, channel), and here the grid is one
# point.

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
from slams_jax.models import score
from slams_jax.observe import Diagonal, Identity, fit_prior, make_stream, whitened_innovations
from slams_jax.training import OptimiserConfig, fit

SYSTEM = Lorenz63()
INTERVAL = {"dt": 0.01, "substeps": 5}  # between two frames: 0.05 units of time
run, _ = lorenz63.nature_run(
    SYSTEM, jax.random.key(0), length=20_000, spin_up=200, amplitude=0.2, **INTERVAL
)
run = np.asarray(run)
run.shape

# %% [markdown]
# ## The prior: a score network of windows
#
# Diffusion starts from unit variance, so states are standardised. The first 18,000 frames are for
# training; the truth will come from the rest.

# %%
training, later = run[:18_000], run[18_000:]
mean, std = training.mean(axis=0), training.std(axis=0)
states = ((training - mean) / std)[:, None, None, :]  # (time, 1, 1, channel)

# %% [markdown]
# The network sees nine consecutive frames and predicts the velocity $v = \alpha\epsilon - \sigma
# x_0$ (see [Equations](../method.md)). On a grid of one point its convolutions have kernels of
# size 1.

# %%
schedule = CosineSchedule()
config = score.ScoreConfig(
    window=9, channels=3, widths=(128,), blocks=2, kernel=1, padding="edge", coordinates="none"
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
# From the network comes the one thing that a sampler knows, a *denoiser* $(x_t, t) \mapsto E[x_0
# \mid x_t]$: first of windows, then, composed of them, of trajectories of any length. The moving
# average of the parameters, `ema`, is the one to use.

# %%
params = jax.device_get(trained.ema)
window = score.window_denoiser(config, schedule, params)
prior = trajectory_denoiser(window, config.window)

# %% [markdown]
# ## The observations
#
# A new truth of 25 frames. All three variables are observed at every fourth frame, with errors of
# standard deviation 2; what was not observed is NaN.

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
# Observations are in physical units, the prior is not: `to_state` is between them. Guidance turns
# the prior's denoiser into the posterior's, given the innovations $y - H(x)$ divided by their
# errors. `fit_prior` adds second moments of the climatology, for the times at which there is more
# noise than signal. With few dimensions that are far from Gaussian, `mmps` is the rule to take
# ([which rule when](../guides/guidance.md)).

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
    covariance=fit_prior(states[-4000:]).posterior,
)

# %% [markdown]
# A draw solves the reverse SDE from noise to data. An ensemble is many draws with different keys.

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
# The system has no noise, so the first state decides all. A particle filter that begins with many
# states on the attractor and never resamples is exact, as far as its number of particles goes.


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
print(f"the particles are worth {float(particles.effective[-1]):.0f} equally weighted ones")

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
# On this truth the mean of the ensemble is about as good as it can be; its spread is larger than
# the exact one. Two things are behind that. The network is small and was trained for half a minute:
# its error is uncertainty that the ensemble shows and the exact posterior does not have. And
# guidance takes what is unknown of $x_0$ given $x_t$ as Gaussian.
# [Calibration](../calibration.md) measures both on problems with known posteriors.
#
# ## From here
#
# - The same with files, checkpoints and scores, trained for longer: `configs/lorenz63.py`.
# - Real fields in place of three numbers: [your own data](own_data.py).
# - Other observations: [your own observation operator](own_operator.py).
# - Another network: [your own network](own_network.py).
