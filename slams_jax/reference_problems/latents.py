r"""Reference problem: latents that are observed through an encoder, which is no unbiased observer.

A Gaussian trajectory of eight variables, z = U a, with independent AR(1) processes a_j. A code
y = U M U^T z + b + e tells of it, with slopes M that fall from one mode to the next (large scales
are seen well, small ones not at all), errors e_j that are AR(1) processes too, and fewer modes seen
at every other time, when only some of its inputs are there. Some variables are observed as
well. The posterior is in closed form, in double precision.

Either the statistics of the code are given, or they are estimated from pairs of y and z, and those
of z from a trajectory: as those of a trained model are.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

from slams_jax.diffusion import CosineSchedule
from slams_jax.gaussian import (
    GaussianPrior,
    Modes,
    Regression,
    Spectrum,
    absorbed,
    condition,
    fit_prior,
    fit_regression,
)
from slams_jax.models.score import PosteriorDenoiser
from slams_jax.observe import Diagonal, Select, make_stream
from slams_jax.reference_problems.cases import Case, Problem
from slams_jax.reference_problems.exact import Exact

VARIABLES, TIMES = 8, 12
VARIANCE = np.geomspace(3.0, 0.05, VARIABLES)
PERSISTENCE = np.linspace(0.9, 0.4, VARIABLES)
# Of y: all inputs, and half of them.
SLOPES = np.array(
    [[0.9, 0.8, 0.6, 0.5, 0.3, 0.2, 0.0, 0.0], [0.6, 0.4, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0]]
)
ERROR_VARIANCE = 0.3 * VARIANCE
ERROR_PERSISTENCE = np.linspace(0.8, 0.5, VARIABLES)
OFFSET = np.linspace(-0.3, 0.3, VARIABLES)
SEEN, ERROR = (1, 5), 0.5  # variables that are observed at every third time, and their error
TRAINING = 4000  # times from which the statistics of z are estimated


def latent_cases(
    pairs: Sequence[int | None] = (None, 400),
    *,
    schedule: CosineSchedule = CosineSchedule(),
    seed: int = 0,
) -> list[Case]:
    """Trajectories with a latent observation, one case for each number of pairs.

    Args:
        pairs: of y and z, from which its statistics are estimated; None takes the true ones.
        schedule: noise schedule.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((VARIABLES, VARIABLES)))
    patterns = np.arange(TIMES) % 2
    truth, code = _pairs(rng, basis, TIMES)
    code = code[patterns, np.arange(TIMES)]
    direct = truth[:, SEEN] + ERROR * rng.standard_normal((TIMES, len(SEEN)))
    direct[np.arange(TIMES) % 3 != 1] = np.nan
    stream = make_stream(
        "direct",
        direct[:, None, None, :],
        Select(SEEN),
        Diagonal(jnp.full((), ERROR**2, jnp.float32)),
    )
    exact = _posterior(rng, basis, patterns, code, direct)
    cases = []
    for count in pairs:
        prior, regression = (
            _true(basis) if count is None else _estimated(np.random.default_rng(1), basis, count)
        )
        operator, covariance, offset = regression.at(patterns)
        seen = jnp.asarray(code, jnp.float32)[:, None, None, :] - offset
        gaussian = condition(
            prior.modes, prior.spectra, TIMES, [absorbed(operator, covariance, seen)]
        )
        shape = (TIMES, 1, 1, VARIABLES)
        denoiser = PosteriorDenoiser(gaussian, schedule)
        name = "latent exact" if count is None else f"latent {count} pairs"
        cases.append(Case(name, Problem(denoiser, (stream,), gaussian, schedule, shape), exact))
    return cases


def _series(
    rng: np.random.Generator, count: int, variance: np.ndarray, persistence: np.ndarray
) -> Float[np.ndarray, "time variable"]:
    """Stationary AR(1) processes."""
    white = rng.standard_normal((count, VARIABLES)) * np.sqrt(variance)
    series = [white[0]]
    for shock in white[1:]:
        series.append(persistence * series[-1] + np.sqrt(1.0 - persistence**2) * shock)
    return np.stack(series)


def _pairs(
    rng: np.random.Generator, basis: np.ndarray, count: int
) -> tuple[Float[np.ndarray, "time variable"], Float[np.ndarray, "pattern time variable"]]:
    """z, and y of each pattern."""
    modes = _series(rng, count, VARIANCE, PERSISTENCE)
    errors = _series(rng, count, ERROR_VARIANCE, ERROR_PERSISTENCE)
    return modes @ basis.T, (SLOPES[:, None] * modes + errors) @ basis.T + OFFSET


def _true(basis: np.ndarray) -> tuple[GaussianPrior, Regression]:
    single = lambda a: jnp.asarray(a, jnp.float32)
    modes = Modes(single(basis)[None], (1, 1, VARIABLES), False)
    prior = GaussianPrior(modes, (_spectrum(VARIANCE, PERSISTENCE),))
    errors = _spectrum(ERROR_VARIANCE, ERROR_PERSISTENCE)
    return prior, Regression(
        modes,
        (single(SLOPES)[:, None],),
        (jnp.broadcast_to(errors.variance, (2, *errors.variance.shape)),),
        (errors.lags,),
        single(np.broadcast_to(OFFSET, (2, 1, 1, VARIABLES))),
    )


def _spectrum(variance: np.ndarray, persistence: np.ndarray) -> Spectrum:
    single = lambda a: jnp.asarray(a, jnp.float32)
    return Spectrum(single(variance)[None], single(persistence)[None, :, None])


def _estimated(
    rng: np.random.Generator, basis: np.ndarray, count: int
) -> tuple[GaussianPrior, Regression]:
    """From a trajectory of z, and from `count` pairs of another one."""
    fields = lambda a: a[:, None, None, :].astype(np.float32)
    training, _ = _pairs(rng, basis, TRAINING)
    prior = fit_prior(fields(training), order=1)
    z, y = _pairs(rng, basis, count)
    return prior, fit_regression([fields(one) for one in y], fields(z), prior.modes, order=1)


def _posterior(
    rng: np.random.Generator,
    basis: np.ndarray,
    patterns: np.ndarray,
    code: Float[np.ndarray, "time variable"],
    direct: Float[np.ndarray, "time seen"],
) -> Exact:
    """By adding the precisions of all times at once."""
    apart = np.abs(np.subtract.outer(np.arange(TIMES), np.arange(TIMES)))

    def precision(variance: np.ndarray, persistence: np.ndarray) -> np.ndarray:
        inverses = [np.linalg.inv(w * r**apart) for w, r in zip(variance, persistence, strict=True)]
        parts = zip(inverses, basis.T, strict=True)
        return np.sum([np.kron(inverse, np.outer(u, u)) for inverse, u in parts], axis=0)

    slopes = scipy.linalg.block_diag(*(basis * SLOPES[p] @ basis.T for p in patterns))
    weighted = slopes.T @ precision(ERROR_VARIANCE, ERROR_PERSISTENCE)
    total = precision(VARIANCE, PERSISTENCE) + weighted @ slopes
    pull = weighted @ (code - OFFSET).ravel()
    rows = np.kron(np.eye(TIMES), np.eye(VARIABLES)[list(SEEN)])[np.isfinite(direct).ravel()]
    total += rows.T @ rows / ERROR**2
    pull += rows.T @ direct[np.isfinite(direct)] / ERROR**2
    covariance = np.linalg.inv(total)
    size = TIMES * VARIABLES
    single_ones = np.eye(size)[rng.choice(size, 24, replace=False)]
    over_time = np.kron(np.full((1, TIMES), 1.0 / TIMES), basis.T)
    steps = np.kron(np.diff(np.eye(TIMES), axis=0), basis.T[:1])
    directions = np.concatenate([single_ones, over_time, steps])
    return Exact.gaussian(covariance @ pull, covariance, directions)
