"""The moist atmosphere in a cycle: the systems that assimilate its observations.

All systems forecast with the imperfect model of the nature run, start with the climate of that
model, and get the same observations of the true one: points through their operators, and gauges and
longwave radiation. Filters take these two as the rain and radiation of their forecasts, the trained
model through its encoder.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from absl import logging
from jaxtyping import Array, Float

from experiments.configuration.analysis import analyse
from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.observations import open_streams
from experiments.configuration.settings import Settings
from experiments.cycle.moist_observations import Observing, observing_of, points_of
from slams_jax.aliases import Forecast, PRNGKey
from slams_jax.assimilation.observations import Observations
from slams_jax.baselines import letkf
from slams_jax.cycling import Analyse, Observed, localisation
from slams_jax.data.channels import stack_members, unstack_channels
from slams_jax.dynamics import (
    MoistAtmosphere,
    MoistConfig,
    MoistRun,
    moist,
    moist_ensemble,
    moist_run,
)
from slams_jax.dynamics.datasets import FIRST_DAY
from slams_jax.dynamics.moist_data import LONGWAVE, RAIN
from slams_jax.dynamics.moist_ensemble import Members
from slams_jax.errors import InputError, check_at_least, check_positive
from slams_jax.models.model import Model
from slams_jax.records import record_digest

METHODS = ("3dvar", "letkf", "score")
DAY = np.timedelta64(1, "D")
# States of the climate, the days between two of them, and how many apart those of a difference are,
# which make the covariance of "3dvar".
STATES, APART, LAG = 83, 2, 3


@dataclasses.dataclass(frozen=True)
class MoistCycleSettings:
    """Cycles of the moist atmosphere.

    Attributes:
        first: date of the first analysis, in a period of the data.
        cycles: number of analyses, one a day.
        spin_up: number of the first ones that the scores leave out.
        methods: of `METHODS`: "3dvar" has the covariance of a static ensemble, "letkf" that of its
            own members, "score" is the trained model's analysis of the LETKF's forecasts.
        members: of the ensembles.
        draws: of the trained model.
        inflation: factor of the departures of an analysis.
        radius: of localisation: observations over a distance d count exp(-d² / 2 radius²), km.
        variance: of the background of "3dvar" over that of the weather.
        rain_error: standard deviation of the errors of gauges in the logarithm of 1 + mm, as rain
            that is forecast sees them; 0 keeps gauges from the filters.
        longwave_error: likewise of outgoing longwave radiation, W/m².
        every: cycles between two checkpoints.
    """

    first: str = "2004-07-01"
    cycles: int = 60
    spin_up: int = 10
    methods: tuple[str, ...] = METHODS
    members: int = 40
    draws: int = 8
    inflation: float = 1.15
    radius: float = 1500.0
    variance: float = 0.1
    rain_error: float = 1.0
    longwave_error: float = 15.0
    every: int = 5

    def __post_init__(self):
        check_at_least(
            self, cycles=1, spin_up=0, members=2, draws=2, rain_error=0, longwave_error=0, every=1
        )
        check_positive(self, "inflation", "radius", "variance")
        if not self.draws <= self.members <= STATES:
            raise InputError(
                f"members must be at least draws, and at most {STATES}, got {self.members} and "
                f"{self.draws}"
            )
        if not self.methods or set(self.methods) - set(METHODS):
            raise InputError(f"methods must be some of {METHODS}, got {self.methods}")
        if self.spin_up >= self.cycles:
            raise InputError(
                f"spin_up must be below the number of cycles, got {self.spin_up} and {self.cycles}"
            )
        if np.isnat(self.begin):
            raise InputError("first must be a date such as 2004-07-01, got NaT")

    @property
    def begin(self) -> np.datetime64:
        """The time of the first analysis.

        Raises:
            InputError: no date.
        """
        try:
            return np.datetime64(self.first, "ns")
        except ValueError:
            raise InputError(
                f"first must be a date such as 2004-07-01, got {self.first!r}"
            ) from None


@dataclasses.dataclass(frozen=True)
class World:
    """What the systems share.

    Attributes:
        settings: the configuration.
        cycle: its cycle.
        data: its data.
        frames: indices of the days of the cycle.
        levels: of the temperature, hPa.
        atmosphere: the model of the forecasts.
        climate: states of the season, of that model.
        observing: what is observed.
        streams: the same, as the trained model takes it, less what it sees through the encoder.
    """

    settings: Settings
    cycle: MoistCycleSettings
    data: Inputs
    frames: np.ndarray
    levels: list[float]
    atmosphere: MoistAtmosphere
    climate: Members
    observing: Observing
    streams: list[Observations]

    def columns(self, members: Members) -> Array:
        """As filters take them."""
        return moist_ensemble.columns_of(self.atmosphere, members)

    def truth(self, cycle: int) -> Float[np.ndarray, "lat lon channel"]:
        """Of one of the days."""
        return np.asarray(self.data.archive.fields[STATE].array[self.frames[cycle]])


class System(NamedTuple):
    """What `run_cycle` takes."""

    forecast: Forecast
    analyse: Analyse
    start: Members
    observed: Observed


def open_world(settings: Settings, cycle: MoistCycleSettings, data: Inputs, folder: Path) -> World:
    """The model, the days and the observations of the configuration.

    Args:
        settings: the configuration.
        cycle: its cycle.
        data: its data.
        folder: that exists, for the states of the climate, which take minutes.

    Raises:
        InputError: another nature run, days that the data lack, or observations that filters of
            this cycle cannot take.
    """
    run = settings.nature
    if not isinstance(run, MoistRun):
        raise InputError("the cycle of an atmosphere needs a moist nature run: set config.nature")
    times = data.archive.times
    begin = np.flatnonzero(times == cycle.begin)
    if not len(begin) or begin[0] + cycle.cycles > len(times):
        raise InputError(
            f"{cycle.cycles} days from {cycle.first} are not all among those of the data, "
            f"{str(times[0])[:10]} to {str(times[-1])[:10]}: set config.moist_cycle.first, cycles "
            "or config.nature.days"
        )
    frames = np.arange(begin[0], begin[0] + cycle.cycles)
    atmosphere = moist.moist_atmosphere(MoistConfig(run.model.truncation, run.forecast.convection))
    streams, _ = open_streams(settings, data, frames)
    loaded = [dataclasses.replace(o, data=o.data.load()) for o in streams]
    errors = {RAIN: cycle.rain_error, LONGWAVE: cycle.longwave_error}
    observing = observing_of(settings, data, frames, loaded, errors)
    channels = data.archive.fields[STATE].channels
    if any(c.variable != "temperature" for c in channels):
        raise InputError(
            "the cycle of an atmosphere analyses temperature alone: set config.data.variables"
        )
    levels = [c.level or 0.0 for c in channels]
    key, day = jax.random.key(settings.seed), int((times[frames[0]] - FIRST_DAY) / DAY)
    about = {"nature": nature_of(settings), "seed": settings.seed, "levels": levels, "day": day}
    climate = moist_run.kept(
        folder / f"climate-{record_digest(about)[:8]}.npz",
        Members.like(atmosphere),
        lambda: moist_ensemble.climate(
            atmosphere, levels, key, day=day, count=STATES, apart=APART, report=_told
        ),
    )
    return World(settings, cycle, data, frames, levels, atmosphere, climate, observing, loaded)


def nature_of(settings: Settings) -> dict[str, Any]:
    """What truth and model follow from: neither where the run is kept nor how long it is."""
    raw = settings.raw["nature"]
    return {name: value for name, value in raw.items() if name not in ("cache", "days")}


def _told(done: int) -> None:
    total = moist_ensemble.SETTLE + STATES * APART
    if done % 60 == 0 or done == total:
        logging.info("climate of the imperfect model: %d of %d days", done, total)


def system_of(world: World, method: str, model: Model | None) -> System:
    """A system at the start, when it knows no more than the climate of its model.

    Args:
        world: what the systems share.
        method: of `METHODS`.
        model: trained, for "score".
    """
    cycle, atmosphere, observing = world.cycle, world.atmosphere, world.observing
    forecast = moist_ensemble.forecasts(atmosphere, world.levels)
    error = jnp.asarray(observing.error)

    def operator(columns: Array) -> Array:
        _, means = moist_ensemble.fields_of(atmosphere, columns)
        return observing.operator(means)

    nearness = _nearness(world, observing.places, cycle.radius)
    if method == "3dvar":
        static = world.columns(world.climate)
        departures = (static[LAG:] - static[:-LAG]) * (cycle.variance / 2) ** 0.5
        departures = departures - departures.mean(axis=0, keepdims=True)

        @jax.jit
        def interpolate(nearness: Array, departures: Array, background: Members, y: Array):
            before = world.columns(background)
            filtered = letkf(operator, error, nearness, rotate=False)
            after = filtered(before + departures, y, jax.random.key(0)).mean(axis=0, keepdims=True)
            return moist_ensemble.moved(atmosphere, background, before, after)

        predicted = jax.vmap(operator)(static.mean(axis=0, keepdims=True) + departures)
        return System(
            forecast,
            # Arguments, as constants they would be compiled in.
            lambda background, y, key: interpolate(nearness, departures, background, y),
            _middle(world.climate, 1),
            Observed(
                lambda members: observing.operator(jax.tree.map(lambda x: x[0], members.means)),
                error,
                ensemble=False,
                background_error=jnp.std(predicted, axis=0, ddof=1),
            ),
        )

    @jax.jit
    def filtered(nearness: Array, background: Members, y: Array, key: PRNGKey) -> Members:
        before = world.columns(background)
        after = letkf(operator, error, nearness, inflation=cycle.inflation)(before, y, key)
        return moist_ensemble.moved(atmosphere, background, before, after)

    ensemble = functools.partial(filtered, nearness)
    found = System(
        forecast,
        ensemble,
        _middle(world.climate, cycle.members),
        Observed(lambda member: observing.operator(member.means), error),
    )
    if method == "letkf":
        return found
    assert model is not None
    return found._replace(analyse=_with_model(world, model, ensemble))


def _with_model(world: World, model: Model, ensemble: Analyse) -> Analyse:
    """The analysis of the trained model; the next forecasts start from that of `ensemble`."""
    data, options = world.data, world.settings.assimilation
    grid, channels = data.archive.grid, model.channels
    given = dataclasses.replace(options, members=world.cycle.draws)
    in_turn = np.arange(world.cycle.members) % world.cycle.draws

    def analysed(background: Members, y: Array, key: PRNGKey) -> Members:
        filtered = ensemble(background, y, key)
        day = int(background.states.day[0]) - 1
        frame = world.frames[:1] + (day - int(world.climate.states.day[0]))
        forecasts = unstack_channels(
            np.asarray(background.means.temperature)[:, None],
            channels,
            data.archive.times[frame],
            grid.latitude,
            grid.longitude,
        )
        # A seed of its own for each day.
        settings = dataclasses.replace(
            world.settings, assimilation=given, seed=world.settings.seed + 1 + day
        )
        found = analyse(settings, data, model, world.streams, frames=frame, background=forecasts)
        draws = jnp.asarray(stack_members(found, channels)[:, 0])
        return filtered._replace(means=filtered.means._replace(temperature=draws[in_turn]))

    return analysed


def _nearness(
    world: World, places: tuple[np.ndarray, np.ndarray], radius: float
) -> Float[Array, "point observation"]:
    """What `letkf` takes, of observations at some places."""
    near = localisation(places, points_of(world.atmosphere.grid), radius)
    return jnp.asarray(near.reshape(len(near), -1).T)


def _middle(members: Members, count: int) -> Members:
    """Those nearest to the date in season."""
    first = (members.count - count) // 2
    return jax.tree.map(lambda x: x[first : first + count], members)


def temperatures(
    world: World, method: str, members: Members
) -> Float[np.ndarray, "draw lat lon channel"]:
    """Those of an analysis, each once: draws of the trained model stand in their places in turn."""
    count = world.cycle.draws if method == "score" else None
    return np.asarray(members.means.temperature)[:count]


def kept(world: World, method: str, members: Members) -> xr.Dataset:
    """Mean and spread of the temperature of an analysis."""
    draws = temperatures(world, method, members)
    grid, channels = world.data.archive.grid, world.data.archive.fields[STATE].channels
    time = world.data.archive.times[world.frames[:1]]

    def field(values: np.ndarray) -> xr.DataArray:
        of = unstack_channels(values[None, None], channels, time, grid.latitude, grid.longitude)
        return of["temperature"].isel(member=0, time=0, drop=True)

    found = xr.Dataset({"temperature": field(draws.mean(axis=0))})
    if len(draws) > 1:
        found["temperature_spread"] = field(draws.std(axis=0, ddof=1))
    return found
