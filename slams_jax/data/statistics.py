"""Climatology and standardisation: z = (x - c(t)) / s.

The climatology of a channel is a constant plus harmonics of the annual cycle, fitted at every grid
point or once for the whole grid,

    c(t) = a_0 + sum_k [ a_{2k-1} cos(2 pi k t / year) + a_{2k} sin(2 pi k t / year) ],

by least squares over the data that are not missing; s is the area-weighted root mean square of
x - c over the same data, one number per channel. Fit both to the training period only.
"""

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from slams_jax.errors import InputError
from slams_jax.products import product
from slams_jax.readers.periods import check_times
from slams_jax.seasons import yearly_basis

_CHUNK = 2**22  # values read at once

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)


@runtime_checkable
class Frames(Protocol):
    """Fields (time, lat, lon, channel) that are read in blocks of times."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""
        ...

    def __getitem__(self, index: slice, /) -> Any:
        """Those of some times."""
        ...


class Statistics(NamedTuple):
    """Climatology and standard deviation of the channels of a field, in physical units."""

    coefficients: np.ndarray | jax.Array  # (1 + 2 harmonics, lat | 1, lon | 1, channel), float32
    std: np.ndarray | jax.Array  # (channel,), float32


class _Sums(NamedTuple):
    """Sums over time, sufficient for least squares; float64, of departures from `shift`."""

    gram: np.ndarray  # (point, channel, term, term): basis times basis where there are data
    moment: np.ndarray  # (point, channel, term): basis times value
    square: np.ndarray  # (point, channel): value squared
    shift: np.ndarray  # (channel,)

    @property
    def count(self) -> np.ndarray:
        """Number of data (point, channel); the first term of the basis is one."""
        return self.gram[:, :, 0, 0]


def fit_statistics(
    array: Frames,
    times: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    harmonics: int = 0,
    per_point: bool = True,
) -> Statistics:
    """Fit climatology and spread to `array`, which is read once, in blocks of times.

    Args:
        array: (time, lat, lon, channel), NaN where missing; may be memory-mapped.
        times: datetime64 (time,), ascending.
        weights: relative area of the grid points (lat, lon); None weights all equally.
        harmonics: number of harmonics of the annual cycle; 0 gives a constant.
        per_point: fit a climatology at every grid point, else one for each channel. Points with
            fewer than two data per coefficient, or whose data do not cover the year, take that of
            the channel.

    Returns:
        Statistics of the channels.

    Raises:
        InputError: shapes that do not match, or a channel without data or without variation.
    """
    times, area = _checked_inputs(array, times, weights, harmonics)
    sums = _accumulate(array, yearly_basis(times, harmonics))
    if (empty := np.flatnonzero(sums.count.sum(axis=0) == 0)).size:
        raise InputError(f"channel {empty[0]} has no data in the training period: leave it out")
    fitted = _fit_channels(sums, area)[None]
    if per_point:
        fitted = _fit_points(sums, fitted)
    std = _residual_std(sums, fitted, area)
    _check_varies(sums, std, area)
    fitted = fitted + sums.shift[:, None] * (np.arange(fitted.shape[-1]) == 0)
    shape = array.shape[1:3] if per_point else (1, 1)
    coefficients = np.moveaxis(fitted.reshape(*shape, *fitted.shape[1:]), -1, 0)
    return Statistics(coefficients.astype(np.float32), std.astype(np.float32))


def _checked_inputs(
    array: Frames, times: np.ndarray, weights: np.ndarray | None, harmonics: int
) -> tuple[np.ndarray, np.ndarray]:
    """(times, area of each point), after a check that all shapes match."""
    times = check_times(times)
    if len(array.shape) != 4 or array.shape[0] != times.size:
        raise InputError(
            f"statistics need (time, lat, lon, channel) with {times.size} times, got {array.shape}"
        )
    if harmonics < 0:
        raise InputError(f"harmonics must be at least 0, got {harmonics}")
    grid = array.shape[1:3]
    area = np.ones(grid) if weights is None else np.asarray(weights, dtype=np.float64)
    if area.shape != grid:
        raise InputError(f"weights have shape {area.shape}, but the grid is {grid}")
    return times, area.reshape(-1)


def _fit_channels(sums: _Sums, area: np.ndarray) -> np.ndarray:
    """Coefficients (channel, term) of each channel, from all points together."""
    gram = np.einsum("p,pcij->cij", area, sums.gram)
    moment = np.einsum("p,pci->ci", area, sums.moment)
    # The pseudo-inverse gives the shortest solution where the data do not determine one.
    return np.einsum("cij,cj->ci", np.linalg.pinv(gram, 1e-9), moment)


def _fit_points(sums: _Sums, channels: np.ndarray) -> np.ndarray:
    """Coefficients (point, channel, term); `channels` (1, channel, term) where data are few."""
    terms = channels.shape[-1]
    eigenvalues = np.linalg.eigvalsh(sums.gram)
    determined = eigenvalues[..., 0] > 1e-3 * eigenvalues[..., -1]
    enough = (determined & (sums.count >= 2 * terms))[..., None]
    gram = np.where(enough[..., None], sums.gram, np.eye(terms))
    own = np.linalg.solve(gram, sums.moment[..., None])[..., 0]
    return np.where(enough, own, channels)


def _residual_std(sums: _Sums, fitted: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Root-mean-square departure (channel,) from the climatology, weighted by area."""
    fitted = np.broadcast_to(fitted, sums.moment.shape)
    residual = (
        sums.square
        - 2.0 * np.einsum("pci,pci->pc", fitted, sums.moment)
        + np.einsum("pci,pcij,pcj->pc", fitted, sums.gram, fitted)
    )
    return np.sqrt(np.maximum((area @ residual) / (area @ sums.count), 0.0))


def _check_varies(sums: _Sums, std: np.ndarray, area: np.ndarray) -> None:
    """Refuse channels whose variation is lost in rounding."""
    size = np.abs(sums.shift) + np.sqrt((area @ sums.square) / (area @ sums.count))
    if (constant := np.flatnonzero(std <= 1e-6 * size)).size:
        raise InputError(
            f"channel {constant[0]} never varies in the training period (near "
            f"{sums.shift[constant[0]]:g}): leave it out"
        )


def _accumulate(array: Frames, basis: np.ndarray) -> _Sums:
    """Read `array` (time, lat, lon, channel) once, in blocks of times."""
    time, lat, lon, channels = array.shape
    points, terms = lat * lon, basis.shape[1]
    gram = np.zeros((terms * terms, points * channels))
    moment = np.zeros((terms, points * channels))
    square = np.zeros(points * channels)
    shift = np.zeros(channels)
    rows = max(1, _CHUNK // (points * channels))
    for start in range(0, time, rows):
        block = np.asarray(array[start : start + rows], dtype=np.float64)
        valid = np.isfinite(block)
        if start == 0:
            # Near the mean, so that squares lose no digits; a channel that starts late keeps 0.
            total = np.where(valid, block, 0.0).sum(axis=(0, 1, 2))
            shift = total / np.maximum(valid.sum(axis=(0, 1, 2)), 1)
        values = np.where(valid, block - shift, 0.0).reshape(len(block), -1)
        present = valid.reshape(len(block), -1).astype(np.float64)
        waves = basis[start : start + rows].astype(np.float64)
        products = (waves[:, :, None] * waves[:, None, :]).reshape(len(block), -1)
        gram += products.T @ present
        moment += waves.T @ values
        square += np.einsum("tp,tp->p", values, values)
    return _Sums(
        np.moveaxis(gram.reshape(terms, terms, points, channels), (0, 1), (2, 3)),
        np.moveaxis(moment.reshape(terms, points, channels), 0, 2),
        square.reshape(points, channels),
        shift,
    )


def climatology(stats: Statistics, times: np.ndarray) -> np.ndarray | jax.Array:
    """c(t) in physical units, (*times.shape, lat | 1, lon | 1, channel), float32.

    Args:
        stats: the statistics; jax arrays give a jax array, also inside `jit`.
        times: datetime64, any shape; never traced.
    """
    coefficients = stats.coefficients
    basis = yearly_basis(np.asarray(times), (coefficients.shape[0] - 1) // 2)
    if isinstance(coefficients, np.ndarray):
        return np.einsum("...k,kyxc->...yxc", basis, coefficients)
    return product("...k,kyxc->...yxc", basis, coefficients)


def standardise(x: ArrayT, stats: Statistics, times: np.ndarray) -> ArrayT:
    """z = (x - c(t)) / s of x (*times.shape, lat, lon, channel); NaN stays NaN."""
    return (x - climatology(stats, times)) / _broadcast(stats.std, x.ndim)


def unstandardise(x: ArrayT, stats: Statistics, times: np.ndarray) -> ArrayT:
    """x = c(t) + s z of z (*times.shape, lat, lon, channel), the inverse of `standardise`."""
    return x * _broadcast(stats.std, x.ndim) + climatology(stats, times)


def _broadcast(std: np.ndarray | jax.Array, ndim: int) -> np.ndarray | jax.Array:
    return std.reshape((1,) * (ndim - 1) + std.shape)
