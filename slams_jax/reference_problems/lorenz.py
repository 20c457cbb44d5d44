r"""Reference problem (d): Lorenz-63 with a trained score and sparse, nonlinear observations.

At every third frame, y = x^2 / 20 + 2 x / 5 + N(0, 1.5^2) of the first variable is observed. It
hardly distinguishes values of x on either side of x = -4 and does not observe y and z directly.

The dynamics have no noise, so that the first state determines all others: the reference is a
particle filter without resampling, whose particles start on the attractor. It is exact at every
frame up to the number of particles; `effective` gives their effective number. The states of the
last frame are compared. Two lengths of trajectory separate the errors of score and guidance (nine
frames, one window of the network) from those of composition (more frames than a window).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Params, PRNGKey, Trajectory
from slams_jax.baselines import particle_filter
from slams_jax.diffusion import CosineSchedule
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.dynamics.lorenz63 import Lorenz63, trajectory
from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPosterior, GaussianPrior
from slams_jax.models.score import ScoreConfig, window_denoiser
from slams_jax.observe import Chain, Diagonal, make_stream
from slams_jax.reference_problems.cases import Problem
from slams_jax.reference_problems.exact import Exact, Score, score
from slams_jax.reference_problems.mixtures import Quadratic

SYSTEM, DT, SUBSTEPS = Lorenz63(), 0.01, 5  # those of configs/lorenz63.py
SPIN_UP = 400  # frames until particles from anywhere are on the attractor
FRAMES = (9, 13)
INTERVAL, OFFSET, ERROR = 3, 1, 1.5  # of the observations
PARTICLES = 65536


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScorePrior:
    """A trained score network as a denoiser of trajectories of standardised states.

    Attributes:
        params: of the network.
        config: of the network.
        schedule: noise schedule.
        gaussian: prior of windows that the network departs from, if it does.
    """

    params: Params
    config: ScoreConfig = dataclasses.field(metadata={"static": True})
    schedule: CosineSchedule = dataclasses.field(metadata={"static": True})
    gaussian: GaussianPosterior | None = None

    def __call__(self, x_t: Array, t: Array) -> Array:
        """E[x_0 | x_t], composed of windows."""
        window = window_denoiser(self.config, self.schedule, self.params, self.gaussian)
        return trajectory_denoiser(window, self.config.window)(x_t, t)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Physical:
    """From standardised states to physical units.

    Attributes:
        mean: of each variable.
        std: of each variable.
    """

    mean: Float[Array, " channel"]
    std: Float[Array, " channel"]

    def __call__(self, state: Trajectory) -> Trajectory:
        """Multiply and shift."""
        return state * self.std[None, None, None] + self.mean[None, None, None]


@dataclasses.dataclass(frozen=True)
class LorenzCase:
    """Several true trajectories, their observations, and the posterior of each.

    Attributes:
        name: label in tables.
        problem: of the first truth; the others differ only in the observed values.
        mean: of the states in the training period, for standardisation.
        std: of the states in the training period.
        values: observed values, NaN where nothing is observed.
        exact: posteriors of the compared states, standardised.
        effective: effective number of particles of each reference.
        others: draws from a second, independent filter, in place of exact draws.
        compared: first of the compared states, which go to the last; -1 for the last alone.
    """

    name: str
    problem: Problem
    mean: Float[np.ndarray, " channel"]
    std: Float[np.ndarray, " channel"]
    values: Float[np.ndarray, "case time"]
    exact: tuple[Exact, ...]
    effective: Float[np.ndarray, " case"]
    others: Float[np.ndarray, "case draw size"]
    compared: int = -1

    def score(self, draws: Float[np.ndarray, "case draw size"]) -> Score:
        """Score draws of the compared states against the posteriors, over all truths.

        Squared errors and W1 are averaged; `w1_exact` is that of the same number of draws from the
        second filter, so that it includes the errors of the references.
        """
        scores = [score(e, d) for e, d in zip(self.exact, draws, strict=True)]
        others = self.others[:, : draws.shape[1]]
        floor = [score(e, d).w1 for e, d in zip(self.exact, others, strict=True)]
        return _average(scores, float(np.mean(floor)))


def lorenz_cases(
    prior: ScorePrior,
    covariance: GaussianPrior,
    mean: Float[np.ndarray, " channel"],
    std: Float[np.ndarray, " channel"],
    *,
    frames: Sequence[int] = FRAMES,
    count: int = 16,
    particles: int = PARTICLES,
    draws: int = 4096,
    seed: int = 0,
) -> list[LorenzCase]:
    """One case of `count` true trajectories for each length in `frames`.

    Args:
        prior: trained on frames `SUBSTEPS` steps of `DT` apart.
        covariance: of the standardised states of the training period.
        mean: of the states of the training period, used to standardise them.
        std: of the states of the training period.
        frames: lengths of the trajectories.
        count: number of truths for each length.
        particles: number of particles of each reference.
        draws: largest number of members that will be compared.
        seed: of truths, observation errors and particles.

    Raises:
        InputError: a model of other states than those of Lorenz-63, or trajectories that are too
            short.
    """
    check_model(prior, min(frames), "configs/lorenz63.py")
    keys = jax.random.split(jax.random.key(seed), 5)
    first, second = (attractor(key, particles) for key in keys[:2])
    cases = []
    for length in frames:
        _, values = simulate(keys[2], length, count)
        weights, effective, last = _references(first, values)
        other_weights, _, other_last = _references(second, values)
        nodes = (np.asarray(last, np.float64) - mean) / std
        exact = tuple(Exact.weighted(nodes, w, np.eye(3)) for w in weights)
        rng = np.random.default_rng(seed)
        index = np.stack([rng.choice(particles, draws, p=w) for w in other_weights])
        others = (np.asarray(other_last, np.float64)[index] - mean) / std
        problem = _problem(prior, covariance, mean, std, values[0])
        cases.append(
            LorenzCase(
                f"lorenz {length} frames", problem, mean, std, values, exact, effective, others
            )
        )
    return cases


def check_model(prior: ScorePrior, frames: int, config: str) -> None:
    """Refuse a model of other states, or of more frames than there are.

    Raises:
        InputError: a model of other states than those of Lorenz-63, which `config` trains one of,
            or trajectories that are too short.
    """
    if prior.config.channels != 3:
        raise InputError(
            f"the model has states of {prior.config.channels} variables, Lorenz-63 has 3: give a "
            f"model trained with {config}"
        )
    if frames < prior.config.window:
        raise InputError(
            f"trajectories of {frames} frames are shorter than the model's window of "
            f"{prior.config.window}: lengthen them"
        )


def scattered(key: PRNGKey, count: int) -> Float[Array, "particle 3"]:
    """Independent states around the attractor."""
    return 10.0 * jax.random.normal(key, (count, 3)) + jnp.array([[0.0, 0.0, 25.0]])


def attractor(key: PRNGKey, count: int) -> Float[Array, "particle 3"]:
    """Independent states on the attractor."""
    advance = lambda _, x: _advance(x)
    return jax.jit(lambda x: jax.lax.fori_loop(0, SPIN_UP, advance, x))(scattered(key, count))


def simulate(
    key: PRNGKey, frames: int, count: int
) -> tuple[Float[np.ndarray, "case 3"], Float[np.ndarray, "case time"]]:
    """Truths at the last frame in physical units, and the observations up to it."""
    key_state, key_error = jax.random.split(key)
    first = attractor(key_state, count)
    later = trajectory(SYSTEM, first, dt=DT, length=frames - 1, substeps=SUBSTEPS)
    states = jnp.concatenate([first[None], later])
    values = np.array(_observed(states) + ERROR * jax.random.normal(key_error, states.shape[:2])).T
    values[:, np.arange(frames) % INTERVAL != OFFSET] = np.nan
    return np.asarray(states[-1]), values


def _advance(states: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    return trajectory(SYSTEM, states, dt=DT, length=1, substeps=SUBSTEPS)[0]


def _operator() -> Quadratic:
    return Quadratic(jnp.diag(jnp.array([0.05, 0.0, 0.0])), jnp.array([0.4, 0.0, 0.0]))


def _observed(states: Float[Array, "time particle 3"]) -> Float[Array, "time particle"]:
    return _operator()(states[:, :, None])[:, :, 0, 0]


@jax.jit
def _filters(first, values):
    """Weights of the particles, their effective number, and their last states."""

    def log_likelihood(states, y):
        misfit = jnp.where(jnp.isfinite(y), (y - _observed(states[None])[0]) / ERROR, 0.0)
        return -0.5 * misfit**2

    def one(y):
        advance = lambda key, states: _advance(states)
        result = particle_filter(
            jax.random.key(0), first, advance, log_likelihood, y, resample_below=0.0
        )
        return result.weights, result.effective[-1], result.trajectories[:, -1]

    weights, effective, last = jax.lax.map(one, values)
    return weights, effective, last[0]  # without noise all filters have the same states


def _references(first: Array, values: np.ndarray):
    weights, effective, last = _filters(first, jnp.asarray(values, jnp.float32))
    weights = np.asarray(weights, np.float64)
    return weights / weights.sum(axis=1, keepdims=True), np.asarray(effective), last


def _problem(prior: ScorePrior, covariance: GaussianPrior, mean, std, values) -> Problem:
    single = lambda a: jnp.asarray(a, jnp.float32)
    operator = Chain((Physical(single(mean), single(std)), _operator()))
    stream = make_stream(
        "quadratic", values[:, None, None, None], operator, Diagonal(single(ERROR**2))
    )
    shape = (len(values), 1, 1, 3)
    return Problem(prior, (stream,), covariance.over(len(values)), prior.schedule, shape)


def _average(scores: Sequence[Score], floor: float) -> Score:
    """Average over truths: root mean squares of the errors, means of the other scores."""
    column = lambda name: np.array([getattr(s, name) for s in scores])
    values: dict[str, float] = {}
    for name in ("mean_error", "covariance_error", "variance_ratio", "w1"):
        each, error = column(name), column(f"{name}_se")
        if name.endswith("error"):
            mean = float(np.sqrt(np.mean(each**2)))
            # From the standard error of a root to that of its square, and back.
            square = np.sqrt(np.sum(((each + error) ** 2 - each**2) ** 2)) / len(each)
            values[name], values[f"{name}_se"] = mean, float(np.sqrt(mean**2 + square) - mean)
        else:
            values[name] = float(each.mean())
            values[f"{name}_se"] = float(np.sqrt(np.sum(error**2)) / len(each))
    return Score(
        **values,
        w1_exact=floor,
        mode_error=None,
        mode_error_se=None,
        sampling_error=scores[0].sampling_error / float(np.sqrt(len(scores))),
    )
