r"""Reference problems (b): priors that have several modes, or are skewed and curved.

Two problems in two dimensions have a nonlinear operator and a posterior by quadrature; one in
sixteen dimensions has a linear operator and a posterior in closed form. All priors are mixtures of
Gaussians with exact denoisers; the curved one is a chain of narrow Gaussians along a curve.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Denoiser, Trajectory
from slams_jax.diffusion import CosineSchedule
from slams_jax.observe import Diagonal, Select, Stream, make_stream
from slams_jax.products import product
from slams_jax.reference_problems.cases import Case, Problem
from slams_jax.reference_problems.exact import Exact
from slams_jax.reference_problems.priors import (
    GaussianDenoiser,
    KernelDensity,
    Mixture,
    MixturePrior,
)

NODES = 700  # of the quadrature, in each of two dimensions
KERNELS = 80  # of the posterior's denoiser, in each dimension; those without weight are dropped


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quadratic:
    """y = x^T A x + b^T x, at every grid point.

    Attributes:
        matrix: A.
        linear: b.
    """

    matrix: Float[Array, "channel channel"]
    linear: Float[Array, " channel"]

    def __call__(self, state: Trajectory) -> Float[Array, "time lat lon 1"]:
        """The observed quantity."""
        quadratic = product("txyc,cd,txyd->txy", state, self.matrix, state)
        return (quadratic + product("txyc,c->txy", state, self.linear))[..., None]


def mixture_cases(*, schedule: CosineSchedule = CosineSchedule(), seed: int = 0) -> list[Case]:
    """Three modes, a curved ridge, and four modes in sixteen dimensions."""
    return [three_modes(schedule), ridge(schedule), sixteen_dimensions(schedule, seed)]


def three_modes(schedule: CosineSchedule = CosineSchedule()) -> Case:
    """Three Gaussians in the plane; the squared radius is observed."""
    prior = Mixture(
        np.array([0.5, 0.3, 0.2]),
        np.array([[-1.6, -0.4], [1.4, -0.9], [0.5, 1.6]]),
        np.array(
            [
                [[0.30, 0.12], [0.12, 0.20]],
                [[0.20, -0.10], [-0.10, 0.30]],
                [[0.25, 0.0], [0.0, 0.15]],
            ]
        ),
    ).standardised()
    operator = Quadratic(jnp.eye(2), jnp.zeros(2))
    square = lambda x: (x**2).sum(axis=-1)
    return _plane("three modes", prior, operator, square, 2.2, 0.5, schedule, modes=True)


def ridge(schedule: CosineSchedule = CosineSchedule()) -> Case:
    """A curved, skewed ridge in the plane; a quadratic function of position is observed."""
    u = np.linspace(-2.4, 2.4, 25)
    spacing = u[1] - u[0]
    centres = np.stack([np.exp(0.5 * u), 0.6 * u**2 - 0.4 * u], axis=-1)
    tangents = np.stack([0.5 * np.exp(0.5 * u), 1.2 * u - 0.4], axis=-1) * spacing
    along = np.einsum("ka,kb->kab", tangents, tangents)
    weights = np.exp(-0.5 * u**2)
    prior = Mixture(weights / weights.sum(), centres, along + 0.05 * np.eye(2)).standardised()
    operator = Quadratic(jnp.array([[0.3, 0.0], [0.0, 0.0]]), jnp.array([0.5, 1.0]))
    observe = lambda x: 0.3 * x[..., 0] ** 2 + 0.5 * x[..., 0] + x[..., 1]
    return _plane("ridge", prior, operator, observe, 0.3, 0.4, schedule)


def sixteen_dimensions(schedule: CosineSchedule = CosineSchedule(), seed: int = 0) -> Case:
    """Four Gaussians in sixteen dimensions; six components are observed."""
    size, observed, error = 16, (0, 3, 6, 9, 12, 15), 0.7
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((4, size, size)) / np.sqrt(size)
    covariances = 0.4 * np.einsum("kab,kcb->kac", roots, roots) + 0.1 * np.eye(size)
    means = rng.standard_normal((4, size))
    prior = Mixture(np.array([0.4, 0.3, 0.2, 0.1]), means, covariances).standardised()
    truth = prior.draw(rng, 1)[0]
    matrix, variance = np.eye(size)[list(observed)], np.full(len(observed), error**2)
    y = matrix @ truth + error * rng.standard_normal(len(observed))
    stream = make_stream(
        "six of sixteen",
        y.reshape(1, 1, 1, -1),
        Select(observed),
        Diagonal(jnp.full((), error**2, jnp.float32)),
    )
    directions = np.concatenate([np.eye(size), rng.standard_normal((16, size))])
    posterior = prior.given(matrix, variance, y)
    problem = _problem(prior, stream, schedule, MixturePrior.of(posterior, schedule))
    return Case("sixteen dimensions", problem, Exact.mixture(posterior, directions))


def _problem(
    prior: Mixture, stream: Stream, schedule: CosineSchedule, posterior: Denoiser
) -> Problem:
    size = prior.means.shape[1]
    gaussian = GaussianDenoiser.of(prior.covariance(), schedule)
    shape = (1, 1, 1, size)
    denoiser = MixturePrior.of(prior, schedule)
    return Problem(denoiser, (stream,), gaussian, schedule, shape, posterior)


def _plane(
    name: str,
    prior: Mixture,
    operator: Quadratic,
    observe: Callable[[np.ndarray], np.ndarray],
    y: float,
    error: float,
    schedule: CosineSchedule,
    *,
    modes: bool = False,
) -> Case:
    """A case in the plane; `observe` is the operator for points (point, 2) in double precision."""
    stream = make_stream(
        name, np.full((1, 1, 1, 1), y), operator, Diagonal(jnp.full((), error**2, jnp.float32))
    )

    def quadrature(low, high, count: int) -> tuple[np.ndarray, np.ndarray]:
        axes = [np.arange(a, b, (high - low).max() / count) for a, b in zip(low, high, strict=True)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        logs = prior.log_densities(nodes)
        top = logs.max(axis=1)
        density = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        density = density - 0.5 * ((y - observe(nodes)) / error) ** 2
        weights = np.exp(density - density.max())
        return nodes, weights / weights.sum()

    # First over everything, then over the region that has any probability.
    nodes, weights = quadrature(np.full(2, -8.0), np.full(2, 8.0), NODES)
    likely = nodes[weights > 1e-10 * weights.max()]
    low, high = likely.min(axis=0) - 0.05, likely.max(axis=0) + 0.05
    posterior = _kernels(*quadrature(low, high, KERNELS), (high - low).max() / KERNELS, schedule)
    nodes, weights = quadrature(low, high, NODES)
    angles = np.pi * np.arange(16) / 16
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    count = len(prior.weights) if modes else 0
    exact = Exact.weighted(nodes, weights, directions, count, prior.component_of if modes else None)
    return Case(name, _problem(prior, stream, schedule, posterior), exact)


def _kernels(
    nodes: Float[np.ndarray, "node 2"],
    weights: Float[np.ndarray, " node"],
    spacing: float,
    schedule: CosineSchedule,
) -> KernelDensity:
    """A sum of kernels, smooth since their width is 0.7 times their spacing."""
    kept = weights > 1e-6 * weights.max()
    single = lambda a: jnp.asarray(a, jnp.float32)
    return KernelDensity(
        single(np.log(weights[kept])), single(nodes[kept]), single(0.7 * spacing), schedule
    )
