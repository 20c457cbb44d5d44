r"""Reference problem (g): a field that shows itself as rain, 32 x 64 points.

A Gaussian random field z on the sphere (as in `fields`) rains where it is above c,

    rain = max(0, z - c)^1.5,

and is observed by gauges, as log(1 + rain), and by a detector that tells dry from wet and saturates
at light rain, clip((z - c) / w, 0, 1). Both see nothing of z where it is dry, but that it is. All
that is observed depends on some linear functions h = H z. Given these, z is Gaussian in closed
form; they are drawn by Gibbs sampling, each from its own distribution given the others, on many
chains (`convergence` compares them).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import ObservationOperator, PRNGKey, Trajectory
from slams_jax.diffusion import CosineSchedule
from slams_jax.observe import Diagonal, Points, Stride, make_stream
from slams_jax.products import product
from slams_jax.reference_problems.cases import Case, Problem
from slams_jax.reference_problems.exact import Exact
from slams_jax.reference_problems.fields import GRID, RandomField, matrix_of
from slams_jax.schema import Channel

THRESHOLD, WIDTH = 0.5, 0.3  # c and w: it rains on 31 % of the sphere
ERROR = 0.2  # of both
WHITE = 0.05  # share of the variance in white noise
NODES = 97  # of the distribution of one variable given the others, within 6 standard deviations


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bent:
    """A function of z, point by point.

    Attributes:
        points: linear operator of z.
        curve: what is observed of each of its values.
    """

    points: ObservationOperator
    curve: Callable[[Array], Array] = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Array:
        """The observed quantity."""
        return self.curve(self.points(state))


def gauge(h: Array) -> Array:
    """log(1 + rain)."""
    # A power of zero has an infinite derivative.
    wet = h > THRESHOLD
    return jnp.where(wet, jnp.log1p(jnp.where(wet, h - THRESHOLD, 1.0) ** 1.5), 0.0)


def detect(h: Array) -> Array:
    """Whether it rains, up to 1."""
    return jnp.clip((h - THRESHOLD) / WIDTH, 0.0, 1.0)


def rain_case(
    *,
    degree: int = 21,
    gauges: int = 150,
    detected: int = 4,
    schedule: CosineSchedule = CosineSchedule(),
    chains: int = 64,
    sweeps: int = 2500,
    seed: int = 0,
) -> Case:
    """The field, seen by both networks; the posterior is sampled to make the case.

    Args:
        degree: highest degree of the spherical harmonics.
        gauges: number of gauges, at random points.
        detected: the detector sees every such point of the grid.
        schedule: noise schedule.
        chains: of the Gibbs sampling.
        sweeps: of each chain, the first quarter of which is dropped.
        seed: of the true field, the observations and the sampling.
    """
    rng = np.random.default_rng(seed)
    field = RandomField.of(degree, white=WHITE, schedule=schedule)
    truth = field.draw(rng)
    networks = {
        "gauges": Bent(_gauges(rng, gauges, detected), gauge),
        "detector": Bent(Stride(detected, 1), detect),
    }
    streams, matrices, values = [], [], []
    for name, operator in networks.items():
        matrix, shape = matrix_of(operator.points)
        seen = np.asarray(operator.curve(jnp.asarray(matrix @ truth, jnp.float32)), np.float64)
        seen = seen + ERROR * rng.standard_normal(len(matrix))
        error = Diagonal(jnp.full((), ERROR**2, jnp.float32))
        streams.append(make_stream(name, seen.reshape(1, *shape), operator, error))
        matrices.append(matrix)
        values.append(seen)
    matrix, y = np.concatenate(matrices), jnp.asarray(np.concatenate(values), jnp.float32)

    def misfit(index: Array, h: Array) -> Array:
        """Half the square of each h of variable `index` from what was observed, in errors."""
        return 0.5 * ((jnp.where(index < gauges, gauge(h), detect(h)) - y[index]) / ERROR) ** 2

    total = matrix @ field.covariance @ matrix.T
    drawn = gibbs(jax.random.key(seed), total, misfit, chains, sweeps)[sweeps // 4 :]
    exact = _exact(field, matrix, total, drawn.reshape(-1, len(matrix)), rng)
    problem = Problem(field.prior, tuple(streams), field.prior, schedule, (1, *GRID.shape, 1))
    return Case("rain", problem, exact)


def _gauges(rng: np.random.Generator, count: int, every: int) -> Points:
    """At random points of the grid that the detector does not see, more of them near the equator.

    No two variables are then nearly the same, which would make the Gibbs sampling slow.
    """
    lat, lon = np.meshgrid(GRID.latitude, GRID.longitude, indexing="ij")
    free = np.ones(lat.shape, bool)
    free[1::every, 1::every] = False
    area = np.where(free, np.cos(np.deg2rad(lat)), 0.0).ravel()
    chosen = rng.choice(area.size, count, replace=False, p=area / area.sum())
    channels = (Channel("temperature", None),)
    return Points.at(GRID, channels, lat.ravel()[chosen], lon.ravel()[chosen], None)


def gibbs(
    key: PRNGKey,
    covariance: Float[np.ndarray, "size size"],
    misfit: Callable[[Array, Array], Array],
    chains: int,
    sweeps: int,
) -> Float[np.ndarray, "sweep chain size"]:
    """Draws of N(0, covariance) exp(-sum_i misfit(i, h_i)), one variable after the other.

    Each is drawn from its distribution given the others, tabulated and inverted. Chains start far
    apart, from the Gaussian alone.

    Args:
        key: of the draws.
        covariance: of the Gaussian.
        misfit: (index, values of this variable) -> minus the log of the other factor.
        chains: independent of one another.
        sweeps: over all variables.
    """
    size = len(covariance)
    precision = np.linalg.inv(covariance)
    rows = jnp.asarray(precision / np.diag(precision)[:, None], jnp.float32)
    stds = jnp.asarray(1.0 / np.sqrt(np.diag(precision)), jnp.float32)
    root = jnp.asarray(np.linalg.cholesky(covariance), jnp.float32)
    z = jnp.linspace(-6.0, 6.0, NODES)[:, None]

    def variable(h, given):
        i, uniform = given
        mean = h[i] - product("h,hc->c", rows[i], h)
        log = -0.5 * z**2 - misfit(i, mean[None] + stds[i] * z)
        density = jnp.exp(log - jnp.max(log, axis=0, keepdims=True))
        cdf = jnp.cumsum(density[1:] + density[:-1], axis=0)
        cdf = jnp.concatenate([jnp.zeros((1, chains)), cdf])
        sought = uniform * cdf[-1]
        k = jnp.clip(jnp.sum(cdf < sought[None], axis=0) - 1, 0, NODES - 2)
        low, high = (jnp.take_along_axis(cdf, n[None], axis=0)[0] for n in (k, k + 1))
        share = (sought - low) / jnp.maximum(high - low, jnp.finfo(jnp.float32).tiny)
        drawn = mean + stds[i] * (z[k, 0] + share * (z[1, 0] - z[0, 0]))
        return h.at[i].set(drawn), None

    def sweep(h, key):
        uniform = jax.random.uniform(key, (size, chains))
        h, _ = jax.lax.scan(variable, h, (jnp.arange(size), uniform))
        return h, h.T

    key_start, key_sweeps = jax.random.split(key)
    start = product("hg,gc->hc", root, jax.random.normal(key_start, (size, chains)))
    run = jax.jit(lambda h, keys: jax.lax.scan(sweep, h, keys)[1])
    return np.asarray(run(start, jax.random.split(key_sweeps, sweeps)), np.float64)


def convergence(draws: Float[np.ndarray, "sweep chain size"]) -> Float[np.ndarray, " size"]:
    """Gelman and Rubin's R-hat of each variable: 1 where chains agree (1992, Stat. Sci. 7)."""
    within = draws.var(axis=0, ddof=1).mean(axis=0)
    between = draws.mean(axis=0).var(axis=0, ddof=1)
    return np.sqrt((len(draws) - 1) / len(draws) + between / within)


def _exact(
    field: RandomField,
    matrix: np.ndarray,
    total: np.ndarray,
    drawn: Float[np.ndarray, "draw size"],
    rng: np.random.Generator,
) -> Exact:
    """Of z, Gaussian given h: means and variances add, and distributions are mixtures."""
    gain = np.linalg.solve(total, matrix @ field.covariance).T
    mean, covariance = drawn.mean(axis=0), np.cov(drawn, rowvar=False)
    unseen = np.einsum("xh,hx->x", gain, matrix @ field.covariance)
    variance = np.diag(field.covariance) - unseen
    variance = variance + np.einsum("xh,hk,xk->x", gain, covariance, gain, optimize=True)
    patterns = np.asarray(field.prior.vectors, np.float64)[:, :32].T
    points = np.eye(len(mean := gain @ mean))[rng.choice(len(mean), 32, replace=False)]
    directions = np.concatenate([patterns, points])
    along = directions @ gain
    within = np.einsum("ka,ab,kb->k", directions, field.covariance, directions, optimize=True)
    within -= np.einsum("kh,hg,kg->k", along, total, along, optimize=True)
    within = np.sqrt(np.maximum(within, 1e-6))  # none where a direction is one of the variables
    few = drawn[:: max(1, len(drawn) // 2000)]
    return Exact.smoothed(mean, np.sqrt(variance), directions, few @ along.T, within)
