import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.grid import EARTH_RADIUS, Grid
from slams_jax.observe import simulate

GLOBE = Grid.of(np.linspace(-87.0, 87.0, 30), np.arange(0.0, 360.0, 6.0))
REGION = Grid.of(np.linspace(34.0, 46.0, 7), np.linspace(-12.0, 6.0, 10))


def distances(network) -> np.ndarray:
    """Between all pairs of stations, km."""
    lat, lon = np.deg2rad(network.latitude), np.deg2rad(network.longitude)
    unit = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    angle = np.arccos(np.clip(unit.T @ unit, -1, 1))
    return (angle + 10.0 * np.eye(lat.size)) * EARTH_RADIUS / 1e3


@pytest.mark.parametrize("grid", [GLOBE, REGION])
@pytest.mark.parametrize("clusters", [0, 3])
def test_stations_lie_apart_and_inside_the_domain(grid, clusters):
    network = simulate.station_network(jax.random.key(1), grid, 60, clusters=clusters)
    assert network.latitude.shape == network.longitude.shape == network.altitude.shape == (60,)
    assert distances(network).min() >= 50.0
    assert np.all(np.abs(network.latitude - np.mean(grid.latitude)) <= np.ptp(grid.latitude) / 2)
    low, high = (0.0, 360.0) if grid.periodic else (-12.0, 6.0)
    assert np.all((network.longitude >= low) & (network.longitude <= high))
    assert np.all((network.altitude >= 0) & (network.altitude <= 1500.0))


def test_a_network_follows_from_its_key():
    one, same, other = (simulate.station_network(jax.random.key(k), GLOBE, 40) for k in (0, 0, 1))
    np.testing.assert_array_equal(one.latitude, same.latitude)
    assert not np.array_equal(one.latitude, other.latitude)


def test_stations_are_uniform_in_area_unless_they_gather():
    uniform = simulate.station_network(jax.random.key(2), GLOBE, 600, separation=5.0)
    # The sine of latitude is then uniform: mean square 1/3, standard error 0.3 / sqrt(600).
    sine = np.sin(np.deg2rad(uniform.latitude))
    assert abs(np.mean(sine**2) - 1 / 3) < 4 * 0.3 / np.sqrt(600)
    gathered = simulate.station_network(jax.random.key(2), GLOBE, 600, clusters=6, separation=5.0)
    near = [np.median(distances(n).min(axis=1)) for n in (uniform, gathered)]
    assert near[1] < 0.8 * near[0]


def test_outages_come_in_spells():
    off = simulate.outages(jax.random.key(0), 4000, 50, missing=0.1, length=4.0)
    # Effective sample: about 4000 * 50 / 8 independent values.
    assert abs(off.mean() - 0.1) < 4 * np.sqrt(0.09 * 8 / off.size)
    starts = np.sum(off[1:] & ~off[:-1])
    assert abs(off[1:].sum() / starts - 4.0) < 0.3
    assert not simulate.outages(jax.random.key(0), 30, 5, missing=0.0).any()


def test_swaths_move_and_close_polewards():
    seen = simulate.swath(GLOBE, 11)
    share = seen.mean(axis=(0, 2))
    latitude = np.abs(GLOBE.latitude)
    # 14.2 swaths of 2250 km around the equator's 40,000, slanted: about four fifths of it.
    assert np.all((share[latitude < 10] > 0.7) & (share[latitude < 10] < 0.95))
    assert np.all(share[(latitude > 60) & (latitude < 80)] > 0.99)
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[5])  # the orbit repeats
    assert seen.any(axis=0).all()  # nobody is left out for good
    other = simulate.swath(GLOBE, 1, first_orbit=0.5)
    assert not np.array_equal(other[0], seen[0])


def test_measurements_have_their_errors_and_gaps():
    values = np.full((200, 10, 20, 3), 250.0, np.float32)
    seen = np.arange(200 * 10 * 20).reshape(200, 10, 20) % 4 > 0
    error = np.array([0.1, 1.0, 5.0])
    measured = simulate.measure(jax.random.key(0), values, error, seen)
    assert measured.dtype == np.float32
    np.testing.assert_array_equal(
        np.isfinite(measured), np.broadcast_to(seen[..., None], (*seen.shape, 3))
    )
    departures = measured[seen] - 250.0
    count = seen.sum()
    np.testing.assert_allclose(departures.std(axis=0), error, rtol=4 / np.sqrt(2 * count))
    assert np.all(np.abs(departures.mean(axis=0)) < 4 * error / np.sqrt(count))
    again = simulate.measure(jax.random.key(0), values, error, seen)
    np.testing.assert_array_equal(measured, again)


def test_operators_give_what_is_measured():
    # A measurement is NumPy, whatever came out of the operator.
    values = np.asarray(jnp.ones((2, 3)))
    out = simulate.measure(jax.random.key(0), values, 0.5, np.ones((2, 3), bool))
    assert isinstance(out, np.ndarray)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda k: simulate.station_network(k, GLOBE, 0), "count"),
        (lambda k: simulate.station_network(k, REGION, 40, separation=800.0), "no room"),
        (lambda k: simulate.outages(k, 5, 5, missing=1.0), "outages"),
        (lambda k: simulate.measure(k, np.ones((2, 3)), 0.0, np.ones((2, 3), bool)), "error"),
        (lambda k: simulate.measure(k, np.ones((2, 3)), -1.0, np.ones((2, 3), bool)), "error"),
    ],
)
def test_bad_input(call, named):
    with pytest.raises(InputError, match=named):
        call(jax.random.key(0))


def test_gauges_are_skewed_and_never_negative():
    rain = np.full((400, 50), 2.0, np.float32)
    rain[:, ::2] = 0.0
    observed = np.ones(rain.shape, dtype=bool)
    observed[:3] = False
    values = simulate.gauge(jax.random.key(0), rain, observed, spread=0.6, trace=0.5)
    assert np.isnan(values[:3]).all()
    assert np.isfinite(values[3:]).all()
    np.testing.assert_array_equal(values[3:, ::2], 0.0)
    wet = values[3:, 1::2]
    # The trace cut takes log(2 f) < log .5 of log-normal factors f with mean 1.
    cut = 0.5 * (1 + math.erf((math.log(0.25) + 0.18) / 0.6 / math.sqrt(2)))
    np.testing.assert_allclose((wet == 0.0).mean(), cut, rtol=0.15)
    assert wet[wet > 0].min() >= 0.5
    uncut = simulate.gauge(jax.random.key(0), rain, observed, spread=0.6, trace=0.0)[3:, 1::2]
    np.testing.assert_allclose(uncut.mean(), 2.0, rtol=0.03)
    log = np.log(uncut / 2.0)
    np.testing.assert_allclose([log.mean(), log.std()], [-0.18, 0.6], rtol=0.05)
    assert ((uncut - 2.0) ** 3).mean() > 2.0 * uncut.std() ** 3
    with pytest.raises(InputError, match="spread > 0"):
        simulate.gauge(jax.random.key(0), rain, observed, spread=0.0, trace=0.1)


def test_stations_stand_on_land():
    grid = Grid.of(np.arange(-75.0, 76.0, 30.0), np.arange(0.0, 360.0, 30.0))
    land = np.zeros(grid.shape)
    land[3, 2:5] = 0.5
    land[0] = 0.4
    network = simulate.station_network(jax.random.key(1), grid, 12, land=land)
    assert np.all(land[grid.nearest(network.latitude, network.longitude)] == 0.5)
