"""What the cycle of an atmosphere observes, as filters take it.

Points observe the temperature through their operators; gauges and longwave radiation are compared
with the rain and the radiation that the model forecasts in their cells.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.settings import Settings
from slams_jax.assimilation.observations import Observations, places_of, point_operator
from slams_jax.dynamics.moist_data import LONGWAVE, RAIN
from slams_jax.dynamics.moist_run import Days
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.schema import STATION

MM = 1e3  # of rain, in a metre


class Observing(NamedTuple):
    """What is observed on the days of the cycle, as filters take it.

    Attributes:
        operator: H, from the means of a day to the observations.
        values: of each day (time, observation), NaN where missing.
        error: standard deviations (observation,).
        places: their latitudes and longitudes.
    """

    operator: Callable[[Days], Array]
    values: Float[np.ndarray, "time observation"]
    error: Float[np.ndarray, " observation"]
    places: tuple[Float[np.ndarray, " observation"], Float[np.ndarray, " observation"]]


class _Gridded(NamedTuple):
    """A field that filters observe in cells: as it is seen, and as it is forecast."""

    seen: Callable[[np.ndarray], np.ndarray]
    forecast: Callable[[Days], Array]


_GRIDDED: Mapping[str, _Gridded] = {
    RAIN: _Gridded(lambda x: np.log1p(MM * x), lambda means: jnp.log1p(means.precipitation)),
    LONGWAVE: _Gridded(lambda x: x, lambda means: jnp.asarray(means.longwave)),
}


def observing_of(
    settings: Settings,
    data: Inputs,
    frames: np.ndarray,
    streams: Sequence[Observations],
    errors_of: Mapping[str, float],
) -> Observing:
    """The streams of points, and the latent inputs that are rain or radiation.

    Args:
        settings: the configuration.
        data: its data.
        frames: indices of the days.
        streams: of the configuration.
        errors_of: standard deviations by variable; what has 0 is left out.

    Raises:
        InputError: observations that the model of the cycle cannot forecast, or none.
    """
    times, grid = data.archive.times[frames], data.archive.grid
    channels = data.archive.fields[STATE].channels
    operators: list[Callable[[Days], Array]] = []
    values, errors, places = [], [], []
    for stream in streams:
        if stream.kind != "points" or stream.error is None:
            raise InputError(
                f"stream {stream.name!r} is not one of points with an error of its own: filters of "
                "a cycle take no other, leave it out or set its error"
            )
        at = point_operator(stream.data, grid, channels, stream.variable)
        latitude, longitude, _ = places_of(stream.data)
        series = stream.data[stream.variable].reindex(time=times).transpose("time", STATION)
        operators.append(lambda means, at=at: at(jnp.asarray(means.temperature)[None])[0])
        values.append(np.asarray(series, np.float32) - np.asarray(stream.bias, np.float32))
        errors.append(np.broadcast_to(np.float32(stream.error), latitude.shape))
        places.append((latitude, longitude))
    points = points_of(grid)
    for name in settings.assimilation.latent_inputs:
        modality = settings.data.modalities.get(name)
        variable = name if modality is None else modality.variable
        gridded = _GRIDDED.get(variable)
        if gridded is None:
            raise InputError(
                f"latent input {name!r} is of {variable!r}, of which the model of the cycle has no "
                f"forecast: choose from {sorted(_GRIDDED)}"
            )
        error = errors_of[variable]
        if error == 0:
            continue
        field = gridded.seen(np.asarray(data.archive.fields[name].array[frames])[..., 0])
        cells = np.isfinite(field).any(axis=0)
        forecast = gridded.forecast
        operators.append(lambda means, cells=cells, forecast=forecast: forecast(means)[cells])
        values.append(field[:, cells])
        errors.append(np.full(cells.sum(), error, np.float32))
        places.append((points[0][cells], points[1][cells]))
    if not values:
        raise InputError("nothing is observed: add streams or latent inputs to config.assimilation")

    latitude, longitude = (np.concatenate(x) for x in zip(*places, strict=True))
    return Observing(
        lambda means: jnp.concatenate([of(means) for of in operators]),
        np.concatenate(values, axis=1),
        np.concatenate(errors),
        (latitude, longitude),
    )


def points_of(grid: Grid) -> tuple[Float[np.ndarray, "lat lon"], Float[np.ndarray, "lat lon"]]:
    """Latitude and longitude of each point of a grid."""
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    return latitude, longitude
