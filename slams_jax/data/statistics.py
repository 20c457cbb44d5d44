"""Climatology and standardisation: z = (x - c(t)) / s.

The climatology of a channel is a constant plus yearly harmonics, at every grid point or one for
the whole grid,

    c(t) = a_0 + sum_k [ a_{2k-1} cos(2 pi k t / year) + a_{2k} sin(2 pi k t / year) ],

fitted by least squares to what is not missing; s is the area-weighted root mean square of x - c
over the same data, one number a channel. Both are to be fitted to the training period only.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slams_jax.errors import InputError
from slams_jax.readers.periods import check_times

YEAR = 365.2425  # days, mean Gregorian year
_CHUNK = 2**22  # values read at once

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)


class Statistics(NamedTuple):
    """Climatology and spread of the channels of a field, in its physical units."""

    coefficients: np.ndarray | jax.Array  # (1 + 2 harmonics, lat | 1, lon | 1, channel), float32
    std: np.ndarray | jax.Array  # (channel,), float32


def yearly_basis(times: np.ndarray, harmonics: int) -> Float[np.ndarray, "*batch term"]:
    """1, cos, sin, cos 2, ... of the phase of the year at `times` (datetime64, any shape)."""
    days = (times.astype("datetime64[s]") - np.datetime64("1970-01-01", "s")).astype(np.float64)
    phase = 2.0 * np.pi * (days / 86400.0 / YEAR)
    terms = [np.ones_like(phase)]
    for k in range(1, harmonics + 1):
        terms += [np.cos(k * phase), np.sin(k * phase)]
    return np.stack(terms, axis=-1).astype(np.float32)


class _Sums(NamedTuple):
    """Sums over time that hold all that least squares needs; float64, in deviations from shift."""

    gram: np.ndarray  # (point, channel, term, term): basis times basis where there are data
    moment: np.ndarray  # (point, channel, term): basis times value
    square: np.ndarray  # (point, channel): value squared
    shift: np.ndarray  # (channel,)


def fit_statistics(
    array: np.ndarray,
    times: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    harmonics: int = 0,
    per_point: bool = True,
) -> Statistics:
    """Fit climatology and spread to `array`, read once, in blocks of times.

    Args:
        array: (time, lat, lon, channel), NaN where missing; may be memory-mapped.
        times: datetime64 (time,), ascending.
        weights: relative area of the grid points (lat, lon); None takes them as equal.
        harmonics: how many waves of the year the climatology follows; 0 is a constant.
        per_point: a climatology for every grid point, else one for each channel. A point with fewer
            than two data a coefficient, or whose data do not cover the year, takes the channel's.

    Returns:
        Statistics of the channels.

    Raises:
        InputError: shapes that do not fit, a channel without data or one that never varies.
    """
    times = check_times(times)
    if array.ndim != 4 or array.shape[0] != times.size:
        raise InputError(
            f"statistics need (time, lat, lon, channel) with {times.size} times, got {array.shape}"
        )
    if harmonics < 0:
        raise InputError(f"harmonics must be at least 0, got {harmonics}")
    _, lat, lon, channels = array.shape
    area = np.ones((lat, lon)) if weights is None else np.asarray(weights, dtype=np.float64)
    if area.shape != (lat, lon):
        raise InputError(f"weights have shape {area.shape}, the grid ({lat}, {lon})")
    sums = _accumulate(array, yearly_basis(times, harmonics))
    area = area.reshape(-1)
    counts = sums.gram[:, :, 0, 0]  # (point, channel)
    if (empty := np.flatnonzero(counts.sum(axis=0) == 0)).size:
        raise InputError(f"channel {empty[0]} has no data in the training period: leave it out")
    pooled_gram = np.einsum("p,pcij->cij", area, sums.gram)
    pooled_moment = np.einsum("p,pci->ci", area, sums.moment)
    # (channel, term); the shortest solution where the data do not determine one
    pooled = np.einsum("cij,cj->ci", np.linalg.pinv(pooled_gram, 1e-9), pooled_moment)
    fitted = np.broadcast_to(pooled, sums.moment.shape)
    if per_point:
        eigenvalues = np.linalg.eigvalsh(sums.gram)
        enough = (counts >= 2 * fitted.shape[-1]) & (
            eigenvalues[..., 0] > 1e-3 * eigenvalues[..., -1]
        )
        gram = np.where(enough[..., None, None], sums.gram, np.eye(fitted.shape[-1]))
        own = np.linalg.solve(gram, sums.moment[..., None])[..., 0]
        fitted = np.where(enough[..., None], own, fitted)
    residual = (
        sums.square
        - 2.0 * np.einsum("pci,pci->pc", fitted, sums.moment)
        + np.einsum("pci,pcij,pcj->pc", fitted, sums.gram, fitted)
    )
    variance = (area @ residual) / (area @ counts)
    std = np.sqrt(np.maximum(variance, 0.0))
    size = np.abs(sums.shift) + np.sqrt((area @ sums.square) / (area @ counts))
    if (constant := np.flatnonzero(std <= 1e-6 * size)).size:
        raise InputError(
            f"channel {constant[0]} never varies in the training period (near "
            f"{sums.shift[constant[0]]:g}): leave it out"
        )
    fitted = fitted + sums.shift[:, None] * (np.arange(fitted.shape[-1]) == 0)
    shape = (lat, lon) if per_point else (1, 1)
    points = fitted if per_point else fitted[:1]
    coefficients = np.moveaxis(points.reshape(*shape, channels, -1), -1, 0)
    return Statistics(coefficients.astype(np.float32), std.astype(np.float32))


def _accumulate(array: np.ndarray, basis: np.ndarray) -> _Sums:
    """One pass over `array` (time, lat, lon, channel), in blocks of times."""
    _, lat, lon, channels = array.shape
    terms = basis.shape[1]
    gram = np.zeros((terms * terms, lat * lon * channels))
    moment = np.zeros((terms, lat * lon * channels))
    square = np.zeros(lat * lon * channels)
    shift = None
    rows = max(1, _CHUNK // (lat * lon * channels))
    for start in range(0, array.shape[0], rows):
        block = np.asarray(array[start : start + rows], dtype=np.float64)
        valid = np.isfinite(block)
        if shift is None:
            # Near the mean, so that squares lose no digits; a channel that starts late keeps 0.
            total = np.where(valid, block, 0.0).sum(axis=(0, 1, 2))
            shift = total / np.maximum(valid.sum(axis=(0, 1, 2)), 1)
        values = np.where(valid, block - shift, 0.0).reshape(block.shape[0], -1)
        present = valid.reshape(block.shape[0], -1).astype(np.float64)
        terms_here = basis[start : start + rows].astype(np.float64)
        products = (terms_here[:, :, None] * terms_here[:, None, :]).reshape(block.shape[0], -1)
        gram += products.T @ present
        moment += terms_here.T @ values
        square += np.einsum("tp,tp->p", values, values)
    points = lat * lon
    return _Sums(
        np.moveaxis(gram.reshape(terms, terms, points, channels), (0, 1), (2, 3)),
        np.moveaxis(moment.reshape(terms, points, channels), 0, 2),
        square.reshape(points, channels),
        np.zeros(channels) if shift is None else shift,
    )


def climatology(stats: Statistics, times: np.ndarray) -> np.ndarray | jax.Array:
    """c(t) in physical units, (*times.shape, lat | 1, lon | 1, channel), float32.

    Args:
        stats: the statistics; of jax arrays they give a jax array, also inside `jit`.
        times: datetime64, any shape; never traced.
    """
    coefficients = stats.coefficients
    basis = yearly_basis(np.asarray(times), (coefficients.shape[0] - 1) // 2)
    if isinstance(coefficients, np.ndarray):
        return np.einsum("...k,kyxc->...yxc", basis, coefficients)
    # Full precision: rounding 280 K to eight bits would lose whole kelvins.
    return jnp.einsum("...k,kyxc->...yxc", basis, coefficients, precision="highest")


def standardise(x: ArrayT, stats: Statistics, times: np.ndarray) -> ArrayT:
    """z = (x - c(t)) / s of x (*times.shape, lat, lon, channel); NaN stays NaN."""
    return (x - climatology(stats, times)) / _broadcast(stats.std, x.ndim)


def unstandardise(x: ArrayT, stats: Statistics, times: np.ndarray) -> ArrayT:
    """x = c(t) + s z of z (*times.shape, lat, lon, channel), the inverse of `standardise`."""
    return x * _broadcast(stats.std, x.ndim) + climatology(stats, times)


def _broadcast(std: np.ndarray | jax.Array, ndim: int) -> np.ndarray | jax.Array:
    return std.reshape((1,) * (ndim - 1) + std.shape)
