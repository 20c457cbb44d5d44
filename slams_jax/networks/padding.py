"""Padding of horizontal arrays beyond their edges, and position as input channels."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.grid import Padding
from slams_jax.mesh import SPACE, devices_along

# Position as additional input channels, so that convolutions can tell the tropics from the poles:
#   none      translation equivariant in both directions
#   latitude  equivariant in longitude only
#   both      neither (land and sea, a regional domain)
Coordinates = Literal["none", "latitude", "both"]

Halo = tuple[tuple[int, int], tuple[int, int]]


def pad(
    x: Float[Array, "batch lat lon channel"], halo: Halo, padding: Padding
) -> Float[Array, "batch lat_out lon_out channel"]:
    """Add the rows and columns that a stencil reads beyond the edges of `x`.

    Beyond a pole ("sphere"), the field continues along the opposite meridian: row -1 is row 0
    rotated by half a circle. This is exact on grids whose first and last rows lie half a spacing
    from the poles (nearly so on Gaussian grids). A grid with rows at the poles repeats that row, an
    error of one row; an odd number of longitudes rotates by half a spacing too little.

    Reads the ambient mesh: where latitude is sharded, rows are selected without gathering `x`.

    Args:
        x: horizontal arrays, latitude before longitude.
        halo: rows (before, after) and columns (before, after) to add; any number.
        padding: one of `slams_jax.grid.Padding`.

    Returns:
        `x` with `lat + before + after` rows and `lon + before + after` columns.
    """
    rows, columns = halo
    if devices_along(SPACE) > 1:
        x = _select_rows(x, rows, padding)
    elif padding == "sphere":
        x = _pad_over_poles(x, rows)
    else:
        x = _pad_axis(x, 1, rows, wrap=padding == "torus")
    return _pad_axis(x, 2, columns, wrap=padding != "edge")


def _pad_axis(x: Array, axis: int, halo: tuple[int, int], *, wrap: bool) -> Array:
    before, after = halo
    if before == after == 0:
        return x
    size = x.shape[axis]
    if not wrap:
        widths = [(0, 0)] * x.ndim
        widths[axis] = halo
        return jnp.pad(x, widths, mode="edge")
    if max(halo) > size:  # more than once around the circle
        return jnp.take(x, np.arange(-before, size + after) % size, axis=axis)
    parts = [
        jax.lax.slice_in_dim(x, size - before, size, axis=axis),
        x,
        jax.lax.slice_in_dim(x, 0, after, axis=axis),
    ]
    return jnp.concatenate([p for p in parts if p.shape[axis]], axis=axis)


def _select_rows(x: Array, rows: tuple[int, int], padding: Padding) -> Array:
    """Pad rows of a field whose bands of latitude are on different devices.

    Each halo row is selected into place, for which devices exchange only that row; to concatenate,
    the partitioner would gather complete fields.
    """
    before, after = rows
    if before == after == 0:
        return x
    size, width = x.shape[1], x.shape[2]
    wide = jnp.pad(x, ((0, 0), rows, (0, 0), (0, 0)))
    place = jax.lax.broadcasted_iota(jnp.int32, (1, wide.shape[1], 1, 1), 1) - before
    for row in [*range(-before, 0), *range(size, size + after)]:
        circle = row % (2 * size)  # as in `_pad_over_poles`
        source = {
            "edge": min(max(row, 0), size - 1),
            "torus": row % size,
            "sphere": min(circle, 2 * size - 1 - circle),
        }[padding]
        values = x[:, source : source + 1]
        if padding == "sphere" and circle >= size:
            values = jnp.roll(values, -(width // 2), axis=2)
        wide = jnp.where(place == row, values, wide)
    return wide


def _pad_over_poles(x: Array, rows: tuple[int, int]) -> Array:
    before, after = rows
    if before == after == 0:
        return x
    size, width = x.shape[1], x.shape[2]
    # A meridian and its opposite form a circle of 2 * size rows, northward on one side and
    # southward on the other. Slices throughout: a gather would take longer than the convolution
    # that reads it.
    circle = np.arange(-before, size + after) % (2 * size)
    parts = []
    start = 0
    for stop in [*(np.flatnonzero(np.diff(circle >= size)) + 1), len(circle)]:
        first, last = circle[start], circle[stop - 1]
        if first < size:
            parts.append(x[:, first : last + 1])
        else:
            opposite = x[:, 2 * size - 1 - last : 2 * size - first][:, ::-1]
            parts.append(jnp.roll(opposite, -(width // 2), axis=2))
        start = stop
    return jnp.concatenate(parts, axis=1)


def coordinate_channels(
    shape: tuple[int, int], padding: Padding, coordinates: Coordinates
) -> Float[np.ndarray, "lat lon channel"]:
    """Smooth functions of the position, in [-1, 1], as constant input channels.

    Columns give sine and cosine of longitude where it is periodic, and rows those of an angle like
    it on a torus; else of an angle that runs over the domain from -pi/2 to pi/2. They depend only
    on the shape, so that a network can be used on other grids of the same kind.

    Args:
        shape: (latitudes, longitudes).
        padding: decides which directions are periodic.
        coordinates: which channels; "none" gives none.

    Returns:
        float32 (lat, lon, 0, 2 or 4).
    """
    lat, lon = shape
    along = lambda size, periodic: (
        (2 * np.pi if periodic else np.pi) * ((np.arange(size) + 0.5) / size - 0.5)
    )
    row, column = along(lat, padding == "torus"), along(lon, padding != "edge")
    row, column = np.meshgrid(row, column, indexing="ij")
    angles = {"none": [], "latitude": [row], "both": [row, column]}[coordinates]
    parts = [f(angle) for angle in angles for f in (np.sin, np.cos)]
    return np.stack(parts, axis=-1).astype(np.float32) if parts else np.zeros((lat, lon, 0), "f4")
