"""Station records in NetCDF files and Datasets: values on (time, station), or on one of the two.

Names are the library's, its aliases (`lat`, `lon`, `elevation`, ...) or those of CF's
`standard_name`. Positions may change with time (ships, aircraft, buoys): their coordinates are then
on (time, station) too.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.coordinates import exact_float64
from slams_jax.readers.times import time_axis
from slams_jax.readers.units import canonical_name, conversion, hectopascals, to_float32, units_of
from slams_jax.schema import (
    ALTITUDE,
    COORDINATE_ALIASES,
    ERROR,
    LATITUDE,
    LEVEL,
    LONGITUDE,
    STATION,
    TIME,
    VARIABLES,
)

_STANDARD_NAMES = {
    LATITUDE: ("latitude",),
    LONGITUDE: ("longitude",),
    ALTITUDE: ("altitude", "surface_altitude", "height_above_mean_sea_level"),
    LEVEL: ("air_pressure",),
}
_METRES = {
    **dict.fromkeys(("", "m", "meter", "meters", "metre", "metres"), 1.0),
    "km": 1000.0,
    **dict.fromkeys(("ft", "foot", "feet"), 0.3048),
}


def station_records(file: xr.Dataset, name: str, units: str, *, source: str) -> xr.Dataset:
    """Records of variable `name` on (time, station), in library units, not yet checked.

    Args:
        file: times as numbers or decoded.
        name: library name of the variable.
        units: of the values where the file does not say them.
        source: what to name in errors.

    Returns:
        `name` and, where it is given, `error`, (time, station) float32; the coordinates time,
        station, latitude, longitude (degrees) and altitude (m) or level (hPa), the last three on
        station, or on (time, station) where they change.

    Raises:
        InputError: no such variable, other dimensions, coordinates that are missing or in unknown
            units, or a station without a name.
    """
    key = _key(file, name, source)
    values = file[key].variable
    dated = time_axis(file, values.dims, source=source)
    if dated is None:
        raise InputError(f"{source}: no coordinate 'time' for the values of {key}")
    rest = [d for d in values.dims if d != dated.dim and d not in dated.single]
    if len(rest) > 1:
        raise InputError(
            f"{source}: {key} has dimensions {tuple(map(str, values.dims))}, expected (time, "
            "station): choose one of the others, such as with dataset.isel, and write it again"
        )
    names = {dated.dim: TIME, **dict.fromkeys(rest, STATION)}

    def arranged(variable: xr.Variable) -> xr.Variable:
        """On time and station, by the library's names, those that it has."""
        squeezed = variable.isel({d: 0 for d in variable.dims if d not in names})
        squeezed = squeezed.copy(deep=False)
        squeezed.dims = tuple(names[d] for d in squeezed.dims)
        return squeezed

    sizes = {TIME: dated.times.size, STATION: file.sizes[rest[0]] if rest else 1}
    full = lambda v: arranged(v).set_dims(sizes).transpose(TIME, STATION)
    written = units_of(values) or units
    scale, offset = conversion(name, written, source=source)
    data = {name: ((TIME, STATION), to_float32(full(values).values, scale, offset))}
    if ERROR in file.variables:
        error = file[ERROR].variable
        # A difference takes no offset.
        own = conversion(name, units_of(error) or written, source=source)[0]
        data[ERROR] = ((TIME, STATION), to_float32(full(error).values, own, 0.0))
    coordinates: dict[str, Any] = {
        TIME: dated.times,
        STATION: _labels(file, rest[0] if rest else None, sizes[STATION], source),
    }
    for role, variable in _positions(file, key, set(values.dims), source).items():
        coordinates[role] = _fixed_or_moving(arranged(variable), sizes)
    return xr.Dataset(data, coordinates)


def _key(file: xr.Dataset, name: str, source: str) -> Hashable:
    """The variable of `file` that is `name`, by its own name or that of CF."""
    keys = [v for v in file.data_vars if canonical_name(str(v)) == name]
    known = VARIABLES.get(name)
    if not keys and known is not None:
        named = lambda v: file[v].attrs.get("standard_name") == known.standard_name
        keys = [v for v in file.data_vars if named(v)]
    if len(keys) != 1:
        there = ", ".join(map(str, keys or file.data_vars))
        what = "several variables are" if keys else "no variable"
        raise InputError(f"{source}: {what} {name!r}; it has {there}: rename the right one")
    return keys[0]


def _positions(
    file: xr.Dataset, key: Hashable, dims: set[Hashable], source: str
) -> dict[str, xr.Variable]:
    """Latitude, longitude, and altitude (m) or level (hPa), on dimensions of the values."""
    positions = {}
    for role in (LATITUDE, LONGITUDE):
        name = _coordinate(file, role, key, dims)
        if name is None:
            raise InputError(f"{source}: no coordinate {role!r} for its stations: add it")
        variable = file[name].variable
        if units_of(variable) and not units_of(variable).lower().startswith("deg"):
            raise InputError(
                f"{source}: {name} has units {units_of(variable)!r}, not degrees: convert it"
            )
        positions[role] = variable
    altitude = _coordinate(file, ALTITUDE, key, dims)
    level = _coordinate(file, LEVEL, key, dims) if altitude is None else None
    if altitude is not None:
        variable = file[altitude].variable
        factor = _METRES.get(units_of(variable).lower())
        if factor is None:
            raise InputError(
                f"{source}: {altitude} has units {units_of(variable)!r}, not m, km or ft: "
                "convert it"
            )
        positions[ALTITUDE] = variable.astype(np.float64) * factor
    if level is not None:
        variable = file[level].variable
        hpa = hectopascals(exact_float64(variable.values), units_of(variable) or "hPa")
        if hpa is None:
            raise InputError(
                f"{source}: {level} has units {units_of(variable)!r}: a pressure is expected"
            )
        positions[LEVEL] = xr.Variable(variable.dims, hpa)
    return positions


def _coordinate(file: xr.Dataset, role: str, key: Hashable, dims: set[Hashable]) -> Hashable | None:
    """The variable that gives the positions of stations in one direction."""
    fits = {n: v for n, v in file.variables.items() if n != key and set(v.dims) <= dims}
    if role == ALTITUDE:  # a scalar is the height of a sensor, as is CF's `height`
        fits = {
            n: v
            for n, v in fits.items()
            if v.ndim and v.attrs.get("standard_name") not in ("height", "depth")
        }
    by_name = [n for n in fits if str(n).lower() in COORDINATE_ALIASES[role]]
    by_name = sorted(by_name, key=lambda n: n != role)
    by_cf = [n for n, v in fits.items() if v.attrs.get("standard_name") in _STANDARD_NAMES[role]]
    return next(iter([*by_name, *by_cf]), None)


def _fixed_or_moving(variable: xr.Variable, sizes: dict[str, int]) -> xr.Variable:
    """Positions on (station,), or on (time, station) where they change."""
    values = variable.set_dims(sizes).transpose(TIME, STATION).values.astype(np.float64)
    known = np.isfinite(values)
    first = values[known.argmax(axis=0), np.arange(sizes[STATION])]
    if TIME not in variable.dims or np.all((values == first) | ~known):
        return xr.Variable((STATION,), first)
    return xr.Variable((TIME, STATION), values)


def _labels(file: xr.Dataset, dim: Hashable | None, size: int, source: str) -> list[str]:
    """The names of the stations; their numbers where the file has none."""
    on_station = [n for n, v in file.variables.items() if v.dims in ((dim,), ()) and v.size == size]
    named = [n for n in on_station if str(n).lower() in COORDINATE_ALIASES[STATION]]
    named = [n for n in on_station if file[n].attrs.get("cf_role") == "timeseries_id"] or named
    if dim in file.variables and dim not in named:
        named.append(dim)
    if not named:
        return [str(i) for i in range(size)]
    cells = np.atleast_1d(file[named[0]].values)
    labels = [(v.decode() if isinstance(v, bytes) else str(v)).strip("\0 ") for v in cells]
    for i, label in enumerate(labels):
        if label.lower() in ("", "nan", "none"):
            raise InputError(f"{source}: station {i + 1} of {size} has no name: fill in {named[0]}")
    return labels
