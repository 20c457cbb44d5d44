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

from slams_jax.aliases import ObservationOperator, Trajectory
from slams_jax.diffusion import CosineSchedule
from slams_jax.observe import Diagonal, Points, Stride, make_stream
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
class Gauges:
    """log(1 + rain) where `points` are.

    Attributes:
        points: operator of z.
    """

    points: ObservationOperator

    def __call__(self, state: Trajectory) -> Array:
        """The observed quantity."""
        # A power of zero has an infinite derivative.
        above = self.points(state) - THRESHOLD
        wet = above > 0.0
        return jnp.where(wet, jnp.log1p(jnp.where(wet, above, 1.0) ** 1.5), 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detector:
    """Whether it rains where `points` are, up to 1.

    Attributes:
        points: operator of z.
    """

    points: ObservationOperator

    def __call__(self, state: Trajectory) -> Array:
        """The observed quantity."""
        return jnp.clip((self.points(state) - THRESHOLD) / WIDTH, 0.0, 1.0)


def _gauge(h: np.ndarray) -> np.ndarray:
    return np.log1p(np.maximum(h - THRESHOLD, 0.0) ** 1.5)


def _detect(h: np.ndarray) -> np.ndarray:
    return np.clip((h - THRESHOLD) / WIDTH, 0.0, 1.0)


def rain_case(
    *,
    degree: int = 21,
    gauges: int = 150,
    detected: int = 4,
    schedule: CosineSchedule = CosineSchedule(),
    chains: int = 32,
    sweeps: int = 400,
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
    points, grid = _gauges(rng, gauges, detected), Stride(detected, 1)
    networks = ((points, Gauges(points), _gauge), (grid, Detector(grid), _detect))
    streams, matrices, values = [], [], []
    for linear, operator, curve in networks:
        matrix, shape = matrix_of(linear)
        seen = curve(matrix @ truth) + ERROR * rng.standard_normal(len(matrix))
        error = Diagonal(jnp.full((), ERROR**2, jnp.float32))
        name = type(operator).__name__.lower()
        streams.append(make_stream(name, seen.reshape(1, *shape), operator, error))
        matrices.append(matrix)
        values.append(seen)
    matrix = np.concatenate(matrices)

    def misfit(index: int, h: np.ndarray) -> np.ndarray:
        """Half the square of each h of variable `index` from what was observed, in errors."""
        curve, i = (_gauge, index) if index < gauges else (_detect, index - gauges)
        y = values[0][i] if index < gauges else values[1][i]
        return 0.5 * ((curve(h) - y) / ERROR) ** 2

    total = matrix @ field.covariance @ matrix.T
    drawn = gibbs(rng, total, misfit, chains, sweeps)[sweeps // 4 :]
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
    rng: np.random.Generator,
    covariance: Float[np.ndarray, "size size"],
    misfit: Callable[[int, np.ndarray], np.ndarray],
    chains: int,
    sweeps: int,
) -> Float[np.ndarray, "sweep chain size"]:
    """Draws of N(0, covariance) exp(-sum_i misfit(i, h_i)), one variable after the other.

    Each is drawn from its distribution given the others, tabulated and inverted. Chains start far
    apart, from the Gaussian alone.

    Args:
        rng: of the draws.
        covariance: of the Gaussian.
        misfit: (index, values of this variable) -> minus the log of the other factor.
        chains: independent of one another.
        sweeps: over all variables.
    """
    precision = np.linalg.inv(covariance)
    std = 1.0 / np.sqrt(np.diag(precision))
    h = np.linalg.cholesky(covariance) @ rng.standard_normal((len(std), chains))
    z = np.linspace(-6.0, 6.0, NODES)[:, None]
    every = np.arange(chains)
    kept = np.empty((sweeps, chains, len(std)))
    for sweep in range(sweeps):
        uniform = rng.uniform(size=(len(std), chains))
        for i in range(len(std)):
            mean = h[i] - precision[i] @ h * std[i] ** 2
            log = -0.5 * z**2 - misfit(i, mean + std[i] * z)
            density = np.exp(log - log.max(axis=0))
            cdf = np.zeros((NODES, chains))
            np.cumsum(density[1:] + density[:-1], axis=0, out=cdf[1:])
            sought = uniform[i] * cdf[-1]
            k = np.clip((cdf < sought).sum(axis=0) - 1, 0, NODES - 2)
            low, high = cdf[k, every], cdf[k + 1, every]
            share = (sought - low) / np.maximum(high - low, np.finfo(float).tiny)
            h[i] = mean + std[i] * (z[k, 0] + share * (z[1, 0] - z[0, 0]))
        kept[sweep] = h.T
    return kept


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
