"""Gridded data of any CF NetCDF or GRIB file or Zarr store, in the library's one schema.

The schema: dimensions (time, level, latitude, longitude), level in hPa and ascending, latitude
ascending, longitude ascending in one piece, float32, the units of `schema.VARIABLES`, NaN where a
value is missing. Nothing but coordinates is read before it is indexed.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import coordinates as coords
from slams_jax.readers import daily
from slams_jax.readers.files import Location, PathLike, expand_paths, fingerprint, open_file
from slams_jax.readers.lazy import LazyField, Piece, lazy_variable
from slams_jax.readers.periods import check_times, select_period
from slams_jax.readers.units import check_plausible, conversion
from slams_jax.readers.variables import SourceFile, resolve
from slams_jax.schema import LATITUDE, LEVEL, LONGITUDE, MEMBER, TIME, VARIABLES

COORDINATE_ATTRIBUTES = {
    TIME: {"standard_name": "time", "axis": "T"},
    LEVEL: {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"},
    LATITUDE: {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    LONGITUDE: {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}
ERROR = "error"  # the attribute in which a file gives the standard deviation of observations
_ORDER = (MEMBER, TIME, LEVEL, LATITUDE, LONGITUDE)  # of the dimensions of a result


class _Part(NamedTuple):
    """What one file holds of one variable: its values and its coordinates by library name."""

    piece: Piece
    dims: tuple[str, ...]
    axes: dict[str, np.ndarray]


def open_dataset(
    path: PathLike | Sequence[PathLike],
    *,
    variables: Mapping[str, str] | Sequence[str] | None = None,
    levels: Sequence[float | int] | None = None,
    period: Sequence[Any] | None = None,
    units: str = "",
) -> xr.Dataset:
    """Open gridded data lazily, whatever the file calls and orders things.

    Args:
        path: a NetCDF or GRIB file, a Zarr store, a glob pattern, a URL (of a store, read in place,
            or of a file, fetched), or a list of these. Files with the same variables are joined in
            time; files with different variables must share their times. A file without times is
            dated by YYYYMMDD in its name.
        variables: library names (or aliases of them, such as `T`), or a mapping from library name
            to the name in the file; None takes all that lie on a latitude-longitude grid.
        levels: pressures in hPa to take, exactly; None takes all.
        period: (start, end), both inclusive, such as ("1961", "1988-12-31"); None takes all times.
        units: of the variables whose file does not say them; empty takes the library's.

    Returns:
        A Dataset with dimensions (time, level, latitude, longitude) for variables on pressure
        levels and without `level` for others; a further dimension (such as the channels of a
        sounder) keeps its name and stands in the place of `level`, ensemble members stand first
        as `member`. float32, NaN where missing; `close()` closes the files. Of the attributes of
        a variable only `error`, the standard deviation of its errors, is taken over.

    Raises:
        InputError: unreadable files, variables, levels or times that are not there, unknown units,
            or grids that are not rectangular in latitude and longitude.
        RunError: a server that does not answer.
    """
    wanted_levels = _checked_levels(levels)
    paths = expand_paths(path)
    opened: list[SourceFile] = []
    try:
        first, series = daily.split_series(paths)
        for p in first:
            file = _opened(p)
            opened.append(file)
            times = [file.dataset.sizes[d] for d, role in file.roles.items() if role == TIME]
            if max(times, default=1) > 1:  # no series of one time each
                opened += [_opened(other) for other in series.pop(p, [])]
        joined = {}
        for name, found in resolve(opened, variables).items():
            parts = []
            for file, key in found:
                part = _part(file, name, key, wanted_levels, units)
                parts += [part, *_series(part, file, key, series.get(file.path, []))]
            joined[name] = _join(parts, name, period)
        dataset = _assemble(joined, wanted_levels)
    except BaseException:
        _close(opened)
        raise
    dataset.attrs = {"Conventions": "CF-1.11", "source_digest": fingerprint(paths)}
    dataset.set_close(functools.partial(_close, opened))
    return dataset


def _opened(path: Location) -> SourceFile:
    dataset = open_file(path)
    roles = {d: coords.role_of(d, dataset.variables.get(d)) for d in dataset.dims}
    return SourceFile(path, dataset, roles)


def _close(files: list[SourceFile]) -> None:
    for file in files:
        file.dataset.close()


def _checked_levels(levels: Sequence[float | int] | None) -> tuple[float, ...] | None:
    if levels is None or len(levels) == 0:
        return None
    result = tuple(float(v) for v in levels)
    if not all(0.0 < v <= 1100.0 for v in result):
        raise InputError(f"levels must be pressures in hPa, in (0, 1100], got {tuple(levels)}")
    return result


# --- one variable of one file ------------------------------------------------------------------


def _part(
    file: SourceFile, name: str, key: Hashable, levels: tuple[float, ...] | None, units: str
) -> _Part:
    """The values and normalised coordinates of variable `key` of one file."""
    source = f"{file.path}: {key}"
    variable = _without_remarks(file, file.dataset.variables[key])
    roles = {d: file.roles[d] or str(d) for d in variable.dims}
    if len(set(roles.values())) < len(roles):
        raise InputError(f"{source}: two of its dimensions {tuple(roles)} mean the same")
    axes: dict[str, np.ndarray] = {}
    positions: dict[str, np.ndarray] = {}
    for dim, role in roles.items():
        positions[role], axes[role] = _axis(file, dim, role, levels, source)
    for role in (LATITUDE, LONGITUDE):
        if role not in axes:
            raise InputError(
                f"{source} has dimensions {tuple(map(str, roles))}: a grid with latitude and "
                "longitude is expected; stations are read by read_stations"
            )
    if TIME not in axes:
        positions[TIME], axes[TIME] = np.zeros(1, dtype=int), _scalar_time(file, source)
    extras = [d for d in axes if d not in _ORDER]
    order = [*_ORDER[:3], *extras, *_ORDER[3:]]
    written = variable.attrs.get("units") or units
    scale, offset = conversion(name, written, source=str(file.path))
    renamed = _in_library_dims(file, variable)
    piece = Piece(source, renamed, positions, scale, offset)
    return _Part(piece, tuple(d for d in order if d in axes), axes)


def _without_remarks(file: SourceFile, variable: xr.Variable) -> xr.Variable:
    for dim in variable.dims:
        # A level that is no pressure, alone, is a remark: "at 2 m".
        alone = file.roles[dim] == LEVEL and variable.sizes[dim] == 1
        if alone and coords.pressures(dim, file.coordinate(dim)) is None:
            variable = variable.isel({dim: 0})
    return variable


def _in_library_dims(file: SourceFile, variable: xr.Variable) -> xr.Variable:
    renamed = variable.copy(deep=False)
    renamed.dims = tuple(file.roles[d] or str(d) for d in variable.dims)
    return renamed


def _axis(
    file: SourceFile, dim: Hashable, role: str, levels: tuple[float, ...] | None, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, normalised coordinate) of one dimension."""
    coordinate = file.coordinate(dim)
    if role == LATITUDE:
        return coords.latitude_order(
            coords.horizontal(coordinate, role, source=source), source=source
        )
    if role == LONGITUDE:
        return coords.longitude_order(coords.horizontal(coordinate, role, source=source))
    if role == LEVEL:
        pressures = coords.pressures(dim, coordinate)
        if pressures is None:
            units = "" if coordinate is None else coordinate.attrs.get("units", "")
            raise InputError(
                f"{source}: vertical dimension {dim} (units {units!r}) is no pressure: interpolate "
                "the data to pressure levels"
            )
        return coords.select_levels(pressures, levels, source=source)
    if role == TIME:
        if coordinate is None:
            raise InputError(f"{source}: dimension {dim} has no times: give it a time coordinate")
        times = coords.decode_times(coordinate, source=str(file.path))
        return np.arange(times.size), times
    size = file.dataset.sizes[dim]
    return np.arange(size), np.arange(size) if coordinate is None else coordinate.values


def _series(part: _Part, file: SourceFile, key: Hashable, rest: list[Location]) -> list[_Part]:
    """The parts of the other stores of a series, made after that of the first."""
    if not rest:
        return []
    like = daily.template(file.dataset, key, part.axes[TIME][0], file.path)
    parts = []
    for path in rest:
        renamed = _in_library_dims(file, _without_remarks(file, daily.deferred(path, like)))
        time = np.array([daily.dated(path) + like.hour])
        piece = part.piece._replace(source=f"{path}: {key}", variable=renamed)
        parts.append(part._replace(piece=piece, axes={**part.axes, TIME: time}))
    return parts


def _scalar_time(file: SourceFile, source: str) -> np.ndarray:
    """The one time of a file without a time dimension."""
    for name, variable in file.dataset.variables.items():
        if variable.size == 1 and coords.role_of(name, variable) == TIME:
            return coords.decode_times(variable.squeeze(), source=str(file.path))
    if (date := daily.date_in_name(file.path)) is not None:
        return np.array([date])
    raise InputError(
        f"{source}: has neither a time dimension nor a time, nor YYYYMMDD in its name: add one"
    )


# --- putting the parts together ----------------------------------------------------------------


def _join(parts: list[_Part], name: str, period: Sequence[Any] | None) -> _Part:
    """Join the files of one variable in time and keep those times that lie in `period`."""
    parts = sorted(parts, key=lambda part: part.axes[TIME][0])
    first = parts[0]
    for part in parts[1:]:
        if part.dims != first.dims:
            raise InputError(
                f"{part.piece.source}: dimensions {part.dims} differ from {first.dims} in "
                f"{first.piece.source}: open the files separately"
            )
        for dim in first.dims:
            if dim != TIME and not _same(part.axes[dim], first.axes[dim]):
                raise InputError(
                    f"{part.piece.source}: its {dim} differs from that in {first.piece.source}: "
                    "open the files separately"
                )
    sizes = [part.axes[TIME].size for part in parts]
    times = np.concatenate([part.axes[TIME] for part in parts])
    times = check_times(times, name=f"{first.piece.source}: time")
    keep = slice(0, times.size) if period is None else select_period(times, period)
    pieces = []
    for part, stop in zip(parts, np.cumsum(sizes), strict=True):
        begin = int(stop) - part.axes[TIME].size
        low, high = max(keep.start, begin) - begin, min(keep.stop, int(stop)) - begin
        if low < high:
            chosen = part.piece.positions[TIME][low:high]
            pieces.append(part.piece._replace(positions={**part.piece.positions, TIME: chosen}))
    field = LazyField(pieces, first.dims, TIME)
    corner = [
        np.arange(1 if d in (MEMBER, TIME, LEVEL) else n)
        for d, n in zip(first.dims, field.shape, strict=True)
    ]
    check_plausible(name, field.block(corner), source=first.piece.source)
    # Errors that a file gives with its values stay with them; differences take no offset.
    error = first.piece.variable.attrs.get(ERROR)
    kept = {} if error is None else {ERROR: np.asarray(error, np.float64) * first.piece.scale}
    joined = first.piece._replace(variable=lazy_variable(field, first.dims, kept))
    return _Part(joined, first.dims, {**first.axes, TIME: times[keep]})


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    if np.issubdtype(a.dtype, np.floating) and np.issubdtype(b.dtype, np.floating):
        return bool(np.allclose(a, b, rtol=0, atol=1e-4))
    return bool(np.array_equal(a, b))


def _assemble(joined: dict[str, _Part], levels: tuple[float, ...] | None) -> xr.Dataset:
    """One Dataset of variables that share their coordinates."""
    if levels is not None and not any(LEVEL in part.dims for part in joined.values()):
        raise InputError(
            f"levels {levels} are asked for, but {', '.join(joined)} has no vertical dimension: "
            "leave levels out"
        )
    axes: dict[str, np.ndarray] = {}
    for part in joined.values():
        for dim in part.dims:
            if dim in axes and not _same(axes[dim], part.axes[dim]):
                way_out = "choose levels that both have" if dim == LEVEL else "open it separately"
                raise InputError(
                    f"{part.piece.source}: its {dim} ({_brief(part.axes[dim])}) differs from that "
                    f"of {next(iter(joined))} ({_brief(axes[dim])}): {way_out}"
                )
            axes.setdefault(dim, part.axes[dim])
    dataset = xr.Dataset(
        coords={
            dim: xr.Variable((dim,), axes[dim], COORDINATE_ATTRIBUTES.get(dim))
            for dim in sorted(axes, key=lambda d: _ORDER.index(d) if d in _ORDER else 2)
        }
    )
    for name, part in joined.items():
        dataset[name] = part.piece.variable
        if (known := VARIABLES.get(name)) is not None:
            dataset[name].attrs |= {
                "units": known.units,
                "standard_name": known.standard_name,
                "long_name": known.long_name,
            }
    return dataset


def _brief(values: np.ndarray) -> str:
    if values.size <= 5:
        return ", ".join(str(v)[:16] for v in values)
    return f"{values.size} from {str(values[0])[:16]} to {str(values[-1])[:16]}"
