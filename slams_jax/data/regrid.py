"""From one latitude-longitude grid to another, a block of times at a time.

Both axes are treated one after the other: the value of a cell is

    y = (A x B') / (A m B'),

x being the field with 0 where it is missing, m its mask (1 where known), A (lat', lat) and
B (lon', lon) weights of the rows and columns:

    conservative  overlap of cells, in sines of latitude and degrees of longitude, so that the
                  integral over the area is kept (first order; Jones 1999, Mon. Wea. Rev. 127,
                  2204-2210)
    bilinear      the two nearest rows and columns, linearly
    nearest       the nearest row and column

A cell is missing when less than a share of it is known: of its area, or of its weights. Longitude
wraps on global grids. Between the last row and a pole, bilinear values go towards the mean of the
last row, which stands at the pole.
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
# What is an amount or a flux through an area keeps its integral.
_CONSERVED = ("precipitation", "radiation", "flux", "rain", "snow", "evaporation", "runoff")


class Weights(NamedTuple):
    """Weights of the rows and columns of a source grid for those of a target grid."""

    latitude: np.ndarray  # (target, source), with a row at each pole where `poles`
    longitude: np.ndarray  # (target, source)
    share: np.ndarray  # (target lat, target lon): the weight of a cell that is fully known
    poles: bool


def default_method(variable: str) -> str:
    """Conservative for precipitation and fluxes, bilinear for the rest."""
    return "conservative" if any(word in variable for word in _CONSERVED) else "bilinear"


def global_grid(spec: float | Sequence[int]) -> Grid:
    """The global grid of a spacing in degrees, or of (rows, columns).

    An odd number of rows has rows at the poles, an even number half a spacing off them; longitudes
    begin at 0.

    Raises:
        InputError: a spacing that does not divide 180 degrees, or too few rows and columns.
    """
    if isinstance(spec, float | int):
        rows, columns = 180.0 / spec + 1 if spec > 0 else 0.0, 360.0 / spec if spec > 0 else 0.0
        if rows < 3 or abs(rows - round(rows)) > 1e-9:
            raise InputError(f"grid spacing {spec} must divide 180 degrees, such as 1.5")
        spec = (round(rows), round(columns))
    rows, columns = (int(n) for n in spec)
    if len(spec) != 2 or rows < 2 or columns < 4:
        raise InputError(f"grid {tuple(spec)} must be (rows, columns), at least 2 and 4")
    half = 0.0 if rows % 2 else 90.0 / rows
    return Grid.of(
        np.linspace(-90.0 + half, 90.0 - half, rows), np.arange(columns) * (360.0 / columns)
    )


def inside(grid: Grid, domain: Grid) -> Grid:
    """The part of a global grid that lies in the domain of a regional one; all of it otherwise.

    Raises:
        InputError: no point in the domain.
    """
    if domain.periodic:
        return grid
    lat = [v for v in grid.latitude if domain.latitude[0] - 1e-6 <= v <= domain.latitude[-1] + 1e-6]
    west, east = domain.longitude[0] - 1e-6, domain.longitude[-1] + 1e-6
    turned = (v + turn for v in grid.longitude for turn in (-360.0, 0.0))
    lon = sorted({round(v, 6) for v in turned if west <= v <= east})
    if len(lat) < 2 or len(lon) < 2:
        raise InputError(
            f"the grid asked for has {len(lat)} x {len(lon)} points in the domain of the state: "
            "choose a finer one"
        )
    return Grid.of(lat, lon)


def regrid(
    dataset: xr.Dataset,
    grid: Grid,
    *,
    method: str = "",
    known: float | int = 0.5,
    name: str = "field",
    whole: bool = False,
) -> xr.Dataset:
    """`dataset` on another grid, computed where it is indexed.

    Args:
        dataset: variables (..., latitude, longitude), as `open_dataset` gives them.
        grid: of the result.
        method: "conservative", "bilinear" or "nearest"; "" chooses by the variable.
        known: a cell is missing when less than this share of it is known, in (0, 1].
        name: what to call the field in errors.
        whole: whether every cell of `grid` must be covered.

    Returns:
        The Dataset on `grid`; itself where it is there already.

    Raises:
        InputError: an unknown method, a share out of range, grids that do not overlap.
    """
    if method and method not in get_args(Method):
        raise InputError(f"{name}: unknown method {method!r}: choose from {get_args(Method)}")
    if not 0.0 < known <= 1.0:
        raise InputError(f"{name}: known must be a share in (0, 1], got {known}")
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
                f"{name}: its grid ({own.extent}) does not overlap the one asked for "
                f"({grid.extent}): choose data of the same domain"
            )
        if whole and (coverage(w) < known - 1e-9).any():
            raise InputError(
                f"field {name!r} lies on another grid ({own.extent}) than the common one "
                f"({grid.extent}) and does not cover it: choose a grid inside its domain"
            )
    return computed(
        dataset,
        lambda a: _Regridded(a, weights[method or default_method(str(a.name))], known),
        {LATITUDE: list(grid.latitude), LONGITUDE: list(grid.longitude)},
    )


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids have the same points, to a thousandth of a degree."""
    return a.shape == b.shape and all(
        np.allclose(x, y, atol=1e-3, rtol=0)
        for x, y in ((a.latitude, b.latitude), (a.longitude, b.longitude))
    )


def grid_weights(source: Grid, target: Grid, method: str) -> Weights:
    """The weights from one grid to another.

    Raises:
        InputError: a grid of one row or column, which has no cells.
    """
    if min(*source.shape, *target.shape) < 2:
        raise InputError(f"grids of {source.shape} and {target.shape}: two rows and columns needed")
    if method == "conservative":
        lat = _overlap(*(np.sin(np.deg2rad(g.latitude_edges())) for g in (target, source)))
        lon_edges = target.longitude_edges(), source.longitude_edges()
        lon = sum(_overlap(lon_edges[0], lon_edges[1] + turn) for turn in (-360.0, 0.0, 360.0))
        share = np.outer(
            np.diff(np.sin(np.deg2rad(target.latitude_edges()))), np.diff(lon_edges[0])
        )
        return Weights(lat, np.asarray(lon), share, False)
    rows = np.asarray(source.latitude)
    # The pole gets a row of its own where a target row lies beyond the last one.
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
    """Share of each target cell (lat, lon) that lies in the source's domain."""
    return np.outer(weights.latitude.sum(axis=1), weights.longitude.sum(axis=1)) / weights.share


def apply(weights: Weights, values: np.ndarray, known: float | int) -> np.ndarray:
    """Values (..., lat, lon) on the target grid, float32; NaN where too little is known."""
    mask = np.isfinite(values)
    whole = bool(mask.all())
    field = (values if whole else np.where(mask, values, 0.0)).astype(np.float64)
    # One mask stands for all where nothing is missing.
    share = np.ones(values.shape[-2:]) if whole else mask.astype(np.float64)
    if weights.poles:
        field, share = _with_poles(field), _with_poles(share)
    rows, columns = (sparse.csr_array(w) for w in weights[:2])
    field = _along(rows, _along(columns, field, -1), -2)
    share = _along(rows, _along(columns, share, -1), -2)
    share = np.where(share >= (known - 1e-9) * weights.share, share, 0.0)
    result = np.full(field.shape, np.nan)
    np.divide(field, share, out=result, where=np.broadcast_to(share > 0, field.shape))
    return result.astype(np.float32)


def _along(weights: sparse.csr_array, values: np.ndarray, axis: int) -> np.ndarray:
    """Weighted sums (target) along one axis (source); few of the weights are not zero."""
    moved = np.moveaxis(values, axis, 0)
    sums = weights @ np.ascontiguousarray(moved).reshape(len(moved), -1)
    return np.moveaxis(sums.reshape(-1, *moved.shape[1:]), 0, axis)


def _with_poles(values: np.ndarray) -> np.ndarray:
    """With the zonal means of the first and last row beyond them; of a field or its mask.

    Of a field that is 0 where it is missing the mean is weighed by how much is known, as its mask.
    """
    ends = [
        np.broadcast_to(row.mean(axis=-1, keepdims=True), row.shape)
        for row in (values[..., :1, :], values[..., -1:, :])
    ]
    return np.concatenate([ends[0], values, ends[1]], axis=-2)


class _Regridded(LazyArray):
    """A variable on another grid; of the source only what has weights is read."""

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
        self.shape = (*array.shape[:-2], *weights.share.shape)

    def block(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """The values at the outer product of one index vector for each dimension."""
        *leading, rows, columns = indices
        part = Weights(
            self._weights.latitude[rows],
            self._weights.longitude[columns],
            self._weights.share[np.ix_(rows, columns)],
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
    """Lengths (target, source) that cells between ascending edges have in common."""
    low = np.maximum(target[:-1, None], source[None, :-1])
    high = np.minimum(target[1:, None], source[None, 1:])
    return np.maximum(high - low, 0.0)


def _linear(target: np.ndarray, source: np.ndarray, *, circle: bool = False) -> np.ndarray:
    """(target, source): of the two neighbours; rows of zeros beyond the ends."""
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
    """(target, source): of the cell that each point lies in; rows of zeros beyond the ends."""
    weights = np.zeros((target.size, source.size))
    for turn in (-360.0, 0.0, 360.0):
        place = np.where(np.abs(target + turn - edges[-1]) < 1e-6, edges[-1] - 1e-6, target + turn)
        cell = np.searchsorted(edges, place + 1e-9, side="right") - 1
        inside = (cell >= 0) & (cell < source.size) & (weights.sum(axis=1) == 0)
        weights[np.flatnonzero(inside), cell[inside]] = 1.0
    return weights


def _reaches_poles(rows: np.ndarray) -> bool:
    return bool(max(90.0 + rows[0], 90.0 - rows[-1]) <= np.diff(rows).max() + 1e-6)
