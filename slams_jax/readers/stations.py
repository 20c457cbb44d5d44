"""Point observations: the records of stations and moving platforms as time series.

CSV files come wide or tidy, as `station_tables` describes; NetCDF files and Datasets have values on
(time, station), as `station_files` does. Radiosondes (`soundings`) and surface reports (`metar`)
are read as NOAA's MADIS has them, many files at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.files import PathLike, expand_paths, open_file
from slams_jax.readers.gridded import COORDINATE_ATTRIBUTES
from slams_jax.readers.metar import metar_records
from slams_jax.readers.periods import select_period
from slams_jax.readers.soundings import is_sounding, sounding_records
from slams_jax.readers.station_files import station_records
from slams_jax.readers.station_tables import read_table, to_series
from slams_jax.readers.units import canonical_name, check_plausible, conversion, to_float32
from slams_jax.schema import ALTITUDE, ERROR, LATITUDE, LEVEL, LONGITUDE, STATION, TIME, VARIABLES

# K at the surface: -99 degrees Celsius, which stands for missing values, is none of them.
_SURFACE_TEMPERATURE = VARIABLES["2m_temperature"].plausible


def read_stations(
    path: PathLike | Sequence[PathLike],
    *,
    stations: PathLike | None = None,
    variable: str = "temperature",
    units: str = "degC",
    period: Sequence[Any] | None = None,
    plausible: Sequence[float | int] | None = None,
) -> xr.Dataset:
    """Read station records from CSV (wide or tidy), NetCDF or Parquet (see the module).

    Args:
        path: the records: a file or URL; of radiosondes and METARs also a glob pattern or a list.
        stations: for the wide form, the CSV of station positions.
        variable: library name (or alias) of what the values are; of a tidy file, the rows to take.
        units: units of values and errors in a CSV file without a column `units`; a NetCDF file says
            its own.
        period: (start, end), both inclusive; None takes all times.
        plausible: (lowest, highest) value, in library units; needed for a variable that is not in
            `schema.VARIABLES`, unless a NetCDF file has its `valid_min` and `valid_max`.

    Returns:
        A Dataset with `variable` (time, station), float32 in library units, NaN where missing;
        `error`, likewise, where given; and on `station` the coordinates latitude, longitude
        (degrees, [-180, 180)) and altitude (m) or level (hPa), or on (time, station) where
        positions change with time.

    Raises:
        InputError: an unreadable file, missing columns, duplicates, positions off the globe, errors
            that are not positive, or values that cannot be in the given units.
    """
    name = canonical_name(variable)
    paths = [Path(p) for p in expand_paths(path)]
    source = str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    kinds = {_kind(p) for p in paths}
    if (len(paths) > 1 and not kinds <= {"metar", "sounding"}) or len(kinds) > 1:
        raise InputError(
            f"{source}: only radiosondes and METARs are read from several files at once: give one"
        )
    kind = kinds.pop()
    if kind == "table":
        table, written = read_table(paths[0], name, units, stations)
        dataset = _convert(table, name, written, source=source)
    elif kind == "netcdf":
        with open_file(paths[0], what="station records") as file:
            dataset = station_records(file, name, "", source=source)
            plausible = plausible or _declared_range(file, name)
    else:
        dataset = _read_records(paths, kind, name, source)
    return _checked(dataset, name, period, plausible, source=source)


def from_stations(
    dataset: xr.Dataset,
    *,
    variable: str = "temperature",
    units: str = "",
    period: Sequence[Any] | None = None,
    plausible: Sequence[float | int] | None = None,
    name: str = "stations",
) -> xr.Dataset:
    """A Dataset of point observations in memory, read as `read_stations` reads a NetCDF file.

    Args:
        dataset: `variable` on (time, station), with the positions of the stations, and perhaps
            `error` on these dimensions, on one of them, or on none.
        variable: library name (or alias) of what the values are.
        units: of the values where the Dataset does not say them; empty for the library's.
        period: (start, end), both inclusive; None takes all times.
        plausible: as for `read_stations`.
        name: of the Dataset, for errors.

    Returns:
        As `read_stations`.

    Raises:
        InputError: as `read_stations`.
    """
    canonical = canonical_name(variable)
    records = station_records(dataset, canonical, units, source=name)
    plausible = plausible or _declared_range(dataset, canonical)
    return _checked(records, canonical, period, plausible, source=name)


def _declared_range(file: xr.Dataset, name: str) -> tuple[float, float] | None:
    """The range that a file declares for the values of an unknown variable, which it is named."""
    attributes = file[name].attrs if name in file else {}
    bounds = np.ravel(attributes.get("valid_range", ()))
    if bounds.size != 2:
        bounds = np.array([attributes.get(k, np.nan) for k in ("valid_min", "valid_max")])
    known = name in VARIABLES or not np.isfinite(bounds).all()
    return None if known else (float(bounds[0]), float(bounds[1]))


def _checked(
    dataset: xr.Dataset,
    name: str,
    period: Sequence[Any] | None,
    plausible: Sequence[float | int] | None,
    *,
    source: str,
) -> xr.Dataset:
    """Records in library units, within `period`, with every check of values and positions."""
    if plausible is None and name not in VARIABLES:
        raise InputError(
            f"{source}: {name} is not a variable that the library knows: say between which values "
            "it lies, with plausible=(lowest, highest)"
        )
    if period is not None:
        dataset = dataset.isel({TIME: select_period(dataset[TIME].values, period)})
    if plausible is None and name == "temperature" and ALTITUDE in dataset.coords:
        plausible = _SURFACE_TEMPERATURE
    check_plausible(name, dataset[name].values, source=source, plausible=plausible)
    _check_positions(dataset, name, source)
    if ERROR in dataset and not np.all(
        (dataset[ERROR].values > 0) | np.isnan(dataset[name].values)
    ):
        raise InputError(
            f"{source}: an error is negative, zero or missing: every value needs one > 0"
        )
    return _finish(dataset, name)


def _kind(path: Path) -> str:
    """The kind of a file of station records: "table", "netcdf", "sounding" or "metar"."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return "metar"
    if path.suffix.lower() not in (".nc", ".nc4", ".cdf", ".zarr"):
        return "table"
    with open_file(path, what="station records") as file:
        return "sounding" if is_sounding(file) else "netcdf"


def _read_records(paths: list[Path], kind: str, name: str, source: str) -> xr.Dataset:
    """Reports of several files, as series."""
    tables, units = [], ""
    for path in paths:
        if kind == "metar":
            table, units = metar_records(path, name)
        else:
            with open_file(path) as file:
                table, units = sounding_records(file, path, name)
        tables.append(table)
    records = pd.concat(tables, ignore_index=True)
    if records.empty:
        raise InputError(f"{source}: no value of {name} that is neither missing nor out of range")
    # Files overlap: of a value that appears twice, the later file's is taken.
    places = [c for c in records.columns if c != "value"]
    records = records.drop_duplicates(places, keep="last")
    return _convert(to_series(records, name, source), name, units, source=source)


def _convert(dataset: xr.Dataset, name: str, units: str, *, source: str) -> xr.Dataset:
    """Values and errors to library units; an error is a difference, so it takes no offset."""
    scale, offset = conversion(name, units, source=source)
    dataset[name] = dataset[name].copy(data=to_float32(dataset[name].values, scale, offset))
    if ERROR in dataset:
        dataset[ERROR] = dataset[ERROR].copy(data=to_float32(dataset[ERROR].values, scale, 0.0))
    return dataset


def _check_positions(dataset: xr.Dataset, name: str, source: str) -> None:
    """Refuse positions off the globe; where they change, only at times with a value."""
    limits = {
        LATITUDE: (-90.0, 90.0),
        LONGITUDE: (-180.0, 360.0),
        ALTITUDE: (-500.0, 9000.0),
        LEVEL: (0.1, 1100.0),
    }
    for role, (low, high) in limits.items():
        if role in dataset.coords:
            values = dataset[role].values
            bad = ~((values >= low) & (values <= high))
            if values.ndim == 2:
                bad &= np.isfinite(values) | np.isfinite(dataset[name].values)
            if bad.any():
                first = tuple(np.argwhere(bad)[0])
                raise InputError(
                    f"{source}: station {dataset[STATION].values[first[-1]]} has {role} "
                    f"{values[first]:g}, outside [{low:g}, {high:g}]: correct its position"
                )


def _finish(dataset: xr.Dataset, name: str) -> xr.Dataset:
    longitude = dataset[LONGITUDE].variable
    dataset[LONGITUDE] = (longitude.dims, np.mod(longitude.values + 180.0, 360.0) - 180.0)
    for role, attributes in COORDINATE_ATTRIBUTES.items():
        if role in dataset.coords:
            dataset[role].attrs = {
                k: v for k, v in attributes.items() if k != "axis" or role == TIME
            }
    if ALTITUDE in dataset.coords:
        dataset[ALTITUDE].attrs = {"standard_name": "height_above_mean_sea_level", "units": "m"}
    if (known := VARIABLES.get(name)) is not None:
        dataset[name].attrs = {"units": known.units, "standard_name": known.standard_name}
        if ERROR in dataset:
            dataset[ERROR].attrs = {"units": known.units, "long_name": "observation error"}
    return dataset
