# %% [markdown]
# # Your own observation operator
#
# An observation operator $H$ maps a state $x$ to what would be observed. Any function of the state
# that JAX can differentiate will do. This tutorial writes one, for the thickness of an atmospheric
# layer as given by radio occultations or two pressure sensors, tests its adjoint, and assimilates
# with it. The prior is Gaussian with a closed-form denoiser: nothing is trained, and the exact
# analysis is known.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from slams_jax import CosineSchedule, Grid, Observations, SamplerConfig
from slams_jax.assimilation.observations import to_stream
from slams_jax.diffusion import guide, sample, sample_ensemble
from slams_jax.observe import whitened_innovations
from slams_jax.reference_problems import GaussianDenoiser
from slams_jax.schema import channels_of

# %% [markdown]
# ## The operator
#
# By the hypsometric equation, the layer between the pressures $p_1 > p_2$ has the thickness $\Delta
# z = \frac{R_d}{g} \int_{p_2}^{p_1} T \, d\ln p$. With temperature on levels, the trapezoidal rule
# turns the integral into a weighted sum. The instrument's footprint is wider than a grid cell: it
# sees the mean over $3 \times 3$ points.
#
# An operator is a dataclass registered as a pytree, so that its arrays are arguments of the
# compiled program rather than constants in it. It takes a trajectory of states (time, lat, lon,
# channel) in physical units and returns the observed quantity, time first. Missing values are
# handled elsewhere.

# %%
GAS_CONSTANT, GRAVITY = 287.05, 9.80665  # J kg-1 K-1, m s-2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Thickness:
    """Thickness (m) between the outermost levels, under a footprint of 3 x 3 points."""

    weights: Float[Array, " channel"]  # m K-1

    def __call__(self, state: Float[Array, "time lat lon channel"]) -> Float[Array, "time lat lon"]:
        column = state @ self.weights
        column = jnp.pad(column, [(0, 0), (1, 1), (1, 1)], mode="edge")
        column = (column[:, :-2] + column[:, 1:-1] + column[:, 2:]) / 3.0
        return (column[:, :, :-2] + column[:, :, 1:-1] + column[:, :, 2:]) / 3.0

    @classmethod
    def of(cls, levels) -> "Thickness":
        """The operator for states on pressure `levels` (hPa, ascending)."""
        depth = np.diff(np.log(levels))
        trapezoid = (np.r_[depth, 0.0] + np.r_[0.0, depth]) / 2.0
        return cls(jnp.asarray(GAS_CONSTANT / GRAVITY * trapezoid, jnp.float32))


LEVELS = (500.0, 700.0, 850.0, 1000.0)
operator = Thickness.of(LEVELS)
warm = jnp.full((1, 8, 12, 4), 260.0)
print(f"a layer of 260 K between 1000 and 500 hPa is {operator(warm)[0, 4, 6]:.0f} m thick")

# %% [markdown]
# ## Test the adjoint
#
# Guidance needs products with the derivative of $H$ and with its transpose; JAX provides both. For
# all $dx$ and $dy$, $\langle H'(x)\,dx, dy\rangle = \langle dx, H'(x)^T dy\rangle$ must hold to
# within rounding. A derivative that is wrong in the same way in both (behind an integer cast or a
# `stop_gradient`) passes this test, so compare it with a finite difference as well.


# %%
def adjoint_test(operator, x, key):
    """Relative errors of the transpose and, against a difference, of the derivative."""
    key_x, key_y = jax.random.split(key)
    dx = jax.random.normal(key_x, x.shape)
    y, hdx = jax.jvp(operator, (x,), (dx,))
    dy = jax.random.normal(key_y, y.shape)
    (htdy,) = jax.vjp(operator, x)[1](dy)
    transpose = jnp.vdot(hdx, dy) / jnp.vdot(dx, htdy) - 1.0
    step = 1e-1  # float32: large enough to stand out from rounding
    difference = (operator(x + step * dx) - operator(x - step * dx)) / (2.0 * step)
    return float(jnp.abs(transpose)), float(jnp.max(jnp.abs(difference - hdx) / jnp.abs(hdx).max()))


transpose_error, derivative_error = adjoint_test(operator, warm, jax.random.key(0))
print(f"transpose: {transpose_error:.1e}, derivative: {derivative_error:.1e}")

# %% tags=["check"]
assert transpose_error < 1e-4
assert derivative_error < 1e-3

# %% [markdown]
# ## A prior and a truth
#
# States have 8 x 12 points and four levels, with correlations that decay with horizontal and
# vertical distance. `GaussianDenoiser` is the denoiser of such a distribution.

# %%
grid = Grid.of(np.arange(40.0, 56.0, 2.0), np.arange(0.0, 24.0, 2.0))
channels = channels_of(["temperature"], LEVELS)
MEAN = np.array([255.0, 271.0, 279.0, 288.0], np.float32)
STD = np.array([4.0, 4.0, 5.0, 6.0], np.float32)

lat, lon = np.meshgrid(np.arange(8.0), np.arange(12.0), indexing="ij")
apart = np.hypot(lat.ravel()[:, None] - lat.ravel(), lon.ravel()[:, None] - lon.ravel())
height = np.log(LEVELS)
covariance = np.kron(
    np.exp(-0.5 * (apart / 2.5) ** 2), np.exp(-np.abs(height[:, None] - height) / 0.5)
)
schedule = CosineSchedule()
prior = GaussianDenoiser.of(covariance, schedule)
SHAPE = (1, *grid.shape, len(channels))

white = np.random.default_rng(3).standard_normal(covariance.shape[0])
root = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(covariance)))
anomaly = (root @ white).reshape(SHAPE).astype(np.float32)
truth = MEAN + STD * anomaly

# %% [markdown]
# The thickness is observed in two thirds of the domain, with errors of 5 m. Like any observations,
# these are a Dataset; `operator` defines what they measure.

# %%
ERROR = 5.0
observed = np.asarray(operator(jnp.asarray(truth)))
observed = observed + ERROR * np.random.default_rng(4).standard_normal(observed.shape)
observed[:, :, 8:] = np.nan
times = np.array(["2024-01-01"], "datetime64[ns]")
dataset = xr.Dataset(
    {"thickness": (("time", "latitude", "longitude"), observed)},
    {"time": times, "latitude": list(grid.latitude), "longitude": list(grid.longitude)},
)
observations = Observations(
    "thickness", dataset, "grid", variable="thickness", error=ERROR, operator=operator
)

# %% [markdown]
# ## Assimilate
#
# With a trained model, only `assimilate(model, background, [observations], ...)` is left to do.
# With a prior of your own, take its three steps yourself: turn the observations into a stream,
# guide the denoiser with the stream, and draw with the sampler.

# %%
stream = to_stream(
    observations, grid, channels, times, climate=np.broadcast_to(MEAN, SHAPE[1:]), std=STD
)


def to_state(x):
    return MEAN + STD * x


def innovations(x, extra):
    return whitened_innovations([stream], x, to_state, extra)


posterior = guide(
    prior, innovations, schedule, rule="gaussian", iterations=60, covariance=prior.solve
)


@jax.jit
def ensemble_of(key):
    draw = lambda key: sample(key, posterior, SHAPE, schedule, SamplerConfig("dpmpp_3m_ode"))
    return to_state(sample_ensemble(key, draw, 64))


members = np.asarray(ensemble_of(jax.random.key(0)))
members.shape

# %% [markdown]
# ## Is it correct?
#
# The operator is linear, so the exact posterior follows from linear algebra: with $H$ as a matrix,
# its mean differs from the prior's by $P H^T (H P H^T + R)^{-1} (y - H \bar x)$.

# %%
seen = np.isfinite(observed).ravel()
size = len(covariance)
columns = jax.jacrev(lambda x: operator(to_state(x.reshape(SHAPE))).ravel())(jnp.zeros(size))
matrix = np.asarray(columns, np.float64)[seen]
innovation = observed.ravel()[seen] - np.asarray(operator(to_state(np.zeros(SHAPE)))).ravel()[seen]
gain = (
    covariance
    @ matrix.T
    @ np.linalg.inv(matrix @ covariance @ matrix.T + ERROR**2 * np.eye(seen.sum()))
)
exact_mean = to_state((gain @ innovation).reshape(SHAPE))
exact_std = STD * np.sqrt(np.diag(covariance - gain @ matrix @ covariance)).reshape(SHAPE)

rms = lambda x: float(np.sqrt(np.mean(np.square(x))))
print(f"error of the prior's mean     {rms(truth - MEAN):.2f} K")
mean, spread = members.mean(axis=0), members.std(axis=0, ddof=1)
print(
    f"error of the exact analysis   {rms(exact_mean - truth):.2f} K, spread {rms(exact_std):.2f} K"
)
print(f"error of the ensemble's mean  {rms(mean - truth):.2f} K, spread {rms(spread):.2f} K")
distance = rms((mean - exact_mean) / exact_std)
print(f"between the two means: {distance:.2f} standard deviations; sampling error {64**-0.5:.2f}")

# %% tags=["check"]
assert distance < 1.6 * 64**-0.5
assert abs(rms(spread) / rms(exact_std) - 1.0) < 0.06

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained")
pictures = {
    "observed thickness (m)": (observed[0], "viridis"),
    "truth, 850 hPa (K)": (truth[0, ..., 2], "RdBu_r"),
    "analysis, 850 hPa (K)": (mean[0, ..., 2], "RdBu_r"),
    "spread, 850 hPa (K)": (spread[0, ..., 2], "magma"),
}
for axis, (name, (field, cmap)) in zip(axes, pictures.items(), strict=True):
    limits = (267.0, 291.0) if cmap == "RdBu_r" else (None, None)
    image = axis.pcolormesh(
        grid.longitude, grid.latitude, field, cmap=cmap, vmin=limits[0], vmax=limits[1]
    )
    axis.set_title(name, fontsize=9)
    figure.colorbar(image, ax=axis, orientation="horizontal")
plt.show()

# %% [markdown]
# East of 14 degrees nothing is observed, and the spread grows to that of the prior. Elsewhere, the
# thickness determines the mean of the column but not its shape, which limits even the exact
# analysis of a single level.
#
# ## Notes
#
# - *Scattered observations*: with kind `"points"`, `assimilate` aligns stations and times; the
#   output of your operator is then (time, station).
# - *Nonlinear operators* need nothing more: they are linearised about the denoised state at each
#   step. The first steps are far from the data, so make sure that exponentials do not overflow
#   there.
# - *Several operators in sequence*: `slams_jax.observe.Chain`.
# - *Correlated errors*: pass a ready-made `Stream` with a `Dense` or `LowRank` covariance
#   (`slams_jax.observe`).
