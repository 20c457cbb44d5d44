"""Whether an ensemble means what it says: probabilities, and spread where the error is large."""

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
        crps: of the M members as a step function, without the factor of the fair score.
        reliability: how far the ensemble is from meaning its probabilities i/M; of a calibrated one
            it is what few members cost, which falls about as 1/M².
        resolution: how much better than the climate the ensemble would be if it were reliable.
        uncertainty: CRPS of the climate, the distribution of all truths.
    """

    crps: Score
    reliability: Score
    resolution: Score
    uncertainty: Score


class Reliability(NamedTuple):
    """How often an event came that was forecast with each probability.

    Attributes:
        probability: forecast, k/M for k = 0 ... M (probability,).
        frequency: with which the event came (probability, channel); NaN where never forecast.
        share: of the points at which that was the forecast, by area (probability, channel).
    """

    probability: Float[np.ndarray, " probability"]
    frequency: Float[Array, "probability channel"]
    share: Float[Array, "probability channel"]


def crps_decomposition(members: Members, truth: Points, weights: Weights = None) -> CrpsParts:
    """Reliability, resolution and uncertainty of the CRPS (Hersbach 2000).

    The members sorted, x₁ ≤ ... ≤ x_M, let αᵢ be the mean length of the gap from xᵢ to xᵢ₊₁ that
    lies below the truth and βᵢ that above it, gᵢ = αᵢ + βᵢ, oᵢ = βᵢ/gᵢ, pᵢ = i/M; outside of the
    ensemble o₀ and o_M are how often the truth lies below x₁ and below x_M. Then (eqs. 26, 36, 37)

        CRPS = Σᵢ αᵢ pᵢ² + βᵢ (1 - pᵢ)² = Σᵢ gᵢ (oᵢ - pᵢ)² + Σᵢ gᵢ oᵢ (1 - oᵢ) ,

    the reliability and the potential CRPS; the latter is uncertainty less resolution.
    Hersbach, Wea. Forecasting 15, 559-570. Pooled over places of different climates, uncertainty
    and resolution hold the differences of these climates too (Hamill and Juras 2006): take the
    climatology of each place off members and truth first.

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) of the axes before the last.
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
    """Reliability diagram of the event that the truth lies above a threshold (Wilks 2019, 9.4.4).

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        threshold: of the event at each point (..., channel).
        weights: areas (lat, lon) of the axes before the last.
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
    """Spread and error of points of like spread (Leutbecher and Palmer 2008, fig. 3).

    The points are sorted by their ensemble variance and cut into bins of equal area; in each the
    root mean variance, times (M + 1)/M, is held against the root mean square error of the ensemble
    mean. A calibrated ensemble lies on the diagonal, one whose spread does not vary with its error
    on a level line. J. Comput. Phys. 227, 3515-3539. The variance of few members is uncertain, and
    the points of the least and the largest are partly those where it is so by chance: that alone
    flattens the ends of the line.

    Args:
        members: x (member, ..., channel), two members at least.
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) of the axes before the last.
        bins: number of bins; fewer points than bins leave some NaN.

    Returns:
        Spread and RMSE, each (bins, channel), units of the truth, the smallest spread first.

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
    found = [
        _bin_means(v, s, w, bins) for v, s, w in zip(variance, square, flat(area), strict=True)
    ]
    spread, error = np.sqrt(np.array(found)).transpose(1, 2, 0)
    return spread, error


def _bin_means(
    variance: np.ndarray, square: np.ndarray, area: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of variance and squared error of one channel (bins,) over bins of equal area."""
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
    """Zero where there is nothing to divide by; NaN stays."""
    nothing = denominator == 0.0
    return jnp.where(nothing, 0.0, numerator / jnp.where(nothing, 1.0, denominator))


def _climate_crps(truth: Array, weights: Weights) -> Array:
    """∫ F (1 - F) of the pooled truths F of each channel, by area."""
    y = np.asarray(truth, np.float64)
    area = np.ones(y.shape)
    if weights is not None:
        area = np.broadcast_to(np.asarray(weights, np.float64)[..., None], y.shape)
    found = []
    for values, weight in zip(*(a.reshape(-1, y.shape[-1]).T for a in (y, area)), strict=True):
        present = np.isfinite(values)
        order = np.argsort(values[present])
        values, weight = values[present][order], weight[present][order]
        share = np.cumsum(weight)[:-1] / weight.sum() if values.size else np.empty(0)
        found.append(np.sum(share * (1.0 - share) * np.diff(values)) if values.size else np.nan)
    return jnp.asarray(found, dtype=jnp.float32)
