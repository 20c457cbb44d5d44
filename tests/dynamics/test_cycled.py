import dataclasses

import jax
import numpy as np
import pytest

from slams_jax.dynamics import (
    ForecastConfig,
    HeldSuarezConfig,
    HeldSuarezRun,
    cycled,
    held_suarez,
)
from slams_jax.errors import InputError
from slams_jax.observe import simulate

pytestmark = pytest.mark.optimised  # the errors of backgrounds take 400 days

SMALL = HeldSuarezConfig(truncation=10, boundaries=(0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0))
LEVELS = (100.0, 300.0, 500.0, 850.0)


@pytest.fixture(scope="module")
def small():
    return held_suarez.held_suarez(SMALL)


@pytest.mark.slow
def test_a_perfect_model_with_perfect_observations_has_perfect_backgrounds(small):
    """So truth and background are of the same day."""
    error = {"temperature_error": 1e-4, "wind_error": 1e-4, "pressure_error": 1e-4}
    config = ForecastConfig(2, 4, **error, members=3, interval=1, variance=1e-6, lead=48)
    run = HeldSuarezRun(days=3, spin_up=4, model=SMALL, forecast=config)
    told = []
    truth, background = cycled.nature_run(
        run, small, small, jax.random.key(0), report=lambda *stage: told.append(stage)
    )
    assert len(truth) == len(background) == 3
    maps = [held_suarez.temperature(small, states, LEVELS) for states in (truth, background)]
    np.testing.assert_allclose(maps[0], maps[1], atol=0.02)
    assert np.abs(np.diff(maps[0], axis=0)).max() > 0.2
    assert {("truth", 7, 7), ("cycle", 6, 6)} <= set(told)
    assert {count for stage, _, count in told if stage == "forecasts"} == {3}


@pytest.mark.slow
def test_radiosondes_measure_columns(small):
    network = simulate.Network(
        *(np.array([value]) for value in (small.grid.latitude[3], small.grid.longitude[5], 0.0))
    )
    fields = small.nodal(small.day(small.initial(jax.random.key(0))))
    (column,) = cycled.soundings(small.grid, network)(fields)
    expected = [x[::2, 3, 5] for x in fields[:3]] + [fields.surface_pressure[None, 3, 5]]
    np.testing.assert_allclose(column, np.concatenate(expected), rtol=1e-5)
    config = ForecastConfig(temperature_error=0.5, wind_error=2.0, pressure_error=0.7)
    error = cycled.sounding_error(config, small)
    np.testing.assert_allclose(error, [0.5] * 3 + [2.0] * 6 + [0.7])


@pytest.mark.slow
def test_errors_of_backgrounds_are_those_of_a_cycled_imperfect_model(small):
    forecast = ForecastConfig(soundings=25, members=40, spin_up=30)
    run = HeldSuarezRun(days=240, spin_up=150, model=SMALL, forecast=forecast)
    imperfect = held_suarez.held_suarez(dataclasses.replace(SMALL, forcing=forecast.forcing))
    truth, background = (
        held_suarez.temperature(small, states, LEVELS)
        for states in cycled.nature_run(run, small, imperfect, jax.random.key(0))
    )
    error = background - truth
    weights = small.grid.area_weights()[..., None]
    weights = weights / weights.mean()
    size = np.sqrt((error**2 * weights).mean(axis=(0, 1, 2)))
    size /= np.sqrt((truth.var(axis=0) * weights).mean(axis=(0, 1)))
    assert np.all((size > 0.3) & (size < 0.7)), size
    anomaly = error - error.mean(axis=0)
    product = (anomaly[1:] * anomaly[:-1] * weights).mean(axis=(0, 1, 2))
    persistence = product / (anomaly**2 * weights).mean(axis=(0, 1, 2))
    assert np.all(persistence > 0.3), persistence
    latitude = np.abs(small.grid.latitude)
    storms, tropics = (
        np.sqrt((error[:, rows, :, -1] ** 2).mean())
        for rows in ((latitude > 30) & (latitude < 60), latitude < 20)
    )
    assert storms > 1.3 * tropics
    # The zonal mean error of one half of the run is also that of the other half, as far as so few
    # days tell: chaos makes the run of each machine another one.
    first, second = (half.mean(axis=(0, 2)).ravel() for half in np.split(error, 2))
    assert np.corrcoef(first, second)[0, 1] > 0.25
    assert np.sqrt((first * second).mean()) > 0.1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lead": 36}, "lead"),
        ({"soundings": 0}, "soundings"),
        ({"members": 1}, "members"),
        ({"wind_error": 0.0}, "wind_error"),
        ({"radius": float("nan")}, "radius"),
    ],
)
def test_bad_settings_of_the_forecast(values, named):
    with pytest.raises(InputError, match=named):
        ForecastConfig(**values)


def test_the_cycle_settles_within_the_spin_up():
    with pytest.raises(InputError, match="at least 41 days, got 40"):
        HeldSuarezRun(spin_up=40, forecast=ForecastConfig(lead=48))
    with pytest.raises(InputError, match="days must be >= 3"):
        HeldSuarezRun(days=2)
