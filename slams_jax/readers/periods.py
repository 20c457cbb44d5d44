"""Times and periods: their resolution, inclusive dates to slices, splits that share no time."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from slams_jax.errors import InputError

RESOLUTION = np.timedelta64(1, "s")  # of all times: numbers of days are microseconds off
_DATE = re.compile(
    r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?Z?)?)?)?|\d{8}", re.ASCII
)  # ISO 8601, and YYYYMMDD; pandas takes "now" and decimal years, too


def period_bounds(period: Sequence[Any], *, name: str = "period") -> tuple[np.datetime64, ...]:
    """First and last instant (datetime64[ns]) of (start, end), both inclusive.

    A date covers all of itself: ("1961", "1988-12-31") ends with the last instant of that day.

    Raises:
        InputError: not two dates, or an end before the start.
    """
    if isinstance(period, str) or len(period) != 2:
        raise InputError(f"{name} must be (start, end), got {period!r}")
    try:
        if not all(_DATE.fullmatch(str(date).strip()) for date in period):
            raise ValueError("not a date")
        first, last = (pd.Period(str(date).strip().removesuffix("Z")) for date in period)
        if not (isinstance(first, pd.Period) and isinstance(last, pd.Period)):
            raise ValueError("not a time")
        bounds = (first.start_time.to_datetime64(), last.end_time.to_datetime64())
    except (ValueError, TypeError, OverflowError):
        raise InputError(
            f"{name} ({period[0]!r}, {period[1]!r}) is not two dates: write them as '1961', "
            "'1961-01-31' or '1961-01-31T12:00'"
        ) from None
    if not bounds[0] <= bounds[1]:
        raise InputError(f"{name} ends ({period[1]}) before it starts ({period[0]})")
    return tuple(b.astype("datetime64[ns]") for b in bounds)


def check_times(times: np.ndarray, *, name: str = "times") -> np.ndarray:
    """`times` as datetime64[ns] (time,), strictly ascending, rounded to `RESOLUTION`.

    Raises:
        InputError: no times, other types, duplicates, unsorted or missing times.
    """
    times = np.asarray(times)
    if times.ndim != 1 or times.size == 0 or not np.issubdtype(times.dtype, np.datetime64):
        raise InputError(
            f"{name} must be a non-empty datetime64 vector, got {times.dtype}{list(times.shape)}"
        )
    times = times.astype("datetime64[ns]")
    if np.isnat(times).any():
        raise InputError(f"{name} has missing entries (NaT): remove or fill them")
    step = RESOLUTION.astype("timedelta64[ns]").astype(np.int64)
    times = ((times.astype(np.int64) + step // 2) // step * step).astype("datetime64[ns]")
    bad = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "ns"))
    if bad.size:
        first, second = (str(t)[:16] for t in times[bad[0] : bad[0] + 2])
        kind = "twice" if first == second else f"and then {second}"
        raise InputError(
            f"{name} must ascend without duplicates, got {first} {kind}: sort it, keep each once"
        )
    return times


def select_period(times: np.ndarray, period: Sequence[Any], *, name: str = "period") -> slice:
    """The slice of ascending `times` (time,) that lies in (start, end), both inclusive.

    Raises:
        InputError: bad dates, or no time in the period.
    """
    times = check_times(times)
    start, end = period_bounds(period, name=name)
    first = int(np.searchsorted(times, start, side="left"))
    last = int(np.searchsorted(times, end, side="right"))
    if first == last:
        raise InputError(
            f"{name} {period[0]} to {period[1]} holds none of the times, "
            f"which go from {str(times[0])[:16]} to {str(times[-1])[:16]}: choose dates among them"
        )
    return slice(first, last)


def split_periods(times: np.ndarray, periods: Mapping[str, Sequence[Any]]) -> dict[str, slice]:
    """Disjoint slices of `times` (time,), one for each named (start, end), both inclusive.

    Args:
        times: datetime64, ascending.
        periods: such as {"train": ("1961", "1988"), "test": ("1992-01-01", "1995-12-31")}.

    Raises:
        InputError: bad dates, a period without times, or two periods that share a time.
    """
    slices = {n: select_period(times, p, name=f"period {n!r}") for n, p in periods.items()}
    bounds = {n: period_bounds(p) for n, p in periods.items()}
    ordered = sorted(bounds, key=lambda n: bounds[n])
    for before, after in itertools.pairwise(ordered):
        if bounds[after][0] <= bounds[before][1]:
            raise InputError(
                f"periods {before!r} (to {periods[before][1]}) and {after!r} (from "
                f"{periods[after][0]}) overlap: the one must end before the other starts"
            )
    return slices
