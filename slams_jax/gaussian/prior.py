r"""A Gaussian prior of trajectories of standardised frames: N(0, P), fitted once, closed forms.

P is diagonal in the modes of `Modes`, each with a variance and a correlation in time (`Spectrum`).
It is not separable: variance, vertical structure and persistence depend on scale and latitude.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Trajectory
from slams_jax.errors import InputError
from slams_jax.gaussian.modes import Modes, scaled, to_blocks
from slams_jax.gaussian.posterior import GaussianPosterior, condition
from slams_jax.gaussian.spectrum import Spectrum, sample_lags

LOG = logging.getLogger(__name__)

RIDGES = (1e-4, 1e-3, 5e-3, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)  # shares of the diagonal to choose from
DENSE = 2500  # largest dimension of a block whose covariance matrix is formed
FOLDS = 4  # parts of the frames, each of which tells how the EOFs of the others fit
SMALLEST = 1e-6  # variance of a mode, relative to that of the frame's values
LIVE = 1e-2  # variance of the modes that chi-squared counts, relative to the mean
RELIABLE = (0.8, 1.25)  # chi-squared per value outside which a fit is worth a warning


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianPrior:
    """N(0, P) of consecutive frames; build it with `fit_prior`.

    Attributes:
        modes: the EOFs.
        spectra: of the EOFs, and, unless they are complete, of what is orthogonal to them.
    """

    modes: Modes
    spectra: tuple[Spectrum, ...]

    def over(self, count: int) -> GaussianPosterior:
        """The prior of `count` frames with its eigenvectors in time, for repeated products."""
        return condition(self.modes, self.spectra, count)

    def denoise(self, x_t: Trajectory, alpha: Array, sigma: Array) -> Trajectory:
        """E[x_0 | x_t] for x_t = alpha x_0 + sigma eps; one noise level, or (time,) of them."""
        return self.over(x_t.shape[0]).denoise(x_t, alpha, sigma)

    def posterior(self, x: Trajectory, ratio: Array) -> Trajectory:
        """(P^-1 + 1 / ratio)^-1 x, for a noise variance `ratio` = sigma^2 / alpha^2."""
        return self.over(x.shape[0]).solve(x, ratio)

    def sample_root(self, white: Trajectory) -> Trajectory:
        """P^(1/2) applied to white noise."""
        return self.over(white.shape[0]).sample_root(white)


class ChiSquared(NamedTuple):
    """Mean square of standardised coefficients of frames under a prior: one where it is right.

    Attributes:
        all: over everything.
        channel: by channel.
        longitude: by longitude.
        block: by zonal wavenumber (or of the one block).
        innovation: of the one-step prediction errors in time.
    """

    all: float
    channel: Float[np.ndarray, " channel"]
    longitude: Float[np.ndarray, " lon"]
    block: Float[np.ndarray, " block"]
    innovation: float


def fit_prior(
    frames: Float[np.ndarray, "time lat lon channel"],
    times: np.ndarray | None = None,
    *,
    periodic: bool = False,
    rank: int = 400,
    order: int = 2,
) -> GaussianPrior:
    """Estimate a `GaussianPrior` from standardised anomalies.

    The covariance of each block is shrunk to its diagonal, by the share that gives the last quarter
    of the frames the highest likelihood when fitted on the others (but for blocks of more than
    `DENSE` dimensions, whose EOFs the diagonal hardly turns); its leading EOFs are kept, and the
    variance of the rest is spread evenly. Their variances and correlations in time are those
    that each quarter of the frames has in the EOFs of the others, rank by rank (the nonlinear
    shrinkage of Lam 2016, Ann. Stat. 44, with quarters for random halves, as neighbouring frames
    are alike): in its own EOFs a sample varies too much where it is large, too little and too
    fast where it is small. Amplitude counts: P is the second moment.

    Args:
        frames: of the training period; missing values count as zero anomalies.
        times: of the frames, datetime64 or steps, ascending, multiples of the shortest interval
            apart; None where they are consecutive. Correlations in time do not reach over gaps.
        periodic: whether the grid goes round a latitude circle.
        rank: largest number of EOFs of a block; at most as many as three quarters of the frames
            have.
        order: of the autoregressive processes in time; 0 for frames independent of one another.

    Raises:
        InputError: fewer than 20 frames, or frames that do not vary.
    """
    if len(frames) < 20:
        raise InputError(
            f"a prior covariance needs at least 20 frames, got {len(frames)}: lengthen the "
            "training period"
        )
    blocks = to_blocks(np.nan_to_num(frames), periodic)
    variance = np.mean(np.abs(blocks) ** 2)
    if not variance > 0:
        raise InputError("a prior covariance needs frames that vary: all are zero")
    rank = min(rank, blocks.shape[2])
    quarter = np.arange(len(frames)) * FOLDS // len(frames)
    if blocks.shape[2] > DENSE:
        rank = min(rank, len(frames) - np.bincount(quarter).max().item())  # what the others bear
    ridges = [_chosen_ridge(b) if b.shape[1] <= DENSE else 0.0 for b in blocks]
    vectors = np.stack([_eofs(b, rank, r) for b, r in zip(blocks, ridges, strict=True)])
    floor = variance * SMALLEST
    leading, rest = _held_out(blocks, quarter, rank, ridges)
    # The EOFs of two quarters have nothing to do with each other: none follows another.
    steps = whole_steps(times, len(frames))
    steps = steps + 2 * (steps[-1] + order) * quarter
    spectra = [
        Spectrum(
            single(np.maximum(_descending(np.mean(np.abs(leading) ** 2, axis=1)), floor)),
            single(sample_lags(leading, steps, order)),
        )
    ]
    modes = Modes(single(vectors), frames.shape[1:], periodic)  # type: ignore[arg-type]
    if not modes.complete:
        share = np.sum(np.abs(rest) ** 2, axis=(1, 2)) / rest.shape[1]
        spectra.append(
            Spectrum(
                single(np.maximum(share / (blocks.shape[2] - rank), floor)[:, None]),
                single(pooled_lags(rest, steps, order)),
            )
        )
    return GaussianPrior(modes, tuple(spectra))


def pooled_lags(rest: np.ndarray, steps: np.ndarray, order: int) -> np.ndarray:
    """Correlations (block, 1, lag) of all dimensions of each block together."""
    lags = sample_lags(rest, steps, order)
    power = np.mean(np.abs(rest) ** 2, axis=1)
    weight = power / np.maximum(power.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.sum(lags * weight[..., None], axis=1, keepdims=True)


def chi_squared(
    prior: GaussianPrior,
    frames: Float[np.ndarray, "time lat lon channel"],
    times: np.ndarray | None = None,
) -> ChiSquared:
    """How the frames of another period fit a prior, by channel, longitude and scale."""
    coefficients = prior.modes.coefficients(jnp.asarray(np.nan_to_num(frames), jnp.float32))
    # Modes that frames hardly have are what the shrinkage makes of them.
    floor = LIVE * max(float(jnp.mean(s.variance)) for s in prior.spectra)
    live = tuple(s.variance > floor for s in prior.spectra)
    weights = tuple(
        jnp.where(a, 1.0 / jnp.sqrt(s.variance), 0.0)[..., None]
        for a, s in zip(live, prior.spectra, strict=True)
    )
    white = scaled(coefficients, weights)
    values = np.asarray(prior.modes.field(white), np.float64) ** 2
    channel, block = _degrees_of_freedom(prior.modes, live)
    power = sum(np.sum(np.abs(np.asarray(w)) ** 2, axis=(1, 2)) for w in white)
    return ChiSquared(
        float(values.sum() / (len(frames) * channel.sum())),
        values.sum(axis=(0, 1, 2)) / (len(frames) * channel),
        values.sum(axis=(0, 1, 3)) * values.shape[2] / (len(frames) * channel.sum()),
        power / (len(frames) * np.maximum(block, 1e-9)),
        _innovation(prior.spectra[0], np.asarray(white[0]), whole_steps(times, len(frames))),
    )


def _degrees_of_freedom(modes: Modes, live: tuple[Array, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of the modes that are `live`: real ones by channel, and those of each block."""
    lat, lon, channel = modes.shape
    vectors = np.abs(np.asarray(modes.vectors)) ** 2
    share = vectors @ np.asarray(live[0], np.float64)[..., None]
    if len(live) > 1:
        share = share + (1.0 - vectors.sum(axis=2, keepdims=True)) * np.asarray(live[1])[..., None]
    share = share[..., 0]
    if not modes.periodic:
        return share.reshape(-1, channel).sum(axis=0), share.sum(axis=1)
    count = np.full(len(share), 2.0)  # a wavenumber has a sine and a cosine
    count[0] = 1.0
    if lon % 2 == 0:
        count[-1] = 1.0
    by_channel = np.sum(count[:, None, None] * share.reshape(-1, lat, channel), axis=(0, 1))
    return by_channel, share.sum(axis=1)


def warn_of_misfit(found: ChiSquared, name: str) -> None:
    """Log the chi-squared of a fit, as a warning where it is far from one."""
    low, high = RELIABLE
    message = (
        "%s: chi-squared per value %.2f on the validation period, by channel %s, by longitude %s, "
        "by scale %s"
    )
    parts = (found.channel, found.longitude, found.block)
    spreads = (f"{values.min():.2f} to {values.max():.2f}" for values in parts)
    level = logging.INFO if low < found.all < high else logging.WARNING
    LOG.log(level, message, name, found.all, *spreads)


def _innovation(spectrum: Spectrum, white: np.ndarray, steps: np.ndarray) -> float:
    """Mean square of one-step prediction errors over what the process expects."""
    order = spectrum.lags.shape[-1]
    matrix = np.asarray(spectrum.correlation(order + 1)).astype(np.complex128)
    inverse = np.linalg.inv(matrix)
    # The last row of the inverse has the weights of the prediction error and its precision.
    weights, precision = inverse[..., -1, :], inverse[..., -1, -1].real
    runs = [i for i in range(len(steps) - order) if steps[i + order] - steps[i] == order]
    if not runs:
        return float("nan")
    errors = np.stack([np.sum(weights * white[..., i : i + order + 1], axis=-1) for i in runs])
    return float(np.mean(np.abs(errors) ** 2 / precision))


def whole_steps(times: np.ndarray | None, count: int) -> np.ndarray:
    """Times as whole numbers of the shortest interval."""
    if times is None:
        return np.arange(count)
    times = np.asarray(times)
    apart = np.diff(times)
    if not len(apart):
        return np.zeros(count, int)
    return np.rint((times - times[0]) / apart.min()).astype(int)


def _chosen_ridge(block: np.ndarray) -> float:
    """The share of the diagonal under which the last quarter of the frames is likeliest."""
    cut = 3 * len(block) // 4
    block = block[:, :: -(-block.shape[1] // DENSE)]
    block = block / np.sqrt(np.mean(np.abs(block[:cut]) ** 2, axis=0) + np.finfo(np.float64).tiny)
    # Scaled so, the shrunk covariances of all ridges have the same vectors.
    values, vectors = np.linalg.eigh(_second_moment(block[:cut]))
    other = np.mean(np.abs(block[cut:] @ vectors.conj()) ** 2, axis=0)
    shrunk = [np.maximum((1.0 - r) * values, 0.0) + r for r in RIDGES]
    return RIDGES[int(np.argmin([np.sum(np.log(s) + other / s) for s in shrunk]))]


def _second_moment(block: np.ndarray) -> np.ndarray:
    return block.T @ block.conj() / len(block)


def _shrunk(moment: np.ndarray, ridge: float) -> np.ndarray:
    return (1.0 - ridge) * moment + ridge * np.diag(moment.diagonal())


def _held_out(
    blocks: np.ndarray, quarter: np.ndarray, rank: int, ridges: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (block, time, mode) of each quarter in the EOFs of the others, and the rest."""
    leading = np.empty((*blocks.shape[:2], rank), blocks.dtype)
    rest = np.zeros_like(blocks)  # touched only where there is one
    for i, (block, ridge) in enumerate(zip(blocks, ridges, strict=True)):
        for own in (quarter == k for k in range(FOLDS)):
            vectors = _eofs(block[~own], rank, ridge)
            leading[i, own] = block[own] @ vectors.conj()
            if rank < blocks.shape[2]:
                rest[i, own] = block[own] - leading[i, own] @ vectors.T
    return leading, rest


def _descending(variances: np.ndarray) -> np.ndarray:
    """The nearest variances (block, mode) that descend with the rank."""
    from scipy.optimize import isotonic_regression  # slow to import

    return np.stack([isotonic_regression(v, increasing=False).x for v in variances])


def _eofs(block: np.ndarray, rank: int, ridge: float) -> np.ndarray:
    """Vectors (dim, mode) of the leading EOFs of a block (time, dim), by descending variance."""
    from scipy.linalg import eigh  # slow to import

    size = block.shape[1]
    if size <= DENSE:
        few = [size - rank, size - 1] if rank < size // 3 else None
        _, vectors = eigh(_shrunk(_second_moment(block), ridge), subset_by_index=few)
        return vectors[:, -rank:][:, ::-1]
    # Of the sample alone, whose vectors the diagonal hardly turns.
    values, left = np.linalg.eigh(block @ block.conj().T / len(block))
    kept = np.arange(len(values))[::-1][:rank]
    kept = kept[values[kept] > values[-1] * 1e-9]
    vectors = block.T @ left[:, kept].conj() / np.sqrt(len(block) * values[kept])
    if len(kept) < rank:
        raise InputError(f"{len(block)} frames have {len(kept)} EOFs: lower the rank from {rank}")
    return vectors


def single(values: np.ndarray) -> Array:
    """In single precision, real or complex as they are."""
    return jnp.asarray(values, jnp.complex64 if np.iscomplexobj(values) else jnp.float32)
