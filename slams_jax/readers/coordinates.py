"""What the coordinates of a file are, and the order that the library wants them in."""

import warnings
from collections.abc import Hashable

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.periods import check_times
from slams_jax.readers.units import hectopascals
from slams_jax.schema import ALTITUDE, COORDINATE_ALIASES, LATITUDE, LEVEL, LONGITUDE, MEMBER, TIME

_ROLES = (TIME, LEVEL, LATITUDE, LONGITUDE, MEMBER)
_AXES = {"T": TIME, "Z": LEVEL, "Y": LATITUDE, "X": LONGITUDE, "E": MEMBER}
_STANDARD_NAMES = {
    "time": TIME,
    "air_pressure": LEVEL,
    "latitude": LATITUDE,
    "longitude": LONGITUDE,
    "realization": MEMBER,
}


def role_of(name: Hashable, coordinate: xr.Variable | None) -> str | None:
    """The part that dimension `name` plays (`time`, `level`, ...), or None when it is another.

    Its name decides, then the attributes `standard_name`, `axis` and `units` of its coordinate
    variable (CF conventions, chapter 4), then the beginning of its name (`level_z`, `lat_2`).
    """
    lower = str(name).lower()
    for role in _ROLES:
        if lower in COORDINATE_ALIASES[role]:
            return role
    if lower in COORDINATE_ALIASES[ALTITUDE]:
        return LEVEL  # vertical, and no pressure: `pressures` tells
    attributes = {} if coordinate is None else coordinate.attrs
    standard_name = str(attributes.get("standard_name", ""))
    if standard_name in _STANDARD_NAMES:
        return _STANDARD_NAMES[standard_name]
    if attributes.get("axis") in _AXES:
        return _AXES[attributes["axis"]]
    units = str(attributes.get("units", ""))
    if units.lower().startswith(("degrees_n", "degree_n")):
        return LATITUDE
    if units.lower().startswith(("degrees_e", "degree_e")):
        return LONGITUDE
    if " since " in units:
        return TIME
    if coordinate is not None and units and hectopascals(np.ones(1), units) is not None:
        return LEVEL
    stem = lower.rstrip("0123456789").split("_")[0]
    for role in _ROLES:
        if len(stem) > 1 and stem in COORDINATE_ALIASES[role]:
            return role
    return None


def pressures(name: Hashable, coordinate: xr.Variable | None) -> np.ndarray | None:
    """hPa, float64 (n,), of a vertical coordinate, or None when it is not a pressure."""
    if coordinate is None or str(name).lower() in COORDINATE_ALIASES[ALTITUDE]:
        return None
    return hectopascals(exact_float64(coordinate.values), coordinate.attrs.get("units"))


def exact_float64(values: np.ndarray) -> np.ndarray:
    """float64 of the shortest decimal that each float32 stands for (270.3, not 270.29998...)."""
    values = np.asarray(values)
    if values.dtype == np.float32:
        return np.array([float(str(v)) for v in values.ravel()]).reshape(values.shape)
    return values.astype(np.float64)


def horizontal(coordinate: xr.Variable | None, role: str, *, source: str) -> np.ndarray:
    """Degrees, float64 (n,), of a latitude or longitude coordinate.

    Raises:
        InputError: no coordinate, two-dimensional, other units than degrees, or not on the globe.
    """
    if coordinate is None or coordinate.ndim != 1:
        raise InputError(
            f"{source}: no one-dimensional {role} coordinate: only rectangular "
            "latitude-longitude grids are read, interpolate the data to one"
        )
    units = str(coordinate.attrs.get("units", "")).lower() or "degrees"
    values = exact_float64(coordinate.values)
    limit = 90.0 if role == LATITUDE else 720.0
    if not units.startswith("deg") or not np.all(np.abs(values) <= limit + 1e-6):
        raise InputError(
            f"{source}: {role} is not in degrees (units {units!r}, values {values[0]:g} to "
            f"{values[-1]:g}): interpolate the data to a latitude-longitude grid"
        )
    return values


def latitude_order(latitude: np.ndarray, *, source: str) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, ascending latitudes), both (n,).

    Raises:
        InputError: a latitude that appears twice.
    """
    order = np.argsort(latitude, kind="stable")
    ascending = np.round(latitude[order], 6)
    if np.any(np.diff(ascending) <= 0):
        raise InputError(f"{source}: a latitude appears twice: keep each row once")
    return order, ascending


def longitude_order(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, ascending longitudes without a gap), both (n,).

    The result lies in [0, 360) where that leaves the domain in one piece; else what lies beyond
    the hole and beyond 180 becomes negative. A meridian that the file repeats to close the circle
    is dropped.
    """
    wrapped = np.round(np.mod(np.round(longitude, 6), 360.0), 6) % 360.0
    wrapped, order = np.unique(wrapped, return_index=True)
    if wrapped.size > 1:
        seam = 360.0 - (wrapped[-1] - wrapped[0])
        gaps = np.diff(wrapped)
        if gaps.max() > seam + 1e-3:  # the hole of the domain lies inside [0, 360)
            after = max(180.0, wrapped[gaps.argmax() + 1])
            wrapped = np.where(wrapped >= after, wrapped - 360.0, wrapped)
            ascending = np.argsort(wrapped)
            return order[ascending], np.round(wrapped[ascending], 6)
    return order, wrapped


def decode_times(coordinate: xr.Variable, *, source: str) -> np.ndarray:
    """datetime64[ns] (time,) of a CF time coordinate; dates of a 365-day calendar keep their date.

    Raises:
        InputError: times that stand for no date (climatologies, model steps), lie outside 1678 to
            2262, do not ascend or appear twice.
    """
    units = str(coordinate.attrs.get("units", ""))
    attributes = {k: v for k, v in coordinate.attrs.items() if k in ("units", "calendar")}
    raw = xr.Variable((TIME,), np.atleast_1d(coordinate.values), attributes)
    try:
        # Not as the coordinate of its own dimension: that would build an index of odd calendars.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of xarray, on dates that only cftime can hold
            values = xr.decode_cf(xr.Dataset({"decoded": raw}))["decoded"].values
        if values.dtype == object:
            values = np.array([np.datetime64(t.isoformat(), "us") for t in values])
        if not np.issubdtype(values.dtype, np.datetime64):
            raise ValueError(units)
        if np.any(np.abs(values.astype("datetime64[Y]").astype(int)) > 280):
            raise ValueError(units)  # beyond what nanoseconds hold
    except (ValueError, TypeError, OverflowError, ImportError, AttributeError):
        raise InputError(
            f"{source}: times with units {units!r} and calendar "
            f"{coordinate.attrs.get('calendar', 'standard')!r} stand for no dates between 1690 and "
            "2250: give them units such as 'days since 1961-01-01' and a Gregorian calendar"
        ) from None
    return check_times(values, name=f"{source}: time")


def select_levels(
    available: np.ndarray, wanted: tuple[float, ...] | None, *, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, ascending pressures in hPa) of `wanted`, or of all levels.

    Raises:
        InputError: a level that the file does not have, or has twice.
    """
    order = np.argsort(available, kind="stable")
    ascending = available[order]
    if np.any(np.diff(ascending) <= 0):
        raise InputError(f"{source}: a level appears twice: keep each once")
    if wanted is None:
        return order, ascending
    chosen = []
    for level in sorted(set(wanted)):
        near = np.flatnonzero(np.abs(ascending - level) <= 1e-4 * level)
        if near.size == 0:
            there = ", ".join(f"{v:g}" for v in ascending)
            raise InputError(f"{source}: no level {level:g} hPa: it has {there} hPa")
        chosen.append(near[0])
    return order[chosen], np.array(sorted(set(wanted)), dtype=np.float64)
