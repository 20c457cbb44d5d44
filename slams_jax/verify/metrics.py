"""Scores of analyses and ensembles against a truth: pure functions of arrays.

One convention serves fields and stations alike. The *last* axis is kept (a channel, a level or a
station) and every axis before it is averaged over; an ensemble has its members in front:

    forecast, truth   (..., channel)           e.g. (time, lat, lon, channel) or (time, station)
    members           (member, ..., channel)
    weights           the axes just before the last, e.g. (lat, lon): areas of cells, any scale

A score is the weighted mean  ⟨s⟩ = Σ wᵢ sᵢ / Σ wᵢ  over the points i where the truth is finite:
missing truth (NaN) is left out, a missing *forecast* at such a point makes the score NaN, and a
channel with no truth at all scores NaN. Scores carry the units of the truth; divided by
`climatological_std` they are in standard deviations of the climate.

Sums are of errors, never of the values themselves, so that float32 is enough for any length: 250 K
is not squared and subtracted again. Averages over time and area come before the root (Fortin et
al. 2014), not after.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from slams_jax.errors import InputError

AnyArray = Array | np.ndarray
Points = Float[AnyArray, "*points channel"]
Members = Float[AnyArray, "member *points channel"]
Weights = Float[AnyArray, "..."] | None
Score = Float[Array, " channel"]


def bias(forecast: Points, truth: Points, weights: Weights = None) -> Score:
    """Mean error ⟨x - y⟩, positive where the forecast x lies above the truth y.

    Args:
        forecast: x (..., channel).
        truth: y, the same shape; NaN where missing.
        weights: areas (lat, lon) of the axes before the last; equal when None.

    Returns:
        (channel,), units of the truth.

    Raises:
        InputError: forecast and truth of different shapes; weights of another shape than the
            points, negative or all zero.
    """
    return _mean(_error(forecast, truth), truth, weights)


def mae(forecast: Points, truth: Points, weights: Weights = None) -> Score:
    """Mean absolute error ⟨|x - y|⟩; arguments, units and errors as in `bias`."""
    return _mean(jnp.abs(_error(forecast, truth)), truth, weights)


def rmse(forecast: Points, truth: Points, weights: Weights = None) -> Score:
    """Root mean square error √⟨(x - y)²⟩; arguments, units and errors as in `bias`."""
    return jnp.sqrt(_mean(jnp.square(_error(forecast, truth)), truth, weights))


def count(truth: Points) -> Int[Array, " channel"]:
    """Number of points where the truth is not missing, (channel,)."""
    finite = jnp.isfinite(jnp.asarray(truth))
    return jnp.sum(finite, axis=tuple(range(finite.ndim - 1)), dtype=jnp.int32)


def climatological_std(
    truth: Points, climatology: Points | None = None, weights: Weights = None
) -> Score:
    """Standard deviation of the truth about its climatology, the scale of a normalised score.

        σ = √⟨(y - c)²⟩ ,  c: `climatology`, else the mean over the first axis (time) at each point

    The sample mean takes one degree of freedom, so that without a climatology of its own the
    square is multiplied by n/(n - 1), n the number of finite values at the point.

    Args:
        truth: y (time, ..., channel); NaN where missing.
        climatology: c, the same shape as `truth`.
        weights: areas (lat, lon) of the axes before the last.

    Returns:
        (channel,), units of the truth; a score over it is in standard deviations.
    """
    y = _float32(truth)
    if climatology is not None:
        return rmse(climatology, y, weights)
    finite = jnp.isfinite(y)
    number = jnp.sum(finite, axis=0, keepdims=True, dtype=jnp.float32)
    # The first finite value is taken off before averaging: no cancellation, exact for constants.
    first = jnp.take_along_axis(y, jnp.argmax(finite, axis=0, keepdims=True), axis=0)
    departure = jnp.where(finite, y - first, 0.0)
    mean = jnp.sum(departure, axis=0, keepdims=True) / jnp.maximum(number, 1.0)
    square = jnp.square(departure - mean) * number / jnp.maximum(number - 1.0, 1.0)
    return jnp.sqrt(_mean(square, jnp.where(number > 1.0, y, jnp.nan), weights))


def crps(members: Members, truth: Points, weights: Weights = None) -> Score:
    """Fair continuous ranked probability score of an ensemble, in O(M log M).

    With the M members sorted, x₁ ≤ ... ≤ x_M,

        CRPS = ⟨ 1/M Σᵢ |xᵢ - y|  -  1/(M(M-1)) Σᵢ (2i - M - 1) xᵢ ⟩

    whose second term is half the mean difference of two *distinct* members: the expectation does
    not depend on M (Ferro 2014, Q. J. R. Meteorol. Soc. 140, 1917-1923). A single member
    has no second term and scores its mean absolute error.

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) of the axes before the last.

    Returns:
        (channel,), units of the truth.
    """
    _check_shapes(members.shape[1:], truth.shape)
    y = _float32(truth)
    error = _float32(members) - y[None]
    score = jnp.mean(jnp.abs(error), axis=0)
    size = error.shape[0]
    if size > 1:
        # The coefficients sum to zero, so that errors may stand for members: smaller numbers.
        rank = np.arange(1, size + 1, dtype=np.float32)
        coefficient = (2.0 * rank - size - 1.0) / (size * (size - 1.0))
        score = score - jnp.tensordot(coefficient, jnp.sort(error, axis=0), axes=1)
    return _mean(score, y, weights)


def spread(members: Members, truth: Points | None = None, weights: Weights = None) -> Score:
    """Spread √⟨s²⟩, s² the unbiased variance of the ensemble (Fortin et al. 2014).

    Args:
        members: x (member, ..., channel), two members at least.
        truth: y (..., channel); where it is missing the spread is left out too, so that spread
            and error are averaged over the same points.
        weights: areas (lat, lon) of the axes before the last.

    Returns:
        (channel,), units of the members.

    Raises:
        InputError: fewer than two members.
    """
    if members.shape[0] < 2:
        raise InputError(f"spread needs at least 2 members, got {members.shape[0]}")
    x = _float32(members)
    if truth is not None:
        _check_shapes(x.shape[1:], truth.shape)
    where = jnp.zeros_like(x[0]) if truth is None else truth
    return jnp.sqrt(_mean(_variance(x), where, weights))


def spread_skill(members: Members, truth: Points, weights: Weights = None) -> Score:
    """Ratio of spread to the error of the ensemble mean, one for a calibrated ensemble.

        √((M + 1)/M) √⟨s²⟩ / √⟨(x̄ - y)²⟩

    The factor accounts for the sampling error of a mean of M members: with truth and members
    drawn from one distribution of variance σ², the mean square error of x̄ is (1 + 1/M) σ²
    (Fortin et al. 2014, J. Hydrometeorol. 15, 1708-1713). Below one: overconfident.

    Args:
        members: x (member, ..., channel), two members at least.
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) of the axes before the last.

    Returns:
        (channel,), dimensionless.

    Raises:
        InputError: fewer than two members.
    """
    size = members.shape[0]
    error = rmse(_ensemble_mean(_float32(members)), truth, weights)
    return float(np.sqrt((size + 1) / size)) * spread(members, truth, weights) / error


def rank_histogram(
    key: Key[Array, ""],
    members: Members,
    truth: Points,
    *,
    error_std: float | Float[AnyArray, "..."] | None = None,
) -> Int[Array, "channel bins"]:
    """How often the truth takes each rank among the members (Hamill 2001).

    The rank is the number of members below the truth; a truth that equals n members takes one of
    the n + 1 ranks between them at random, with equal probability. Against *observations*, noise
    of their error belongs on the members (Hamill 2001, Mon. Wea. Rev. 129, 550-560): without it
    even a perfect ensemble gives a U.

    Args:
        key: for ties and for the observation error.
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing, and then not counted.
        error_std: standard deviation of the error of y, a number or an array that broadcasts to
            `truth`, in its units; None for a truth without error.

    Returns:
        (channel, M + 1) counts, first the bin of truths below all members.

    Raises:
        InputError: a member that is not finite where the truth is, or a negative `error_std`.
    """
    _check_shapes(members.shape[1:], truth.shape)
    key_tie, key_error = jax.random.split(key)
    x, y = _float32(members), _float32(truth)
    present = jnp.isfinite(y)
    if not bool(jnp.all(jnp.isfinite(x) | ~present[None])):
        raise InputError("members must be finite where the truth is, to have a rank")
    if error_std is not None:
        deviation = np.asarray(error_std, dtype=np.float32)
        if np.any(deviation < 0):
            raise InputError(f"error_std must not be negative, got {deviation.min():g}")
        noise = jax.random.normal(key_error, x.shape, jnp.float32)
        x = x + noise * jnp.broadcast_to(deviation, y.shape)[None]
    below = jnp.sum(x < y[None], axis=0, dtype=jnp.int32)
    ties = jnp.sum(x == y[None], axis=0, dtype=jnp.int32)
    rank = below + jax.random.randint(key_tie, y.shape, 0, ties + 1, jnp.int32)
    bins = x.shape[0] + 1
    flat = jnp.where(present, rank, bins).reshape(-1, y.shape[-1])  # the missing fall off the end
    return jax.vmap(lambda r: jnp.bincount(r, length=bins + 1)[:bins], in_axes=1)(flat)


def flatness(counts: Int[AnyArray, "... bins"]) -> Float[Array, "..."]:
    """Chi-square statistic of a rank histogram against a uniform one.

        χ² = Σⱼ (nⱼ - n/k)² / (n/k) ,  n = Σⱼ nⱼ over k bins

    For a calibrated ensemble and *independent* points it follows the chi-square distribution of
    k - 1 degrees of freedom. Neighbouring grid points and days are not independent: compare its
    size between systems, or thin the points first (Jolliffe and Primo 2008, Mon. Wea. Rev. 136).

    Args:
        counts: n, the bins last.

    Returns:
        The shape of `counts` without its last axis; NaN where nothing was counted.
    """
    number = _float32(counts)
    expected = jnp.mean(number, axis=-1, keepdims=True)
    return jnp.sum(jnp.square(number - expected) / expected, axis=-1)


def wasserstein(
    sample: Float[AnyArray, "*samples channel"], reference: Float[AnyArray, "*references channel"]
) -> Score:
    """1-D Wasserstein distance W1 between the pooled values of each channel.

        W1 = ∫₀¹ |F⁻¹(q) - G⁻¹(q)| dq

    For samples of one size that is the mean distance of the sorted values, the metric of SLAMS
    (Qu et al. 2024); for others the two staircases of quantiles are subtracted step by step. The
    places of the values do not enter: a draw from the climate scores well. Missing values (NaN)
    are left out of either sample. Computed on the host in float64: the sizes depend on the data.

    Args:
        sample: (..., channel), any number of values, e.g. members in front.
        reference: (..., channel).

    Returns:
        (channel,), units of the values; NaN for a channel with no value on a side.
    """
    columns = [np.asarray(a, np.float64).reshape(-1, a.shape[-1]).T for a in (sample, reference)]
    distances = [
        _quantile_distance(a[np.isfinite(a)], b[np.isfinite(b)])
        for a, b in zip(*columns, strict=True)
    ]
    return jnp.asarray(distances, dtype=jnp.float32)


def _quantile_distance(first: np.ndarray, second: np.ndarray) -> float:
    """W1 of two samples (n,) and (m,) through the coupling of their quantiles."""
    n, m = first.size, second.size
    if n == 0 or m == 0:
        return np.nan
    first, second = np.sort(first), np.sort(second)
    if n == m:
        return float(np.mean(np.abs(first - second)))
    # Probabilities in units of 1/(n m), whole numbers, so that no step is lost to rounding.
    steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    gap = np.abs(first[steps[:-1] // m] - second[steps[:-1] // n])
    return float(np.sum(gap * np.diff(steps)) / (n * m))


def _float32(array: AnyArray) -> Array:
    return jnp.asarray(array, dtype=jnp.float32)


def _error(forecast: AnyArray, truth: AnyArray) -> Array:
    _check_shapes(forecast.shape, truth.shape)
    return _float32(forecast) - _float32(truth)


def _check_shapes(forecast: tuple[int, ...], truth: tuple[int, ...]) -> None:
    """Nothing broadcasts: one climatology for all times must be repeated by who means it."""
    if forecast != truth:
        raise InputError(
            f"the forecast (or one member) has shape {forecast}, the truth {truth}: "
            "they must be equal"
        )


def _ensemble_mean(x: Array) -> Array:
    """Mean over the members, as a mean of small departures from the first one."""
    return x[0] + jnp.mean(x - x[:1], axis=0)


def _variance(x: Array) -> Array:
    """Unbiased variance over the members."""
    departure = x - _ensemble_mean(x)[None]
    return jnp.sum(jnp.square(departure), axis=0) / (x.shape[0] - 1)


def _mean(values: Array, truth: AnyArray, weights: AnyArray | None) -> Array:
    """Weighted mean over all axes but the last, where the truth is finite."""
    present = jnp.isfinite(jnp.asarray(truth))
    weight = present.astype(jnp.float32)
    if weights is not None:
        space = values.shape[:-1][values.ndim - 1 - weights.ndim :]
        if weights.ndim == 0 or weights.shape != space:
            raise InputError(
                f"weights have shape {weights.shape}, but the points before the last axis of "
                f"{values.shape} need that of the trailing ones, e.g. (lat, lon)"
            )
        if isinstance(weights, np.ndarray) and not (weights.min() >= 0 and weights.max() > 0):
            raise InputError("weights must be areas: none negative, not all zero")
        area = _float32(weights)[..., None]
        weight = weight * jnp.broadcast_to(area, values.shape)
    axes = tuple(range(values.ndim - 1))
    # A forecast missing where the truth is not stays in the sum: the score becomes NaN, not better.
    total = jnp.sum(jnp.where(present, values, 0.0) * weight, axis=axes)
    return total / jnp.sum(weight, axis=axes)
