# %% [markdown]
# # Your own network
#
# Samplers, guidance and observations see a network only as a *denoiser*, $(x_t, t) \mapsto E[x_0
# \mid x_t]$, the protocol `slams_jax.aliases.Denoiser`. Anything that computes it can replace the
# library's U-Net. In this tutorial, a Flax module of your own learns Lorenz-63 and assimilates.

# %%
import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from slams_jax import CosineSchedule, SamplerConfig
from slams_jax.data import window_loader
from slams_jax.diffusion import guide, sample, sample_ensemble, target, to_denoised
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.dynamics import Lorenz63, lorenz63
from slams_jax.gaussian import fit_prior
from slams_jax.observe import Diagonal, Select, make_stream, whitened_innovations
from slams_jax.training import OptimiserConfig, fit

run, _ = lorenz63.nature_run(
    Lorenz63(), jax.random.key(0), length=12_000, spin_up=200, dt=0.01, substeps=5
)
training, later = np.split(np.asarray(run), [11_000])
mean, std = training.mean(axis=0), training.std(axis=0)
states = ((training - mean) / std)[:, None, None, :]  # (time, lat, lon, channel)

# %% [markdown]
# ## A module
#
# Any module will do. This one passes a whole window of frames as one vector through residual
# blocks, into which the time $t$ enters through its log signal-to-noise ratio. It predicts the
# velocity $v = \alpha\epsilon - \sigma x_0$, which has unit variance at all times and needs no
# rescaling.

# %%
WINDOW = 9
schedule = CosineSchedule()


class Blocks(nn.Module):
    """(window, size), (window,) -> (window, size)."""

    width: int = 192
    blocks: int = 4

    @nn.compact
    def __call__(self, x, t):
        ratio = schedule.log_snr(t)[:, None] * jnp.array([0.15, 0.5, 1.0])
        ratio = jnp.concatenate([ratio, jnp.sin(ratio), jnp.cos(ratio)], axis=-1)
        h = nn.Dense(self.width)(x)
        for _ in range(self.blocks):
            inner = nn.LayerNorm()(h) + nn.Dense(self.width)(nn.silu(nn.Dense(64)(ratio)))
            h = h + nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(inner)))
        return nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros)(nn.silu(h))


module = Blocks()

# %% [markdown]
# ## Train it
#
# `fit` takes any loss function of parameters and batches, and any function that initialises
# parameters. Times are spread evenly over [0, 1]; `target` gives the quantity to predict.


# %%
def loss_fn(params, model_state, key, batch):
    key_time, key_noise = jax.random.split(key)
    n = len(batch["state"])
    x_0 = batch["state"].reshape(n, -1)
    t = (jnp.arange(n) + jax.random.uniform(key_time, (n,))) / n
    eps = jax.random.normal(key_noise, x_0.shape)
    wide = t[:, None]
    x_t = schedule.alpha(wide) * x_0 + schedule.sigma(wide) * eps
    goal = target(schedule, "v", x_0, eps, wide)
    missed = module.apply({"params": params}, x_t, t) - goal
    return jnp.mean(missed**2), (model_state, {})


def init_fn(key):
    return module.init(key, jnp.zeros((1, WINDOW * 3)), jnp.zeros((1,)))["params"], {}


trained = fit(
    tempfile.mkdtemp(),
    loss_fn,
    init_fn,
    window_loader({"state": states}, length=WINDOW, batch_size=128, seed=0),
    optimiser=OptimiserConfig(steps=2000, learning_rate=2e-3, warmup_steps=200),
    seed=0,
)

# %% [markdown]
# ## From network to denoiser
#
# Two conversions remain. A window denoiser takes (window, frame, lat, lon, channel) and one time
# for all windows; `to_denoised` turns the velocity into $E[x_0 \mid x_t]$. `trajectory_denoiser`
# composes windows into trajectories of any length.

# %%
params = jax.device_get(trained.ema)


def window_denoiser(x_t, t):
    flat = x_t.reshape(len(x_t), -1)
    v = module.apply({"params": params}, flat, jnp.full(len(x_t), t))
    return to_denoised(schedule, v.reshape(x_t.shape), "v", x_t, t)


prior = trajectory_denoiser(window_denoiser, WINDOW)

# %% [markdown]
# ## Draw
#
# Without observations, draws follow the climatology: the two wings of the attractor.

# %%
FRAMES, SHAPE = 25, (25, 1, 1, 3)
center, scale = (jnp.asarray(a, jnp.float32) for a in (mean, std))


def to_state(x):
    return center + scale * x


def ensemble(denoiser, key, members):
    draw = lambda key: sample(key, denoiser, SHAPE, schedule, SamplerConfig(steps=64))
    run = jax.jit(lambda key: to_state(sample_ensemble(key, draw, members)))
    return np.asarray(run(key))[:, :, 0, 0]


free = ensemble(prior, jax.random.key(1), 32)
print("mean of the climatology", mean.round(1), "and of the draws", free.mean(axis=(0, 1)).round(1))
print("standard deviations    ", std.round(1), "                ", free.std(axis=(0, 1)).round(1))

# %% [markdown]
# Now with observations of `x` alone, at every second frame:

# %%
ERROR = 1.0
truth = later[500 : 500 + FRAMES]
values = truth[:, :1] + ERROR * np.random.default_rng(1).standard_normal((FRAMES, 1))
values[np.arange(FRAMES) % 2 != 0] = np.nan
stream = make_stream(
    "x", values[:, None, None, :], Select((0,)), Diagonal(jnp.float32(ERROR**2)), scale=std[:1]
)


def innovations(x, extra):
    return whitened_innovations([stream], x, to_state, extra)


posterior = guide(
    prior,
    innovations,
    schedule,
    rule="mmps",
    iterations=1,
    covariance=fit_prior(states[-4000:]).over(len(truth)).solve,
)
members = ensemble(posterior, jax.random.key(2), 32)

errors = np.sqrt(np.mean((members.mean(axis=0) - truth) ** 2, axis=0))
for i, name in enumerate("xyz"):
    print(
        f"{name}: climatology {std[i]:.1f}, error of the analysis {errors[i]:.1f}, "
        f"spread {members[:, :, i].std(axis=0, ddof=1).mean():.1f}"
    )

# %% tags=["check"]
assert np.all(np.abs(free.mean(axis=(0, 1)) - mean) < 0.45 * std)
assert np.all(np.abs(free.std(axis=(0, 1)) / std - 1.0) < 0.25)
assert np.all(errors < 0.5 * std), errors

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
axes[0].plot(*training[:3000, [0, 2]].T, color="0.8", linewidth=0.4)
for draw in free[:12]:
    axes[0].plot(*draw[:, [0, 2]].T, linewidth=1)
axes[0].set(xlabel="x", ylabel="z", title="12 draws from the prior")
axes[1].plot(members[:, :, 2].T, color="tab:blue", alpha=0.15, linewidth=0.8)
axes[1].plot(truth[:, 2], color="black", label="truth")
axes[1].set(xlabel="frame", ylabel="z", title="z, of which nothing was observed")
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# A single truth proves little. For others, the same network does worse: where the trajectory
# crosses a part of the attractor that is rare in the training data, the error of `z` was three
# times the spread. [Calibration](../calibration.md) compares ensembles with exact posteriors over
# many truths.
#
# ## Notes
#
# - A closed-form $E[x_0 \mid x_t]$, or a network of another framework called through
#   `jax.pure_callback`, is a valid denoiser too. Rules that differentiate it (`sda`, `dps`, `tmpd`,
#   `mmps`) need its derivative; `gaussian` and `pigdm` with `jacobian=False` do not.
# - For fields of latitude and longitude, convolutions must handle the edges of the grid:
#   `slams_jax.networks.Conv` and `pad` do.
# - `assimilate`, which takes Datasets, builds its networks from a `ScoreConfig`. Use your own
#   network with arrays, as here.
