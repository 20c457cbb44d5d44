"""The moist nature run as Datasets: truth, background, and observations of the truth.

Rain gauges, surface stations and radiosondes stand on land; a satellite sees outgoing longwave
radiation along its orbits. Only temperature has an observation operator: rain and radiation come
from the physics of the model.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from slams_jax.aliases import PRNGKey
from slams_jax.dynamics import moist, moist_run
from slams_jax.dynamics.cycled import SEPARATION
from slams_jax.dynamics.datasets import (
    MAP,
    Progress,
    along_stations,
    attributes_of,
    field_data,
    grid_data,
    positions,
    station_data,
    temperature_data,
)
from slams_jax.dynamics.moist import MoistAtmosphere
from slams_jax.dynamics.moist_run import Days
from slams_jax.dynamics.nature_config import MoistRun
from slams_jax.grid import Grid
from slams_jax.observe import Points, simulate, standard_pressure
from slams_jax.readers.gridded import COORDINATE_ATTRIBUTES
from slams_jax.schema import Channel, channels_of

RAIN, LONGWAVE = "total_precipitation", "outgoing_longwave_radiation"
MM = "mm"  # of rain in a day


def moist_data(run: MoistRun, parts: Path) -> dict[str, xr.Dataset]:
    """`state` and `background`, the `surface`, and what observes the truth.

    These are `gauges`, `stations`, `soundings` and `olr`.

    Args:
        run: the settings.
        parts: folder of unfinished work, as `moist_run.generate` has it.

    Raises:
        InputError: the package `jcm` is not installed, levels that do not suit the stations, or no
            room for so many of them.
        RunError: the model became unstable.
    """
    channels = channels_of(["temperature"], run.levels)
    keys = jax.random.split(jax.random.key(run.seed), 5)
    truth = moist.moist_atmosphere(run.model)
    imperfect = moist.moist_atmosphere(
        moist.MoistConfig(run.model.truncation, run.forecast.convection)
    )
    # Networks are placed first, so that settings that do not suit end the run at once.
    systems = {
        "gauges": _gauges(run, truth, keys[1]),
        "stations": _stations(run, truth, channels, keys[2]),
        "soundings": _soundings(run, truth, channels, keys[3]),
        "olr": _longwave(run, truth.grid, keys[4]),
    }
    true, background = moist_run.generate(run, truth, imperfect, keys[0], parts, report=Progress())
    return {
        "state": _state(true, truth.grid, run.levels),
        "background": _state(background, truth.grid, run.levels),
        "surface": _surface(truth),
        **{name: observe(true) for name, observe in systems.items()},
    }


Observe = Callable[[Days], xr.Dataset]


def _gauges(run: MoistRun, truth: MoistAtmosphere, key: PRNGKey) -> Observe:
    """Rain gauges, which measure the rain of the cell that they stand in."""
    config, grid = run.gauges, truth.grid
    key_place, key_gap, key_error = jax.random.split(key, 3)
    network = simulate.station_network(
        key_place, grid, config.count, clusters=config.clusters, land=truth.land
    )
    cell = grid.nearest(network.latitude, network.longitude)
    network = network._replace(altitude=np.maximum(truth.orography[cell], 0.0))

    def observe(true: Days) -> xr.Dataset:
        values = simulate.gauge(
            key_error,
            np.asarray(true.precipitation)[:, *cell],
            ~simulate.outages(key_gap, run.days, config.count, missing=config.missing),
            spread=config.spread,
            trace=config.trace,
        )
        return station_data(RAIN, values, network, units=MM, prefix="G")

    return observe


def _stations(
    run: MoistRun, truth: MoistAtmosphere, channels: Sequence[Channel], key: PRNGKey
) -> Observe:
    """Surface stations: the temperature of the profile at the height of the model's surface.

    None stands lower than half a layer below the lowest level, where the profile ends.
    """
    config, grid = run.stations, truth.grid
    key_place, key_gap, key_error = jax.random.split(key, 3)
    network = simulate.station_network(
        key_place, grid, config.count, clusters=config.clusters, land=truth.land
    )
    cell = grid.nearest(network.latitude, network.longitude)
    altitude = np.maximum(truth.orography[cell], _lowest_altitude(run.levels))
    network = network._replace(altitude=altitude)
    places = (network.latitude, network.longitude, standard_pressure(altitude))
    operator = Points.at(grid, channels, *places)

    def observe(true: Days) -> xr.Dataset:
        values = simulate.measure(
            key_error,
            np.asarray(operator(jnp.asarray(true.temperature))),
            config.error,
            ~simulate.outages(key_gap, run.days, config.count, missing=config.missing),
        )
        return station_data("temperature", values, network, error=config.error)

    return observe


def _soundings(
    run: MoistRun, truth: MoistAtmosphere, channels: Sequence[Channel], key: PRNGKey
) -> Observe:
    """Radiosondes: a series for each place and level, as `read_stations` makes of real ones."""
    config, grid, levels = run.radiosondes, truth.grid, run.levels
    key_place, key_gap, key_error = jax.random.split(key, 3)
    network = simulate.station_network(
        key_place, grid, config.count, separation=SEPARATION, land=truth.land
    )
    latitude, longitude = (np.repeat(x, len(levels)) for x in (network.latitude, network.longitude))
    pressure = np.tile(np.asarray(levels), config.count)
    operator = Points.at(grid, channels, latitude, longitude, pressure)

    def observe(true: Days) -> xr.Dataset:
        off = simulate.outages(key_gap, run.days, config.count, missing=config.missing)
        values = simulate.measure(
            key_error,
            np.asarray(operator(jnp.asarray(true.temperature))),
            config.error,
            ~np.repeat(off, len(levels), axis=1),
        )
        names = [f"R{i:03d} {level:g} hPa" for i in range(config.count) for level in levels]
        about = attributes_of("temperature", config.error)
        return grid_data(
            {"temperature": (("time", "station"), values, about)},
            None,
            {
                "station": names,
                **positions(latitude, longitude),
                "level": along_stations("level", pressure),
            },
        )

    return observe


def _longwave(run: MoistRun, grid: Grid, key: PRNGKey) -> Observe:
    """Outgoing longwave radiation along the orbits of a satellite."""

    def observe(true: Days) -> xr.Dataset:
        covered = simulate.swath(grid, run.days)
        values = simulate.measure(key, np.asarray(true.longwave), run.longwave_error, covered)
        return field_data(LONGWAVE, values, grid, run.longwave_error)

    return observe


def _state(days: Days, grid: Grid, levels: Sequence[float]) -> xr.Dataset:
    data = temperature_data(np.asarray(days.temperature), grid, levels)
    data[RAIN] = (MAP, days.precipitation, attributes_of(RAIN, units=MM))
    data[LONGWAVE] = (MAP, days.longwave, attributes_of(LONGWAVE))
    name = "surface_pressure"
    data[name] = (MAP, np.float32(100.0) * days.surface_pressure, attributes_of(name))
    return data


def _surface(truth: MoistAtmosphere) -> xr.Dataset:
    """Share of land and height of the surface."""
    dims, grid = ("latitude", "longitude"), truth.grid
    land = {"standard_name": "land_area_fraction", "units": "1", "long_name": "Share of land"}
    height = {"standard_name": "surface_altitude", "units": "m", "long_name": "Height of surface"}
    axes = {n: (n, list(getattr(grid, n)), COORDINATE_ATTRIBUTES[n]) for n in dims}
    return xr.Dataset(
        {"land_sea_mask": (dims, truth.land, land), "orography": (dims, truth.orography, height)},
        axes,
        {"Conventions": "CF-1.11"},
    )


def _lowest_altitude(levels: Sequence[float]) -> float:
    """Altitude (m) in the standard atmosphere of half a layer below the lowest level, at least 0.

    There `Points` ends. The result is rounded up to tens of metres.
    """
    altitudes = np.arange(0.0, 11e3, 10.0)
    lowest = levels[-1] * (levels[-1] / levels[-2]) ** 0.5
    return float(altitudes[standard_pressure(altitudes) <= lowest][0])
