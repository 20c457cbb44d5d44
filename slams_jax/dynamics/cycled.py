"""Backgrounds of the Held-Suarez atmosphere: forecasts of an imperfect model that is cycled.

Like a weather service's, they come from a model whose physics is wrong, which starts each day from
an analysis of its own forecast and of a sparse network of radiosondes (temperature and wind on
every second layer, and surface pressure). So their errors have a bias, persist from day to day,
and grow where the flow is unstable. The analysis is ensemble optimal interpolation.
"""

import concurrent.futures
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.cycling import Analyse, EnsembleOI, cycle, ensemble_oi, localisation
from slams_jax.dynamics import held_suarez, moist
from slams_jax.dynamics.held_suarez import Atmosphere, Nodal, Report, State
from slams_jax.dynamics.moist import MoistAtmosphere
from slams_jax.dynamics.nature_config import CycleConfig, HeldSuarezRun
from slams_jax.grid import Grid
from slams_jax.observe import Points, simulate
from slams_jax.schema import Channel

OBSERVED = slice(None, None, 2)  # layers, from the top
SEPARATION = 500.0  # km, smallest distance between two radiosondes

AnyNodal = Nodal | moist.Nodal
AnyAtmosphere = Atmosphere | MoistAtmosphere


def nature_run(
    run: HeldSuarezRun,
    atmosphere: Atmosphere,
    imperfect: Atmosphere,
    key: PRNGKey,
    *,
    report: Callable[[str, int, int], None] | None = None,
) -> tuple[list[State], list[State]]:
    """A true run and the background of each of its days.

    The background of a day is the forecast over `run.forecast.lead` hours from an analysis.

    Args:
        run: the settings.
        atmosphere: the true model.
        imperfect: the model of the backgrounds, on the same grid.
        key: of all draws.
        report: called with the name of the stage, the days done and the days to do.

    Returns:
        The true states and the backgrounds, one of each per day.

    Raises:
        InputError: no room for so many radiosondes.
        RunError: a model became unstable.
    """
    config = run.forecast
    key_truth, key_forecast = jax.random.split(key)
    key_climate, key_network, key_error, key_cycle = jax.random.split(key_forecast, 4)
    network = simulate.station_network(
        key_network, atmosphere.grid, config.soundings, separation=SEPARATION
    )

    def reporting(stage: str) -> Report | None:
        return None if report is None else functools.partial(report, stage)

    # Neither run can use two cores, so they run side by side.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = run.spin_up - config.days_before
        truth = pool.submit(
            _states, atmosphere, key_truth, first, run.days + config.days_before, reporting("truth")
        )
        climate = pool.submit(
            _states,
            imperfect,
            key_climate,
            run.spin_up,
            config.members * config.interval,
            reporting("climate of the imperfect model"),
        )
        true, static = truth.result(), climate.result()[1 :: config.interval]
    sounding = soundings(atmosphere.grid, network)
    observe = jax.jit(lambda state: sounding(atmosphere.nodal(state)))
    error = sounding_error(config, imperfect)
    values = np.stack([np.asarray(observe(state)) for state in true[1:]])
    observations = simulate.measure(key_error, values, error, np.ones(len(values), dtype=bool))
    scheme = static_scheme(imperfect, [imperfect.nodal(x) for x in static], network, config)
    backgrounds = []
    for done in cycle(
        lambda state, key: imperfect.day(state),
        analysis(imperfect, network, scheme),
        true[0],
        observations,
        key_cycle,
    ):
        held_suarez.check_finite(imperfect, done.background, f"in cycle {len(backgrounds)}")
        backgrounds.append(done.background)
        if report is not None:
            report("cycle", len(backgrounds), len(observations))
    more = config.lead // 24 - 1
    backgrounds = backgrounds[config.spin_up : len(backgrounds) - more]
    for _ in range(more):
        backgrounds = held_suarez.forecasts(imperfect, backgrounds, report=reporting("forecasts"))
    return true[1 + config.days_before :], backgrounds


def soundings(
    grid: Grid, network: simulate.Network
) -> Callable[[AnyNodal], Float[Array, "station value"]]:
    """What radiosondes measure: temperature and both components of wind, and surface pressure."""
    points = Points.at(grid, [Channel("temperature")], network.latitude, network.longitude, None)

    def observe(fields: AnyNodal) -> Float[Array, "station value"]:
        layers = (fields.temperature, fields.zonal_wind, fields.meridional_wind)
        columns = [x[OBSERVED] for x in layers] + [fields.surface_pressure[None]]
        return points(jnp.concatenate(columns)[..., None]).T

    return observe


def sounding_error(config: CycleConfig, atmosphere: AnyAtmosphere) -> Float[np.ndarray, " value"]:
    """Standard deviations of the errors of a radiosonde."""
    layers = len(atmosphere.sigma[OBSERVED])
    each = (config.temperature_error, config.wind_error, config.wind_error)
    return np.append(np.repeat(each, layers), config.pressure_error).astype(np.float32)


def static_scheme(
    atmosphere: AnyAtmosphere,
    members: Sequence[AnyNodal],
    network: simulate.Network,
    config: CycleConfig,
) -> EnsembleOI:
    """The analysis scheme of a static ensemble, in physical units on the grid."""
    grid = atmosphere.grid
    places = (network.latitude, network.longitude)
    rows = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    return ensemble_oi(
        jax.tree.map(lambda *x: jnp.stack(x), *members),
        soundings(grid, network),
        jnp.asarray(sounding_error(config, atmosphere)),
        variance=config.variance,
        nearness=jnp.asarray(localisation(places, (rows[0], rows[1]), config.radius)),
        between=jnp.asarray(localisation(places, places, config.radius)),
    )


def analysis(atmosphere: AnyAtmosphere, network: simulate.Network, scheme: EnsembleOI) -> Analyse:
    """The analysis of what radiosondes measure, by `scheme`."""
    sounding = soundings(atmosphere.grid, network)

    @jax.jit
    def analyse(scheme, background, observed):
        departure = observed - sounding(atmosphere.nodal(background))
        return atmosphere.add(background, scheme.increment(departure))

    # The scheme is an argument, as a constant it would be compiled in.
    return lambda background, observed, key: analyse(scheme, background, observed)


def _states(
    atmosphere: Atmosphere, key: PRNGKey, spin_up: int, days: int, report: Report | None
) -> list[State]:
    """The states of `days` days after a spin-up from rest, with the one before them in front."""
    start = atmosphere.initial(key)
    states: list[State] = [start]
    for done, state in enumerate(
        held_suarez.trajectory(atmosphere, start, spin_up + days, report=report), start=1
    ):
        if done <= spin_up:
            states.clear()
        states.append(state)
    return states
