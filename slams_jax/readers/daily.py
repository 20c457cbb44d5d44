"""Series of Zarr stores of one time each, dated by their names, as ChaosBench and SLAMS have them.

    era5_full_1.5deg_20000101.zarr, era5_full_1.5deg_20000102.zarr, ...

Opening thousands of stores at once would take minutes and gigabytes. Only the first is opened, and
defines the layout; the others are opened, and compared with it, when they are read. The name gives
the date; the hour of day is that of the time in the first store, if it has one.
"""

import re
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from slams_jax.errors import InputError
from slams_jax.readers.files import Location, is_store, open_file
from slams_jax.readers.times import meaning, time_axis

_DATE = re.compile(r"(?<!\d)((?:1[6-9]|2[0-2])\d\d)(\d\d)(\d\d)(?!\d)")


def date_in_name(path: Location) -> np.datetime64 | None:
    """The date YYYYMMDD in the name of a file or store, datetime64[ns], if there is one."""
    match = _DATE.search(_name(path))
    try:
        return None if match is None else np.datetime64("-".join(match.groups()), "ns")
    except ValueError:  # month 13
        return None


def dated(path: Location) -> np.datetime64:
    """The date in the name of a store of a series."""
    date = date_in_name(path)
    assert date is not None
    return date


def split_series(
    paths: Sequence[Location],
) -> tuple[list[Location], dict[Location, list[Location]]]:
    """(the files to open, the other stores of each series by its first).

    Zarr stores whose paths differ only in the date form a series.
    """
    groups: dict[str, list[Location]] = {}
    for path in paths:
        dated = date_in_name(path) is not None and is_store(path)
        head, _, name = str(path).rpartition("/")
        groups.setdefault(f"{head}/{_DATE.sub('*', name)}" if dated else str(path), []).append(path)
    ordered = [sorted(group, key=_name) for group in groups.values()]
    return [group[0] for group in ordered], {g[0]: g[1:] for g in ordered if len(g) > 1}


class Template(NamedTuple):
    """The layout of one variable, as in the first store of a series."""

    key: Hashable
    variable: xr.Variable  # as in the file
    coordinates: dict[Hashable, np.ndarray]  # of its dimensions, as in the file
    others: tuple[str, ...]  # variables that need not be opened
    hour: np.timedelta64  # of the day, of the time in the store


def template(dataset: xr.Dataset, key: Hashable, time: np.datetime64, path: Location) -> Template:
    """The template of variable `key` from the first store of a series.

    Args:
        dataset: the open store.
        key: of the variable.
        time: of the store.
        path: of the store.

    Raises:
        InputError: the time in the store is not on the day in its name.
    """
    date = dated(path)
    hour = time - date
    if not np.timedelta64(0, "D") <= hour < np.timedelta64(1, "D"):
        raise InputError(
            f"{path}: holds {str(time)[:16]}, but its name says {str(date)[:10]}: rename it"
        )
    variable = dataset.variables[key]
    coordinates = {d: dataset.variables[d].values for d in variable.dims if d in dataset.variables}
    dates = [n for n, v in dataset.variables.items() if meaning(n, v) is not None]
    needed = {key, *variable.dims, *dates}
    others = tuple(str(v) for v in dataset.variables if v not in needed)
    return Template(key, variable, coordinates, others, hour)


def deferred(path: Location, like: Template) -> xr.Variable:
    """The variable of another store of a series, opened when its values are needed."""
    array = indexing.LazilyIndexedArray(_Deferred(path, like))
    return xr.Variable(like.variable.dims, array, dict(like.variable.attrs))


class _Deferred(BackendArray):
    def __init__(self, path: Location, like: Template):
        self._path, self._like = path, like
        self.shape = like.variable.shape
        self.dtype = like.variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        like = self._like
        with open_file(self._path, leave_out=like.others) as dataset:
            if like.key not in dataset.variables:
                raise InputError(f"{self._path}: no variable {like.key!r}, unlike the first store")
            variable = dataset.variables[like.key]
            self._compare(dataset, variable)
            return np.asarray(variable.values[key])

    def _compare(self, dataset: xr.Dataset, variable: xr.Variable) -> None:
        """Refuse a store that differs from the first of its series."""
        like = self._like
        same = variable.dims == like.variable.dims and variable.shape == like.variable.shape
        same &= variable.attrs.get("units") == like.variable.attrs.get("units")
        same = same and all(
            meaning(d, dataset.variables.get(d)) is not None
            or (d in dataset.variables and np.array_equal(dataset.variables[d].values, values))
            for d, values in like.coordinates.items()
        )
        if not same:
            raise InputError(
                f"{self._path}: dimensions, coordinates or units of {like.key} differ from those "
                "of the first store of the series: open it separately"
            )
        dated_inside = time_axis(dataset, variable.dims, source=str(self._path))
        expected = dated(self._path) + like.hour
        if dated_inside is not None and dated_inside.times[0] != expected:
            raise InputError(
                f"{self._path}: holds {str(dated_inside.times[0])[:16]}, but its name and the "
                f"first store of the series say {str(expected)[:16]}: rename it"
            )


def _name(path: Location) -> str:
    return str(path).rstrip("/").rpartition("/")[2]
