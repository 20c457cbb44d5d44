"""The observation streams of a configuration: read or simulated, some stations withheld."""

import dataclasses

import jax
import numpy as np
import xarray as xr

from experiments.configuration.fields import located, open_stations
from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.settings import Settings, StreamSettings
from slams_jax.assimilation.observations import (
    Observations,
    point_operator,
    simulate,
    station_errors,
)
from slams_jax.data.channels import unstack_channels
from slams_jax.errors import InputError
from slams_jax.observe import Coarsen, Points, Stride
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from slams_jax.readers import open_dataset
from slams_jax.schema import STATION

SIMULATED = ("coarse", "stride")  # kinds that need no file


@dataclasses.dataclass(frozen=True)
class Withheld:
    """Stations kept out of the analysis, to verify it.

    Attributes:
        name: of the stream they were taken from.
        names: of the stations.
        latitude: degrees north.
        longitude: degrees east.
        operator: H at the stations.
        values: (time, station) at the times of the analysis, bias taken off, NaN where missing.
    """

    name: str
    names: list[str]
    latitude: np.ndarray
    longitude: np.ndarray
    operator: Points
    values: np.ndarray


def frames_of(settings: Settings, data: Inputs) -> np.ndarray:
    """Indices of the times of the analysis.

    Raises:
        InputError: an unknown period.
    """
    period = settings.assimilation.period
    if period not in data.spans:
        raise InputError(
            f"assimilation.period {period!r} is unknown: choose from {sorted(data.spans)}"
        )
    frames = data.frames(period)
    count = settings.assimilation.frames or len(frames)
    if count > len(frames):
        raise InputError(
            f"assimilation.frames is {count}, but the period {period!r} has {len(frames)} times: "
            "take fewer, or 0 for all"
        )
    return frames[:count]


def open_streams(
    settings: Settings, data: Inputs, frames: np.ndarray
) -> tuple[list[Observations], list[Withheld]]:
    """Every stream of the configuration, and the stations that it withholds."""
    streams, withheld = [], []
    for number, (name, stream) in enumerate(settings.assimilation.streams.items()):
        if not stream.path and stream.kind not in SIMULATED:
            raise InputError(
                f"stream {name!r} of kind {stream.kind!r} cannot be simulated: give it a path"
            )
        if stream.kind == "points":
            used, kept = _stations(settings, data, frames, name, stream)
            streams.append(used)
            withheld += [kept] if kept is not None else []
        elif stream.path:
            streams.append(_gridded(data, name, stream))
        else:
            key = jax.random.fold_in(jax.random.key(settings.seed), number)
            operator = degrading(stream.kind, stream.factor)
            streams.append(
                simulated(
                    key,
                    data,
                    frames,
                    name,
                    operator,
                    stream.error,
                    variable=stream.variable,
                    every=stream.every,
                )
            )
    return streams, withheld


def _stations(
    settings: Settings, data: Inputs, frames: np.ndarray, name: str, stream: StreamSettings
) -> tuple[Observations, Withheld | None]:
    stations = open_stations(data.root, stream)
    state, times = data.archive.fields[STATE], data.archive.times
    count = stations.sizes[STATION]
    bias, error = np.zeros(count, np.float32), None
    operator = point_operator(stations, data.archive.grid, state.channels, stream.variable)
    if stream.estimate:
        train = data.spans["train"]
        bias, error = station_errors(
            stations, stream.variable, operator, times[train], state.array[train]
        )
    elif stream.error > 0:
        error = np.full(count, stream.error, np.float32)
    elif "error" not in stations:
        raise InputError(
            f"stream {name!r} has no errors: set its error, or estimate=True to estimate them"
        )
    keep = _withheld(settings, stations, name, stream)
    use = ~keep
    used = Observations(
        name,
        stations.isel({STATION: use}),
        "points",
        stream.variable,
        None if error is None else error[use],
        bias[use],
    )
    if not keep.any():
        return used, None
    rest = stations.isel({STATION: keep})
    values = rest[stream.variable].reindex(time=times[frames]).transpose("time", STATION)
    return used, Withheld(
        name,
        [str(s) for s in np.asarray(rest[STATION])],
        np.asarray(rest["latitude"]),
        np.asarray(rest["longitude"]),
        point_operator(rest, data.archive.grid, state.channels, stream.variable),
        np.asarray(values, np.float32) - bias[keep],
    )


def _withheld(
    settings: Settings, stations: xr.Dataset, name: str, stream: StreamSettings
) -> np.ndarray:
    """Which stations are withheld, (station,) bool."""
    names = [str(s) for s in np.asarray(stations[STATION])]
    if isinstance(stream.withhold, tuple):
        unknown = sorted(set(stream.withhold) - set(names))
        if unknown:
            raise InputError(f"stream {name!r} withholds {unknown}, which are not in {stream.path}")
        keep = np.isin(names, stream.withhold)
    else:
        order = np.random.default_rng(settings.seed).permutation(len(names))
        keep = np.isin(np.arange(len(names)), order[: round(stream.withhold * len(names))])
    if keep.all():
        raise InputError(f"stream {name!r} withholds every station: leave some to be used")
    return keep


def _gridded(data: Inputs, name: str, stream: StreamSettings) -> Observations:
    values = open_dataset(located(data.root, stream.path), variables=(stream.variable,))
    channels = data.archive.fields[STATE].channels
    operator, kind = None, stream.kind
    if stream.kind in ("sounder", "olr"):
        operator = (Sounder if stream.kind == "sounder" else OutgoingLongwave).of(channels)
        kind = "grid"
    error = stream.error if stream.error > 0 else _file_error(values, name, stream)
    return Observations(name, values, kind, stream.variable, error, operator=operator)  # type: ignore[arg-type]


def _file_error(values: xr.Dataset, name: str, stream: StreamSettings) -> np.ndarray:
    error = values[stream.variable].attrs.get("error")
    if error is None:
        raise InputError(f"stream {name!r} has no errors: {stream.path} has none either, set error")
    return np.asarray(error, np.float32)


def degrading(kind: str, factor: int) -> Coarsen | Stride:
    """What a simulated stream shows of a field: block means, or every n-th point."""
    return Coarsen(factor) if kind == "coarse" else Stride(factor, min(factor // 2, 2))


def simulated(
    key: jax.Array,
    data: Inputs,
    frames: np.ndarray,
    name: str,
    operator: Coarsen | Stride,
    error: float | np.ndarray,
    *,
    variable: str,
    every: int = 1,
) -> Observations:
    """The true state as `operator` shows it, with noise.

    `error` is its standard deviation in physical units, one number or one for each channel.
    """
    grid, state = data.archive.grid, data.archive.fields[STATE]
    noise = error if np.ndim(error) == 0 else np.asarray(error)[None, None, None, :]
    values = simulate(key, operator, np.asarray(state.array[frames]), noise, every=every)
    for i, transform in enumerate(data.transforms):
        if transform is not None:  # no gauge reports less than nothing
            values[..., i] = np.maximum(values[..., i], 0.0)
    lat, lon = (
        np.asarray(axis).reshape(-1, operator.factor).mean(axis=1)
        if isinstance(operator, Coarsen)
        else np.asarray(axis)[operator.offset :: operator.factor]
        for axis in (grid.latitude, grid.longitude)
    )
    dataset = unstack_channels(values[None], state.channels, data.archive.times[frames], lat, lon)
    kind = "coarse" if isinstance(operator, Coarsen) else "stride"
    return Observations(name, dataset.isel(member=0), kind, variable, error)
