"""What a stencil reads beyond the edges of a horizontal array, and where a point lies."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.grid import Padding
from slams_jax.mesh import SPACE, devices_along

# Position as extra input channels, so that a convolution can tell the tropics from the poles:
#   none      translation equivariant in both directions
#   latitude  equivariant in longitude only
#   both      neither (land and sea, a regional domain)
Coordinates = Literal["none", "latitude", "both"]

Halo = tuple[tuple[int, int], tuple[int, int]]


def pad(
    x: Float[Array, "batch lat lon channel"], halo: Halo, padding: Padding
) -> Float[Array, "batch lat_out lon_out channel"]:
    """Surround `x` with the rows and columns that a stencil reads beyond its edges.

    Over a pole ("sphere") the field goes on down the opposite meridian: row -1 is row 0 turned by
    half a circle. That is exact on grids whose first and last rows lie half a spacing from the
    poles (Gaussian grids nearly so). A grid with rows at the poles repeats that row, an error of
    one row; an odd number of longitudes turns by half a spacing too little. Reads the ambient mesh:
    where "space" splits the rows, they are selected in a way that XLA partitions.

    Args:
        x: horizontal arrays, latitude before longitude.
        halo: rows (before, after) and columns (before, after) to add; any number.
        padding: the rule of `slams_jax.grid.Padding`.

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
    if max(halo) > size:  # around the circle more than once
        return jnp.take(x, np.arange(-before, size + after) % size, axis=axis)
    parts = [
        jax.lax.slice_in_dim(x, size - before, size, axis=axis),
        x,
        jax.lax.slice_in_dim(x, 0, after, axis=axis),
    ]
    return jnp.concatenate([p for p in parts if p.shape[axis]], axis=axis)


def _select_rows(x: Array, rows: tuple[int, int], padding: Padding) -> Array:
    """Rows before and after those of bands of latitude that lie on several devices.

    Each row is selected into its place, for which devices exchange that row; to concatenate, the
    partitioner would collect whole fields.
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
        found = x[:, source : source + 1]
        if padding == "sphere" and circle >= size:
            found = jnp.roll(found, -(width // 2), axis=2)
        wide = jnp.where(place == row, found, wide)
    return wide


def _pad_over_poles(x: Array, rows: tuple[int, int]) -> Array:
    before, after = rows
    if before == after == 0:
        return x
    size, width = x.shape[1], x.shape[2]
    # The meridian and its opposite make one circle of 2 * size rows: runs of rows northward on
    # one side and southward on the other. Slices throughout: a gather would take longer than
    # the convolution that reads it.
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

    Rows give sin and cos of a latitude that runs over the domain from -pi/2 to pi/2; columns give
    sin and cos of longitude where it is periodic, else of an angle from -pi/2 to pi/2. They
    depend on the shape alone, so one network serves grids of one kind.

    Args:
        shape: (latitudes, longitudes).
        padding: decides whether longitude is periodic.
        coordinates: which of them; "none" gives no channel.

    Returns:
        float32 (lat, lon, 0, 2 or 4).
    """
    lat, lon = shape
    row = np.pi * ((np.arange(lat) + 0.5) / lat - 0.5)
    turn = np.pi if padding == "edge" else 2 * np.pi
    column = turn * ((np.arange(lon) + 0.5) / lon - 0.5)
    row, column = np.meshgrid(row, column, indexing="ij")
    angles = {"none": [], "latitude": [row], "both": [row, column]}[coordinates]
    parts = [f(angle) for angle in angles for f in (np.sin, np.cos)]
    return np.stack(parts, axis=-1).astype(np.float32) if parts else np.zeros((lat, lon, 0), "f4")
