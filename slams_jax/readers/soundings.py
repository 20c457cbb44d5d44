"""Radiosondes in NOAA's MADIS files (rawin): mandatory levels as point observations.

Each station and level is one series at the pressure of the level, dated by the synoptic time, as
analyses are. Dropped are the surface level, which comes first and whose pressure varies (stations
report the surface); soundings launched more than three hours from their synoptic time; records
without a position; and values outside the file's `valid_range`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.times import decode_times
from slams_jax.readers.units import hectopascals
from slams_jax.schema import LATITUDE, LEVEL, LONGITUDE, STATION, TIME

_VARIABLES = {"temperature": "tpMan", "geopotential": "htMan"}
_NEEDED = ("staLat", "staLon", "prMan", "synTime")
_LATE = np.timedelta64(3, "h")  # between release and synoptic time, either way


def is_sounding(file: xr.Dataset) -> bool:
    """Whether an open file holds radiosondes."""
    return "prMan" in file.variables or "tpMan" in file.variables


def sounding_records(file: xr.Dataset, path: Path, name: str) -> tuple[Any, str]:
    """(records, units): a table with a row for each value on a mandatory level.

    Args:
        file: the open file, times as numbers.
        path: of the file, for errors.
        name: library name of the variable.

    Raises:
        InputError: a variable that is not read from radiosondes, or missing parts of the file.
    """
    if name not in _VARIABLES:
        raise InputError(
            f"{path}: radiosondes are read for {' and '.join(_VARIABLES)}, not for {name!r}"
        )
    key = _VARIABLES[name]
    for needed in (*_NEEDED, key):
        if needed not in file.variables:
            raise InputError(f"{path}: a radiosonde file without {needed}: download it again")
    times = _instants(file["synTime"], path)
    lat, lon = (_valid(file[v], ranged=False) for v in ("staLat", "staLon"))
    there = np.isfinite(lat) & np.isfinite(lon) & ~np.isnat(times)
    if "relTime" in file.variables:
        released = _instants(file["relTime"], path)
        there &= np.isnat(released) | (np.abs(released - times) <= _LATE)
    pressure = hectopascals(_valid(file["prMan"]), _known_units(file["prMan"]))
    if pressure is None:
        raise InputError(f"{path}: prMan has units {file['prMan'].attrs.get('units')!r}, not hPa")
    values = _valid(file[key])
    use = np.isfinite(pressure) & np.isfinite(values) & there[:, None]
    use[:, 0] = False  # the surface
    row, level = np.nonzero(use)
    records = pd.DataFrame(
        {
            TIME: times[row],
            STATION: np.array(_stations(file))[row],
            LATITUDE: np.round(lat[row], 4),
            LONGITUDE: np.round(lon[row], 4),
            LEVEL: pressure[row, level],
            "value": values[row, level],
        }
    )
    # A sounding that is sent again corrects the earlier one.
    again = [TIME, STATION, LATITUDE, LONGITUDE, LEVEL]
    return records.drop_duplicates(again, keep="last"), str(file[key].attrs.get("units", ""))


def _valid(variable: xr.DataArray, *, ranged: bool = True) -> np.ndarray:
    """float64 values, NaN where missing or outside the file's valid range."""
    values = np.asarray(variable.values, dtype=np.float64)
    bounds = np.ravel(variable.attrs.get("valid_range", ()))
    with np.errstate(invalid="ignore"):
        bad = np.abs(values) >= 99998.0  # the fill value, where it is not declared
        if ranged and bounds.size == 2:
            bad |= (values < float(bounds[0])) | (values > float(bounds[1]))
    return np.where(bad, np.nan, values)


def _instants(variable: xr.DataArray, path: Path) -> np.ndarray:
    """datetime64[ns] (record,), NaT where missing; not ascending."""
    seconds = np.asarray(variable.values, dtype=np.float64)
    known = np.isfinite(seconds) & (np.abs(seconds) < 1e12)
    units = str(variable.attrs.get("units", "")).replace("(", "").replace(")", "")
    times = np.full(seconds.shape, np.datetime64("NaT", "ns"))
    unique, where = np.unique(seconds[known], return_inverse=True)
    if unique.size:
        decoded = decode_times(
            xr.Variable((TIME,), unique, {"units": units, "calendar": "standard"}), source=str(path)
        )
        times[known] = decoded[where]
    return times


def _known_units(variable: xr.DataArray) -> str | None:
    return str(variable.attrs.get("units", "hPa"))


def _stations(file: xr.Dataset) -> list[str]:
    """WMO numbers; else names; else the number of the record."""
    size = file["staLat"].size
    names = file["staName"].values if "staName" in file.variables else [b""] * size
    numbers = file["wmoStaNum"].values if "wmoStaNum" in file.variables else [np.nan] * size
    result = []
    for i, (number, name) in enumerate(zip(numbers, names, strict=True)):
        text = (name.decode(errors="replace") if isinstance(name, bytes) else str(name)).strip(
            "\0 "
        )
        known = np.isfinite(float(number)) and float(number) < 99999
        result.append(f"{int(number):05d}" if known else text or f"record {i}")
    return result
