"""A field at the times of another: the nearest value, or the mean or sum over an interval.

The interval of time t is (t - length, t]. A mean is missing if too small a share of the values of
a full interval is known; a sum is missing if any value is, since it would come out too small.
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
    """`dataset` with some hours added to its timestamps."""
    if hours == 0.0:
        return dataset
    later = dataset[TIME].values.astype("datetime64[ns]") + _hours(hours)
    result = dataset.assign_coords({TIME: (TIME, later, dataset[TIME].attrs)})
    result.set_close(dataset.close)
    return result


def shared_times(own: np.ndarray, times: np.ndarray, name: str) -> np.ndarray:
    """Indices of the times that a field has in common with an analysis.

    Raises:
        InputError: none.
    """
    shared = np.flatnonzero(np.isin(own, times))
    if not shared.size:
        raise InputError(
            f"{name} ({str(own[0])[:16]} to {str(own[-1])[:16]}) shares no time with the "
            f"analysis ({str(times[0])[:16]} to {str(times[-1])[:16]}): check dates and hours"
        )
    return shared


def match_times(
    dataset: xr.Dataset,
    times: np.ndarray,
    how: str = "exact",
    *,
    hours: float | int = 0.0,
    known: float | int = 0.5,
    name: str = "field",
) -> xr.Dataset:
    """`dataset` at `times`, computed when it is read.

    Args:
        dataset: variables whose first dimension is time.
        times: datetime64 (time,), ascending.
        how: "exact" changes nothing (an archive takes the values at its own times), "nearest"
            takes the nearest value within a tolerance, "mean" and "sum" reduce the interval that
            ends at each time.
        hours: tolerance of "nearest" (0: half the most frequent step of `times`), or length of the
            interval (0: that step).
        known: share of the values in an interval that a mean needs, in (0, 1].
        name: name of the field in error messages.

    Returns:
        The Dataset at `times`, NaN where there is no value.

    Raises:
        InputError: an unknown way of matching, no value at any time, or an interval shorter than
            the time step of the data.
    """
    if how not in get_args(Matching):
        raise InputError(f"{name}: unknown time matching {how!r}: choose from {get_args(Matching)}")
    if hours < 0.0:
        raise InputError(f"{name}: hours must be 0 or more, got {hours}")
    if how == "exact":
        return dataset
    own = check_times(dataset[TIME].values, name=f"{name} times")
    times = check_times(times)
    if how == "nearest":
        reach = _hours(hours) if hours else usual_step(times) // 2
        first, last, full = *_nearest(own, times, reach), 1
    else:
        length = _hours(hours) if hours else usual_step(times)
        step = usual_step(own, length)
        if step > length:
            raise InputError(
                f"{name}: a {how} over {length / _HOUR:g} h of data every {step / _HOUR:g} h: "
                "lengthen the interval (hours), or match exact or nearest"
            )
        first = np.searchsorted(own, times - length, side="right")
        last = np.searchsorted(own, times, side="right")
        full = round(length / step)
    if not (last > first).any():
        raise InputError(
            f"{name} ({str(own[0])[:16]} to {str(own[-1])[:16]}) has no value at any time of the "
            f"state ({str(times[0])[:16]} to {str(times[-1])[:16]}) by {how} matching: check its "
            "dates"
        )
    needed = full if how == "sum" else max(1, int(np.ceil(known * full - 1e-9)))
    return computed(
        dataset,
        lambda a: _Matched(a, first, last, needed, total=how == "sum"),
        f"{how} {hours} {known}",
        {TIME: times},
    )


def persistence(state: xr.Dataset) -> xr.Dataset:
    """The state one time step earlier, as a background; a gap has no background at its end.

    Args:
        state: variables (time, ...), at ascending times.

    Returns:
        The Dataset at the times that follow another time by the most frequent step.

    Raises:
        InputError: times out of order, or a single time.
    """
    times = check_times(state[TIME].values, name="state times")
    if times.size < 2:
        raise InputError("a state at a single time has no previous one: add times")
    earlier = np.flatnonzero(np.diff(times) == usual_step(times))
    return state.isel({TIME: earlier}).assign_coords({TIME: times[earlier + 1]})


class _Matched(LazyArray):
    """Mean or sum over the rows first[i] to last[i] - 1 of a variable, for each time i."""

    def __init__(
        self, array: xr.DataArray, first: np.ndarray, last: np.ndarray, needed: int, *, total: bool
    ):
        if array.dims[0] != TIME:
            raise InputError(
                f"{array.name} has dimensions {tuple(map(str, array.dims))}, but time must come "
                "first: select one member, or transpose it"
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
        valid = np.isfinite(values)
        count = valid.sum(axis=0)
        total = np.where(valid, values, 0.0).sum(axis=0, dtype=np.float64)
        reduced = total if self._total else total / np.maximum(count, 1)
        return np.where(count >= max(1, self._needed), reduced, np.nan)


def _nearest(own: np.ndarray, times: np.ndarray, reach: np.timedelta64):
    """first, last (time,): the nearest row of `own`, or none; of two equally near, the earlier."""
    right = np.clip(np.searchsorted(own, times), 0, own.size - 1)
    left = np.maximum(right - 1, 0)
    row = np.where(np.abs(own[left] - times) <= np.abs(own[right] - times), left, right)
    return row, row + (np.abs(own[row] - times) <= reach)


def usual_step(times: np.ndarray, single: np.timedelta64 = _HOUR * 24) -> np.timedelta64:
    """The most frequent step between times, the shorter of two; `single` if there is one time."""
    if times.size < 2:
        return single
    values, counts = np.unique(np.diff(times), return_counts=True)
    return values[counts.argmax()]


def _hours(hours: float | int) -> np.timedelta64:
    return np.timedelta64(round(hours * 3.6e12), "ns")
