"""Observation operators H: from a trajectory of states (time, lat, lon, channel) to observations.

Each is a pytree (its arrays are leaves), treats all times alike, keeps the units of the state and
is differentiable. Missing times, places and values are left to the mask of the stream.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slams_jax.aliases import ObservationOperator, Trajectory
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.products import product
from slams_jax.schema import Channel


@runtime_checkable
class Padded(Protocol):
    """An operator or covariance with arrays for each time, which knows how to pad itself."""

    def padded(self, more: int) -> Any:
        """For `more` times after its own, at which nothing is observed."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Identity:
    """Every channel at every grid point."""

    def __call__(self, state: Trajectory) -> Trajectory:
        """Return `state`."""
        return state


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Select:
    """Some of the channels.

    Attributes:
        index: positions of the channels.
    """

    index: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Float[Array, "time lat lon selected"]:
        """Return the channels at `index`."""
        return state[..., jnp.asarray(self.index)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Coarsen:
    """Means over blocks of `factor` x `factor` grid points, the coarsening of SLAMS.

    Raises:
        InputError: a grid whose sides `factor` does not divide.
    """

    factor: int = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Float[Array, "time coarse_lat coarse_lon channel"]:
        """Return the block means of `state`."""
        time, lat, lon, channel = state.shape
        f = self.factor
        if f < 1 or lat % f or lon % f:
            raise InputError(
                f"coarsening factor {f} does not divide the grid {lat} x {lon}: choose a divisor"
            )
        return state.reshape(time, lat // f, f, lon // f, f, channel).mean(axis=(2, 4))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stride:
    """Every `factor`-th grid point in both directions, starting at `offset`.

    Raises:
        InputError: a factor below 1, or an offset outside the grid.
    """

    factor: int = dataclasses.field(metadata={"static": True})
    offset: int = dataclasses.field(default=0, metadata={"static": True})

    def __call__(self, state: Trajectory) -> Float[Array, "time sparse_lat sparse_lon channel"]:
        """Return the sampled points of `state`."""
        if self.factor < 1 or not 0 <= self.offset < min(state.shape[1:3]):
            raise InputError(
                f"stride {self.factor} with offset {self.offset} does not fit the grid "
                f"{state.shape[1]} x {state.shape[2]}: choose an offset inside it"
            )
        return state[:, self.offset :: self.factor, self.offset :: self.factor]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Points:
    """Scattered points: bilinear in the horizontal, linear in log-pressure in the vertical.

    Build it with `Points.at`. Where points move, all arrays have the axis of the times in front.

    Attributes:
        cell: flat index (lat * n_lon + lon) of the four corners around each point.
        cell_weight: their bilinear weights, which sum to one.
        channel: index of the channels above and below each point.
        channel_weight: their weights, which sum to one.
    """

    cell: Int[Array, "*time point 4"]
    cell_weight: Float[Array, "*time point 4"]
    channel: Int[Array, "*time point 2"]
    channel_weight: Float[Array, "*time point 2"]

    def __call__(self, state: Trajectory) -> Float[Array, "time point"]:
        """Interpolate `state` to the points."""
        flat = state.reshape(state.shape[0], -1, state.shape[-1])
        if self.cell.ndim == 2:
            corners = flat[:, self.cell[:, :, None], self.channel[:, None, :]]
            return product("tpcl,pc,pl->tp", corners, self.cell_weight, self.channel_weight)
        corners = jax.vmap(lambda frame, cell, channel: frame[cell[:, :, None], channel[:, None]])(
            flat, self.cell, self.channel
        )
        return product("tpcl,tpc,tpl->tp", corners, self.cell_weight, self.channel_weight)

    def padded(self, more: int) -> "Points":
        """Points that move stay where they were last, for `more` times."""
        if self.cell.ndim == 2:
            return self
        repeated = lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], more, axis=0)])
        return jax.tree.map(repeated, self)

    @classmethod
    def at(
        cls,
        grid: Grid,
        channels: Sequence[Channel],
        latitude: Float[np.ndarray, " point"],
        longitude: Float[np.ndarray, " point"],
        pressure: Float[np.ndarray, " point"] | None,
        *,
        variable: str = "temperature",
    ) -> "Points":
        """The operator for points at `latitude`, `longitude` (degrees) and `pressure` (hPa).

        `pressure` is None for a variable without levels. Values are extrapolated beyond the
        outermost levels by at most half a layer, enough for a station at sea level below a lowest
        level of 1000 hPa.

        Raises:
            InputError: a point outside the domain or the levels, or an unknown variable.
        """
        cell, cell_weight = _bilinear(grid, np.asarray(latitude), np.asarray(longitude))
        channel, channel_weight = _log_pressure(channels, variable, len(latitude), pressure)
        return cls(
            jnp.asarray(cell, dtype=jnp.int32),
            jnp.asarray(cell_weight, dtype=jnp.float32),
            jnp.asarray(channel, dtype=jnp.int32),
            jnp.asarray(channel_weight, dtype=jnp.float32),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chain:
    """Operators applied one after the other, in the given order."""

    operators: tuple[ObservationOperator, ...]

    def __call__(self, state: Trajectory) -> Float[Array, "time ..."]:
        """Apply all operators in turn."""
        for operator in self.operators:
            state = operator(state)
        return state

    def padded(self, more: int) -> "Chain":
        """For `more` times after its own."""
        return Chain(tuple(o.padded(more) if isinstance(o, Padded) else o for o in self.operators))


def standard_pressure(altitude: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Pressure (hPa) at `altitude` (m) in the ICAO standard atmosphere (ISO 2533), below 11 km."""
    return 1013.25 * (1.0 - 0.0065 / 288.15 * np.asarray(altitude, dtype=np.float64)) ** 5.255880


def _bilinear(grid: Grid, latitude: np.ndarray, longitude: np.ndarray):
    """Corners (point, 4) as flat indices and their weights."""
    lat, lon = np.asarray(grid.latitude), np.asarray(grid.longitude)
    inside = np.isfinite(latitude) & np.isfinite(longitude) & (np.abs(latitude) <= 90.0)
    # Onto the circle that starts in the middle of the gap after the last meridian.
    start = (lon[0] + lon[-1]) / 2 - 180.0
    if grid.periodic:
        start, lon = lon[0], np.append(lon, lon[0] + 360.0)
    turned = np.mod(np.where(inside, longitude, 0.0) - start, 360.0) + start
    # With a small tolerance, so that rounding does not exclude a station on the edge.
    inside &= (turned >= lon[0] - 1e-4) & (turned <= lon[-1] + 1e-4)
    if grid.padding != "sphere":
        inside &= (latitude >= lat[0] - 1e-4) & (latitude <= lat[-1] + 1e-4)
    if not np.all(inside):
        i = int(np.argmin(inside))
        raise InputError(
            f"observation {i} at latitude {latitude[i]:g}, longitude {longitude[i]:g} lies outside "
            f"the domain, latitude {lat[0]:g} to {lat[-1]:g}, longitude {grid.longitude[0]:g} to "
            f"{grid.longitude[-1]:g}: remove it or choose a larger domain"
        )
    lat, row, turn = _over_the_poles(grid)
    south, north, w_north = _bracket(lat, latitude)
    west, east, w_east = _bracket(lon, turned)
    corners = [(south, west), (south, east), (north, west), (north, east)]
    weights = [
        (1 - w_north) * (1 - w_east),
        (1 - w_north) * w_east,
        w_north * (1 - w_east),
        w_north * w_east,
    ]
    cell = [row[i] * grid.shape[1] + (j + turn[i]) % grid.shape[1] for i, j in corners]
    return np.stack(cell, axis=-1), np.stack(weights, axis=-1)


def _over_the_poles(grid: Grid):
    """Latitudes of the rows, their indices, and the number of meridians to rotate each by.

    On a sphere the first and last rows are repeated beyond the poles, rotated by half a circle, so
    that points between the last row and a pole are interpolated like any other.
    """
    lat = np.asarray(grid.latitude)
    row, turn = np.arange(lat.size), np.zeros(lat.size, dtype=np.int64)
    if grid.padding != "sphere":
        return lat, row, turn
    half = grid.shape[1] // 2
    if lat[0] > -90.0:
        lat, row, turn = np.r_[-180.0 - lat[0], lat], np.r_[row[0], row], np.r_[half, turn]
    if lat[-1] < 90.0:
        lat, row, turn = np.r_[lat, 180.0 - lat[-1]], np.r_[row, row[-1]], np.r_[turn, half]
    return lat, row, turn


def _bracket(axis: np.ndarray, x: np.ndarray):
    """Indices below and above `x` on an ascending axis, and the weight of the one above."""
    if axis.size == 1:
        zero = np.zeros(x.shape, dtype=np.int64)
        return zero, zero, np.zeros(x.shape)
    below = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, axis.size - 2)
    weight = (x - axis[below]) / (axis[below + 1] - axis[below])
    return below, below + 1, np.clip(weight, 0.0, 1.0)


def _log_pressure(channels, variable: str, count: int, pressure: np.ndarray | None):
    """Channels (point, 2) above and below each point and their weights."""
    index = [i for i, c in enumerate(channels) if c.variable == variable]
    levels = [channels[i].level for i in index]
    if not index:
        names = ", ".join(sorted({c.variable for c in channels}))
        raise InputError(f"variable {variable!r} is not in the state: choose among {names}")
    if pressure is None or levels[0] is None:
        if len(index) != 1:
            raise InputError(
                f"observations of {variable!r} have no altitude or level, but the state has it on "
                f"{len(index)} levels: give each observation an altitude (m) or a level (hPa)"
            )
        return np.full((count, 2), index[0]), np.tile([1.0, 0.0], (count, 1))
    pressure = np.asarray(pressure, dtype=np.float64)
    axis = np.log(np.asarray(levels, dtype=np.float64))
    x = np.log(np.where(pressure > 0, pressure, np.nan))
    if axis.size == 1:
        reach = np.full(2, 0.05)
        above, below, weight = _bracket(axis, x)
    else:
        reach = np.array([axis[1] - axis[0], axis[-1] - axis[-2]]) / 2
        above = np.clip(np.searchsorted(axis, x) - 1, 0, axis.size - 2)
        below = above + 1
        weight = (x - axis[above]) / (axis[below] - axis[above])
    inside = (x >= axis[0] - reach[0]) & (x <= axis[-1] + reach[1])
    if not np.all(inside):
        i = int(np.argmin(inside))
        raise InputError(
            f"observation {i} at {pressure[i]:g} hPa lies outside the levels {levels[0]:g} to "
            f"{levels[-1]:g} hPa: remove it, or give a pressure in hPa or an altitude in m"
        )
    column = np.asarray(index)
    return np.stack([column[above], column[below]], -1), np.stack([1 - weight, weight], -1)
