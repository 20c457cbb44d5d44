"""Common to all scores: the axes of arrays, the check of shapes, the weighted mean.

The *last* axis is kept (channels, levels or stations) and all axes before it are averaged over; an
ensemble has its members in front:

    forecast, truth   (..., channel)           e.g. (time, lat, lon, channel) or (time, station)
    members           (member, ..., channel)
    weights           the axes just before the last, e.g. (lat, lon): areas of cells, any scale
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.errors import InputError

AnyArray = Array | np.ndarray
Points = Float[AnyArray, "*points channel"]
Members = Float[AnyArray, "member *points channel"]
Weights = Float[AnyArray, "..."] | None
Score = Float[Array, " channel"]


def float32(array: AnyArray) -> Array:
    """The array in float32, the precision of all scores."""
    return jnp.asarray(array, dtype=jnp.float32)


def error_of(forecast: AnyArray, truth: AnyArray) -> Array:
    """x - y.

    Raises:
        InputError: forecast and truth of different shapes.
    """
    check_shapes(forecast.shape, truth.shape)
    return float32(forecast) - float32(truth)


def check_shapes(forecast: tuple[int, ...], truth: tuple[int, ...]) -> None:
    """Require equal shapes: nothing broadcasts, so that nothing is repeated by accident."""
    if forecast != truth:
        raise InputError(
            f"the forecast (or one member) has shape {forecast}, but the truth has {truth}: make "
            "them equal"
        )


def ensemble_mean(x: Array) -> Array:
    """Mean over the members, as the mean of small departures from the first."""
    return x[0] + jnp.mean(x - x[:1], axis=0)


def ensemble_variance(x: Array) -> Array:
    """Unbiased variance over the members."""
    departure = x - ensemble_mean(x)[None]
    return jnp.sum(jnp.square(departure), axis=0) / (x.shape[0] - 1)


def weighted_mean(values: Array, truth: AnyArray, weights: AnyArray | None) -> Array:
    """Weighted mean over all axes but the last, where the truth is finite."""
    present = jnp.isfinite(jnp.asarray(truth))
    weight = present.astype(jnp.float32)
    if weights is not None:
        space = values.shape[:-1][values.ndim - 1 - weights.ndim :]
        if weights.ndim == 0 or weights.shape != space:
            raise InputError(
                f"weights have shape {weights.shape}, but must have that of the axes before the "
                f"last of {values.shape}, for instance (lat, lon)"
            )
        if isinstance(weights, np.ndarray) and not (weights.min() >= 0 and weights.max() > 0):
            raise InputError("weights must be areas: not negative, and not all zero")
        area = float32(weights)[..., None]
        weight = weight * jnp.broadcast_to(area, values.shape)
    axes = tuple(range(values.ndim - 1))
    # A forecast that is missing where the truth is known makes the score NaN, not better.
    total = jnp.sum(jnp.where(present, values, 0.0) * weight, axis=axes)
    return total / jnp.sum(weight, axis=axes)
