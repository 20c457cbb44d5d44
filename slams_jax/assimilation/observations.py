"""Observations as a user has them (xarray, physical units) made into streams for the likelihood."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.aliases import ObservationOperator, PRNGKey
from slams_jax.assimilation.intake import (
    gridded,
    level_order,
    on_grid,
    order_of,
    scale_of,
    stations,
)
from slams_jax.data.anamorphosis import Root, Transforms
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import (
    Coarsen,
    Covariance,
    Diagonal,
    Points,
    Robust,
    Select,
    Stream,
    Stride,
    make_stream,
    pad_points,
    standard_pressure,
)
from slams_jax.observe.operators import Chain
from slams_jax.observe.streams import require_observed
from slams_jax.readers.units import canonical_name
from slams_jax.schema import ALTITUDE, ERROR, LATITUDE, LEVEL, LONGITUDE, STATION, TIME, Channel

LARGEST = 1e15  # a standard deviation whose square float32 still holds
POINT, BLOCK = 0.01, 0.05  # degrees within which points, and the middles of blocks, are the same
POINTS = 32  # networks of stations are padded to a multiple of it, so that few shapes compile

Kind = Literal["points", "grid", "coarse", "stride"]


@dataclasses.dataclass(frozen=True)
class Observations:
    """One kind of observations, in physical units.

    `data` is read as a file is (`slams_jax.readers.from_dataset`): units by their attributes,
    values that are plausible, each time once. Grids are matched by coordinate values: times,
    latitudes and levels may come in any order, longitudes in either range.

    Attributes:
        name: of the stream.
        data: a Dataset, or a DataArray of the variable alone, with `variable` on (time, station)
            and the coordinates latitude, longitude and altitude (m) or level (hPa) for kind
            "points", each (station) or, where stations move, (time, station); on the grid of the
            model with gaps ("grid"), on means over blocks of it ("coarse") or on every n-th of its
            points ("stride") otherwise. NaN is missing.
        kind: how `data` relates to the state.
        variable: the name of the values in `data`, and of the observed variable of the state.
        error: standard deviation of the errors in the units of `data`, one number or one for
            each station or extra coordinate (level, sounding channel); None takes the variable
            `error` of `data`, on any of the dimensions of `variable`.
        bias: what to subtract from the values, likewise one number or one for each station.
        operator: an own H, whose output has the shape of `variable` in the library's schema and
            units: (time, station), or (time, latitude, longitude) and perhaps one dimension more.
            None takes the one that `kind` says.
        align: whether the grid of `data` must be the one that `kind` says. False takes it as it is:
            for an own operator whose output lies elsewhere.
        robust: the loss of gross errors; None for Gaussian errors.

    Raises:
        InputError: an unknown kind, no such variable, errors that are not positive, or `align`
            switched off without an own operator.
    """

    name: str
    data: Any  # a Dataset once made; a DataArray becomes one
    kind: Kind
    variable: str = "temperature"
    error: float | np.ndarray | None = None
    bias: float | np.ndarray = 0.0
    operator: ObservationOperator | None = None
    align: bool = True
    robust: Robust | None = None

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise InputError(
                f"stream {self.name!r} is of unknown kind {self.kind!r}: choose {get_args(Kind)}"
            )
        if isinstance(self.data, xr.DataArray):
            object.__setattr__(self, "data", self.data.to_dataset(name=self.variable))
        if not isinstance(self.data, xr.Dataset):
            raise InputError(
                f"stream {self.name!r} holds a {type(self.data).__name__}: give an xarray Dataset"
            )
        if self.variable not in self.data:
            raise InputError(
                f"stream {self.name!r} has no variable {self.variable!r}; its data holds "
                f"{sorted(map(str, self.data.data_vars))}"
            )
        if self.error is not None:
            require_errors(self.error, np.True_, self.name)
        if not (self.align or self.operator):
            raise InputError(
                f"stream {self.name!r} has align=False without an own operator: the operator of "
                f"kind {self.kind!r} needs the grid of the model"
            )


def to_stream(
    observations: Observations,
    grid: Grid,
    channels: Sequence[Channel],
    times: np.ndarray,
    *,
    climate: Float[np.ndarray, "lat lon channel"],
    std: Float[np.ndarray, " channel"],
    transforms: Transforms = (),
) -> Stream:
    """The stream of `observations` for states at `times` on `grid`.

    Of a variable with a transform, values, operator and errors are those of its root
    (`slams_jax.data.anamorphosis.Root`), of which what lies behind the rain is a linear function
    where it is wet. An own operator is taken as it is.

    Args:
        observations: what was observed.
        grid: of the states.
        channels: of the states.
        times: of the states, datetime64.
        climate: the mean state, about which operators that are not linear are linearised when
            standard deviations are carried from the state to what is observed.
        std: climatological standard deviations of the state's channels: the stream's scale.
        transforms: of the state's channels; () for none.

    Raises:
        InputError: data that cannot be read (`intake`), another grid, no common time, points
            outside the domain, shapes that do not fit, or errors that are not positive.
    """
    observations = _in_schema(observations, grid)
    values = _values(observations, times) - _aligned(observations, observations.bias)
    observed = np.isfinite(values)
    require_observed(observed, observations.name)
    operator = _operator(observations, grid, channels, times, observed)
    expected = jax.eval_shape(operator, _like(climate, len(times))).shape
    if values.shape != expected:
        raise InputError(
            f"stream {observations.name!r} has values of shape {values.shape} where its operator "
            f"gives {expected} (time first): check its dimensions, levels and grid"
        )
    error = np.asarray(_errors(observations, times), np.float64)
    require_errors(error, observed, observations.name)
    root = _root(observations, channels, transforms)
    if root is not None:
        error = root.errors(values, np.where(_are_errors(error), error, 1.0))
        values = np.asarray(root(jnp.asarray(values)))
    # What was not observed needs no error.
    variance = np.where(_are_errors(error), error, 1.0) ** 2
    # One for all times, unless the errors themselves differ from time to time.
    shape = np.broadcast_shapes(variance.shape, (1, *expected[1:]))
    variance = np.broadcast_to(variance, shape)
    frames = len(times) if _moves(operator) else 1
    covariance: Covariance = Diagonal(jnp.asarray(variance, jnp.float32))
    seen = operator if root is None else Chain((operator, root))
    scale = _carried(seen, climate, std, frames)
    stream = make_stream(
        observations.name, values, operator, covariance, scale=scale, robust=observations.robust
    )
    stream = pad_points(stream, POINTS) if isinstance(operator, Points) else stream
    if root is not None:
        stream = dataclasses.replace(stream, operator=Chain((stream.operator, root)))
    return stream


def _root(
    observations: Observations, channels: Sequence[Channel], transforms: Transforms
) -> Root | None:
    """How the observed variable is compared; None for as it is."""
    if observations.operator is not None:
        return None
    found = {c.variable: t for c, t in zip(channels, transforms, strict=False)}
    transform = found.get(observations.variable)
    return None if transform is None else Root(transform)


def require_errors(error: Any, observed: Any, name: str) -> None:
    """Refuse standard deviations that are none where something was observed.

    Raises:
        InputError: one that is negative, zero, not finite or too large to be squared.
    """
    error = np.asarray(error, np.float64)
    bad = np.broadcast_to(~_are_errors(error), np.broadcast_shapes(error.shape, observed.shape))
    bad = bad & observed
    if bad.any():
        value = float(np.broadcast_to(error, bad.shape)[bad][0])
        raise InputError(
            f"stream {name!r} has error {value}: standard deviations must be > 0 and below "
            f"{LARGEST:g}"
        )


def point_operator(
    data: xr.Dataset, grid: Grid, channels: Sequence[Channel], variable: str
) -> Points:
    """H for stations with coordinates latitude, longitude and altitude (m) or level (hPa).

    Raises:
        InputError: a missing coordinate, or a station outside the domain.
    """
    latitude, longitude, pressure = places_of(data)
    flat = None if pressure is None else pressure.ravel()
    operator = Points.at(
        grid, channels, latitude.ravel(), longitude.ravel(), flat, variable=variable
    )
    return jax.tree.map(lambda a: a.reshape(*latitude.shape, a.shape[-1]), operator)


def places_of(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Latitude, longitude (degrees) and pressure (hPa) of stations; None without any height.

    The pressure of an altitude is that of the standard atmosphere.

    Raises:
        InputError: a missing coordinate.
    """
    for name in (LATITUDE, LONGITUDE):
        if name not in data.coords:
            raise InputError(f"point observations need the coordinate {name!r} of each station")
    vertical = next((name for name in (LEVEL, ALTITUDE) if name in data.coords), None)
    names = [LATITUDE, LONGITUDE, *([vertical] if vertical else [])]
    latitude, longitude, *height = np.broadcast_arrays(
        *(np.asarray(data[name], np.float64) for name in names)
    )
    if vertical is None:
        return latitude, longitude, None
    return latitude, longitude, height[0] if vertical == LEVEL else standard_pressure(height[0])


def station_errors(
    data: xr.Dataset,
    variable: str,
    operator: Points,
    times: np.ndarray,
    states: Float[np.ndarray, "time lat lon channel"],
) -> tuple[Float[np.ndarray, " station"], Float[np.ndarray, " station"]]:
    """Bias and error of each station against interpolated states: what y = H(x) + e leaves over.

    The bias takes in that a station is not on the model's surface; the standard deviation of the
    rest, that it stands for less than a grid cell. Estimate both on the training period.

    Args:
        data: `variable` on (time, station).
        variable: to compare.
        operator: H for these stations.
        times: of the states, datetime64; those without station data do not count.
        states: the truth, physical units; frames with missing values do not count.

    Returns:
        Mean and standard deviation of y - H(x) at each station.

    Raises:
        InputError: a station with fewer than 30 values in common with the states.
    """
    wanted = times.astype("datetime64[ns]")
    common = np.isin(wanted, np.asarray(data[TIME], "datetime64[ns]"))
    values = np.asarray(
        data[variable].sel({TIME: wanted[common]}).transpose(TIME, STATION), np.float64
    )
    departure = values - np.asarray(operator(jnp.asarray(states[common])), np.float64)
    count = np.isfinite(departure).sum(axis=0)
    if (count < 30).any():
        station = str(np.asarray(data[STATION])[int(np.argmin(count))])
        raise InputError(
            f"station {station} has {count.min()} values in the training period, at least 30 are "
            "needed to estimate its errors: give its error, or leave it out"
        )
    return (
        np.nanmean(departure, axis=0).astype(np.float32),
        np.nanstd(departure, axis=0, ddof=1).astype(np.float32),
    )


def simulate(
    key: PRNGKey,
    operator: ObservationOperator,
    states: Float[np.ndarray, "time lat lon channel"],
    error: float | Float[np.ndarray, "..."],
    *,
    every: int = 1,
) -> Float[np.ndarray, "time ..."]:
    """Observations y = H(x) + e of known states, e independent; NaN at all but each n-th time.

    `error` is their standard deviation, one number or an array as H(x) with sides of one.
    """
    clean = jax.jit(operator)(jnp.asarray(states))
    noisy = np.array(clean + error * jax.random.normal(key, clean.shape))
    noisy[np.arange(len(noisy)) % every != 0] = np.nan
    return noisy


def _in_schema(observations: Observations, grid: Grid) -> Observations:
    """The same observations in the library's names, order and units, on the grid of their kind."""
    o = observations
    data, name = o.data, o.name
    scale = scale_of(data, o.variable, name=name)
    order = level_order(data[o.variable])

    def converted(values: float | np.ndarray) -> np.ndarray:
        values = np.asarray(np.multiply(values, scale))
        # One for each level of the data: into the order of the schema.
        return values[order] if order is not None and values.shape == order.shape else values

    error = None if o.error is None else converted(o.error)
    if o.kind == "points":
        data = stations(data, o.variable, name=name)
    else:
        data = gridded(data, o.variable, name=name, own_operator=o.operator is not None)
        data = _on_grid_of_kind(o, data, grid) if o.align else data
    return dataclasses.replace(
        o, data=data, variable=canonical_name(o.variable), error=error, bias=converted(o.bias)
    )


def _on_grid_of_kind(observations: Observations, data: xr.Dataset, grid: Grid) -> xr.Dataset:
    """`data` in the order of the model's grid, or of its blocks or its every n-th points."""
    name, source = observations.name, f"stream {observations.name!r}"
    if observations.kind == "grid":
        return on_grid(data, grid.latitude, grid.longitude, name=source)
    lat, lon = data[LATITUDE].values, data[LONGITUDE].values
    full = [np.asarray(axis) for axis in (grid.latitude, grid.longitude)]
    if observations.kind == "coarse":
        factor = _coarse_factor(name, grid, lat, lon)
        means = [axis.reshape(-1, factor).mean(axis=1) for axis in full]
        wanted = "the block means of the model's"
        return on_grid(data, *means, name=source, tolerance=BLOCK, wanted=wanted)
    factor, offset = _stride(name, grid, lat, lon)
    points = [axis[offset::factor] for axis in full]
    wanted = f"every {factor}-th point of the model's"
    return on_grid(data, *points, name=source, tolerance=POINT, wanted=wanted)


def _operator(
    observations: Observations,
    grid: Grid,
    channels: Sequence[Channel],
    times: np.ndarray,
    observed: np.ndarray,
) -> ObservationOperator:
    """H at `times`, where `observed` says which values there are."""
    if observations.operator is not None:
        return observations.operator
    if observations.kind != "points":
        return _field_operator(observations, grid, channels)
    places = _places(observations.data, times, observed)
    return point_operator(places, grid, channels, observations.variable)


def _places(data: xr.Dataset, times: np.ndarray, observed: np.ndarray) -> xr.Dataset:
    """The positions of stations at `times`; one without a value is put where another one is.

    Stations whose positions do not change have one for all times.
    """
    moving = [str(n) for n in data.coords if set(data[n].dims) == {TIME, STATION}]
    if not moving:
        return data
    places = _reindexed(data.reset_coords(moving)[moving], times).transpose(TIME, STATION)
    somewhere = {n: places[n].values[observed][0] for n in moving}
    filled = {n: places[n].where(observed, somewhere[n]) for n in moving}
    return places.drop_vars(moving).assign_coords(filled)


def _field_operator(
    observations: Observations, grid: Grid, channels: Sequence[Channel]
) -> ObservationOperator:
    """H of a field on the grid of the model, on blocks of it, or on some of its points."""
    data, variable = observations.data, observations.variable
    if LEVEL in data[variable].dims:
        seen = [Channel(variable, float(p)) for p in np.asarray(data[LEVEL])]
    else:
        seen = [c for c in dict.fromkeys(channels) if c.variable == variable] or [Channel(variable)]
    missing = [str(c) for c in seen if c not in channels]
    if missing:
        raise InputError(
            f"stream {observations.name!r} observes {', '.join(missing)}, which the state does "
            f"not have: it has {', '.join(map(str, channels))}"
        )
    select = Select(tuple(i for c in seen for i, own in enumerate(channels) if own == c))
    if observations.kind == "grid":
        return select
    lat, lon = np.asarray(data[LATITUDE]), np.asarray(data[LONGITUDE])
    if observations.kind == "coarse":
        return Chain((select, Coarsen(_coarse_factor(observations.name, grid, lat, lon))))
    return Chain((select, Stride(*_stride(observations.name, grid, lat, lon))))


def _coarse_factor(name: str, grid: Grid, lat: np.ndarray, lon: np.ndarray) -> int:
    factor = grid.shape[0] // max(len(lat), 1)
    if factor < 1 or (factor * len(lat), factor * len(lon)) != grid.shape:
        raise InputError(
            f"stream {name!r} of kind 'coarse' has a grid of {len(lat)} x {len(lon)} points that "
            f"are not the block means of the model's {grid.shape[0]} x {grid.shape[1]}: coarsen "
            "by a divisor of both sides, or give it as kind 'points'"
        )
    return factor


def _stride(name: str, grid: Grid, lat: np.ndarray, lon: np.ndarray) -> tuple[int, int]:
    full_lat, full_lon = np.asarray(grid.latitude), np.asarray(grid.longitude)
    offset = int(np.argmin(np.abs(full_lat - lat[0])))
    for factor in range(1, max(grid.shape) + 1):
        rows = order_of(lat, full_lat[offset::factor], np.inf, POINT)
        columns = order_of(lon, full_lon[offset::factor], 360.0, POINT)
        if rows is not None and columns is not None:
            return factor, offset
    raise InputError(
        f"stream {name!r} of kind 'stride' is on points that are not every n-th of the model's "
        "grid in both directions: give it as kind 'points'"
    )


def _values(observations: Observations, times: np.ndarray) -> np.ndarray:
    """Values (time, ...) at `times`, NaN where there are none; latitude and longitude come next."""
    array = observations.data[observations.variable]
    have = np.asarray(array[TIME], "datetime64[ns]")
    if not np.isin(have, times.astype("datetime64[ns]")).any():
        first, last = have.min().astype("datetime64[m]"), have.max().astype("datetime64[m]")
        raise InputError(
            f"stream {observations.name!r} has times {first} to {last}, none of which is "
            f"among the analysis times {times[0].astype('datetime64[m]')} to "
            f"{times[-1].astype('datetime64[m]')}: choose another period, or shift its times"
        )
    return _at_times(observations, array, times)


def _at_times(observations: Observations, array: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """`array` (time, ...) at `times`, NaN where it has none."""
    return _ordered(observations, _reindexed(array, times))


def _reindexed(data: Any, times: np.ndarray) -> Any:
    """A Dataset or an array of one at `times`, NaN where it has none."""
    wanted = times.astype("datetime64[ns]")
    common = np.isin(np.asarray(data[TIME], "datetime64[ns]"), wanted)
    return data.isel({TIME: common}).reindex({TIME: wanted})


def _ordered(observations: Observations, array: xr.DataArray) -> np.ndarray:
    """`array` with its dimensions in the order of the stream, float32."""
    dims = [TIME] if TIME in array.dims else []
    values = np.asarray(array.transpose(*dims, *_value_dims(observations)), np.float32)
    # A field without levels has one channel, except where an own operator gives none.
    plain = observations.kind != "points" and observations.operator is None
    return values[..., None] if plain and len(_value_dims(observations)) == 2 else values


def _value_dims(observations: Observations) -> tuple[str, ...]:
    """The dimensions of the values after time, in the order of the stream."""
    if observations.kind == "points":
        return (STATION,)
    dims = observations.data[observations.variable].dims
    extra = tuple(str(d) for d in dims if d not in (TIME, LATITUDE, LONGITUDE))
    return (LATITUDE, LONGITUDE, *extra)


def _errors(observations: Observations, times: np.ndarray) -> np.ndarray:
    """Standard deviations that broadcast against (time, ...)."""
    data, variable = observations.data, observations.variable
    if observations.error is not None:
        return _aligned(observations, observations.error)
    if ERROR not in data:
        raise InputError(
            f"stream {observations.name!r} has no error: give one in units of "
            f"{variable!r}, or a variable 'error' in its data"
        )
    if TIME in data[ERROR].dims:
        return _at_times(observations, data[ERROR], times)
    return _ordered(observations, data[ERROR])


def _are_errors(error: np.ndarray) -> Any:
    """Which of these numbers can be standard deviations."""
    return np.isfinite(error) & (error > 0) & (error < LARGEST)


def _aligned(observations: Observations, values: float | np.ndarray) -> np.ndarray:
    """`values` so that they broadcast against (time, ...): along the last axis of the stream."""
    values = np.asarray(values, np.float32)
    size = observations.data[observations.variable].sizes
    last = size[_value_dims(observations)[-1]]
    if values.ndim > 1 or (values.ndim == 1 and values.shape[0] != last):
        raise InputError(
            f"stream {observations.name!r} has errors or biases of shape {values.shape}: give one "
            f"number, or {last} (one for each {_value_dims(observations)[-1]})"
        )
    return values


def _moves(operator: ObservationOperator) -> bool:
    """Whether H differs from time to time."""
    return isinstance(operator, Points) and operator.cell.ndim == 3


def _like(frame: np.ndarray, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *frame.shape), jnp.float32)


def _carried(
    operator: ObservationOperator,
    mean: Float[np.ndarray, "lat lon channel"],
    std: Float[np.ndarray, " channel"],
    frames: int,
) -> np.ndarray:
    """Standard deviation of H(x) for x with standard deviations `std`, errors fully correlated.

    Between neighbouring points and levels errors nearly are; for independent ones this is an upper
    bound, and so errs on the safe side. `frames` is one unless H differs from time to time.
    """
    state = jnp.broadcast_to(jnp.asarray(mean, jnp.float32)[None], (frames, *mean.shape))
    tangent = jnp.broadcast_to(jnp.asarray(std, jnp.float32)[None, None, None, :], state.shape)
    return np.abs(np.asarray(jax.jvp(operator, (state,), (tangent,))[1]))
