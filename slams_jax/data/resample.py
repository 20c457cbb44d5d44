"""A field at the times of another: the nearest, or the mean or sum of an interval that ends there.

The interval of time t is (t - length, t]. A mean is missing when less than a share of the values
that a full interval has is known; a sum when any of them is unknown, since it would be too small.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.lazy import LazyArray, computed, first_axis_blocks
from slams_jax.readers.periods import check_times
from slams_jax.schema import TIME

Matching = Literal["exact", "nearest", "mean", "sum"]
_HOUR = np.timedelta64(3_600_000_000_000, "ns")


def shifted(dataset: xr.Dataset, hours: float | int) -> xr.Dataset:
    """`dataset` with all its times later by some hours."""
    if hours == 0.0:
        return dataset
    later = dataset[TIME].values.astype("datetime64[ns]") + _hours(hours)
    result = dataset.assign_coords({TIME: (TIME, later, dataset[TIME].attrs)})
    result.set_close(dataset.close)
    return result


def match_times(
    dataset: xr.Dataset,
    times: np.ndarray,
    how: str = "exact",
    *,
    hours: float | int = 0.0,
    known: float | int = 0.5,
    name: str = "field",
) -> xr.Dataset:
    """`dataset` at `times`, computed where it is indexed.

    Args:
        dataset: variables with the dimension time first.
        times: datetime64 (time,), ascending.
        how: "exact" leaves it as it is (an archive takes what is at its times), "nearest" takes
            the nearest value within a tolerance, "mean" and "sum" those of the interval that ends.
        hours: tolerance of "nearest", length of the interval; 0 takes half of, and the whole of,
            the most frequent step of `times`.
        known: share of the values of an interval that must be known for a mean.
        name: what to call the field in errors.

    Returns:
        The Dataset, at `times`, NaN where there is nothing.

    Raises:
        InputError: an unknown matching, no value for any time, an interval shorter than the step
            of the data.
    """
    if how not in get_args(Matching):
        raise InputError(f"{name}: unknown matching of times {how!r}: choose {get_args(Matching)}")
    if hours < 0.0:
        raise InputError(f"{name}: hours must be 0 or more, got {hours}")
    if how == "exact":
        return dataset
    own = check_times(dataset[TIME].values, name=f"{name} times")
    times = check_times(times)
    if how == "nearest":
        reach = _hours(hours) if hours else _step(times, _HOUR * 24) // 2
        first, last, full = *_nearest(own, times, reach), 1
    else:
        length = _hours(hours) if hours else _step(times, _HOUR * 24)
        step = _step(own, length)
        if step > length:
            raise InputError(
                f"{name}: the {how} over {length / _HOUR:g} h of data every {step / _HOUR:g} h: "
                "give longer hours, or match exact or nearest"
            )
        first = np.searchsorted(own, times - length, side="right")
        last = np.searchsorted(own, times, side="right")
        full = round(length / step)
    if not (last > first).any():
        raise InputError(
            f"{name} ({str(own[0])[:16]} to {str(own[-1])[:16]}) has no value for any time of the "
            f"state ({str(times[0])[:16]} to {str(times[-1])[:16]}) by {how}: check its dates"
        )
    needed = full if how == "sum" else max(1, int(np.ceil(known * full - 1e-9)))
    return computed(
        dataset, lambda a: _Matched(a, first, last, needed, total=how == "sum"), {TIME: times}
    )


class _Matched(LazyArray):
    """Mean or sum of the rows first[i] to last[i] of a variable."""

    def __init__(
        self, array: xr.DataArray, first: np.ndarray, last: np.ndarray, needed: int, *, total: bool
    ):
        if array.dims[0] != TIME:
            raise InputError(
                f"{array.name} has dimensions {tuple(map(str, array.dims))}, time is to come "
                "first: choose one member"
            )
        self._array, self._first, self._last = array, first, last
        self._needed, self._total = needed, total
        self.shape = (first.size, *array.shape[1:])

    def block(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """The values at the outer product of one index vector for each dimension."""
        result = np.full([i.size for i in indices], np.nan, np.float32)
        others = dict(zip(self._array.dims[1:], indices[1:], strict=True))
        deepest = int((self._last - self._first).max())
        each = 4 * deepest * int(np.prod([i.size for i in indices[1:]]))
        for some in first_axis_blocks(indices[0], each):
            wanted = indices[0][some]
            ranges = [
                np.arange(a, b)
                for a, b in zip(self._first[wanted], self._last[wanted], strict=True)
            ]
            rows = np.unique(np.concatenate(ranges))
            if rows.size == 0:
                continue
            values = self._array.isel({TIME: rows, **others}).values
            for place, own in zip(range(some.start, some.stop), ranges, strict=False):
                result[place] = self._reduced(values[np.searchsorted(rows, own)])
        return result

    def _reduced(self, values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        count = known.sum(axis=0)
        total = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)
        reduced = total if self._total else total / np.maximum(count, 1)
        return np.where(count >= max(1, self._needed), reduced, np.nan)


def _nearest(own: np.ndarray, times: np.ndarray, reach: np.timedelta64):
    """first, last (time,): one row of `own` each, or none; of two as near the earlier one."""
    right = np.clip(np.searchsorted(own, times), 0, own.size - 1)
    left = np.maximum(right - 1, 0)
    row = np.where(np.abs(own[left] - times) <= np.abs(own[right] - times), left, right)
    return row, row + (np.abs(own[row] - times) <= reach)


def _step(times: np.ndarray, single: np.timedelta64) -> np.timedelta64:
    """The most frequent step; `single` where there is one time only."""
    if times.size < 2:
        return single
    values, counts = np.unique(np.diff(times), return_counts=True)
    return values[counts.argmax()]


def _hours(hours: float | int) -> np.timedelta64:
    return np.timedelta64(round(hours * 3.6e12), "ns")
