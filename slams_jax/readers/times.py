"""When the values of a file are valid: CF times, calendars, their resolution, and forecasts.

A forecast knows three times: that of its start (the reference time), the lead time, and the time at
which its values are valid, start plus lead. Fields are dated by the last. What a time means is told
by, in this order, its name (`valid_time`), its `standard_name` (CF conventions, chapter 4.4) and
its `long_name`, never by the order of the variables; a file that leaves it open is refused.
"""

import re
import warnings
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.coordinates import role_of
from slams_jax.readers.periods import check_times
from slams_jax.schema import TIME

VALID, DATED, PLAIN, REFERENCE, LEAD = "valid", "dated", "plain", "reference", "lead"
_VALID_NAMES = ("valid_time", "validity_time", "verification_time", "forecast_valid_time")
_REFERENCE_NAMES = (
    "forecast_reference_time",
    "reference_time",
    "reftime",
    "init_time",
    "initial_time",
    "initialization_time",
    "initialisation_time",
    "init",
    "base_time",
)
# Tools that call the start of the forecast `time` call the lead time so: cfgrib, WeatherBench 2.
_LEADS_FROM_TIME = ("step", "prediction_timedelta")
_LEAD_NAMES = (*_LEADS_FROM_TIME, "lead_time", "leadtime", "lead", "forecast_period")
_REFERENCE_WORDS = re.compile(
    r"\b(initial time|initiali[sz]ation time|forecast (start|initial|reference)[ _]time)\b"
)
_MONTHS_OF_30_DAYS = ("360_day", "360", "uniform30day")


class TimeAxis(NamedTuple):
    """When the values of a variable are valid.

    Attributes:
        dim: the dimension of the file along which the times go, None where it has none.
        times: datetime64[ns] (time,).
        single: other dimensions of time, of size one.
    """

    dim: Hashable | None
    times: np.ndarray
    single: tuple[Hashable, ...]


def meaning(name: Hashable, variable: xr.Variable | None) -> str | None:
    """What kind of time a coordinate or dimension is, or None when it is no time.

    Returns:
        "valid": named so; "dated": CF's `time`; "plain": a time, and no more is said; "reference":
        the start of a forecast; "lead": since then.
    """
    lower = str(name).lower()
    attributes = {} if variable is None else variable.attrs
    standard_name = str(attributes.get("standard_name", ""))
    if lower in _VALID_NAMES:
        return VALID
    if lower in _LEAD_NAMES or standard_name == "forecast_period":
        return LEAD
    if (
        lower in _REFERENCE_NAMES
        or standard_name == "forecast_reference_time"
        or _REFERENCE_WORDS.search(str(attributes.get("long_name", "")).lower())
    ):
        return REFERENCE
    if standard_name == "time":
        return DATED
    return PLAIN if role_of(name, variable) == TIME else None


def time_axis(dataset: xr.Dataset, dims: Sequence[Hashable], *, source: str) -> TimeAxis | None:
    """The valid times of a variable with dimensions `dims`; None where nothing dates it.

    Args:
        dataset: that holds the variable, times as numbers or decoded.
        dims: of the variable.
        source: what to name in errors.

    Raises:
        InputError: several starts and several lead times; a time that could be that of the start or
            of the validity; two times that contradict each other; times that are no dates.
    """
    of_time = [d for d in dims if meaning(d, dataset.variables.get(d)) is not None]
    if not of_time:  # a dimension that times lie along without giving it their name
        of_time = [v.dims[0] for n, v in dataset.variables.items() if meaning(n, v) and v.ndim == 1]
        of_time = [d for d in dict.fromkeys(of_time) if d in dims]
    long = [d for d in of_time if dataset.sizes[d] > 1]
    if len(long) > 1:
        leads = [d for d in long if meaning(d, dataset.variables.get(d)) == LEAD]
        raise InputError(
            f"{source}: forecasts along {' and '.join(map(str, long))}: choose one lead time or "
            f"one start, such as dataset.isel({(leads or long)[0]}=0), and write it again"
        )
    dim = next(iter(long or of_time), None)
    single = tuple(d for d in of_time if d != dim)
    by_kind: dict[str, dict[Hashable, xr.Variable]] = {}
    for name, variable in dataset.variables.items():
        kind = meaning(name, variable)
        along = tuple(d for d in variable.dims if d in long)
        if kind is not None and set(variable.dims) <= set(of_time) and variable.size:
            squeezed = variable.isel({d: 0 for d in variable.dims if d not in along})
            by_kind.setdefault(kind, {})[name] = squeezed
    times = _valid_times(by_kind, dim, bool(long), source)
    if times is None and long:
        raise InputError(f"{source}: dimension {dim} has no times: give it a time coordinate")
    return None if times is None else TimeAxis(dim, times, single)


def _valid_times(
    by_kind: dict[str, dict[Hashable, xr.Variable]],
    dim: Hashable | None,
    long: bool,
    source: str,
) -> np.ndarray | None:
    """datetime64[ns] (time,) of the times that a file has, by their `meaning`."""
    # One time cannot date a dimension, except as the start of its forecasts.
    dating = {
        kind: {n: v for n, v in by_kind.get(kind, {}).items() if v.ndim == long}
        for kind in (VALID, DATED, PLAIN)
    }
    reference, leads = by_kind.get(REFERENCE, {}), by_kind.get(LEAD, {})
    if dating[VALID]:
        return _agreeing(dating[VALID], source)
    lead = _lead(leads, source)
    if long and not (dating[DATED] or dating[PLAIN] or reference):
        # Forecasts of one start, whatever that is called.
        reference = by_kind.get(DATED, {}) or by_kind.get(PLAIN, {})
    ahead = lead is not None and bool(np.any(lead != np.timedelta64(0, "s")))
    if dating[DATED] and (reference or not ahead or not set(leads) & set(_LEADS_FROM_TIME)):
        return _agreeing(dating[DATED], source)
    if reference:
        start = _agreeing(reference, source)
        if lead is None:
            raise InputError(
                f"{source}: {next(iter(reference))} is the start of a forecast and its lead time "
                "is not given: add a coordinate valid_time, or step (0 for an analysis)"
            )
        return check_times(start + lead, name=f"{source}: time")
    plain = dating[DATED] or dating[PLAIN]
    if plain and ahead:
        raise InputError(
            f"{source}: {next(iter(plain))} may be the start of the forecast or the time at which "
            f"it is valid, {next(iter(leads))} later: add a coordinate valid_time"
        )
    # Other dates along a dimension are remarks on its own times.
    return _agreeing({dim: plain[dim]} if dim in plain else plain, source) if plain else None


def _agreeing(candidates: dict[Hashable, xr.Variable], source: str) -> np.ndarray:
    """The times that all candidates give.

    Raises:
        InputError: two candidates that differ.
    """
    decoded = {n: decode_times(v, source=source) for n, v in candidates.items()}
    name, times = next(iter(decoded.items()))
    for other, values in decoded.items():
        if not np.array_equal(values, times):
            raise InputError(
                f"{source}: {name} ({str(times[0])[:16]}) and {other} ({str(values[0])[:16]}) both "
                "say when its values are valid: drop one, or call the right one valid_time"
            )
    return times


def _lead(leads: dict[Hashable, xr.Variable], source: str) -> np.ndarray | None:
    """timedelta64[ns] since the start of the forecast, (time,) or (1,)."""
    for name, variable in leads.items():
        attributes = {"units": str(variable.attrs.get("units", ""))}
        raw = xr.Variable((TIME,), np.atleast_1d(variable.values))
        if not np.issubdtype(raw.dtype, np.timedelta64):
            raw.attrs = attributes
            try:
                decoded = xr.Dataset({"lead": raw})
                raw = xr.decode_cf(decoded, decode_timedelta=True)["lead"].variable
            except (ValueError, TypeError, OverflowError):
                pass
        if not np.issubdtype(raw.dtype, np.timedelta64):
            raise InputError(
                f"{source}: lead time {name} has units {attributes['units']!r}: give it units such "
                "as 'hours'"
            )
        return raw.values.astype("timedelta64[ns]")
    return None


def decode_times(coordinate: xr.Variable, *, source: str) -> np.ndarray:
    """datetime64[ns] (time,) of a CF time coordinate, rounded to the second.

    Dates of a 365-day calendar keep their date. Numbers in single precision are rounded to the
    minute, hour or day where they cannot tell seconds.

    Raises:
        InputError: times that stand for no date (climatologies, model steps), of a calendar with
            months of 30 days, outside 1690 to 2250, that do not ascend or appear twice, or are
            stored too coarsely to be told.
    """
    values = np.atleast_1d(coordinate.values)
    units = str(coordinate.attrs.get("units", ""))
    calendar = getattr(values.flat[0], "calendar", coordinate.attrs.get("calendar", "standard"))
    if str(calendar).lower() in _MONTHS_OF_30_DAYS:
        raise InputError(
            f"{source}: its calendar {str(calendar)!r} has months of 30 days, which are no dates: "
            "convert it, such as with dataset.convert_calendar('standard', align_on='year')"
        )
    attributes = {k: v for k, v in coordinate.attrs.items() if k in ("units", "calendar")}
    times = _decoded(values, attributes)
    if times is None:
        raise InputError(
            f"{source}: times with units {units!r} and calendar {str(calendar)!r} are no dates "
            "between 1690 and 2250: give them units such as 'days since 1961-01-01' and a "
            "Gregorian calendar"
        )
    unit = _decoded(np.arange(2.0), attributes) if values.dtype == np.float32 else None
    if unit is not None and np.isfinite(values).all():
        spacing = np.spacing(np.abs(values).max())
        error = float(spacing / 2 * ((unit[1] - unit[0]) / np.timedelta64(1, "s")))
        times = _of_single_precision(times, error, source)
    return check_times(times, name=f"{source}: time")


def _decoded(values: np.ndarray, attributes: dict) -> np.ndarray | None:
    """datetime64 (n,) of numbers, dates or cftime's dates, or None where they are no dates."""
    try:
        # Not as the coordinate of its own dimension: that would build an index of odd calendars.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of xarray, on dates that only cftime can hold
            raw = xr.Variable((TIME,), values, attributes)
            times = xr.decode_cf(xr.Dataset({"decoded": raw}))["decoded"].values
        if times.dtype == object:
            times = np.array([np.datetime64(t.isoformat(), "us") for t in times])
        if not np.issubdtype(times.dtype, np.datetime64):
            return None
        beyond = np.abs(times.astype("datetime64[Y]").astype(int)) > 280  # nanoseconds hold no more
        return None if np.any(beyond & ~np.isnat(times)) else times
    except (ValueError, TypeError, OverflowError, ImportError, AttributeError):
        return None


def _of_single_precision(times: np.ndarray, error: float, source: str) -> np.ndarray:
    """Times known to within `error` seconds, rounded to the unit that this can tell."""
    times = times.astype("datetime64[ns]")
    for seconds in (1, 60, 3600, 86400):
        if seconds > 2 * error:
            whole = times.astype("datetime64[s]").astype(np.int64)
            part = (times - whole.astype("datetime64[s]")) / np.timedelta64(1, "s")
            rounded = np.round((whole + part) / seconds) * seconds
            if np.abs(rounded - whole - part).max() <= 1.01 * error + 1e-3:
                return rounded.astype(np.int64).astype("datetime64[s]")
    raise InputError(
        f"{source}: its times are stored in single precision, to {error:.0f} s: write them as "
        "double precision or integers"
    )
