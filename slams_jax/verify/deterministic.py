"""Deterministic scores: one forecast at each point; and the climatological scale of errors."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from slams_jax.verify.points import Points, Score, Weights, error_of, float32, weighted_mean


def bias(forecast: Points, truth: Points, weights: Weights = None) -> Score:
    """Mean error ⟨x - y⟩, positive if the forecast x is above the truth y.

    Args:
        forecast: x (..., channel).
        truth: y, the same shape; NaN where missing.
        weights: areas (lat, lon) for the axes before the last; None weights all equally.

    Returns:
        (channel,), units of the truth.

    Raises:
        InputError: forecast and truth of different shapes; weights that do not match the points,
            are negative or all zero.
    """
    return weighted_mean(error_of(forecast, truth), truth, weights)


def mae(forecast: Points, truth: Points, weights: Weights = None) -> Score:
    """Mean absolute error ⟨|x - y|⟩; arguments, units and errors as in `bias`."""
    return weighted_mean(jnp.abs(error_of(forecast, truth)), truth, weights)


def rmse(forecast: Points, truth: Points, weights: Weights = None) -> Score:
    """Root mean square error √⟨(x - y)²⟩; arguments, units and errors as in `bias`."""
    return jnp.sqrt(weighted_mean(jnp.square(error_of(forecast, truth)), truth, weights))


def count(truth: Points) -> Int[Array, " channel"]:
    """Number of points at which the truth is known, (channel,)."""
    finite = jnp.isfinite(jnp.asarray(truth))
    return jnp.sum(finite, axis=tuple(range(finite.ndim - 1)), dtype=jnp.int32)


def climatological_std(
    truth: Points, climatology: Points | None = None, weights: Weights = None
) -> Score:
    """Standard deviation of the truth about its climatology, for normalising scores.

        σ = √⟨(y - c)²⟩ ,  c: `climatology`, or the mean over the first axis (time) at each point

    The sample mean uses up one degree of freedom: without `climatology`, the square is multiplied
    by n/(n - 1), where n is the number of finite values at the point.

    Args:
        truth: y (time, ..., channel); NaN where missing.
        climatology: c, the same shape as `truth`.
        weights: areas (lat, lon) for the axes before the last.

    Returns:
        (channel,), units of the truth; scores divided by it are in standard deviations.
    """
    y = float32(truth)
    if climatology is not None:
        return rmse(climatology, y, weights)
    finite = jnp.isfinite(y)
    number = jnp.sum(finite, axis=0, keepdims=True, dtype=jnp.float32)
    # Averages are of departures from the first finite value: no cancellation, exact for constants.
    first = jnp.take_along_axis(y, jnp.argmax(finite, axis=0, keepdims=True), axis=0)
    departure = jnp.where(finite, y - first, 0.0)
    mean = jnp.sum(departure, axis=0, keepdims=True) / jnp.maximum(number, 1.0)
    square = jnp.square(departure - mean) * number / jnp.maximum(number - 1.0, 1.0)
    return jnp.sqrt(weighted_mean(square, jnp.where(number > 1.0, y, jnp.nan), weights))
