import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.dynamics import Forcing, HeldSuarezConfig, held_suarez
from slams_jax.errors import InputError, RunError
from slams_jax.schema import SLAMS_LEVELS

pytestmark = pytest.mark.optimised  # the zonal means take 150 days

# The zonal means need T21; everything else is as true of a small, coarse model.
SMALL = HeldSuarezConfig(truncation=10, boundaries=(0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0))


@pytest.fixture(scope="module")
def small():
    return held_suarez.held_suarez(SMALL)


@pytest.fixture(scope="module")
def week(small):
    """A week of the small model, from rest."""
    start = small.initial(jax.random.key(0))
    return [start, *held_suarez.trajectory(small, start, 7)]


@pytest.mark.slow
def test_interpolation_is_linear_in_log_pressure():
    sigma = (0.05, 0.2, 0.5, 0.9)
    surface = jnp.array([[1000.0, 900.0], [1030.0, 980.0]])
    pressure = jnp.asarray(sigma)[:, None, None] * surface[None]
    levels = (100.0, 300.0, 700.0, 850.0, 1000.0)
    found = held_suarez.on_pressure(250.0 + 7.0 * jnp.log(pressure), surface, sigma, levels)
    # A profile linear in log-pressure is exact between the layers and carried on below them.
    expected = np.broadcast_to(250.0 + 7.0 * np.log(levels), (2, 2, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    top = held_suarez.on_pressure(pressure, surface, sigma, (10.0,))
    np.testing.assert_allclose(top[..., 0], pressure[0], rtol=1e-6)


def test_the_upper_levels_lie_between_layers():
    edges = np.asarray(held_suarez.SIGMA_BOUNDARIES)
    centres = 1000.0 * (edges[1:] + edges[:-1]) / 2
    assert centres[0] < 10.0 < centres[1] < 50.0 < centres[-1] < 1000.0


def test_start_is_an_atmosphere_at_rest(small, week):
    fields = small.nodal(week[0])
    assert fields.temperature.shape == (6, *small.grid.shape)
    # Every layer is uniform, and the equilibrium of the upper ones is 200 K (a floor).
    np.testing.assert_allclose(np.ptp(fields.temperature, axis=(1, 2)), 0.0, atol=1e-2)
    np.testing.assert_allclose(fields.temperature[0], 200.0, rtol=1e-4)
    assert np.all(np.diff(fields.temperature[1:, 0, 0]) > 10)
    np.testing.assert_allclose(fields.zonal_wind, 0.0, atol=1e-4)
    np.testing.assert_allclose(np.mean(fields.surface_pressure), 1000.0, rtol=2e-3)


def test_mass_is_conserved(small, week):
    weights = small.grid.area_weights()
    mass = [float((np.asarray(small.nodal(s).surface_pressure) * weights).mean()) for s in week]
    np.testing.assert_allclose(mass, mass[0], rtol=1e-4)


@pytest.mark.slow
def test_temperature_relaxes_as_held_and_suarez_prescribe(small, week):
    # Far from the ground the relaxation takes 40 days. An isothermal atmosphere of 288 K at rest
    # goes a fortieth of the way to the equilibrium of 200 K in a day, in the stratosphere.
    isothermal = week[0].replace(temperature_variation=jnp.zeros_like(week[0].vorticity))
    np.testing.assert_allclose(small.nodal(isothermal).temperature, 288.0, rtol=1e-5)
    cooled = np.asarray(small.nodal(small.day(isothermal)).temperature)[0].mean()
    np.testing.assert_allclose(288.0 - cooled, 88.0 * (1 - np.exp(-1 / 40)), rtol=0.03)
    slow = held_suarez.held_suarez(dataclasses.replace(SMALL, forcing=Forcing(cooling_days=80.0)))
    cooled = np.asarray(slow.nodal(slow.day(isothermal)).temperature)[0].mean()
    np.testing.assert_allclose(288.0 - cooled, 88.0 * (1 - np.exp(-1 / 80)), rtol=0.03)


def test_forecasts_are_the_model(small, week):
    told = []
    made = held_suarez.forecasts(small, week[:3], report=lambda *n: told.append(n))
    for forecast, truth in zip(made, week[1:4], strict=True):
        jax.tree.map(np.testing.assert_array_equal, forecast, truth)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_increments_on_the_grid_lead_from_state_to_state(small, week):
    first, last = week[3], week[7]
    increment = jax.tree.map(jnp.subtract, small.nodal(last), small.nodal(first))
    reached, fields = small.nodal(small.add(first, increment)), small.nodal(last)
    for name, moved in increment._asdict().items():
        # The smallest scale of wind on the grid is beyond the truncation of the spectrum.
        left = getattr(reached, name) - getattr(fields, name)
        assert np.abs(left).max() < 0.02 * np.abs(moved).max(), name


def test_wind_has_two_components(small, week):
    # A flow without divergence around the axis of the Earth is zonal; one towards the poles is not.
    spectral = jnp.zeros_like(week[0].vorticity).at[:, 0, 1].set(1.0)
    turning = small.nodal(week[0].replace(vorticity=spectral, divergence=0.0 * spectral))
    spreading = small.nodal(week[0].replace(vorticity=0.0 * spectral, divergence=spectral))
    assert np.all(np.abs(turning.zonal_wind).max(axis=(1, 2)) > 1.0)
    np.testing.assert_allclose(turning.meridional_wind, 0.0, atol=1e-3)
    np.testing.assert_allclose(spreading.zonal_wind, 0.0, atol=1e-3)
    # Between convergence on one hemisphere and divergence on the other the wind has one direction.
    north = np.asarray(spreading.meridional_wind)
    assert np.all(np.abs(north[:, 4:-4]) > 1.0)
    assert np.ptp(np.sign(north)) == 0


def test_one_compilation_serves_every_day(small, week):
    before = small.day._cache_size()
    small.day(week[2])
    assert small.day._cache_size() == before


@pytest.mark.slow
def test_zonal_means_of_a_spun_up_atmosphere():
    """The climate of Held & Suarez (1994), figures 1 to 3, at T21."""
    atmosphere = held_suarez.held_suarez(HeldSuarezConfig(steps_per_day=10))
    start = atmosphere.initial(jax.random.key(0))
    states = list(held_suarez.trajectory(atmosphere, start, 150))[80:]
    temperature = held_suarez.temperature(atmosphere, states, SLAMS_LEVELS)
    assert np.isfinite(temperature).all()
    latitude = np.asarray(atmosphere.grid.latitude)
    levels = list(SLAMS_LEVELS)
    mean = temperature.mean(axis=(0, 2))
    low = mean[:, levels.index(850.0)]
    np.testing.assert_allclose(low[np.abs(latitude) < 4], 299.5, atol=2.0)
    np.testing.assert_allclose(low[np.abs(latitude) > 84], 262.0, atol=4.0)
    # The stratosphere is close to its equilibrium of 200 K, warmer in no place than 225 K.
    assert np.all((mean[:, 0] > 190) & (mean[:, 0] < 225))
    wind = np.mean(
        [
            held_suarez.on_pressure(f.zonal_wind, f.surface_pressure, atmosphere.sigma, (250.0,))
            for f in map(atmosphere.nodal, states[::3])
        ],
        axis=(0, 2),
    )[:, 0]
    for side in (latitude > 0, latitude < 0):
        jet = np.argmax(np.where(side, wind, -np.inf))
        assert 27.0 < wind[jet] < 42.0
        assert 28.0 < abs(latitude[jet]) < 48.0
    assert np.all(np.abs(wind[np.abs(latitude) < 4]) < 15.0)
    variance = temperature.var(axis=0).mean(axis=1)
    assert 15.0 < variance[:, levels.index(850.0)].max() < 45.0
    spread = np.sqrt((variance * atmosphere.grid.area_weights()[:, :1]).mean(axis=0))
    assert np.all(spread > 1.0)  # every level varies, the upper ones included
    pressure = np.asarray(atmosphere.nodal(states[-1]).surface_pressure)
    np.testing.assert_allclose((pressure * atmosphere.grid.area_weights()).mean(), 1000.0, atol=0.5)


@pytest.mark.slow
def test_an_unstable_run_says_so():
    coarse = held_suarez.held_suarez(HeldSuarezConfig(truncation=10, steps_per_day=1))
    state = jax.tree.map(lambda x: 1e4 * x, coarse.initial(jax.random.key(0)))
    with pytest.raises(RunError, match="steps_per_day"):
        list(held_suarez.trajectory(coarse, state, 20))
    broken = jax.tree.map(lambda x: jnp.full_like(x, np.nan), state)
    with pytest.raises(RunError, match="forecast 0"):
        held_suarez.forecasts(coarse, [broken])


def test_absent_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dinosaur", None)
    with pytest.raises(InputError, match=r"pip install 'slams-jax\[osse\]'"):
        held_suarez.held_suarez(SMALL)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"truncation": 2}, "truncation"),
        ({"boundaries": (0.0, 0.5, 0.4, 1.0)}, "ascend"),
        ({"boundaries": (0.1, 0.2, 0.5, 1.0)}, "sigma 0 to 1"),
        ({"steps_per_day": 0}, "steps_per_day"),
        ({"diffusion_days": float("nan")}, "diffusion_days"),
        ({"diffusion_order": 0}, "diffusion_order"),
    ],
)
def test_bad_configuration(values, named):
    with pytest.raises(InputError, match=named):
        HeldSuarezConfig(**values)


def test_forcing_is_positive():
    with pytest.raises(InputError, match="cooling_days of the forcing"):
        Forcing(cooling_days=0.0)
