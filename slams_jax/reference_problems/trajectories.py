r"""Reference problems (c) and (i): linear Markov trajectories.

    x_{k+1} = M x_k + q_k,  q_k ~ N(0, Q),

stationary with unit variances and sparsely observed. The reference is the Kalman smoother. The
prior's denoiser is composed of exact denoisers of windows of 2 h + 1 frames, as that of a score
network is; the exact denoiser of the full trajectory shows how much composition loses.

In (c) a damped wave of six variables forgets itself within a few of 24 times. In (i) three
variables rotate with next to no noise, and all of 65 times hang together: the linear counterpart of
the noisy Lorenz-63 of (h), with its length, its noise for its variance, and its observations.
"""

import dataclasses
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

Observed = tuple[tuple[int, ...], int, float]  # variables, interval, standard deviation of errors

# Of (c): two variables at every third time, one at every second time.
SPARSE: tuple[Observed, ...] = (((0, 3), 3, 0.3), ((1,), 2, 0.5))
# Of (i): one variable, as in (h).
PREDICTABLE: dict[str, Observed] = {"low": ((0,), 8, 0.05), "high": ((0,), 1, 0.25)}
ANGLE, NOISE = 0.2, 3.6e-4  # of the rotation between two times; variance of the noise


@dataclasses.dataclass(frozen=True)
class _Chain:
    """M, Q, the stationary covariance, whose diagonal is one, and the number of times."""

    transition: np.ndarray
    process: np.ndarray
    stationary: np.ndarray
    times: int

    def covariance(self, times: int) -> np.ndarray:
        """Of consecutive states: cov(x_j, x_k) = M^(j - k) S for j >= k."""
        power = np.linalg.matrix_power
        powers = [power(self.transition, k) @ self.stationary for k in range(times)]
        rows = [
            [powers[j - k] if j >= k else powers[k - j].T for k in range(times)]
            for j in range(times)
        ]
        return np.block(rows)


def trajectory_cases(
    half_widths: Sequence[int | None] = (1, 2, 3, None),
    *,
    schedule: CosineSchedule = CosineSchedule(),
    seed: int = 0,
) -> list[Case]:
    """Problem (c), one case for each half-width h of the windows.

    Args:
        half_widths: h; None for the exact denoiser of the full trajectory.
        schedule: noise schedule.
        seed: of the true trajectory and of the observation errors.
    """
    windows = [(half, False) for half in half_widths]
    return _cases(_waves(6, 24), SPARSE, windows, "trajectory", schedule, seed)


def predictable_cases(
    windows: Sequence[tuple[int | None, bool]] = (
        *((half, False) for half in (2, 4, 8)),
        *((half, True) for half in (2, 4)),
        (None, False),
    ),
    *,
    schedule: CosineSchedule = CosineSchedule(),
    seed: int = 0,
) -> list[Case]:
    """Problem (i), with few observations and with many, one case for each composition.

    Args:
        windows: half-width h of the windows, as in `trajectory_cases`, and whether the scores of
            overlaps are taken away from their sum.
        schedule: noise schedule.
        seed: of the true trajectory and of the observation errors.
    """
    return [
        case
        for name, observed in PREDICTABLE.items()
        for case in _cases(
            _rotation(65), (observed,), windows, f"predictable {name}", schedule, seed
        )
    ]


def _cases(
    chain: _Chain,
    observed: Sequence[Observed],
    windows: Sequence[tuple[int | None, bool]],
    label: str,
    schedule: CosineSchedule,
    seed: int,
) -> list[Case]:
    rng = np.random.default_rng(seed)
    joint = chain.covariance(chain.times)
    truth = (np.linalg.cholesky(joint) @ rng.standard_normal(len(joint))).reshape(chain.times, -1)
    streams, exact = _observe(rng, truth, chain, observed)
    prior = lambda times: GaussianDenoiser.of(chain.covariance(times), schedule)
    exact_prior = prior(chain.times)
    cases = []
    for half, overlaps in windows:
        denoiser, name = exact_prior, f"{label} exact"
        if half is not None:
            size = 2 * half + 1
            denoiser = WindowedPrior(prior(size), size, prior(size - 1) if overlaps else None)
            name = f"{label} k={half}" + ", overlaps" * overlaps
        shape = (len(truth), 1, 1, truth.shape[1])
        problem = Problem(denoiser, streams, exact_prior, schedule, shape)
        cases.append(Case(name, problem, exact))
    return cases


def _waves(variables: int, times: int) -> _Chain:
    """A damped wave travels around a ring of variables, each with its own memory."""
    ring = np.roll(np.eye(variables), 1, axis=0)
    transition = 0.6 * np.eye(variables) + 0.3 * ring
    transition = np.diag(np.linspace(1.0, 0.8, variables)) @ transition
    process = np.eye(variables) + 0.3 * (ring + ring.T)
    stationary = scipy.linalg.solve_discrete_lyapunov(transition, process)
    std = np.sqrt(np.diag(stationary))
    scale = np.outer(std, std)
    return _Chain(
        transition * std[None, :] / std[:, None], process / scale, stationary / scale, times
    )


def _rotation(times: int) -> _Chain:
    """Two variables rotate, a third one stays, next to no noise; seen from other axes."""
    c, s = np.cos(ANGLE), np.sin(ANGLE)
    turned = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    return _Chain(
        np.sqrt(1.0 - NOISE) * axes @ turned @ axes.T, NOISE * np.eye(3), np.eye(3), times
    )


def _observe(
    rng: np.random.Generator, truth: np.ndarray, chain: _Chain, observed: Sequence[Observed]
):
    """The streams, and the posterior given all of them, from the Kalman smoother."""
    single = lambda a: jnp.asarray(a, jnp.float32)
    times, variables = truth.shape
    streams, values, rows, variances = [], [], [], []
    for channels, interval, error in observed:
        y = truth[:, channels] + error * rng.standard_normal((times, len(channels)))
        y[np.arange(times) % interval != interval - 1] = np.nan
        streams.append(
            make_stream(
                f"every {interval}",
                y[:, None, None, :],
                Select(channels),
                Diagonal(single(error**2)),
            )
        )
        values.append(y)
        rows.append(np.eye(variables)[list(channels)])
        variances += [error**2] * len(channels)
    operator = np.concatenate(rows)
    smoothed = kalman_smoother(
        single(np.concatenate(values, axis=1)),
        single(np.broadcast_to(operator, (times, *operator.shape))),
        single(np.diag(variances)),
        transition=single(chain.transition),
        process_covariance=single(chain.process),
        mean=jnp.zeros(variables),
        covariance=single(chain.stationary),
    )
    # Single components, means of every variable over time, and differences between times.
    size = times * variables
    single_ones = np.eye(size)[rng.choice(size, 24, replace=False)]
    over_time = np.tile(np.eye(variables), (1, times)) / times
    steps = np.zeros((times - 1, size))
    for k in range(times - 1):
        steps[k, k * variables : (k + 2) * variables] = np.repeat([-1.0, 1.0], variables)
    directions = np.concatenate([single_ones, over_time, steps])
    mean = np.asarray(smoothed.mean, np.float64).ravel()
    return tuple(streams), Exact.gaussian(mean, smoothed.joint_covariance(), directions)
