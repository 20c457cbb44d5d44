"""Nature runs as CF Datasets, and how far their generation is."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.grid import Grid
from slams_jax.observe import simulate
from slams_jax.readers.gridded import COORDINATE_ATTRIBUTES
from slams_jax.schema import VARIABLES

LOG = logging.getLogger(__name__)

FIRST_DAY = np.datetime64("2000-01-01", "ns")
MAP = ("time", "latitude", "longitude")


def temperature_data(
    values: Float[np.ndarray, "time lat lon level"], grid: Grid, levels: Sequence[float]
) -> xr.Dataset:
    """Temperature (K) on pressure levels (hPa)."""
    dims = ("time", "level", "latitude", "longitude")
    field = (dims, np.moveaxis(values, -1, 1), attributes_of("temperature"))
    return grid_data(
        {"temperature": field},
        grid,
        {"level": ("level", list(levels), COORDINATE_ATTRIBUTES["level"])},
    )


def field_data(
    name: str,
    values: Float[np.ndarray, "time lat lon"],
    grid: Grid,
    error: float | None = None,
    *,
    units: str = "",
) -> xr.Dataset:
    """A variable without levels, in its own units or in `units`."""
    return grid_data({name: (MAP, values, attributes_of(name, error, units=units))}, grid)


def station_data(
    variable: str,
    values: Float[np.ndarray, "time station"],
    network: simulate.Network,
    *,
    error: float | None = None,
    units: str = "",
    prefix: str = "S",
) -> xr.Dataset:
    """Series of stations, named by a prefix and a number."""
    names = [f"{prefix}{i:03d}" for i in range(values.shape[1])]
    height = {"standard_name": "height_above_mean_sea_level", "units": "m"}
    return grid_data(
        {variable: (("time", "station"), values, attributes_of(variable, error, units=units))},
        None,
        {
            "station": names,
            **positions(network.latitude, network.longitude),
            "altitude": ("station", network.altitude, height),
        },
    )


def positions(
    latitude: Float[np.ndarray, " station"], longitude: Float[np.ndarray, " station"]
) -> dict[str, Any]:
    """The horizontal coordinates of stations."""
    places = {"latitude": latitude, "longitude": longitude}
    return {name: along_stations(name, place) for name, place in places.items()}


def along_stations(name: str, values: Float[np.ndarray, " station"]) -> tuple:
    """A coordinate of stations, which is no axis there."""
    about = {k: v for k, v in COORDINATE_ATTRIBUTES[name].items() if k != "axis"}
    return "station", values, about


def grid_data(variables: dict, grid: Grid | None, coordinates: dict | None = None) -> xr.Dataset:
    """A CF dataset: days from `FIRST_DAY`, the coordinates of the grid, and others."""
    count = len(next(iter(variables.values()))[1])
    days = FIRST_DAY + np.arange(count) * np.timedelta64(1, "D")
    axes: dict[str, Any] = {"time": ("time", days, COORDINATE_ATTRIBUTES["time"])}
    if grid is not None:
        for name in ("latitude", "longitude"):
            axes[name] = (name, list(getattr(grid, name)), COORDINATE_ATTRIBUTES[name])
    attributes = {"Conventions": "CF-1.11", "comment": "a nature run"}
    return xr.Dataset(variables, {**axes, **(coordinates or {})}, attributes)


def attributes_of(
    name: str, error: float | tuple[float, ...] | None = None, *, units: str = ""
) -> dict[str, Any]:
    """The attributes of a variable, with the standard deviation of its errors."""
    known = VARIABLES[name]
    about = {
        "units": units or known.units,
        "standard_name": known.standard_name,
        "long_name": known.long_name,
    }
    return about if error is None else {**about, "error": error}


class Progress:
    """Logs every ten seconds how far each stage is."""

    def __init__(self):
        self.started: dict[str, tuple[float, int]] = {}
        self.said: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` days of a stage are done."""
        now = time.monotonic()
        started, before = self.started.setdefault(stage, (now, done))
        if now - self.said.setdefault(stage, now) < 10.0 and done < total:
            return
        self.said[stage] = now
        each = (now - started) / max(1, done - before)
        LOG.info(
            "%s: %d of %d days, %.2f s/day, %.0f s left",
            stage,
            done,
            total,
            each,
            each * (total - done),
        )
