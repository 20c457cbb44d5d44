"""Gridded data of any CF NetCDF or GRIB file or Zarr store, in the library's one schema.

The schema: dimensions (time, level, latitude, longitude), level in hPa and ascending, latitude
ascending, longitude ascending in one piece, float32, the units of `schema.VARIABLES`, NaN where a
value is missing. Nothing but coordinates is read before it is indexed.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import coordinates as coords
from slams_jax.readers import daily
from slams_jax.readers.files import Location, PathLike, expand_paths, fingerprint, open_file
from slams_jax.readers.parts import ORDER, Part, error_part, join, part, rest_of_series, same_axis
from slams_jax.readers.times import meaning
from slams_jax.readers.variables import SourceFile, resolve
from slams_jax.schema import ERROR, LATITUDE, LEVEL, LONGITUDE, TIME, VARIABLES

COORDINATE_ATTRIBUTES = {
    TIME: {"standard_name": "time", "axis": "T"},
    LEVEL: {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"},
    LATITUDE: {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    LONGITUDE: {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}


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
            file = _source(p, open_file(p))
            opened.append(file)
            sizes = file.dataset.sizes
            if any(sizes[d] > 1 for d in file.roles if _is_time(file, d)):
                opened += [_source(other, open_file(other)) for other in series.pop(p, [])]
        dataset = _read(opened, series, variables, wanted_levels, period, units)
    except BaseException:
        _close(opened)
        raise
    dataset.attrs = {"Conventions": "CF-1.11", "source_digest": fingerprint(paths)}
    dataset.set_close(functools.partial(_close, opened))
    return dataset


def from_dataset(
    dataset: Any,
    *,
    variables: Mapping[str, str] | Sequence[str] | None = None,
    levels: Sequence[float | int] | None = None,
    period: Sequence[Any] | None = None,
    units: str = "",
    name: str = "dataset",
) -> xr.Dataset:
    """A Dataset in memory, or one that the user opened, read as `open_dataset` reads a file.

    Its names, order, units, levels and times become the library's, and it goes through every check
    that a file goes through; its values are checked when they are read (`load`).

    Args:
        dataset: a Dataset on a latitude-longitude grid, or a DataArray whose name, or else the only
            one of `variables`, says what it is.
        variables: as for `open_dataset`.
        levels: likewise.
        period: likewise.
        units: likewise.
        name: of the Dataset, for errors.

    Returns:
        As `open_dataset`, lazily.

    Raises:
        InputError: as `open_dataset`.
    """
    wanted_levels = _checked_levels(levels)
    if isinstance(dataset, xr.DataArray):
        only = [variables] if isinstance(variables, str) else list(variables or ())
        dataset = dataset.to_dataset(name=dataset.name or (only[0] if len(only) == 1 else "values"))
    if not isinstance(dataset, xr.Dataset):
        raise InputError(f"{name} is a {type(dataset).__name__}: give an xarray Dataset")
    if not dataset.data_vars:
        raise InputError(f"{name}: holds no variable: gridded data expected")
    file = _source(name, dataset)._replace(dated_by_name=False)
    result = _read([file], {}, variables, wanted_levels, period, units)
    result.attrs = {"Conventions": "CF-1.11"}
    return result


def _source(path: Location, dataset: xr.Dataset) -> SourceFile:
    roles = {d: coords.role_of(d, dataset.variables.get(d)) for d in dataset.dims}
    return SourceFile(path, dataset, roles)


def _is_time(file: SourceFile, dim: Hashable) -> bool:
    return meaning(dim, file.coordinate(dim)) is not None


def _close(files: list[SourceFile]) -> None:
    for file in files:
        file.dataset.close()


def _read(
    files: list[SourceFile],
    series: Mapping[Location, list[Location]],
    variables: Mapping[str, str] | Sequence[str] | None,
    levels: tuple[float, ...] | None,
    period: Sequence[Any] | None,
    units: str,
) -> xr.Dataset:
    """The variables of open files, and of the stores of their series, as one Dataset."""
    resolved = resolve(files, variables)
    others = [name for name in resolved if name != ERROR]
    if ERROR in resolved and len(others) > 1:
        raise InputError(
            f"{files[0].path}: {ERROR} may be that of {' or '.join(others)}: read one at a time"
        )
    joined = {}
    for name, found in resolved.items():
        parts = []
        for file, key in found:
            if name == ERROR and others:
                values = [k for f, k in resolved[others[0]] if f.path == file.path]
                if not values:
                    raise InputError(
                        f"{file.path}: holds {ERROR} without {others[0]}: put both in one file"
                    )
                first = error_part(file, key, others[0], values[0], levels, units)
            else:
                first = part(file, name, key, levels, units)
            parts += [first, *rest_of_series(first, file, name, key, series.get(file.path, []))]
        joined[name] = join(parts, name, period)
    return _assemble(joined, levels)


def _checked_levels(levels: Sequence[float | int] | None) -> tuple[float, ...] | None:
    if levels is None or len(levels) == 0:
        return None
    result = tuple(float(v) for v in levels)
    if not all(0.0 < v <= 1100.0 for v in result):
        raise InputError(f"levels must be pressures in hPa, in (0, 1100], got {tuple(levels)}")
    return result


def _assemble(joined: dict[str, Part], levels: tuple[float, ...] | None) -> xr.Dataset:
    """One Dataset of variables that share their coordinates."""
    if levels is not None and not any(LEVEL in each.dims for each in joined.values()):
        raise InputError(
            f"levels {levels} are asked for, but {', '.join(joined)} has no vertical dimension: "
            "leave levels out"
        )
    axes: dict[str, np.ndarray] = {}
    for each in joined.values():
        for dim in each.dims:
            if dim in axes and not same_axis(axes[dim], each.axes[dim]):
                way_out = "choose levels that both have" if dim == LEVEL else "open it separately"
                raise InputError(
                    f"{each.piece.source}: its {dim} ({_brief(each.axes[dim])}) differs from that "
                    f"of {next(iter(joined))} ({_brief(axes[dim])}): {way_out}"
                )
            axes.setdefault(dim, each.axes[dim])
    dataset = xr.Dataset(
        coords={
            dim: xr.Variable((dim,), axes[dim], COORDINATE_ATTRIBUTES.get(dim))
            for dim in sorted(axes, key=lambda d: ORDER.index(d) if d in ORDER else 2)
        }
    )
    for name, each in joined.items():
        dataset[name] = each.piece.variable
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
