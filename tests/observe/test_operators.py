import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import Chain, Coarsen, Identity, Points, Select, Stride, standard_pressure
from slams_jax.observe.satellite import OutgoingLongwave, Sounder
from slams_jax.schema import Channel, channels_of

LEVELS = (300.0, 500.0, 850.0, 1000.0)
CHANNELS = (*channels_of(("geopotential",), LEVELS), *channels_of(("temperature",), LEVELS))
LAT = np.arange(-84.375, 90, 11.25)  # 16 rows, cell centres
GLOBAL = Grid.of(LAT, np.arange(0, 360, 22.5))
SIGNED = Grid.of(LAT, np.arange(-180, 180, 22.5))
POLES = Grid.of(np.linspace(-90, 90, 17), np.arange(0, 360, 22.5))
REGION = Grid.of(np.linspace(36, 44, 9), np.linspace(-10, 4, 8))  # either side of Greenwich
REGION_EAST = Grid.of(np.linspace(36, 44, 9), np.linspace(345, 359, 8))
WIDE = Grid.of(np.linspace(30, 60, 7), np.linspace(-180, 120, 31))

SCATTERED = dict(
    latitude=np.array([-89.0, 0.3, 45.0, 89.9, 90.0]),
    longitude=np.array([359.0, -179.9, 12.3, 190.0, 77.0]),
    pressure=np.array([300.0, 420.0, 850.0, 999.0, 1013.25]),
)
INLAND = dict(
    latitude=np.array([36.0, 39.7, 44.0]),
    longitude=np.array([-10.0, 359.9, 4.0]),
    pressure=np.array([310.0, 500.0, 1013.25]),
)
OPERATORS = {
    "identity": Identity(),
    "select": Select((5, 1)),
    "coarsen": Coarsen(4),
    "stride": Stride(3, 1),
    "points": Points.at(GLOBAL, CHANNELS, **SCATTERED),
    "points, poles": Points.at(POLES, CHANNELS, **SCATTERED),
    "points, region": Points.at(REGION, CHANNELS, **INLAND),
    "coarsen, region": Chain((Select((4, 5, 6)), Coarsen(1), Stride(2, 1))),
    "sounder": Sounder.of(CHANNELS, peaks=(450.0, 600.0)),
    "chain": Chain((Select((0, 2, 4, 6)), Coarsen(2), Stride(2))),
}


def state_on(grid, function, time=2):
    """`function` of time, latitude, longitude (degrees) and log-pressure as a float32 state."""
    lat, lon = np.asarray(grid.latitude), np.asarray(grid.longitude)
    log_p = np.log([c.level for c in CHANNELS])
    t = np.arange(time)
    values = function(
        t[:, None, None, None], lat[:, None, None], lon[:, None], log_p
    ) + 1000.0 * np.array([c.variable == "geopotential" for c in CHANNELS])
    shape = (time, *grid.shape, len(CHANNELS))
    return jnp.asarray(np.broadcast_to(values, shape), jnp.float32)


def grid_for(name):
    return POLES if "poles" in name else REGION if "region" in name else GLOBAL


def around(name):
    """Two random states and a direction, on the grid of an operator."""
    rng = np.random.default_rng(0)
    shape = (2, *grid_for(name).shape, len(CHANNELS))
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(2))


def check_adjoint(operator, x, d):
    """<H' d, y> = <d, H'^T y> for the derivative at x."""
    value, tangent = jax.jvp(operator, (x,), (d,))
    y = jnp.asarray(np.random.default_rng(1).standard_normal(value.shape), jnp.float32)
    back = jax.vjp(operator, x)[1](y)[0]
    size = float(jnp.linalg.norm(tangent) * jnp.linalg.norm(y))
    assert size > 0.1
    np.testing.assert_allclose(jnp.vdot(tangent, y), jnp.vdot(d, back), atol=1e-5 * size)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_identity_and_finite_differences(name):
    """And H(x + d) - H(x) = H d: these operators are all linear."""
    operator = OPERATORS[name]
    x, d = around(name)
    check_adjoint(operator, x, d)
    tangent = jax.jvp(operator, (x,), (d,))[1]
    difference = (operator(x + 0.5 * d) - operator(x)) / 0.5
    np.testing.assert_allclose(tangent, difference, atol=1e-4)


@pytest.mark.parametrize("grid", ["", "poles", "region"])
def test_adjoint_identity_and_finite_differences_of_a_bent_operator(grid):
    """Outgoing longwave radiation, in a chain with what comes before and after it."""
    operator = Chain((OutgoingLongwave.of(CHANNELS), lambda flux: flux[..., None], Stride(2)))
    x, d = around(grid)
    x, d = 250.0 + 10.0 * x, 10.0 * d
    check_adjoint(operator, x, d)
    tangent = jax.jvp(operator, (x,), (d,))[1]
    ends = [np.asarray(operator(x + h * d), np.float64) for h in (0.05, -0.05)]
    np.testing.assert_allclose(tangent, (ends[0] - ends[1]) / 0.1, atol=0.02)


def test_operators_are_pytrees_that_pass_through_jit():
    for name, operator in OPERATORS.items():
        x = state_on(grid_for(name), lambda t, lat, lon, log_p: lat + t + 0 * lon + log_p)
        np.testing.assert_allclose(jax.jit(lambda h, x: h(x))(operator, x), operator(x), rtol=1e-5)


def test_coarsen_and_stride_equal_loops():
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 8)).astype(np.float32)
    coarse = np.zeros((2, 4, 4, 8))
    for i in range(4):
        for j in range(4):
            coarse[:, i, j] = x[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean(axis=(1, 2))
    np.testing.assert_allclose(Coarsen(4)(jnp.asarray(x)), coarse, atol=1e-6)
    rows = [i for i in range(16) if i >= 2 and (i - 2) % 5 == 0]
    expected = [[x[:, i, j] for j in rows] for i in rows]
    sparse = np.moveaxis(np.array(expected), 2, 0)
    np.testing.assert_array_equal(Stride(5, 2)(jnp.asarray(x)), sparse)


def test_select_takes_channels_in_the_order_given():
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 8)).astype(np.float32)
    np.testing.assert_array_equal(Select((5, 1))(jnp.asarray(x)), x[..., [5, 1]])


@pytest.mark.parametrize(
    ("grid", "latitude", "longitude"),
    [
        (GLOBAL, [3.3, -60.0, 80.0], [11.0, 200.1, 337.5]),
        (GLOBAL, [3.3], [-160.0 + 11.0]),  # the other convention
        (POLES, [-89.0, 89.9], [5.0, 330.0]),
        (REGION, [36.0, 44.0, 40.5, 40.5], [-10.0, 4.0, -0.1, 0.1]),
        (REGION, [36.0, 44.0], [350.0, 364.0]),
        (REGION_EAST, [36.0, 44.0, 41.0], [345.0, -1.0, -7.7]),
        (WIDE, [45.0, 45.0, 45.0], [-180.0, 180.0, 119.9]),
    ],
)
def test_points_are_exact_for_fields_linear_in_each_coordinate(grid, latitude, longitude):
    latitude, longitude = np.array(latitude), np.array(longitude)
    pressure = np.resize([412.0, 850.0, 1013.25, 280.0], latitude.shape)
    field = lambda t, lat, lon, log_p: 10 * t + 0.3 * lat - 0.2 * lon + 5 * log_p + 0.01 * lat * lon
    # The same meridian, in the convention of the grid.
    low = grid.longitude[0]
    turned = np.mod(longitude - low + 1e-9, 360) + low - 1e-9
    expected = field(np.arange(2)[:, None], latitude, turned, np.log(pressure))
    operator = Points.at(grid, CHANNELS, latitude, longitude, pressure)
    np.testing.assert_allclose(operator(state_on(grid, field)), expected, atol=2e-3)


@pytest.mark.parametrize("grid", [REGION, REGION_EAST, WIDE])
def test_points_a_hair_beyond_an_edge_are_on_it(grid):
    """Coordinates of stations are rounded otherwise than those of grids."""
    hair = 5e-5 * np.array([-1.0, 1.0])
    latitude = np.asarray(grid.latitude)[[0, -1]] + hair
    longitude = np.asarray(grid.longitude)[[0, -1]] + hair
    field = lambda t, lat, lon, log_p: lat + 0.1 * lon + 0 * log_p + 0 * t
    operator = Points.at(grid, CHANNELS, latitude, longitude, np.full(2, 500.0))
    expected = field(0, latitude, longitude, 0)
    np.testing.assert_allclose(operator(state_on(grid, field))[0], expected, atol=1e-3)


@pytest.mark.parametrize("grid", [GLOBAL, SIGNED], ids=["0 to 360", "-180 to 180"])
def test_points_across_the_date_line_and_greenwich(grid):
    """Between the last meridian and the first, halves and quarters of their values."""
    field = lambda t, lat, lon, log_p: np.cos(np.deg2rad(lon)) + 0 * lat + 0 * log_p + 0 * t
    row = LAT[5]
    longitude = np.array([348.75, -11.25, 354.375, 180.0, -180.0, 168.75, -168.75])
    cos = lambda degrees: np.cos(np.deg2rad(degrees))
    half, quarter = (cos(22.5) + 1) / 2, 0.25 * cos(22.5) + 0.75
    expected = [half, half, quarter, -1, -1, -half, -half]
    full = np.full(longitude.shape, row)
    operator = Points.at(grid, CHANNELS, full, longitude, np.full(longitude.shape, 500.0))
    np.testing.assert_allclose(operator(state_on(grid, field))[0], expected, atol=1e-5)


@pytest.mark.parametrize("pole", [-90.0, 90.0])
def test_points_beyond_the_last_row_continue_over_the_pole(pole):
    """A wind-like field cos(lat) cos(lon) passes the pole with its slope, and is zero there."""
    field = lambda t, lat, lon, log_p: (
        np.cos(np.deg2rad(lat)) * np.cos(np.deg2rad(lon)) + 0 * log_p + 0 * t
    )
    latitude = pole - np.sign(pole) * np.array([0.0, 0.0, 2.0, 4.0, 2.0])
    longitude = np.array([0.0, 123.0, 0.0, 180.0, 45.0])
    operator = Points.at(GLOBAL, CHANNELS, latitude, longitude, np.full(5, 500.0))
    expected = np.cos(np.deg2rad(latitude)) * np.cos(np.deg2rad(longitude))
    # Linear interpolation of a sine over 11 degrees.
    np.testing.assert_allclose(operator(state_on(GLOBAL, field))[0], expected, atol=2e-3)


def test_points_reproduce_the_grid_points_and_choose_the_variable():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, *GLOBAL.shape, 8)).astype(np.float32)
    latitude, longitude = np.array([LAT[0], LAT[7], LAT[15]]), np.array([337.5, 0.0, 180.0])
    operator = Points.at(
        GLOBAL,
        CHANNELS,
        latitude,
        longitude,
        np.array([300.0, 500.0, 1000.0]),
        variable="geopotential",
    )
    expected = [x[0, 0, 15, 0], x[0, 7, 0, 1], x[0, 15, 8, 3]]
    np.testing.assert_allclose(operator(jnp.asarray(x))[0], expected, atol=1e-6)


def test_points_of_a_variable_without_levels():
    channels = (Channel("temperature", 500.0), Channel("2m_temperature"))
    x = jnp.stack([jnp.zeros(REGION.shape), jnp.ones(REGION.shape)], axis=-1)[None]
    operator = Points.at(
        REGION, channels, np.array([40.0]), np.array([0.0]), None, variable="2m_temperature"
    )
    np.testing.assert_allclose(operator(x), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(latitude=np.array([40.0, 47.0])), "observation 1 at latitude 47, longitude 0 lies"),
        (dict(longitude=np.array([0.0, 9.0])), "observation 1 at latitude 40, longitude 9 lies"),
        (dict(longitude=np.array([-11.0, 0.0])), "observation 0 .* outside the domain"),
        (dict(latitude=np.array([np.nan, 40.0])), "observation 0 at latitude nan"),
        (dict(longitude=np.array([0.0, np.inf])), "observation 1 .* longitude inf"),
        (dict(pressure=np.array([500.0, 1100.0])), "observation 1 at 1100 hPa lies outside"),
        (dict(pressure=np.array([200.0, 500.0])), "observation 0 at 200 hPa lies outside"),
        (dict(pressure=np.array([500.0, -1.0])), "observation 1 at -1 hPa lies outside"),
        (dict(pressure=np.array([np.nan, 500.0])), "observation 0 at nan hPa"),
        (dict(pressure=None), "give each observation an altitude"),
        (dict(variable="specific_humidity"), "'specific_humidity' is not in the state"),
    ],
)
def test_points_name_the_observation_that_cannot_be(change, message):
    inside = dict(latitude=np.full(2, 40.0), longitude=np.zeros(2), pressure=np.full(2, 500.0))
    Points.at(REGION, CHANNELS, **inside)
    with pytest.raises(InputError, match=message):
        Points.at(REGION, CHANNELS, **{**inside, **change})


def test_points_beyond_a_hemisphere_are_outside():
    grid = Grid.of(np.linspace(0, 87, 30), np.arange(0, 360, 3.0))
    with pytest.raises(InputError, match="observation 0 at latitude -3"):
        Points.at(grid, CHANNELS, np.array([-3.0]), np.array([0.0]), np.array([500.0]))


def test_errors_of_gridded_operators():
    x = jnp.zeros((1, 6, 8, 1))
    with pytest.raises(InputError, match="coarsening factor 4 does not divide the grid 6 x 8"):
        Coarsen(4)(x)
    with pytest.raises(InputError, match="stride 2 with offset 6 does not fit"):
        Stride(2, 6)(x)
    with pytest.raises(InputError, match="stride 0"):
        Stride(0)(x)


def test_standard_pressure_equals_the_tables_of_iso_2533():
    altitude = np.array([0.0, 1500.0, 5500.0, 11000.0])
    table = [1013.25, 845.56, 505.07, 226.32]
    np.testing.assert_allclose(standard_pressure(altitude), table, atol=0.02)
