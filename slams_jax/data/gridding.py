"""Station observations as means over the cells of a grid, computed when they are read."""

import hashlib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.grid import Grid, degrees_apart
from slams_jax.readers import from_dataset, from_stations
from slams_jax.readers.lazy import LazyArray, lazy_variable
from slams_jax.readers.periods import check_times
from slams_jax.readers.units import canonical_name
from slams_jax.schema import LATITUDE, LONGITUDE, STATION, TIME


def grid_points(stations: xr.Dataset, grid: Grid, times: np.ndarray, variable: str) -> xr.Dataset:
    """Means of the station values in each cell of `grid`, lazily; NaN in cells without stations.

    A cell extends half-way to its neighbours, and half a spacing beyond the edge of a region.

    Args:
        stations: Dataset of `variable` (time, station), with the coordinates latitude and
            longitude (degrees) on station, or on (time, station) if positions change.
        grid: grid of the result.
        times: datetime64 (time,), ascending, times of the result; others are dropped.
        variable: name of the variable.

    Returns:
        A Dataset with `variable` (time, latitude, longitude), float32.

    Raises:
        InputError: no such variable, a station outside the domain, or no time in common.
    """
    if variable not in stations or set(stations[variable].dims) != {TIME, STATION}:
        available = ", ".join(map(str, stations.data_vars))
        raise InputError(
            f"stations have no {variable!r} with dimensions (time, station): choose among "
            f"{available}"
        )
    times = check_times(times)
    own = check_times(stations[TIME].values, name="station times")
    rows = np.searchsorted(own, times)
    rows[rows == own.size] = 0
    rows = np.where(own[rows] == times, rows, -1)
    if np.all(rows < 0):
        raise InputError(
            f"stations ({str(own[0])[:16]} to {str(own[-1])[:16]}) share no time with the state "
            f"({str(times[0])[:16]} to {str(times[-1])[:16]}): check dates and hours"
        )
    cells = _cells(stations, grid)
    values = np.asarray(stations[variable].transpose(TIME, STATION).values, dtype=np.float32)
    means = _CellMeans(values, rows, cells, grid.shape)
    digest = hashlib.sha256(values.tobytes() + rows.tobytes() + cells.tobytes())
    return xr.Dataset(
        {variable: lazy_variable(means, (TIME, LATITUDE, LONGITUDE), stations[variable].attrs)},
        {TIME: times, LATITUDE: list(grid.latitude), LONGITUDE: list(grid.longitude)},
        {"source_digest": digest.hexdigest()[:16]},
    )


def on_cells(
    field: xr.Dataset, grid: Grid, times: np.ndarray, *, name: str, variables: Sequence[str] = ()
) -> xr.Dataset:
    """A field in memory, in the schema: stations on the cells of `grid`, others as they are.

    Args:
        field: gridded, as `from_dataset` reads it, or of stations and one variable, as
            `from_stations` does.
        grid: for stations.
        times: for stations, ascending.
        name: of the field.
        variables: that are wanted; all unless given.

    Raises:
        InputError: what the readers refuse; stations of several variables, or of another.
    """
    if STATION not in field.dims:
        return from_dataset(field, variables=variables or None, name=f"field {name!r}")
    found = [str(v) for v in field.data_vars if STATION in field[v].dims and v != "error"]
    if len(found) != 1:
        raise InputError(
            f"field {name!r} has the station variables {found}: keep one in each field"
        )
    if variables and canonical_name(found[0]) not in variables:
        raise InputError(f"field {name!r} has stations of {found[0]!r}, not of {variables[0]!r}")
    records = from_stations(field, variable=found[0], name=f"field {name!r}")
    variable = next(str(v) for v in records.data_vars if v != "error")
    return grid_points(records, grid, times, variable)


def _cells(stations: xr.Dataset, grid: Grid) -> np.ndarray:
    """Flat index of the cell that each station lies in, (station,) or (time, station)."""
    latitude, longitude = np.asarray(grid.latitude), np.asarray(grid.longitude)
    lat, lon = xr.broadcast(stations[LATITUDE], stations[LONGITUDE])
    shape = lat.transpose(..., STATION).shape
    lat, lon = (v.transpose(..., STATION).values.astype(np.float64).ravel() for v in (lat, lon))
    rows, columns = grid.nearest(lat, lon)
    spacing = np.diff(latitude).max() if latitude.size > 1 else 180.0
    # The last row of a grid covers the pole if no other row could lie between.
    south = -90.0 if latitude[0] - spacing <= -90.0 else latitude[0] - spacing / 2
    north = 90.0 if latitude[-1] + spacing >= 90.0 else latitude[-1] + spacing / 2
    reach = np.diff(longitude).max() / 2 if longitude.size > 1 else 180.0
    outside = (lat < south - 1e-6) | (lat > north + 1e-6)
    outside |= degrees_apart(lon, longitude[columns]) > reach + 1e-6
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"station {stations[STATION].values[first % shape[-1]]} at {lat[first]:g} N "
            f"{lon[first]:g} E lies outside the domain "
            f"({latitude[0]:g} to {latitude[-1]:g} N, {longitude[0]:g} to {longitude[-1]:g} E): "
            "drop it"
        )
    return (rows * grid.shape[1] + columns).reshape(shape)


class _CellMeans(LazyArray):
    """Cell means (time, latitude, longitude) of values (time, station), block by block."""

    def __init__(
        self, values: np.ndarray, rows: np.ndarray, cells: np.ndarray, shape: tuple[int, int]
    ):
        self._values, self._rows, self._cells = values, rows, cells
        self.shape = (rows.size, *shape)

    def block(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """Means of the cells at the outer product of one index vector for each dimension."""
        rows = self._rows[indices[0]]
        values = np.where(rows[:, None] >= 0, self._values[rows], np.float32(np.nan))
        valid = np.isfinite(values)
        total = np.zeros((rows.size, self.shape[1] * self.shape[2]))
        count = np.zeros_like(total)
        every = np.arange(rows.size)[:, None]
        cells = self._cells if self._cells.ndim == 1 else self._cells[rows]
        np.add.at(total, (every, cells), np.where(valid, values, 0.0))
        np.add.at(count, (every, cells), valid)
        means = np.full(total.shape, np.nan)
        np.divide(total, count, out=means, where=count > 0)
        means = means.astype(np.float32).reshape(rows.size, *self.shape[1:])
        return means[np.ix_(np.arange(rows.size), *indices[1:])]
