"""Reference problem (h): noisy Lorenz-63 with a trained score and linear observations.

The protocol of Rozet & Louppe (2023, "Score-based Data Assimilation", arXiv 2306.10574, section
4.1; github.com/francois-rozet/sda): x_{i+1} = M(x_i) + N(0, dt) with dt = 0.025 and a single
Runge-Kutta step M, 65 states, and observations of x / 8 at every eighth state with standard
deviation 0.05 ("low frequency"), or at every state with 0.25 ("high frequency").

Their reference is a bootstrap particle filter of 16,384 particles, whose early states descend from
few ancestors. As the density of the noise is known, the reference here is drawn backward
(`backward_simulation`). All states of the trajectory are compared.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.baselines import backward_simulation, particle_filter
from slams_jax.dynamics.lorenz63 import Lorenz63, noisy_trajectory, step
from slams_jax.gaussian import GaussianPrior
from slams_jax.observe import Diagonal, Select, make_stream
from slams_jax.reference_problems.cases import Problem
from slams_jax.reference_problems.exact import Exact
from slams_jax.reference_problems.lorenz import LorenzCase, ScorePrior, check_model, scattered

SYSTEM, DT, NOISE = Lorenz63(), 0.025, 1.0  # those of configs/sda_lorenz63.py
SPIN_UP = 400  # steps until states from anywhere are on the attractor
FRAMES = 65
SCALE = 8.0  # of x, in the paper's standardisation
OBSERVED = {"low": (8, 0.05), "high": (1, 0.25)}  # states apart, and error of x / SCALE
PARTICLES = 32768
DRAWS_AT_A_TIME = 32  # of the reference: their densities fill 4 MB


def noisy_lorenz_cases(
    prior: ScorePrior,
    covariance: GaussianPrior,
    mean: Float[np.ndarray, " channel"],
    std: Float[np.ndarray, " channel"],
    *,
    frames: int = FRAMES,
    count: int = 8,
    particles: int = PARTICLES,
    nodes: int = 1024,
    draws: int = 128,
    seed: int = 0,
) -> list[LorenzCase]:
    """The cases "low" and "high", with the same `count` true trajectories.

    Args:
        prior: trained on states `DT` apart, with noise of strength `NOISE`.
        covariance: of the standardised states of the training period.
        mean: of the states of the training period, used to standardise them.
        std: of the states of the training period.
        frames: length of the trajectories.
        count: number of truths.
        particles: number of particles of each filter.
        nodes: number of draws that describe each posterior.
        draws: largest number of members that will be compared.
        seed: of truths, observation errors and particles.

    Raises:
        InputError: a model of other states than those of Lorenz-63, or trajectories that are too
            short.
    """
    check_model(prior, frames, "configs/sda_lorenz63.py")
    key_truth, key_error, *keys = jax.random.split(jax.random.key(seed), 4)
    truths = np.asarray(simulate(key_truth, frames, count), np.float64)
    single = lambda a: jnp.asarray(a, jnp.float32)
    cases = []
    for i, (name, (interval, error)) in enumerate(OBSERVED.items()):
        noise = jax.random.normal(jax.random.fold_in(key_error, i), truths.shape[:2])
        values = truths[..., 0] / SCALE + error * np.asarray(noise, np.float64)
        values[:, np.arange(frames) % interval != 0] = np.nan
        found = [
            references(jax.random.fold_in(key, i), single(values), error, particles, size)
            for key, size in zip(keys, (nodes, draws), strict=True)
        ]
        standard = [((x - mean) / std).reshape(count, -1, frames * 3) for x, _ in found]
        even, directions = np.full(nodes, 1.0 / nodes), np.eye(frames * 3)
        exact = tuple(Exact.weighted(x, even, directions) for x in standard[0])
        # The model's own standardisation makes the operator a choice of one variable.
        values, error = (SCALE * values - mean[0]) / std[0], SCALE * error / std[0]
        stream = make_stream(
            "x",
            values[0][:, None, None, None],
            Select((0,)),
            Diagonal(single(error**2)),
        )
        shape = (frames, 1, 1, 3)
        problem = Problem(prior, (stream,), covariance.over(frames), prior.schedule, shape)
        effective = found[0][1].min(axis=1)
        cases.append(
            LorenzCase(
                f"noisy lorenz {name}",
                problem,
                mean,
                std,
                values,
                exact,
                effective,
                standard[1],
                compared=0,
            )
        )
    return cases


def simulate(key: PRNGKey, frames: int, count: int) -> Float[Array, "case time 3"]:
    """True trajectories from independent states on the attractor, in physical units."""
    key_first, key_later = jax.random.split(key)
    first = attractor(key_first, count)
    later = _noisy(key_later, first, length=frames - 1)
    return jnp.concatenate([first[None], later]).swapaxes(0, 1)


def attractor(key: PRNGKey, count: int) -> Float[Array, "particle 3"]:
    """Independent states on the attractor of the noisy system."""
    key_start, key_noise = jax.random.split(key)
    return _noisy(key_noise, scattered(key_start, count), length=1, substeps=SPIN_UP)[0]


def references(
    key: PRNGKey, values: Float[Array, "case time"], error: float, particles: int, draws: int
) -> tuple[Float[np.ndarray, "case draw time 3"], Float[np.ndarray, "case time"]]:
    """Draws of trajectories given `values` of x / SCALE, and the effective numbers of particles."""
    key_first, key_filter = jax.random.split(key)
    first = attractor(key_first, particles)
    drawn, effective = _references(key_filter, first, values, error, draws)
    return np.asarray(drawn, np.float64), np.asarray(effective, np.float64)


@functools.partial(jax.jit, static_argnums=4)
def _references(key, first, values, error, draws):
    def log_likelihood(states, y):
        misfit = jnp.where(jnp.isfinite(y), (y - states[:, 0] / SCALE) / error, 0.0)
        return -0.5 * misfit**2

    def advance(key, states):
        return _noisy(key, states, length=1)[0]

    def one(inputs):
        y, i = inputs
        key_filter, key_back = jax.random.split(jax.random.fold_in(key, i))
        found = particle_filter(key_filter, first, advance, log_likelihood, y)
        drawn = backward_simulation(
            key_back, found, log_transition, draws, batch=min(draws, DRAWS_AT_A_TIME)
        )
        return drawn, found.effective

    return jax.lax.map(one, (values, jnp.arange(len(values))))


def log_transition(
    states: Float[Array, "particle 3"], later: Float[Array, "draw 3"]
) -> Float[Array, "draw particle"]:
    """log p(later | states) of every pair, up to a constant."""
    ahead = step(SYSTEM, states, DT)
    # Summed over the variables one by one: a reduction over three is slow.
    x, y, z = (later[:, None, i] - ahead[None, :, i] for i in range(3))
    return -0.5 / (NOISE**2 * DT) * (x**2 + y**2 + z**2)


_noisy = jax.jit(
    functools.partial(noisy_trajectory, SYSTEM, noise=NOISE, dt=DT),
    static_argnames=("length", "substeps"),
)
