"""Regridding between latitude-longitude grids, block of times by block of times.

The two axes are treated in turn: the values on the target grid are

    y = (A x B') / (A m B'),

where x is the field with 0 where it is missing, m its mask (1 where known), and A (lat', lat) and
B (lon', lon) are the weights of the rows and columns:

    conservative  overlap of cells, in sines of latitude and degrees of longitude, which conserves
                  the area integral (first order; Jones 1999, Mon. Wea. Rev. 127, 2204-2210)
    bilinear      linear between the two nearest rows and columns
    nearest       the nearest row and column

A cell is missing if too small a share of it is known (of its area, or of its weights). Longitude
wraps around on global grids. Between the last row and the pole, bilinear values tend towards the
mean of the last row, which is taken as the value at the pole.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import xarray as xr
from scipy import sparse

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers.lazy import LazyArray, computed, first_axis_blocks
from slams_jax.schema import LATITUDE, LONGITUDE

Method = Literal["conservative", "bilinear", "nearest"]
# Words in the names of amounts and fluxes, whose area integral should be conserved.
_CONSERVED = ("precipitation", "radiation", "flux", "rain", "snow", "evaporation", "runoff")


class Weights(NamedTuple):
    """Weights of the rows and columns of a source grid for those of a target grid."""

    latitude: np.ndarray  # (target, source), with a row at each pole where `poles`
    longitude: np.ndarray  # (target, source)
    full: np.ndarray  # (target lat, target lon): total weight of a cell that is fully known
    poles: bool


def default_method(variable: str) -> str:
    """Conservative for precipitation and fluxes, bilinear for the rest."""
    return "conservative" if any(word in variable for word in _CONSERVED) else "bilinear"


def global_grid(spec: float | Sequence[int]) -> Grid:
    """The global grid with a spacing in degrees, or with (rows, columns).

    An odd number of rows includes the poles, an even number stays half a spacing away from them;
    longitudes begin at 0.

    Raises:
        InputError: a spacing that does not divide 180 degrees, or too few rows and columns.
    """
    if isinstance(spec, float | int):
        rows, columns = 180.0 / spec + 1 if spec > 0 else 0.0, 360.0 / spec if spec > 0 else 0.0
        if rows < 3 or abs(rows - round(rows)) > 1e-9:
            raise InputError(f"grid spacing {spec} must divide 180 degrees, as 1.5 does")
        spec = (round(rows), round(columns))
    rows, columns = (int(n) for n in spec)
    if len(spec) != 2 or rows < 2 or columns < 4:
        raise InputError(f"grid {tuple(spec)} must be (rows, columns), at least (2, 4)")
    half = 0.0 if rows % 2 else 90.0 / rows
    return Grid.of(
        np.linspace(-90.0 + half, 90.0 - half, rows), np.arange(columns) * (360.0 / columns)
    )


def inside(grid: Grid, domain: Grid) -> Grid:
    """The part of a global grid inside the domain of a regional one; all of it if that is global.

    Raises:
        InputError: fewer than two rows or columns in the domain.
    """
    if domain.periodic:
        return grid
    lat = [v for v in grid.latitude if domain.latitude[0] - 1e-6 <= v <= domain.latitude[-1] + 1e-6]
    west, east = domain.longitude[0] - 1e-6, domain.longitude[-1] + 1e-6
    turned = (v + turn for v in grid.longitude for turn in (-360.0, 0.0))
    lon = sorted({round(v, 6) for v in turned if west <= v <= east})
    if len(lat) < 2 or len(lon) < 2:
        raise InputError(
            f"the requested grid has only {len(lat)} x {len(lon)} points in the domain of the "
            "state: choose a finer one"
        )
    return Grid.of(lat, lon)


def regrid(
    dataset: xr.Dataset,
    grid: Grid,
    *,
    method: str = "",
    known: float | int = 0.5,
    name: str = "field",
    must_cover: bool = False,
) -> xr.Dataset:
    """`dataset` on another grid, computed when it is read.

    Args:
        dataset: variables (..., latitude, longitude), as returned by `open_dataset`.
        grid: target grid.
        method: "conservative", "bilinear" or "nearest"; "" chooses by variable.
        known: share of a target cell that must be known, in (0, 1]; other cells are missing.
        name: name of the field in error messages.
        must_cover: refuse data that do not cover every cell of `grid`.

    Returns:
        The Dataset on `grid`; unchanged if it is on that grid already.

    Raises:
        InputError: an unknown method, a share out of range, grids that do not overlap, or a cell
            that must be covered and is not.
    """
    if method and method not in get_args(Method):
        raise InputError(f"{name}: unknown method {method!r}: choose from {get_args(Method)}")
    if not 0.0 < known <= 1.0:
        raise InputError(f"{name}: known is a share in (0, 1], got {known}")
    own = Grid.of(dataset[LATITUDE].values, dataset[LONGITUDE].values)
    if same_grid(own, grid):
        return dataset
    weights = {
        m: grid_weights(own, grid, m)
        for m in {method or default_method(str(v)) for v in dataset.data_vars}
    }
    for w in weights.values():
        if not (coverage(w) > 0).any():
            raise InputError(
                f"{name}: its grid ({own.extent}) does not overlap the target grid "
                f"({grid.extent}): choose data of the same domain"
            )
        if must_cover and (coverage(w) < known - 1e-9).any():
            raise InputError(
                f"field {name!r} is on a different grid ({own.extent}) from the common one "
                f"({grid.extent}) and does not cover it: choose a grid inside its domain"
            )
    return computed(
        dataset,
        lambda a: _Regridded(a, weights[method or default_method(str(a.name))], known),
        f"regrid {method} {known} {grid}",
        {LATITUDE: list(grid.latitude), LONGITUDE: list(grid.longitude)},
    )


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids have the same points, to within a thousandth of a degree."""
    return a.shape == b.shape and all(
        np.allclose(x, y, atol=1e-3, rtol=0)
        for x, y in ((a.latitude, b.latitude), (a.longitude, b.longitude))
    )


def grid_weights(source: Grid, target: Grid, method: str) -> Weights:
    """The weights for regridding from one grid to another.

    Raises:
        InputError: a grid with a single row or column, which defines no cells.
    """
    if min(*source.shape, *target.shape) < 2:
        raise InputError(
            f"cannot regrid from {source.shape} to {target.shape} points: both grids need at least "
            "two rows and two columns"
        )
    if method == "conservative":
        lat = _overlap(*(np.sin(np.deg2rad(g.latitude_edges())) for g in (target, source)))
        lon_edges = target.longitude_edges(), source.longitude_edges()
        lon = sum(_overlap(lon_edges[0], lon_edges[1] + turn) for turn in (-360.0, 0.0, 360.0))
        heights = np.diff(np.sin(np.deg2rad(target.latitude_edges())))
        return Weights(lat, np.asarray(lon), np.outer(heights, np.diff(lon_edges[0])), False)
    rows = np.asarray(source.latitude)
    # The poles get rows of their own if a target row lies beyond the last row.
    poles = method == "bilinear" and source.periodic and _reaches_poles(rows)
    poles = poles and (target.latitude[0] < rows[0] or target.latitude[-1] > rows[-1])
    if poles:
        rows = np.concatenate([[min(-90.0, rows[0] - 1e-9)], rows, [max(90.0, rows[-1] + 1e-9)]])
    columns, turned = np.asarray(source.longitude), np.asarray(target.longitude)
    turned = columns[0] + np.mod(turned - columns[0] + 1e-6, 360.0) - 1e-6
    if method == "bilinear":
        lat = _linear(np.asarray(target.latitude), rows)
        lon = _linear(turned, columns, circle=source.periodic)
    else:
        lat = _nearest(np.asarray(target.latitude), rows, source.latitude_edges())
        lon = _nearest(turned, columns, source.longitude_edges())
    return Weights(lat, lon, np.ones(target.shape), poles)


def coverage(weights: Weights) -> np.ndarray:
    """Share of each target cell (lat, lon) inside the domain of the source."""
    return np.outer(weights.latitude.sum(axis=1), weights.longitude.sum(axis=1)) / weights.full


def apply(weights: Weights, values: np.ndarray, known: float | int) -> np.ndarray:
    """Values (..., lat, lon) on the target grid, float32; NaN where too small a share is known."""
    valid = np.isfinite(values)
    complete = bool(valid.all())
    field = (values if complete else np.where(valid, values, 0.0)).astype(np.float64)
    # If nothing is missing, one mask serves all fields.
    mask = np.ones(values.shape[-2:]) if complete else valid.astype(np.float64)
    if weights.poles:
        field, mask = _with_poles(field), _with_poles(mask)
    rows, columns = (sparse.csr_array(w) for w in weights[:2])
    field = _along(rows, _along(columns, field, -1), -2)
    mask = _along(rows, _along(columns, mask, -1), -2)
    mask = np.where(mask >= (known - 1e-9) * weights.full, mask, 0.0)
    result = np.full(field.shape, np.nan)
    np.divide(field, mask, out=result, where=np.broadcast_to(mask > 0, field.shape))
    return result.astype(np.float32)


def _along(weights: sparse.csr_array, values: np.ndarray, axis: int) -> np.ndarray:
    """Weighted sums along one axis, from source to target; the weights are sparse."""
    moved = np.moveaxis(values, axis, 0)
    sums = weights @ np.ascontiguousarray(moved).reshape(len(moved), -1)
    return np.moveaxis(sums.reshape(-1, *moved.shape[1:]), 0, axis)


def _with_poles(values: np.ndarray) -> np.ndarray:
    """A field or its mask with a row at each pole: the zonal means of the first and last row.

    The field is 0 where it is missing, and the mean of the mask weights it accordingly.
    """
    ends = [
        np.broadcast_to(row.mean(axis=-1, keepdims=True), row.shape)
        for row in (values[..., :1, :], values[..., -1:, :])
    ]
    return np.concatenate([ends[0], values, ends[1]], axis=-2)


class _Regridded(LazyArray):
    """A variable on another grid; only the rows and columns with weights are read."""

    def __init__(self, array: xr.DataArray, weights: Weights, known: float | int):
        if array.dims[-2:] != (LATITUDE, LONGITUDE):
            array = array.transpose(..., LATITUDE, LONGITUDE)
        self._known, self._frame = known, 4 * int(np.prod(array.shape[1:]))
        if not weights.poles:
            rows = np.flatnonzero(weights.latitude.any(axis=0))
            columns = np.flatnonzero(weights.longitude.any(axis=0))
            array = array.isel({LATITUDE: rows, LONGITUDE: columns})
            weights = weights._replace(
                latitude=weights.latitude[:, rows], longitude=weights.longitude[:, columns]
            )
        self._array, self._weights = array, weights
        self.shape = (*array.shape[:-2], *weights.full.shape)

    def block(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """The values at the outer product of one index vector for each dimension."""
        *leading, rows, columns = indices
        part = Weights(
            self._weights.latitude[rows],
            self._weights.longitude[columns],
            self._weights.full[np.ix_(rows, columns)],
            self._weights.poles,
        )
        result = np.empty([i.size for i in indices], np.float32)
        dims: tuple[Any, ...] = self._array.dims
        for some in first_axis_blocks(leading[0], 3 * self._frame):
            picked = dict(zip(dims, [leading[0][some], *leading[1:]], strict=False))
            result[some] = apply(part, self._array.isel(picked).values, self._known)
        return result


# --- weights of one axis -----------------------------------------------------------------------


def _overlap(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Overlap (target, source) of cells between ascending edges."""
    low = np.maximum(target[:-1, None], source[None, :-1])
    high = np.minimum(target[1:, None], source[None, 1:])
    return np.maximum(high - low, 0.0)


def _linear(target: np.ndarray, source: np.ndarray, *, circle: bool = False) -> np.ndarray:
    """(target, source): linear in the two neighbours; zero beyond the ends."""
    points = np.concatenate([source, [source[0] + 360.0]]) if circle else source
    right = np.clip(np.searchsorted(points, target, side="right"), 1, points.size - 1)
    step = (target - points[right - 1]) / (points[right] - points[right - 1])
    inside = (target >= points[0] - 1e-6) & (target <= points[-1] + 1e-6)
    weights = np.zeros((target.size, points.size))
    every = np.arange(target.size)
    weights[every, right - 1] = np.where(inside, 1.0 - np.clip(step, 0.0, 1.0), 0.0)
    weights[every, right] = np.where(inside, np.clip(step, 0.0, 1.0), 0.0)
    if circle:
        weights[:, 0] += weights[:, -1]
        weights = weights[:, :-1]
    return weights


def _nearest(target: np.ndarray, source: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(target, source): one for the cell that each point lies in; zero beyond the ends."""
    weights = np.zeros((target.size, source.size))
    for turn in (-360.0, 0.0, 360.0):
        place = np.where(np.abs(target + turn - edges[-1]) < 1e-6, edges[-1] - 1e-6, target + turn)
        cell = np.searchsorted(edges, place + 1e-9, side="right") - 1
        inside = (cell >= 0) & (cell < source.size) & (weights.sum(axis=1) == 0)
        weights[np.flatnonzero(inside), cell[inside]] = 1.0
    return weights


def _reaches_poles(rows: np.ndarray) -> bool:
    """Whether no other row fits between the last rows and the poles."""
    return bool(max(90.0 + rows[0], 90.0 - rows[-1]) <= np.diff(rows).max() + 1e-6)
