"""Observations as a user has them (xarray, physical units) made into streams for the likelihood."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.aliases import ObservationOperator, PRNGKey
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
from slams_jax.schema import ALTITUDE, LATITUDE, LEVEL, LONGITUDE, STATION, TIME, Channel

POINTS = 32  # networks of stations are padded to a multiple of it, so that few shapes compile

Kind = Literal["points", "grid", "coarse", "stride"]


@dataclasses.dataclass(frozen=True)
class Observations:
    """One kind of observations, in physical units.

    Attributes:
        name: of the stream.
        data: with `variable` on (time, station) and the coordinates latitude, longitude and
            altitude (m) or level (hPa) of each station for kind "points"; on the grid of the model
            with gaps ("grid"), on means over blocks of it ("coarse") or on some of its points
            ("stride") otherwise. NaN is missing.
        kind: how `data` relates to the state; for an own `operator` only "points" matters, all
            else must have the shape of the operator's output.
        variable: the name of the values in `data`, and of the observed variable of the state.
        error: standard deviation of the errors in units of the variable, one number or one for
            each station or extra coordinate (level, sounding channel); None takes the variable
            `error` of `data`, which may also differ from time to time.
        bias: what to subtract from the values, likewise one number or one for each station.
        operator: an own H; None takes the one that `kind` says.
        robust: the loss of gross errors; None for Gaussian errors.
    """

    name: str
    data: xr.Dataset
    kind: Kind
    variable: str = "temperature"
    error: float | np.ndarray | None = None
    bias: float | np.ndarray = 0.0
    operator: ObservationOperator | None = None
    robust: Robust | None = None

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise InputError(
                f"stream {self.name!r} is of unknown kind {self.kind!r}: choose {get_args(Kind)}"
            )
        if self.variable not in self.data:
            raise InputError(
                f"stream {self.name!r} has no variable {self.variable!r}; its data holds "
                f"{sorted(map(str, self.data.data_vars))}"
            )
        if self.error is not None and not np.all(np.asarray(self.error) > 0):
            raise InputError(
                f"stream {self.name!r} has error {self.error}: standard deviations must be > 0"
            )


def to_stream(
    observations: Observations,
    grid: Grid,
    channels: Sequence[Channel],
    times: np.ndarray,
    *,
    climate: Float[np.ndarray, "lat lon channel"],
    std: Float[np.ndarray, " channel"],
    state_error: Float[np.ndarray, " channel"] | None = None,
) -> Stream:
    """The stream of `observations` for states at `times` on `grid`.

    Args:
        observations: what was observed.
        grid: of the states.
        channels: of the states.
        times: of the states, datetime64.
        climate: the mean state, about which operators that are not linear are linearised when
            standard deviations are carried from the state to what is observed.
        std: climatological standard deviations of the state's channels: the stream's scale.
        state_error: standard deviations by which the model of the state is wrong (a decoder's
            error): their image is added to the errors.

    Raises:
        InputError: no common time, points outside the domain, shapes that do not fit, or errors
            that are not positive.
    """
    values = _values(observations, times) - _aligned(observations, observations.bias)
    operator = observations.operator or _operator(observations, grid, channels)
    expected = jax.eval_shape(operator, _like(climate, len(times))).shape
    if values.shape != expected:
        raise InputError(
            f"stream {observations.name!r} has values of shape {values.shape} where its operator "
            f"gives {expected} (time first): check its dimensions, levels and grid"
        )
    variance = np.asarray(_errors(observations, times), np.float64) ** 2
    # One for all times, unless the errors themselves differ from time to time.
    shape = np.broadcast_shapes(variance.shape, (1, *expected[1:]))
    variance = np.broadcast_to(variance, shape)
    if state_error is not None:
        variance = variance + _carried(operator, climate, state_error) ** 2
    covariance: Covariance = Diagonal(jnp.asarray(variance, jnp.float32))
    scale = _carried(operator, climate, std)
    stream = make_stream(
        observations.name, values, operator, covariance, scale=scale, robust=observations.robust
    )
    return pad_points(stream, POINTS) if isinstance(operator, Points) else stream


def point_operator(
    data: xr.Dataset, grid: Grid, channels: Sequence[Channel], variable: str
) -> Points:
    """H for stations with coordinates latitude, longitude and altitude (m) or level (hPa).

    Raises:
        InputError: a missing coordinate, or a station outside the domain.
    """
    for name in (LATITUDE, LONGITUDE):
        if name not in data.coords:
            raise InputError(f"point observations need the coordinate {name!r} of each station")
    pressure = None
    if LEVEL in data.coords:
        pressure = np.asarray(data[LEVEL], np.float64)
    elif ALTITUDE in data.coords:
        pressure = standard_pressure(np.asarray(data[ALTITUDE], np.float64))
    latitude, longitude = (np.asarray(data[n], np.float64) for n in (LATITUDE, LONGITUDE))
    return Points.at(grid, channels, latitude, longitude, pressure, variable=variable)


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


def _operator(
    observations: Observations, grid: Grid, channels: Sequence[Channel]
) -> ObservationOperator:
    data, variable = observations.data, observations.variable
    if observations.kind == "points":
        return point_operator(data, grid, channels, variable)
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
    fits = (factor * len(lat), factor * len(lon)) == grid.shape and factor >= 1
    if fits:
        means = [
            np.asarray(v).reshape(-1, factor).mean(axis=1) for v in (grid.latitude, grid.longitude)
        ]
        fits = np.allclose(means[0], lat, atol=0.05) and np.allclose(means[1], lon, atol=0.05)
    if not fits:
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
        some_lat, some_lon = full_lat[offset::factor], full_lon[offset::factor]
        if some_lat.shape == lat.shape and some_lon.shape == lon.shape:
            near = [np.allclose(a, b, atol=0.01) for a, b in ((some_lat, lat), (some_lon, lon))]
            if all(near):
                return factor, offset
    raise InputError(
        f"stream {name!r} of kind 'stride' is on points that are not every n-th of the model's "
        "grid in both directions: give it as kind 'points'"
    )


def _values(observations: Observations, times: np.ndarray) -> np.ndarray:
    """Values (time, ...) at `times`, NaN where there are none; latitude and longitude come next."""
    array = observations.data[observations.variable]
    if TIME not in array.dims:
        raise InputError(f"stream {observations.name!r} has no time dimension")
    have = np.asarray(array[TIME], "datetime64[ns]")
    if not np.isin(have, times.astype("datetime64[ns]")).any():
        first, last = have.min().astype("datetime64[m]"), have.max().astype("datetime64[m]")
        raise InputError(
            f"stream {observations.name!r} has times {first} to {last}, none of which is "
            f"among the analysis times {times[0].astype('datetime64[m]')} to "
            f"{times[-1].astype('datetime64[m]')}: choose another period, or shift its times"
        )
    values = _at_times(observations, array, times)
    # A field without levels has one channel, except where an own operator gives none.
    plain = observations.kind != "points" and observations.operator is None and values.ndim == 3
    return values[..., None] if plain else values


def _at_times(observations: Observations, array: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """`array` (time, ...) at `times`, NaN where it has none."""
    wanted = times.astype("datetime64[ns]")
    common = np.isin(np.asarray(array[TIME], "datetime64[ns]"), wanted)
    array = array.isel({TIME: common}).reindex({TIME: wanted})
    return np.asarray(array.transpose(TIME, *_value_dims(observations)), np.float32)


def _value_dims(observations: Observations) -> tuple[str, ...]:
    dims = observations.data[observations.variable].dims
    if observations.kind == "points":
        if STATION not in dims or len(dims) != 2:
            raise InputError(
                f"stream {observations.name!r} of kind 'points' needs dimensions (time, station), "
                f"got {tuple(map(str, dims))}"
            )
        return (STATION,)
    missing = [d for d in (LATITUDE, LONGITUDE) if d not in dims]
    if missing:
        raise InputError(f"stream {observations.name!r} lacks the dimension {missing[0]!r}")
    extra = tuple(str(d) for d in dims if d not in (TIME, LATITUDE, LONGITUDE))
    return (LATITUDE, LONGITUDE, *extra)


def _errors(observations: Observations, times: np.ndarray) -> np.ndarray:
    """Standard deviations that broadcast against (time, ...)."""
    data, variable = observations.data, observations.variable
    if observations.error is not None:
        return _aligned(observations, observations.error)
    if "error" not in data:
        raise InputError(
            f"stream {observations.name!r} has no error: give one in units of "
            f"{variable!r}, or a variable 'error' in its data"
        )
    if TIME in data["error"].dims:
        return _at_times(observations, data["error"].broadcast_like(data[variable]), times)
    return _aligned(observations, np.asarray(data["error"], np.float64))


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


def _like(frame: np.ndarray, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *frame.shape), jnp.float32)


def _carried(
    operator: ObservationOperator,
    mean: Float[np.ndarray, "lat lon channel"],
    std: Float[np.ndarray, " channel"],
) -> np.ndarray:
    """Standard deviation of H(x) for x with standard deviations `std`, errors fully correlated.

    Between neighbouring points and levels errors nearly are; for independent ones this is an upper
    bound, and so errs on the safe side.
    """
    state = jnp.asarray(mean, jnp.float32)[None]
    tangent = jnp.broadcast_to(jnp.asarray(std, jnp.float32)[None, None, None, :], state.shape)
    return np.abs(np.asarray(jax.jvp(operator, (state,), (tangent,))[1]))
