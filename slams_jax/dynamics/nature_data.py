"""A nature run as Datasets: the true state, an imperfect background and simulated observations.

Dates begin on 2000-01-01 and are nominal: the systems have no seasons.
"""

import dataclasses
import logging
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from slams_jax.dynamics import cycled, held_suarez, lorenz63
from slams_jax.dynamics.nature_config import HeldSuarezRun, Lorenz63Run, SounderConfig
from slams_jax.grid import Grid
from slams_jax.observe import Points, simulate, standard_pressure
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from slams_jax.readers.gridded import COORDINATE_ATTRIBUTES
from slams_jax.schema import VARIABLES, channels_of

LOG = logging.getLogger(__name__)

FIRST_DAY = np.datetime64("2000-01-01", "ns")


def lorenz63_data(run: Lorenz63Run) -> dict[str, xr.Dataset]:
    """`state` and `background`, on a grid of one point."""
    fields = lorenz63.nature_run(
        run.model,
        jax.random.key(run.seed),
        length=run.days,
        dt=run.dt,
        substeps=run.substeps,
        spin_up=run.spin_up,
        imperfect=run.forecast.model,
        error=run.forecast.error,
        variance=run.forecast.variance,
    )
    grid = Grid((0.0,), (0.0,))
    dims = ("time", "latitude", "longitude", "component")
    attributes = {"long_name": "x, y and z of Lorenz (1963)", "units": "1"}
    return {
        name: _dataset({"lorenz63": (dims, np.asarray(x)[:, None, None], attributes)}, grid)
        for name, x in zip(("state", "background"), fields, strict=True)
    }


def held_suarez_data(run: HeldSuarezRun) -> dict[str, xr.Dataset]:
    """`state` and `background` temperature; `stations`, `sounder` and `olr` that observe it.

    Raises:
        InputError: levels that do not suit the model.
        RunError: the model became unstable.
    """
    channels = channels_of(["temperature"], run.levels)
    longwave, sounder = OutgoingLongwave.of(channels), Sounder.of(channels, peaks=run.sounder.peaks)
    atmosphere = held_suarez.held_suarez(run.model)
    imperfect = held_suarez.held_suarez(
        dataclasses.replace(run.model, forcing=run.forecast.forcing)
    )
    grid = atmosphere.grid
    key_run, key_place, key_gap, key_stations, key_sounder, key_longwave = jax.random.split(
        jax.random.key(run.seed), 6
    )
    network = simulate.station_network(
        key_place, grid, run.stations.count, clusters=run.stations.clusters
    )
    points = Points.at(
        grid, channels, network.latitude, network.longitude, standard_pressure(network.altitude)
    )
    states, backgrounds = cycled.nature_run(run, atmosphere, imperfect, key_run, report=_Progress())
    truth, background = (
        held_suarez.temperature(atmosphere, x, run.levels) for x in (states, backgrounds)
    )
    seen = jnp.asarray(truth)
    off = simulate.outages(key_gap, run.days, run.stations.count, missing=run.stations.missing)
    observed = {
        "stations": simulate.measure(
            key_stations, np.asarray(points(seen)), run.stations.error, ~off
        ),
        "sounder": simulate.measure(
            key_sounder,
            np.asarray(sounder(seen)),
            np.asarray(run.sounder.error),
            simulate.swath(grid, run.days),
        ),
        # Another satellite, half an orbit later.
        "olr": simulate.measure(
            key_longwave,
            np.asarray(longwave(seen)),
            run.longwave_error,
            simulate.swath(grid, run.days, first_orbit=0.5),
        ),
    }
    return {
        "state": _temperature(truth, grid, run.levels),
        "background": _temperature(background, grid, run.levels),
        "stations": _stations(observed["stations"], network, run.stations.error),
        "sounder": _brightness(observed["sounder"], grid, run.sounder),
        "olr": _dataset(
            {
                "outgoing_longwave_radiation": (
                    ("time", "latitude", "longitude"),
                    observed["olr"],
                    _attributes("outgoing_longwave_radiation", run.longwave_error),
                )
            },
            grid,
        ),
    }


def _temperature(values: np.ndarray, grid: Grid, levels: tuple[float, ...]) -> xr.Dataset:
    dims = ("time", "level", "latitude", "longitude")
    field = (dims, np.moveaxis(values, -1, 1), _attributes("temperature"))
    return _dataset(
        {"temperature": field},
        grid,
        {"level": ("level", list(levels), COORDINATE_ATTRIBUTES["level"])},
    )


def _stations(values: np.ndarray, network: simulate.Network, error: float) -> xr.Dataset:
    height = {"standard_name": "height_above_mean_sea_level", "units": "m"}
    horizontal = {
        name: (
            "station",
            getattr(network, name),
            {k: v for k, v in COORDINATE_ATTRIBUTES[name].items() if k != "axis"},
        )
        for name in ("latitude", "longitude")
    }
    names = [f"S{i:03d}" for i in range(values.shape[1])]
    return _dataset(
        {"temperature": (("time", "station"), values, _attributes("temperature", error))},
        None,
        {"station": names, **horizontal, "altitude": ("station", network.altitude, height)},
    )


def _brightness(values: np.ndarray, grid: Grid, sounder: SounderConfig) -> xr.Dataset:
    dims = ("time", "sounding_channel", "latitude", "longitude")
    attributes = _attributes("brightness_temperature", sounder.error)
    along = ("sounding_channel",)
    return _dataset(
        {"brightness_temperature": (dims, np.moveaxis(values, -1, 1), attributes)},
        grid,
        {
            "sounding_channel": (along, np.arange(1, len(sounder.peaks) + 1)),
            "peak": (along, list(sounder.peaks), {"units": "hPa", "long_name": "peak pressure"}),
            "error": (along, list(sounder.error), {"units": "K", "long_name": "observation error"}),
        },
    )


def _dataset(variables: dict, grid: Grid | None, coordinates: dict | None = None) -> xr.Dataset:
    """A CF dataset: dates, the coordinates of the grid, and others."""
    count = len(next(iter(variables.values()))[1])
    days = FIRST_DAY + np.arange(count) * np.timedelta64(1, "D")
    axes: dict[str, Any] = {"time": ("time", days, COORDINATE_ATTRIBUTES["time"])}
    if grid is not None:
        for name in ("latitude", "longitude"):
            axes[name] = (name, list(getattr(grid, name)), COORDINATE_ATTRIBUTES[name])
    attributes = {"Conventions": "CF-1.11", "comment": "a nature run; its dates are nominal"}
    return xr.Dataset(variables, {**axes, **(coordinates or {})}, attributes)


def _attributes(name: str, error: float | tuple[float, ...] | None = None) -> dict[str, Any]:
    known = VARIABLES[name]
    about = {
        "units": known.units,
        "standard_name": known.standard_name,
        "long_name": known.long_name,
    }
    return about if error is None else {**about, "error": error}


class _Progress:
    """Logs every ten seconds how far each stage is."""

    def __init__(self):
        self.started: dict[str, float] = {}
        self.said: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        started = self.started.setdefault(stage, now)
        if now - self.said.setdefault(stage, now) < 10.0 and done < total:
            return
        self.said[stage] = now
        each = (now - started) / max(1, done - 1)
        LOG.info(
            "%s: %d of %d days, %.2f s/day, %.0f s left",
            stage,
            done,
            total,
            each,
            each * (total - done),
        )
