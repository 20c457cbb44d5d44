r"""Reference problem (c): a linear Markov trajectory, six variables and 24 times.

    x_{k+1} = M x_k + q_k,  q_k ~ N(0, Q),

stationary with unit variances and sparsely observed. The reference is the Kalman smoother. The
prior's denoiser is composed of exact denoisers of windows of 2 h + 1 frames, as that of a score
network is; the exact denoiser of the full trajectory shows how much composition loses.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from slams_jax.baselines import kalman_smoother
from slams_jax.diffusion import CosineSchedule
from slams_jax.observe import Diagonal, Select, make_stream
from slams_jax.reference_problems.cases import Case, Problem
from slams_jax.reference_problems.exact import Exact
from slams_jax.reference_problems.priors import GaussianDenoiser, WindowedPrior

VARIABLES, TIMES = 6, 24
# Two variables at every third time, one at every second time.
OBSERVED = (((0, 3), 3, 0.3), ((1,), 2, 0.5))  # channels, interval, standard deviation


def trajectory_cases(
    half_widths: Sequence[int | None] = (1, 2, 3, None),
    *,
    schedule: CosineSchedule = CosineSchedule(),
    seed: int = 0,
) -> list[Case]:
    """Linear Markov trajectories, one case for each half-width h of the windows.

    Args:
        half_widths: h; None for the exact denoiser of the full trajectory.
        schedule: noise schedule.
        seed: of the true trajectory and of the observation errors.
    """
    transition, process, stationary = _system()
    # cov(x_j, x_k) = M^(j - k) S for j >= k.
    powers = [np.linalg.matrix_power(transition, k) @ stationary for k in range(TIMES)]

    def covariance(times: int) -> np.ndarray:
        rows = [
            [powers[j - k] if j >= k else powers[k - j].T for k in range(times)]
            for j in range(times)
        ]
        return np.block(rows)

    rng = np.random.default_rng(seed)
    joint = covariance(TIMES)
    truth = (np.linalg.cholesky(joint) @ rng.standard_normal(len(joint))).reshape(TIMES, -1)
    streams, exact = _observe(rng, truth, transition, process, stationary)
    exact_prior = GaussianDenoiser.of(joint, schedule)
    cases = []
    for half in half_widths:
        denoiser, name = exact_prior, "trajectory exact"
        if half is not None:
            window = 2 * half + 1
            denoiser = WindowedPrior(GaussianDenoiser.of(covariance(window), schedule), window)
            name = f"trajectory k={half}"
        problem = Problem(denoiser, streams, exact_prior, schedule, (TIMES, 1, 1, VARIABLES))
        cases.append(Case(name, problem, exact))
    return cases


def _system() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """M, Q and the stationary covariance, whose diagonal is one.

    A damped wave travels around a ring of variables, each with its own memory.
    """
    ring = np.roll(np.eye(VARIABLES), 1, axis=0)
    transition = 0.6 * np.eye(VARIABLES) + 0.3 * ring
    transition = np.diag(np.linspace(1.0, 0.8, VARIABLES)) @ transition
    process = np.eye(VARIABLES) + 0.3 * (ring + ring.T)
    stationary = scipy.linalg.solve_discrete_lyapunov(transition, process)
    std = np.sqrt(np.diag(stationary))
    scale = np.outer(std, std)
    return transition * std[None, :] / std[:, None], process / scale, stationary / scale


def _observe(rng: np.random.Generator, truth, transition, process, stationary):
    """The streams, and the posterior given all of them, from the Kalman smoother."""
    single = lambda a: jnp.asarray(a, jnp.float32)
    streams, values, rows, variances = [], [], [], []
    for channels, interval, error in OBSERVED:
        y = truth[:, channels] + error * rng.standard_normal((TIMES, len(channels)))
        y[np.arange(TIMES) % interval != interval - 1] = np.nan
        streams.append(
            make_stream(
                f"every {interval}",
                y[:, None, None, :],
                Select(channels),
                Diagonal(single(error**2)),
            )
        )
        values.append(y)
        rows.append(np.eye(VARIABLES)[list(channels)])
        variances += [error**2] * len(channels)
    operator = np.concatenate(rows)
    smoothed = kalman_smoother(
        single(np.concatenate(values, axis=1)),
        single(np.broadcast_to(operator, (TIMES, *operator.shape))),
        single(np.diag(variances)),
        transition=single(transition),
        process_covariance=single(process),
        mean=jnp.zeros(VARIABLES),
        covariance=single(stationary),
    )
    # Single components, means of every variable over time, and differences between times.
    size = TIMES * VARIABLES
    single_ones = np.eye(size)[rng.choice(size, 24, replace=False)]
    over_time = np.tile(np.eye(VARIABLES), (1, TIMES)) / TIMES
    steps = np.zeros((TIMES - 1, size))
    for k in range(TIMES - 1):
        steps[k, k * VARIABLES : (k + 2) * VARIABLES] = np.repeat([-1.0, 1.0], VARIABLES)
    directions = np.concatenate([single_ones, over_time, steps])
    mean = np.asarray(smoothed.mean, np.float64).ravel()
    return tuple(streams), Exact.gaussian(mean, smoothed.joint_covariance(), directions)
