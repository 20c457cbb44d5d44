"""What one file holds of one variable, and the parts of several files joined in time."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import coordinates as coords
from slams_jax.readers import daily
from slams_jax.readers.files import Location
from slams_jax.readers.lazy import FirstPresent, LazyField, Piece, lazy_variable
from slams_jax.readers.missing import check_mask
from slams_jax.readers.periods import check_times, select_period
from slams_jax.readers.times import TimeAxis, time_axis
from slams_jax.readers.units import conversion, units_of
from slams_jax.readers.variables import SourceFile
from slams_jax.schema import (
    CHANNEL,
    ERROR,
    LATITUDE,
    LEVEL,
    LONGITUDE,
    MEMBER,
    TIME,
    VARIABLES,
)

ORDER = (MEMBER, TIME, LEVEL, CHANNEL, LATITUDE, LONGITUDE)  # of the dimensions of a result
_VERSIONS = "expver"  # dimension of ERA5 files that also hold the preliminary ERA5T


class Part(NamedTuple):
    """What one file holds of one variable: its values and its coordinates by library name."""

    piece: Piece
    dims: tuple[str, ...]
    axes: dict[str, np.ndarray]


# --- one variable of one file ------------------------------------------------------------------


def part(
    file: SourceFile, name: str, key: Hashable, levels: tuple[float, ...] | None, units: str
) -> Part:
    """The values and normalised coordinates of variable `key` of one file.

    Args:
        file: the open file.
        name: library name of the variable.
        key: its name in the file.
        levels: pressures in hPa to take; None takes all.
        units: of the values where the file does not say them.

    Raises:
        InputError: dimensions, coordinates, times or units that are not those of a field.
    """
    source = f"{file.path}: {key}"
    original = file.dataset.variables[key]
    dated = time_axis(file.dataset, original.dims, source=str(file.path))
    variable = _in_library_dims(file, name, original, dated, source)
    axes: dict[str, np.ndarray] = {}
    positions: dict[str, np.ndarray] = {}
    file_dims = {_library_dim(file, d, dated): d for d in original.dims}
    for dim in map(str, variable.dims):
        if dim == TIME and dated is not None:
            positions[dim], axes[dim] = np.arange(dated.times.size), dated.times
        else:
            positions[dim], axes[dim] = _axis(file, file_dims[dim], dim, levels, source)
    for role in (LATITUDE, LONGITUDE):
        if role not in axes:
            raise InputError(
                f"{source} has dimensions {tuple(map(str, original.dims))}: a grid with latitude "
                "and longitude is expected; read_stations reads stations"
            )
    if TIME not in axes:
        positions[TIME] = np.zeros(1, dtype=int)
        axes[TIME] = _only_time(file, source) if dated is None else dated.times
    level = _scalar_level(file, name) if LEVEL not in axes else None
    if level is not None:
        positions[LEVEL], axes[LEVEL] = coords.select_levels(level, levels, source=source)
    scale, offset = conversion(name, units_of(original) or units, source=str(file.path))
    extras = [d for d in axes if d not in ORDER]
    order = [*ORDER[:3], *extras, *ORDER[3:]]
    piece = Piece(source, variable, positions, scale, offset)
    return Part(piece, tuple(d for d in order if d in axes), axes)


def error_part(
    file: SourceFile,
    key: Hashable,
    name: str,
    values: Hashable,
    levels: tuple[float, ...] | None,
    units: str,
) -> Part:
    """The standard deviations of the errors of a variable, on its dimensions and in its units.

    Args:
        file: the open file.
        key: of the errors in the file: on dimensions of the values, on some of them, or on none.
        name: library name of the variable.
        values: its name in the file.
        levels: as for `part`.
        units: as for `part`; errors without units are in those of the values.
    """
    of = file.dataset.variables[values]
    error = file.dataset.variables[key]
    if set(error.dims) != set(of.dims):
        error = error.set_dims({**of.sizes})
    file = file._replace(dataset=file.dataset.assign({key: error}))
    result = part(file, name, key, levels, units_of(of) or units)
    # A difference takes no offset.
    return result._replace(piece=result.piece._replace(offset=0.0))


def _library_dim(file: SourceFile, dim: Hashable, dated: TimeAxis | None) -> str:
    """The name in the library of a dimension of a file."""
    if dated is not None and dim == dated.dim:
        return TIME
    role = file.roles[dim]
    return str(dim) if role in (None, CHANNEL, TIME) else role


def _in_library_dims(
    file: SourceFile, name: str, variable: xr.Variable, dated: TimeAxis | None, source: str
) -> xr.Variable:
    """`variable` with the library's names of its dimensions, without those that say nothing.

    Raises:
        InputError: a dimension that is no part of a field, or two that mean the same.
    """
    for dim in variable.dims:
        if str(dim).lower() == _VERSIONS and variable.sizes[dim] == 2:
            variable = _merged_versions(variable, dim, source)
        elif _says_nothing(file, name, variable, dim, dated):
            variable = variable.isel({dim: 0})
        elif file.roles[dim] is None and (dated is None or dim != dated.dim):
            raise InputError(
                f"{source}: its dimension {dim} is not time, level, latitude, longitude, member or "
                f"channel: choose one of its {variable.sizes[dim]}, such as with "
                f"dataset.isel({dim}=0), and write it again"
            )
    renamed = variable.copy(deep=False)
    names = [_library_dim(file, d, dated) for d in variable.dims]
    if len(set(names)) < len(names):
        dims = tuple(map(str, variable.dims))
        raise InputError(f"{source}: two of its dimensions {dims} mean the same: rename one")
    renamed.dims = tuple(names)
    return renamed


def _says_nothing(
    file: SourceFile, name: str, variable: xr.Variable, dim: Hashable, dated: TimeAxis | None
) -> bool:
    """Whether a dimension of size one only describes the variable: "at 2 m", "of version 1"."""
    if variable.sizes[dim] > 1 or (dated is not None and dim == dated.dim):
        return False
    if dated is not None and dim in dated.single:
        return True
    if file.roles[dim] != LEVEL:
        return file.roles[dim] is None
    if coords.pressures(dim, file.coordinate(dim)) is not None:
        return False
    known = VARIABLES.get(name)
    on_surface = known is not None and not known.on_levels
    return on_surface or coords.is_height(dim, file.coordinate(dim))


def _merged_versions(variable: xr.Variable, dim: Hashable, source: str) -> xr.Variable:
    """ERA5 where it is there, ERA5T (preliminary, later along the dimension) where it is not."""
    final, preliminary = (variable.isel({dim: i}) for i in range(2))
    merged = FirstPresent(final, preliminary, f"{source}: {dim}")
    return lazy_variable(merged, [str(d) for d in final.dims], variable.attrs)


def _axis(
    file: SourceFile, dim: Hashable, role: str, levels: tuple[float, ...] | None, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, normalised coordinate) of one dimension other than time."""
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
            raise InputError(
                f"{source}: vertical dimension {dim} ({_described(coordinate)}) is not a pressure: "
                "interpolate the data to pressure levels (model levels: "
                "`cdo ml2pl,50000,85000 in.nc out.nc`), or correct its units and standard_name"
            )
        return coords.select_levels(pressures, levels, source=source)
    size = file.dataset.sizes[dim]
    return np.arange(size), np.arange(size) if coordinate is None else coordinate.values


def _described(coordinate: xr.Variable | None) -> str:
    """What a file says of a coordinate, for errors."""
    if coordinate is None:
        return "without values"
    said = [f"units {units_of(coordinate)!r}"]
    said += [
        f"{k} {coordinate.attrs[k]!r}"
        for k in ("standard_name", "long_name")
        if k in coordinate.attrs
    ]
    return ", ".join(said)[:120]


def _scalar_level(file: SourceFile, name: str) -> np.ndarray | None:
    """hPa (1,) of a scalar coordinate, as `.sel(level=500)` leaves it to variables on levels."""
    known = VARIABLES.get(name)
    if known is None or not known.on_levels:
        return None
    for key in file.dataset.coords:
        coordinate = file.dataset.variables[key]
        if coordinate.ndim == 0 and coords.role_of(key, coordinate) == LEVEL:
            pressure = coords.pressures(key, coordinate.set_dims((LEVEL,)))
            if pressure is not None:
                return pressure
    return None


def _only_time(file: SourceFile, source: str) -> np.ndarray:
    """The one time of a file that has none inside."""
    if file.dated_by_name and (date := daily.date_in_name(file.path)) is not None:
        return np.array([date])
    raise InputError(
        f"{source}: has neither a time dimension nor a time, nor YYYYMMDD in its name: add one"
    )


def rest_of_series(
    first: Part, file: SourceFile, name: str, key: Hashable, rest: list[Location]
) -> list[Part]:
    """The parts of the other stores of a series, made after that of the first."""
    if not rest:
        return []
    like = daily.template(file.dataset, key, first.axes[TIME][0], file.path)
    dated = time_axis(file.dataset, like.variable.dims, source=str(file.path))
    parts = []
    for path in rest:
        variable = daily.deferred(path, like)
        variable = _in_library_dims(file, name, variable, dated, f"{path}: {key}")
        time = np.array([daily.dated(path) + like.hour])
        piece = first.piece._replace(source=f"{path}: {key}", variable=variable)
        parts.append(first._replace(piece=piece, axes={**first.axes, TIME: time}))
    return parts


# --- the files of one variable -----------------------------------------------------------------


def join(parts: list[Part], name: str, period: Sequence[Any] | None) -> Part:
    """The parts of one variable, joined in time, at those times that lie in `period`.

    The first field is read: values that cannot be in the units of the variable, and a fill value
    that takes what is a value, are refused at once.

    Raises:
        InputError: parts that do not fit together, no time in the period, or such values.
    """
    parts = sorted(parts, key=lambda part: part.axes[TIME][0])
    first = parts[0]
    for other in parts[1:]:
        _check_alike(other, first)
    times = np.concatenate([part.axes[TIME] for part in parts])
    times = check_times(times, name=f"{first.piece.source}: time")
    keep = slice(0, times.size) if period is None else select_period(times, period)
    field = LazyField(_selected(parts, keep), first.dims, TIME, name)
    _check_first_field(field, name)
    attributes = _error_attribute(first.piece)
    joined = first.piece._replace(variable=lazy_variable(field, first.dims, attributes))
    return Part(joined, first.dims, {**first.axes, TIME: times[keep]})


def _check_alike(other: Part, first: Part) -> None:
    """Refuse a part whose dimensions or coordinates are not those of the first."""
    if other.dims != first.dims:
        raise InputError(
            f"{other.piece.source}: dimensions {other.dims} differ from {first.dims} in "
            f"{first.piece.source}: open the files separately"
        )
    for dim in first.dims:
        if dim != TIME and not same_axis(other.axes[dim], first.axes[dim]):
            raise InputError(
                f"{other.piece.source}: its {dim} differs from that in {first.piece.source}: "
                "open the files separately"
            )


def _selected(parts: list[Part], keep: slice) -> list[Piece]:
    """The pieces that hold the times `keep` of all parts, each with its own of them."""
    pieces, begin = [], 0
    for each in parts:
        size = each.axes[TIME].size
        within = slice(max(keep.start - begin, 0), max(keep.stop - begin, 0))
        chosen = each.piece.positions[TIME][within]
        if chosen.size:
            positions = {**each.piece.positions, TIME: chosen}
            pieces.append(each.piece._replace(positions=positions))
        begin += size
    return pieces


def _check_first_field(field: LazyField, name: str) -> None:
    """Read the first member, time and level, which checks its values, and look at its gaps."""
    first = field.block(
        [
            np.arange(1 if d in (MEMBER, TIME, LEVEL) else n)
            for d, n in zip(field.dims, field.shape, strict=True)
        ]
    )
    piece = field.pieces[0]
    check_mask(name, first, piece.variable, piece.scale, piece.offset, source=piece.source)


def _error_attribute(piece: Piece) -> dict[str, np.ndarray]:
    """The standard deviation of the errors that a file gives as an attribute, in library units."""
    if ERROR not in piece.variable.attrs:
        return {}
    # A difference takes no offset.
    error = np.asarray(np.float64(piece.variable.attrs[ERROR]) * piece.scale)
    if not np.all(error > 0):
        raise InputError(f"{piece.source}: its attribute error is {error}: give errors > 0")
    return {ERROR: error}


def same_axis(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two coordinates are the same, numbers to 1e-4."""
    if a.shape != b.shape:
        return False
    if np.issubdtype(a.dtype, np.floating) and np.issubdtype(b.dtype, np.floating):
        return bool(np.allclose(a, b, rtol=0, atol=1e-4))
    return bool(np.array_equal(a, b))
