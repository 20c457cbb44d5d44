"""Station records in CSV files.

Two forms of CSV are read.

*Wide*, one file a variable: the first column is the date (`YYYYMMDD`, `time` or `date`), every
other column is named by a station and holds its values; positions come from a second file with the
columns `station_id, longitude, latitude, altitude`.

*Tidy*, one row an observation: the columns `time, latitude, longitude`, `altitude` (m) or `level`
(hPa), `variable, value`, optionally `units` (of the value, row by row), `error` (standard
deviation, in the units of the value) and `station`. Rows of one station and position form one
series; without `station` the position does.

Empty cells, `NA` and `NaN` are missing values.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from slams_jax.errors import InputError, first_line
from slams_jax.readers.files import PathLike
from slams_jax.readers.periods import check_times
from slams_jax.readers.units import canonical_name, conversion
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

VERTICAL = (ALTITUDE, LEVEL)
_DATES = ("yyyymmdd", *COORDINATE_ALIASES[TIME])
_STATION_NAMES = COORDINATE_ALIASES[STATION]
Table = Any  # pandas.DataFrame, whose type stubs confuse it with Series


def read_table(
    path: Path, name: str, units: str, stations: PathLike | None
) -> tuple[xr.Dataset, str]:
    """(records, units): variable `name` as (time, station), not yet checked, and its units.

    Args:
        path: the CSV file, wide or tidy.
        name: library name of the values; of a tidy file, the rows to take.
        units: of the values, where no column says them.
        stations: positions of the stations of a wide file.

    Raises:
        InputError: not readable, of neither form, or with columns, positions or dates missing.
    """
    table = _read_table(path)
    if {"value", "variable"} <= {c.lower() for c in table.columns}:
        return _tidy(table, name, units, path)
    return _wide(table, name, path, stations), units


def _read_table(path: Path) -> Table:
    """A CSV file as text cells, column names stripped."""
    if not path.exists():
        raise InputError(f"{path}: no such file: check the path")
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        first = first_line(error)
        raise InputError(f"{path}: not a readable CSV file ({first}): check the file") from error
    table.columns = [str(c).strip() for c in table.columns]
    if table.empty:
        raise InputError(f"{path}: holds no rows")
    if len(set(table.columns)) < len(table.columns):
        raise InputError(f"{path}: a column name appears twice")
    return table


def _numbers(column: Any, path: Path) -> np.ndarray:
    """float64 cells of a column; empty, NA and NaN are NaN."""
    try:
        return np.asarray(pd.to_numeric(column), dtype=np.float64)
    except ValueError as error:
        raise InputError(
            f"{path}: column {column.name!r} holds a cell that is not a number ({error}): "
            "leave missing values empty"
        ) from error


def _dates(column: Any, path: Path) -> np.ndarray:
    """datetime64[ns] of a column of YYYYMMDD or ISO 8601 dates."""
    text = column.astype(str).str.strip()
    # pandas takes "now" and decimal years for dates.
    if odd := [t for t in text.unique() if not re.match(r"\d{4}([-/\d]|$)", t)]:
        raise InputError(
            f"{path}: column {column.name!r} holds {odd[0]!r}, which is not a date: "
            "write 19790131 or 1979-01-31T12:00"
        )
    form = "%Y%m%d" if text.str.fullmatch(r"\d{8}").all() else "ISO8601"
    try:
        dates = pd.to_datetime(text, format=form, utc=True).dt.tz_localize(None)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: column {column.name!r} holds a cell that is not a date "
            f"({str(error).splitlines()[0]}): write 19790131 or 1979-01-31T12:00"
        ) from error
    return dates.to_numpy(dtype="datetime64[ns]")


def _column(table: Table, names: Sequence[str]) -> str | None:
    """The column of `table` called by one of `names`, whatever the case."""
    lower = {c.lower(): c for c in reversed(table.columns)}
    return next((lower[n] for n in names if n in lower), None)


def _needed(table: Table, role: str, names: Sequence[str], path: Path) -> str:
    found = _column(table, names)
    if found is None:
        raise InputError(
            f"{path}: no column {role!r}; it has {', '.join(table.columns[:12])}: add the column"
        )
    return found


def _wide(table: Table, name: str, path: Path, stations: PathLike | None) -> xr.Dataset:
    if table.columns[0].lower() not in _DATES:
        raise InputError(
            f"{path}: neither form of station records: the first column is {table.columns[0]!r}, "
            "expected YYYYMMDD (wide), or columns time, latitude, longitude, altitude or level, "
            "variable, value (tidy)"
        )
    if stations is None:
        raise InputError(
            f"{path}: one column a station needs their positions: name the file with "
            "station_id, longitude, latitude, altitude as `stations`"
        )
    times = check_times(_dates(table[table.columns[0]], path), name=f"{path}: dates")
    identifiers = list(table.columns[1:])
    if blank := [i for i in identifiers if i.startswith("Unnamed: ")]:
        number = table.columns.get_loc(blank[0]) + 1
        raise InputError(f"{path}: column {number} has no name: name its station")
    metadata_path = Path(stations).expanduser()
    metadata = _read_table(metadata_path)
    column = _needed(metadata, "station_id", _STATION_NAMES, metadata_path)
    ids = _filled(metadata[column], metadata_path)
    if ids.duplicated().any():
        raise InputError(f"{metadata_path}: station {ids[ids.duplicated()].iloc[0]} appears twice")
    rows = {identifier: row for row, identifier in enumerate(ids)}
    if absent := [i for i in identifiers if i not in rows]:
        raise InputError(f"{metadata_path}: no row for station {absent[0]} of {path.name}")
    order = [rows[i] for i in identifiers]
    values = np.stack([_numbers(table[i], path) for i in identifiers], axis=1)
    coordinates: dict[str, Any] = {TIME: times, STATION: identifiers}
    for role in (LATITUDE, LONGITUDE, ALTITUDE):
        column = _needed(metadata, role, COORDINATE_ALIASES[role], metadata_path)
        coordinates[role] = ((STATION,), _numbers(metadata[column], metadata_path)[order])
    return xr.Dataset({name: ((TIME, STATION), values)}, coordinates)


def _tidy(table: Table, name: str, units: str, path: Path) -> tuple[xr.Dataset, str]:
    kinds = table[_needed(table, "variable", ("variable",), path)].astype(str).str.strip()
    chosen = kinds.map(canonical_name) == name
    if not chosen.any():
        there = ", ".join(sorted(set(kinds)))
        raise InputError(f"{path}: no row of variable {name!r}; it has {there}")
    table = table[chosen]
    roles = [LATITUDE, LONGITUDE, *(r for r in VERTICAL if _column(table, COORDINATE_ALIASES[r]))]
    if len(roles) != 3:
        raise InputError(
            f"{path}: exactly one of the columns altitude (m) and level (hPa) is needed: add or "
            "drop one"
        )
    series: Table = pd.DataFrame(
        {r: _numbers(table[_needed(table, r, COORDINATE_ALIASES[r], path)], path) for r in roles}
    )
    if series.isna().any(axis=None):
        raise InputError(f"{path}: an observation has no position: fill in or drop its row")
    station = _column(table, _STATION_NAMES)
    if station is not None:
        series.insert(0, STATION, _filled(table[station], path).to_numpy())
    series.insert(
        0, TIME, _dates(table[_needed(table, TIME, COORDINATE_ALIASES[TIME], path)], path)
    )
    series["value"] = _numbers(table[_needed(table, "value", ("value",), path)], path)
    if error := _column(table, (ERROR,)):
        series[ERROR] = _numbers(table[error], path)
    if (column := _column(table, ("units", "unit"))) is not None:
        _to_library_units(series, _filled(table[column], path), name, path)
        units = ""
    return to_series(series, name, str(path)), units


def _filled(column: Any, path: Path) -> Any:
    """A column of names, stripped.

    Raises:
        InputError: a cell that is empty.
    """
    text = column.astype("string").str.strip().fillna("")
    if (text == "").any():
        row = int(np.flatnonzero(text == "")[0])
        line = int(column.index[row]) + 2  # the head is line 1
        raise InputError(f"{path}: column {column.name!r} is empty in line {line}: fill it in")
    return text.astype(str)


def _to_library_units(series: Table, units: Any, name: str, path: Path) -> None:
    """Values and errors of `series`, each row in its own units, to library units, in place."""
    written = sorted(set(units))
    if name not in VARIABLES and len(written) > 1:
        raise InputError(f"{path}: {name} has the units {', '.join(written)}: convert it to one")
    for each in written:
        scale, offset = conversion(name, each, source=str(path))
        rows = (units == each).to_numpy()
        series.loc[rows, "value"] = series.loc[rows, "value"] * scale + offset
        if ERROR in series:
            series.loc[rows, ERROR] *= scale  # a difference takes no offset


def to_series(records: Table, name: str, source: str) -> xr.Dataset:
    """Records of variable `name` as (time, station), a series for each station and position.

    Args:
        records: a row for each value, with the columns time, latitude, longitude, altitude or
            level, value, and optionally station and error.
        name: of the values.
        source: what to name in errors.

    Raises:
        InputError: a value that appears twice.
    """
    roles = [LATITUDE, LONGITUDE, *(r for r in VERTICAL if r in records)]
    places = records[[c for c in (STATION, *roles) if c in records]]
    times = records[TIME].to_numpy("datetime64[ns]")
    unique_times, row = np.unique(times, return_inverse=True)
    column = places.groupby(list(places.columns), sort=False).ngroup().to_numpy()
    positions = places.drop_duplicates().reset_index(drop=True)
    pairs = row * len(positions) + column
    if np.unique(pairs).size < pairs.size:
        again = pd.Series(pairs).duplicated().to_numpy()
        where = places[again].iloc[0].to_dict()
        raise InputError(
            f"{source}: {name} at {where} appears twice at {str(times[again][0])[:16]}: keep it "
            "once"
        )
    coordinates: dict[str, Any] = {TIME: check_times(unique_times), STATION: _labels(positions)}
    coordinates.update({r: ((STATION,), positions[r].to_numpy()) for r in roles})
    data = {}
    for field, cells in {name: "value", ERROR: ERROR}.items():
        if cells in records:
            values = np.full((unique_times.size, len(positions)), np.nan)
            values[row, column] = records[cells].to_numpy()
            data[field] = ((TIME, STATION), values)
    return xr.Dataset(data, coordinates)


def _labels(positions: Table) -> list[str]:
    """A name for each series: the station, with its position if it has several."""
    place = [
        ",".join(f"{v:g}" for v in row)
        for row in positions[list(positions.columns[-3:])].to_numpy()
    ]
    if STATION not in positions:
        return place
    several = positions[STATION].duplicated(keep=False)
    return [
        f"{s} {p}" if many else s
        for s, p, many in zip(positions[STATION], place, several, strict=True)
    ]
