"""Point observations: the records of stations as time series.

CSV files come wide or tidy, as `station_tables` describes; NetCDF files have the dimensions
(time, station) and the coordinates latitude, longitude, and altitude or level. Radiosondes
(`soundings`) and surface reports (`metar`) are read as NOAA's MADIS has them, many files at once.
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
from slams_jax.readers.station_tables import ERROR, VERTICAL, read_table, to_series
from slams_jax.readers.times import decode_times
from slams_jax.readers.units import (
    canonical_name,
    check_plausible,
    conversion,
    hectopascals,
    to_float32,
)
from slams_jax.schema import (
    ALTITUDE,
    LATITUDE,
    LEVEL,
    LONGITUDE,
    STATION,
    TIME,
    VARIABLES,
)


def read_stations(
    path: PathLike | Sequence[PathLike],
    *,
    stations: PathLike | None = None,
    variable: str = "temperature",
    units: str = "degC",
    period: Sequence[Any] | None = None,
) -> xr.Dataset:
    """Read station records from CSV (wide or tidy), NetCDF or Parquet (see the module).

    Args:
        path: the records: a file or URL; of radiosondes and METARs also a glob pattern or a list.
        stations: for the wide form, the CSV of station positions.
        variable: library name (or alias) of what the values are; of a tidy file, the rows to take.
        units: units of values and errors in a CSV file; a NetCDF file says its own.
        period: (start, end), both inclusive; None takes all times.

    Returns:
        A Dataset with `variable` (time, station), float32 in library units, NaN where missing,
        `error` likewise where given, and on `station` the coordinates latitude, longitude (degrees,
        [-180, 180)) and altitude (m) or level (hPa).

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
            f"{source}: several files at once are read of radiosondes or METARs alone: give one"
        )
    kind = kinds.pop()
    if kind == "table":
        dataset = _convert(read_table(paths[0], name, stations), name, units, source=source)
    elif kind == "netcdf":
        dataset = _read_netcdf(paths[0], name)
    else:
        dataset = _read_records(paths, kind, name, source)
    if period is not None:
        dataset = dataset.isel({TIME: select_period(dataset[TIME].values, period)})
    check_plausible(name, dataset[name].values, source=source)
    _check_positions(dataset, source)
    if ERROR in dataset and not np.all(
        (dataset[ERROR].values > 0) | np.isnan(dataset[name].values)
    ):
        raise InputError(
            f"{source}: an error is negative, zero or missing: every value needs one > 0"
        )
    return _finish(dataset, name)


def _kind(path: Path) -> str:
    """What a file of station records is: "table", "netcdf", "sounding" or "metar"."""
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
        raise InputError(f"{source}: no {name} in it that is neither missing nor out of range")
    # Files overlap: what is there twice is taken once, the later file's.
    places = [c for c in records.columns if c != "value"]
    records = records.drop_duplicates(places, keep="last")
    return _convert(to_series(records, name, source), name, units, source=source)


def _read_netcdf(path: Path, name: str) -> xr.Dataset:
    """A NetCDF file with dimensions (time, station)."""
    with open_file(path, what="station records") as file:
        keys = [v for v in file.data_vars if canonical_name(str(v)) == name]
        if not keys:
            there = ", ".join(map(str, file.data_vars))
            raise InputError(f"{path}: no variable {name!r}; it has {there}")
        data = {name: file[keys[0]], **({ERROR: file[ERROR]} if ERROR in file else {})}
        if set(data[name].dims) != {TIME, STATION}:
            raise InputError(
                f"{path}: {keys[0]} has dimensions {data[name].dims}, expected (time, station)"
            )
        vertical = [v for v in VERTICAL if v in file.variables]
        for role in (TIME, LATITUDE, LONGITUDE):
            if role not in file.variables:
                raise InputError(f"{path}: no coordinate {role!r} for its stations")
        coordinates: dict[str, Any] = {
            r: ((STATION,), np.asarray(file[r].values, dtype=np.float64))
            for r in (LATITUDE, LONGITUDE, *vertical[:1])
        }
        if LEVEL in coordinates:
            units = str(file[LEVEL].attrs.get("units", "hPa"))
            pressures = hectopascals(file[LEVEL].values, units)
            if pressures is None:
                raise InputError(f"{path}: level has units {units!r}, a pressure is expected")
            coordinates[LEVEL] = ((STATION,), pressures)
        coordinates[TIME] = decode_times(file[TIME].variable, source=str(path))
        labels = file[STATION].values if STATION in file.variables else range(file.sizes[STATION])
        coordinates[STATION] = [v.decode() if isinstance(v, bytes) else str(v) for v in labels]
        read = {k: ((TIME, STATION), v.transpose(TIME, STATION).values) for k, v in data.items()}
        written_units = str(data[name].attrs.get("units", ""))
    return _convert(xr.Dataset(read, coordinates), name, written_units, source=str(path))


def _convert(dataset: xr.Dataset, name: str, units: str, *, source: str) -> xr.Dataset:
    """Values and errors to library units; an error is a difference, so it takes no offset."""
    scale, offset = conversion(name, units, source=source)
    dataset[name] = dataset[name].copy(data=to_float32(dataset[name].values, scale, offset))
    if ERROR in dataset:
        dataset[ERROR] = dataset[ERROR].copy(data=to_float32(dataset[ERROR].values, scale, 0.0))
    return dataset


def _check_positions(dataset: xr.Dataset, source: str) -> None:
    limits = {
        LATITUDE: (-90.0, 90.0),
        LONGITUDE: (-180.0, 360.0),
        ALTITUDE: (-500.0, 9000.0),
        LEVEL: (0.1, 1100.0),
    }
    for role, (low, high) in limits.items():
        if role in dataset.coords:
            values = dataset[role].values
            bad = np.flatnonzero(~((values >= low) & (values <= high)))
            if bad.size:
                raise InputError(
                    f"{source}: station {dataset[STATION].values[bad[0]]} has {role} "
                    f"{values[bad[0]]:g}, outside [{low:g}, {high:g}]: correct its position"
                )


def _finish(dataset: xr.Dataset, name: str) -> xr.Dataset:
    longitude = dataset[LONGITUDE].values
    dataset[LONGITUDE] = ((STATION,), np.mod(longitude + 180.0, 360.0) - 180.0)
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
