"""A nature run as Datasets: the true state, an imperfect background and simulated observations.

Dates begin on 2000-01-01. Those of the moist atmosphere are of its calendar; those of the others
are nominal, as these have no seasons.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from slams_jax.dynamics import cycled, held_suarez, kolmogorov, lorenz63
from slams_jax.dynamics.datasets import (
    Progress,
    attributes_of,
    field_data,
    grid_data,
    station_data,
    temperature_data,
)
from slams_jax.dynamics.nature_config import (
    HeldSuarezRun,
    KolmogorovRun,
    Lorenz63Run,
    SounderConfig,
)
from slams_jax.errors import RunError
from slams_jax.grid import Grid
from slams_jax.observe import Points, simulate, standard_pressure
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from slams_jax.schema import channels_of

CHUNK = 50  # states of a Kolmogorov flow in one compiled call
# Width of the strip that rows of the torus are given as latitudes, degrees: so narrow that all
# cells weigh the same, to within 4e-5.
STRIP = 1.0


def lorenz63_data(run: Lorenz63Run) -> dict[str, xr.Dataset]:
    """`state` and `background`, on a grid of one point."""
    fields = lorenz63.nature_run(
        run.model,
        jax.random.key(run.seed),
        length=run.days,
        dt=run.dt,
        substeps=run.substeps,
        spin_up=run.spin_up,
        noise=run.noise,
        imperfect=run.forecast.model,
        error=run.forecast.error,
        variance=run.forecast.variance,
    )
    grid = Grid((0.0,), (0.0,))
    dims = ("time", "latitude", "longitude", "component")
    attributes = {"long_name": "x, y and z of Lorenz (1963)", "units": "1"}
    return {
        name: grid_data({"lorenz63": (dims, np.asarray(x)[:, None, None], attributes)}, grid)
        for name, x in zip(("state", "background"), fields, strict=True)
    }


def kolmogorov_data(run: KolmogorovRun) -> dict[str, xr.Dataset]:
    """`state` alone: the velocity, as means over the cells of a coarser grid.

    Columns have longitudes around the globe, rows nominal latitudes next to the equator.

    Raises:
        RunError: the flow became unstable.
    """
    system, points = run.model, run.points
    flow = jax.jit(lambda w: kolmogorov.trajectory(system, w, length=CHUNK))
    seen = jax.jit(lambda w: kolmogorov.coarsened(kolmogorov.velocity(w), points))
    vorticity = kolmogorov.random_vorticity(system, jax.random.key(run.seed))
    total = run.spin_up + run.days
    parts, report = [], Progress()
    for done in range(0, total, CHUNK):
        states = flow(vorticity)
        vorticity = states[-1]
        if not bool(jnp.isfinite(vorticity).all()):
            raise RunError(
                f"the Kolmogorov flow became unstable by interval {done + CHUNK}: raise "
                f"nature.model.substeps above {system.substeps}"
            )
        parts.append(np.asarray(seen(states)))
        report("flow", min(done + CHUNK, total), total)
    velocity = np.concatenate(parts)[run.spin_up : total]
    middle = (np.arange(points) + 0.5) / points
    grid = Grid.of(STRIP * (middle - 0.5), 360.0 * middle)
    dims = ("time", "latitude", "longitude", "component")
    attributes = {"long_name": "u and v of a Kolmogorov flow", "units": "1"}
    return {"state": grid_data({"velocity": (dims, velocity, attributes)}, grid)}


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
    states, backgrounds = cycled.nature_run(run, atmosphere, imperfect, key_run, report=Progress())
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
        "state": temperature_data(truth, grid, run.levels),
        "background": temperature_data(background, grid, run.levels),
        "stations": station_data(
            "temperature", observed["stations"], network, error=run.stations.error
        ),
        "sounder": _brightness(observed["sounder"], grid, run.sounder),
        "olr": field_data("outgoing_longwave_radiation", observed["olr"], grid, run.longwave_error),
    }


def _brightness(values: np.ndarray, grid: Grid, sounder: SounderConfig) -> xr.Dataset:
    dims = ("time", "sounding_channel", "latitude", "longitude")
    attributes = attributes_of("brightness_temperature", sounder.error)
    along = ("sounding_channel",)
    return grid_data(
        {"brightness_temperature": (dims, np.moveaxis(values, -1, 1), attributes)},
        grid,
        {
            "sounding_channel": (along, np.arange(1, len(sounder.peaks) + 1)),
            "peak": (along, list(sounder.peaks), {"units": "hPa", "long_name": "peak pressure"}),
            "error": (along, list(sounder.error), {"units": "K", "long_name": "observation error"}),
        },
    )
