"""Statistics with fewer EOFs than they were fitted with: the others share those of their block."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from slams_jax.gaussian.modes import Modes
from slams_jax.gaussian.prior import GaussianPrior, single
from slams_jax.gaussian.regression import Regression
from slams_jax.gaussian.spectrum import Spectrum


def truncate_prior(prior: GaussianPrior, rank: int) -> GaussianPrior:
    """The prior with at most `rank` EOFs in each block.

    The others share their mean variance and their mean correlation in time, so that the variance
    of each block stays.
    """
    if prior.modes.vectors.shape[2] <= rank:
        return prior
    number, first = _number(prior.modes, rank), prior.spectra[0]
    variance = _beyond([s.variance for s in prior.spectra], rank)
    lags = _beyond([s.lags for s in prior.spectra], rank, axis=1)
    spectra = (
        Spectrum(first.variance[:, :rank], first.lags[:, :rank]),
        Spectrum(
            single(_mean(variance, number)),
            single(_mean(lags, (number * variance)[..., None], axis=1)),
        ),
    )
    return GaussianPrior(_leading(prior.modes, rank), spectra)


def truncate_regression(regression: Regression, prior: GaussianPrior, rank: int) -> Regression:
    """The regression on the state of `truncate_prior(prior, rank)`.

    The EOFs left out share one slope; what their own slopes told beyond it becomes error.

    Args:
        regression: y = M x + b + e.
        prior: of x, not truncated.
        rank: largest number of EOFs in each block.
    """
    if prior.modes.vectors.shape[2] <= rank:
        return regression
    number = _number(prior.modes, rank)
    power = _beyond([s.variance for s in prior.spectra], rank)
    slopes = _beyond(regression.slope, rank)
    slope = _mean(slopes, number * power)
    variance = _beyond(regression.variance, rank) + np.abs(slopes - slope) ** 2 * power
    lags = _beyond(regression.lags, rank, axis=1)
    weight = (number * variance.mean(axis=0))[..., None]
    return Regression(
        _leading(prior.modes, rank),
        (regression.slope[0][..., :rank], single(slope)),
        (regression.variance[0][..., :rank], single(_mean(variance, number))),
        (regression.lags[0][:, :rank], single(_mean(lags, weight, axis=1))),
        regression.offset,
    )


def _leading(modes: Modes, rank: int) -> Modes:
    return Modes(modes.vectors[..., :rank], modes.shape, modes.periodic)


def _beyond(parts: Sequence[Array], rank: int, axis: int = -1) -> np.ndarray:
    """The values of all modes but the leading ones, those of a complement last."""
    return np.split(np.concatenate(parts, axis), [rank], axis)[1]


def _number(modes: Modes, rank: int) -> Float[np.ndarray, " mode"]:
    """How many dimensions each of these modes stands for."""
    _, size, count = modes.vectors.shape
    alone = np.ones(count - rank)
    return alone if modes.complete else np.append(alone, size - count)


def _mean(values: np.ndarray, weight: np.ndarray, axis: int = -1) -> np.ndarray:
    """The weighted mean over modes, which stay an axis of one."""
    weight = np.broadcast_to(weight, values.shape)
    return np.sum(values * weight, axis, keepdims=True) / np.sum(weight, axis, keepdims=True)
