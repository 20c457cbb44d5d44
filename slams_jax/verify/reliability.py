"""Reliability: forecast probabilities against frequencies, and spread against error."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.errors import InputError
from slams_jax.verify.points import (
    Members,
    Points,
    Score,
    Weights,
    check_shapes,
    float32,
    weighted_mean,
)


class CrpsParts(NamedTuple):
    """CRPS = reliability - resolution + uncertainty, each (channel,), units of the truth.

    Attributes:
        crps: of the M members as a step function, without the correction of the fair score.
        reliability: deviation of the frequencies from the probabilities i/M; for a calibrated
            ensemble it is the cost of few members, about proportional to 1/M².
        resolution: improvement over the climatology if the ensemble were reliable.
        uncertainty: CRPS of the climatology, the distribution of all truths.
    """

    crps: Score
    reliability: Score
    resolution: Score
    uncertainty: Score


class Reliability(NamedTuple):
    """Observed frequency of an event for each forecast probability.

    Attributes:
        probability: forecast, k/M for k = 0 ... M (probability,).
        frequency: of the event (probability, channel); NaN if never forecast.
        share: of the area with that forecast (probability, channel).
    """

    probability: Float[np.ndarray, " probability"]
    frequency: Float[Array, "probability channel"]
    share: Float[Array, "probability channel"]


def crps_decomposition(members: Members, truth: Points, weights: Weights = None) -> CrpsParts:
    """Reliability, resolution and uncertainty of the CRPS (Hersbach 2000).

    With the members sorted, x₁ ≤ ... ≤ x_M, let αᵢ be the mean length of the part of the gap from
    xᵢ to xᵢ₊₁ below the truth, βᵢ that of the part above, gᵢ = αᵢ + βᵢ, oᵢ = βᵢ/gᵢ, pᵢ = i/M;
    outside the ensemble, o₀ and o_M are the frequencies of truths below x₁ and below x_M. Then
    (eqs. 26, 36, 37)

        CRPS = Σᵢ αᵢ pᵢ² + βᵢ (1 - pᵢ)² = Σᵢ gᵢ (oᵢ - pᵢ)² + Σᵢ gᵢ oᵢ (1 - oᵢ) ,

    the reliability and the potential CRPS; the latter is uncertainty minus resolution.
    Hersbach, Wea. Forecasting 15, 559-570. Pooled over places with different climates, uncertainty
    and resolution include the differences between the climates (Hamill and Juras 2006): subtract
    the climatology of each place from members and truth first.

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) for the axes before the last.
    """
    check_shapes(members.shape[1:], truth.shape)
    x, y = jnp.sort(float32(members), axis=0), float32(truth)
    size = x.shape[0]
    mean = lambda values: weighted_mean(values, y, weights)
    below, above = mean((y < x[0]).astype(x.dtype)), mean((y < x[-1]).astype(x.dtype))
    low, high = mean(jnp.maximum(x[0] - y, 0.0)), mean(jnp.maximum(y - x[-1], 0.0))
    crps, reliability = low + high, _ratio(low * below**2, below)
    reliability = reliability + _ratio(high * (1.0 - above) ** 2, 1.0 - above)
    for i in range(1, size):
        p, gap = i / size, x[i] - x[i - 1]
        inside = jnp.clip(y - x[i - 1], 0.0, gap)
        alpha, beta = mean(inside), mean(gap - inside)
        crps = crps + alpha * p**2 + beta * (1.0 - p) ** 2
        width = alpha + beta
        reliability = reliability + _ratio((beta - p * width) ** 2, width)
    uncertainty = _climate_crps(y, weights)
    return CrpsParts(crps, reliability, uncertainty - (crps - reliability), uncertainty)


def reliability_curve(
    members: Members, truth: Points, threshold: Points, weights: Weights = None
) -> Reliability:
    """Reliability curve of the event that the truth exceeds a threshold (Wilks 2019, 9.4.4).

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        threshold: of the event at each point (..., channel).
        weights: areas (lat, lon) for the axes before the last.
    """
    check_shapes(members.shape[1:], truth.shape)
    check_shapes(threshold.shape, truth.shape)
    y, level = float32(truth), float32(threshold)
    number = jnp.sum(float32(members) > level[None], axis=0, dtype=jnp.int32)
    event = (y > level).astype(jnp.float32)
    size = members.shape[0]
    share, frequency = [], []
    for k in range(size + 1):
        forecast = (number == k).astype(jnp.float32)
        share.append(weighted_mean(forecast, y, weights))
        frequency.append(weighted_mean(forecast * event, y, weights) / share[-1])
    return Reliability(np.arange(size + 1) / size, jnp.stack(frequency), jnp.stack(share))


def binned_spread_skill(
    members: Members, truth: Points, weights: Weights = None, *, bins: int = 10
) -> tuple[Float[np.ndarray, "bins channel"], Float[np.ndarray, "bins channel"]]:
    """Spread and error in bins of spread (Leutbecher and Palmer 2008, fig. 3).

    Points are sorted by ensemble variance and divided into bins of equal area; in each bin the root
    of the mean variance, times (M + 1)/M, is compared with the root-mean-square error of the
    ensemble mean. A calibrated ensemble is on the diagonal; one whose spread is unrelated to its
    error, on a horizontal line. J. Comput. Phys. 227, 3515-3539. The variance of few members is
    uncertain, so that the smallest and largest are partly due to chance, which flattens the ends of
    the line.

    Args:
        members: x (member, ..., channel), at least two members.
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) for the axes before the last.
        bins: number of bins; with fewer points, some are NaN.

    Returns:
        Spread and RMSE, each (bins, channel), units of the truth, in ascending order of spread.

    Raises:
        InputError: fewer than two members.
    """
    size = members.shape[0]
    if size < 2:
        raise InputError(f"spread needs at least 2 members, got {size}")
    check_shapes(members.shape[1:], truth.shape)
    x, y = np.asarray(members, np.float64), np.asarray(truth, np.float64)
    area = np.ones(y.shape)
    if weights is not None:
        area = np.broadcast_to(np.asarray(weights, np.float64)[..., None], y.shape)
    flat = lambda a: a.reshape(-1, y.shape[-1]).T
    variance = flat(x.var(axis=0, ddof=1) * (size + 1) / size)
    square = flat((x.mean(axis=0) - y) ** 2)
    channels = zip(variance, square, flat(area), strict=True)
    means = [_bin_means(*channel, bins) for channel in channels]
    spread, error = np.sqrt(np.array(means)).transpose(1, 2, 0)
    return spread, error


def _bin_means(
    variance: np.ndarray, square: np.ndarray, area: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean variance and mean square error of one channel in bins of equal area, each (bins,)."""
    present = np.isfinite(square)
    order = np.argsort(variance[present], kind="stable")
    variance, square, area = (a[present][order] for a in (variance, square, area))
    middle = np.cumsum(area) - area / 2
    index = (middle / max(area.sum(), 1e-30) * bins).astype(int)
    total = np.bincount(index, area, bins)
    total[total == 0.0] = np.nan
    return (
        np.bincount(index, area * variance, bins) / total,
        np.bincount(index, area * square, bins) / total,
    )


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The quotient, zero where the denominator is zero; NaN stays."""
    zero = denominator == 0.0
    return jnp.where(zero, 0.0, numerator / jnp.where(zero, 1.0, denominator))


def _climate_crps(truth: Array, weights: Weights) -> Array:
    """CRPS of the climatology, ∫ F (1 - F), with F the distribution of all truths of a channel."""
    y = np.asarray(truth, np.float64)
    area = np.ones(y.shape)
    if weights is not None:
        area = np.broadcast_to(np.asarray(weights, np.float64)[..., None], y.shape)
    scores = []
    for values, weight in zip(*(a.reshape(-1, y.shape[-1]).T for a in (y, area)), strict=True):
        present = np.isfinite(values)
        order = np.argsort(values[present])
        values, weight = values[present][order], weight[present][order]
        share = np.cumsum(weight)[:-1] / weight.sum() if values.size else np.empty(0)
        scores.append(np.sum(share * (1.0 - share) * np.diff(values)) if values.size else np.nan)
    return jnp.asarray(scores, dtype=jnp.float32)
