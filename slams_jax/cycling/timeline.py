"""When cycles are, and which observations belong to each.

Cycle k = 0, 1, ... takes the state to the time begin + (k + 1) interval. Times are numbers, or
dates with intervals of time.
"""

import dataclasses
import datetime
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.errors import InputError

Time = float | np.datetime64
Pairs = Iterable[tuple[Any, Any]]  # time, observations
# All of them in the order of time; or a function of the time after which they are asked for, so
# that a run that resumes reads nothing twice.
Observations = Pairs | Callable[[Time], Pairs]

TOLERANCE = 1e-3  # of an interval, for times that are numbers
BLOCK = 256  # times that are read from a file together


@dataclasses.dataclass(frozen=True)
class Clock:
    """The times of cycles.

    Attributes:
        begin: of the first state, a number or a date.
        interval: of a forecast, a number or a timedelta.

    Raises:
        InputError: one that is neither, a date and a number, or an interval that is not positive.
    """

    begin: Any
    interval: Any

    def __post_init__(self):
        begin, interval = moment(self.begin), _span(self.interval)
        if isinstance(begin, float) != isinstance(interval, float):
            raise InputError(
                f"begin {self.begin!r} and interval {self.interval!r} do not go together: give a "
                "date and a timedelta, or two numbers"
            )
        object.__setattr__(self, "begin", begin)
        object.__setattr__(self, "interval", interval)

    def time(self, cycle: int) -> Time:
        """The time of a cycle; -1 is that of the first state."""
        time = self.begin + (cycle + 1) * self.interval
        # Without the noise of the sum: 0.3, not 0.30000000000000004.
        return float(f"{time:.12g}") if isinstance(time, float) else time

    def cycle(self, time: Any) -> int:
        """The cycle of a time.

        Raises:
            InputError: a time of another kind than `begin`, or that is not of a cycle.
        """
        when = moment(time)
        if isinstance(when, float) != isinstance(self.begin, float):
            raise InputError(f"observations of {time!r}: the cycle began at {shown(self.begin)}")
        steps = float((when - self.begin) / self.interval)  # type: ignore[operator]
        if abs(steps - round(steps)) > TOLERANCE:
            raise InputError(
                f"observations of {shown(when)} are of no cycle: these are {shown(self.interval)} "
                f"apart, from {shown(self.begin)}"
            )
        return round(steps) - 1


def moment(time: Any) -> Time:
    """A time as a number, or as a date in nanoseconds.

    Raises:
        InputError: it is neither, or not finite.
    """
    try:
        if isinstance(time, str | datetime.date | np.datetime64):
            date = np.asarray(time, "datetime64[ns]").reshape(1)[0]
            if not np.isnat(date):
                return date
        elif math.isfinite(number := float(time)):
            return number
    except (TypeError, ValueError):
        pass
    raise InputError(f"a time must be a finite number or a date, got {time!r}")


def shown(time: Any) -> str:
    """A time or an interval, in words."""
    if isinstance(time, np.datetime64):
        return str(np.datetime_as_string(time, unit="s"))
    if isinstance(time, np.timedelta64):
        return str(time.astype("timedelta64[s]").item())
    return f"{time:g}"


def by_cycle(
    observations: Observations, clock: Clock, first: int, size: int
) -> Iterator[Float[np.ndarray, " observation"] | None]:
    """The observations of each cycle from number `first`, None where there are none.

    Args:
        observations: (time, values), values missing where NaN; or a function of a time to those
            after it. Times without an entry have no observations.
        clock: the times of cycles.
        first: the number of cycles that are done.
        size: number of values of each time; none at all stands for no observations.

    Raises:
        InputError: names the time that is not after the one before, not after the state, or of no
            cycle, or whose values have another shape.
    """
    asked = callable(observations)
    pairs = observations(clock.time(first - 1)) if asked else observations
    earliest = first if asked else 0
    done, following = earliest - 1, first
    for time, values in pairs:
        cycle = clock.cycle(time)
        if cycle < earliest:
            raise InputError(
                f"observations of {shown(moment(time))} come too late: the state is already that "
                f"of {shown(clock.time(earliest - 1))}"
            )
        if cycle <= done:
            raise InputError(
                f"observations of {shown(moment(time))} follow those of "
                f"{shown(clock.time(done))}: give each time once, in order"
            )
        done = cycle
        if cycle < first:
            continue  # of the run that is resumed
        for _ in range(following, cycle):
            yield None
        following = cycle + 1
        yield _checked(values, time, size)


def observation_series(data: xr.DataArray) -> Callable[[Time], Pairs]:
    """The observations of a file, read as a run needs them: `Observations` of `run_cycle`.

    Args:
        data: along `time`, as `xarray` opens it from NetCDF or Zarr; its other dimensions make up
            the observations of a time. NaN is missing.

    Raises:
        InputError: no dimension `time`.
    """
    if "time" not in data.dims:
        raise InputError(f"observations need a dimension 'time', got {tuple(data.dims)}")
    data = data.transpose("time", ...)
    times = data["time"].values

    def after(time: Time) -> Pairs:
        later = np.flatnonzero(times > time)
        for start in range(later[0] if later.size else len(times), len(times), BLOCK):
            block = data[start : start + BLOCK].values
            yield from zip(times[start:], block.reshape(len(block), -1), strict=False)

    return after


def _checked(values: Any, time: Any, size: int) -> Float[np.ndarray, " observation"] | None:
    """The values of a time, None if there is none."""
    array = np.asarray(values, float)
    if array.size and array.shape != (size,):
        raise InputError(
            f"observations of {shown(moment(time))} have the shape {array.shape}, not ({size},): "
            "set NaN where one is missing"
        )
    return array if np.isfinite(array).any() else None


def _span(interval: Any) -> float | np.timedelta64:
    """An interval as a number, or in nanoseconds."""
    try:
        if isinstance(interval, datetime.timedelta | np.timedelta64):
            span = np.timedelta64(interval, "ns")
            if span > np.timedelta64(0, "ns"):
                return span
        elif 0.0 < (number := float(interval)) < math.inf:
            return number
    except (TypeError, ValueError):
        pass
    raise InputError(f"an interval must be a positive number or timedelta, got {interval!r}")
