import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from slams_jax.assimilation.observations import (
    Observations,
    point_operator,
    simulate,
    station_errors,
    to_stream,
)
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import Coarsen, Points, Stride, innovation, pad_times
from slams_jax.observe.satellite import OutgoingLongwave
from slams_jax.schema import channels_of

LEVELS = (300.0, 500.0, 1000.0)
CHANNELS = channels_of(["temperature"], LEVELS)
GRID = Grid.of(np.arange(30.0, 60.0, 5.0), np.arange(-10.0, 30.0, 5.0))  # regional, 6 x 8
LATITUDE, LONGITUDE = (np.asarray(axis) for axis in (GRID.latitude, GRID.longitude))
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D")
CLIMATE = np.broadcast_to(np.array([220.0, 250.0, 285.0], np.float32), (6, 8, 3))
STD = np.array([3.0, 4.0, 6.0], np.float32)


def states(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return (CLIMATE + STD * rng.standard_normal((count, 6, 8, 3))).astype(np.float32)


def field(values, lat=LATITUDE, lon=LONGITUDE, times=TIMES, levels=LEVELS):
    """(time, lat, lon, level) in the schema, its dimensions in another order."""
    dims = ("time", "latitude", "longitude", "level")
    coords = {"time": times, "latitude": lat, "longitude": lon, "level": list(levels)}
    return xr.Dataset({"temperature": (dims, values)}, coords).transpose("level", "time", ...)


def stations(values, times=TIMES, **coordinates):
    count = values.shape[1]
    coords = {
        "latitude": np.linspace(32.0, 52.0, count),
        "longitude": np.linspace(-8.0, 22.0, count),
        "altitude": np.linspace(0.0, 900.0, count),
    } | coordinates
    return xr.Dataset(
        {"temperature": (("time", "station"), values.astype(np.float32))},
        {"time": times, "station": [f"s{i}" for i in range(count)]}
        | {name: ("station", values) for name, values in coords.items() if values is not None},
    )


def stream_of(observations, times=TIMES, **options):
    return to_stream(observations, GRID, CHANNELS, times, climate=CLIMATE, std=STD, **options)


def standard_deviation(stream):
    return np.sqrt(np.asarray(stream.covariance.variance))


# --- values and times --------------------------------------------------------------------------


def test_values_stand_at_their_times_and_nothing_elsewhere():
    truth = states()
    data = field(truth).isel(time=[3, 1])  # not ascending, and not all
    data["temperature"][dict(level=2, latitude=0, longitude=1, time=1)] = np.nan
    extra = field(states(1), times=TIMES[-1:] + np.timedelta64(9, "D"))
    both = xr.concat([data, extra], "time")
    stream = stream_of(Observations("field", both, "grid", error=1.0))
    mask = np.zeros(truth.shape, bool)
    mask[[1, 3]] = True
    mask[1, 0, 1, 2] = False
    np.testing.assert_array_equal(stream.mask, mask)
    np.testing.assert_array_equal(stream.values, np.where(mask, truth, 0.0))
    np.testing.assert_array_equal(stream.operator(jnp.asarray(truth)), truth)


def test_levels_are_found_by_their_values():
    truth = states()
    data = field(truth[..., [2, 0]], levels=(1000.0, 300.0))
    stream = stream_of(Observations("field", data, "grid", error=1.0))
    # In the order of the schema, whatever that of the data.
    np.testing.assert_array_equal(stream.operator(jnp.asarray(truth)), truth[..., [0, 2]])
    np.testing.assert_array_equal(stream.values, truth[..., [0, 2]])


def test_times_of_another_resolution_are_the_same_times():
    data = field(states()).assign_coords(time=TIMES.astype("datetime64[s]"))
    stream = stream_of(
        Observations("field", data, "grid", error=1.0), TIMES.astype("datetime64[D]")
    )
    assert np.asarray(stream.mask).all()


def test_bias_is_taken_off_in_the_units_of_the_values():
    truth = states()
    biases = np.array([1.0, -2.0, 0.5])
    stream = stream_of(Observations("field", field(truth + biases), "grid", error=1.0, bias=biases))
    np.testing.assert_allclose(stream.values, truth, atol=1e-4)


@pytest.mark.slow
def test_points_are_interpolated_to_their_altitude():
    lat, lon = np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")
    # Linear in latitude, longitude and log-pressure: interpolation is exact.
    linear = 0.3 * lat + 0.2 * lon
    truth = linear[None, ..., None] + 20.0 * np.log(np.array(LEVELS)) + np.zeros((4, 1, 1, 1))
    pressure = np.array([1000.0, 700.0, 400.0])
    places = {"latitude": np.array([31.0, 44.4, 55.0]), "longitude": np.array([-10.0, 3.3, 25.0])}
    values = 0.3 * places["latitude"] + 0.2 * places["longitude"] + 20.0 * np.log(pressure)
    data = stations(np.tile(values, (4, 1)), altitude=None, level=pressure, **places)
    stream = stream_of(Observations("sondes", data, "points", error=1.0))
    np.testing.assert_allclose(
        stream.operator(jnp.asarray(truth, jnp.float32))[:, :3], np.tile(values, (4, 1)), rtol=1e-5
    )
    heights = 44330.8 * (1.0 - (pressure / 1013.25) ** 0.190263)
    same = stations(np.tile(values, (4, 1)), altitude=heights, **places)
    operator = point_operator(same, GRID, CHANNELS, "temperature")
    np.testing.assert_allclose(
        operator(jnp.asarray(truth, jnp.float32))[0], values, atol=0.02, rtol=0
    )


# --- coarse and sparse samplings ---------------------------------------------------------------


def test_coarse_means_are_recognised():
    truth = states()
    coarse = truth.reshape(4, 3, 2, 4, 2, 3).mean(axis=(2, 4))
    lat, lon = LATITUDE.reshape(-1, 2).mean(axis=1), LONGITUDE.reshape(-1, 2).mean(axis=1)
    stream = stream_of(Observations("coarse", field(coarse, lat, lon), "coarse", error=1.0))
    np.testing.assert_allclose(stream.operator(jnp.asarray(truth)), coarse, rtol=1e-6)


@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (2, 0), (2, 1), (3, 2), (4, 3)])
def test_strides_are_recognised(factor, offset):
    truth = states()
    sparse = truth[:, offset::factor, offset::factor]
    data = field(sparse, LATITUDE[offset::factor], LONGITUDE[offset::factor])
    stream = stream_of(Observations("sparse", data, "stride", error=1.0))
    np.testing.assert_array_equal(stream.operator(jnp.asarray(truth)), sparse)


@pytest.mark.parametrize(
    ("kind", "lat", "lon", "message"),
    [
        ("coarse", LATITUDE[:4] + 2.5, LONGITUDE[:4] + 2.5, "stream 'y' of kind 'coarse' has a"),
        ("coarse", LATITUDE[::2], LONGITUDE[::2], "than the block means of the model's .3 x 4"),
        ("coarse", np.arange(8.0), np.arange(8.0), "8 x 8 points that are not the block means"),
        ("stride", LATITUDE[::2] + 1.0, LONGITUDE[::2], "not every n-th of the model's grid"),
        ("stride", LATITUDE[::2], LONGITUDE[::3], "not every n-th of the model's grid"),
        ("stride", LATITUDE[1:3], LONGITUDE[1:3], "give it as kind 'points'"),
    ],
)
def test_other_samplings_are_refused(kind, lat, lon, message):
    values = np.full((4, len(lat), len(lon), 3), 250.0)
    with pytest.raises(InputError, match=message):
        stream_of(Observations("y", field(values, lat, lon), kind, error=1.0))


# --- errors ------------------------------------------------------------------------------------


def test_errors_are_one_number_or_one_for_each_station_or_level():
    truth = states()
    one = stream_of(Observations("field", field(truth), "grid", error=2.0))
    np.testing.assert_allclose(standard_deviation(one), 2.0)
    each = np.array([0.5, 1.0, 2.0])
    levels = stream_of(Observations("field", field(truth), "grid", error=each))
    np.testing.assert_allclose(standard_deviation(levels)[0, 3, 4], each, rtol=1e-6)
    values = np.full((4, 3), 280.0)
    points = stream_of(Observations("stations", stations(values), "points", error=each))
    np.testing.assert_allclose(standard_deviation(points)[0, :3], each, rtol=1e-6)
    inside = stations(values).assign(error=("station", each))
    from_data = stream_of(Observations("stations", inside, "points"))
    np.testing.assert_allclose(standard_deviation(from_data)[0, :3], each, rtol=1e-6)


def test_errors_in_the_data_may_differ_from_time_to_time():
    values = np.full((4, 2), 280.0)
    values[1, 0] = np.nan
    each = np.arange(1.0, 9.0).reshape(4, 2)
    each[1, 0] = np.nan  # no value, no error
    data = stations(values).assign(error=(("time", "station"), each)).isel(time=[2, 1, 0])
    stream = stream_of(Observations("tidy", data, "points"))
    assert stream.mask.shape == (4, 32)  # padded, so that more stations compile nothing new
    assert stream.mask.sum() == 5
    seen = np.asarray(stream.mask)[:, :2]
    np.testing.assert_array_equal(seen.sum(axis=0), [2, 3])
    wide = np.broadcast_to(standard_deviation(stream)[:, :2], (4, 2))
    np.testing.assert_allclose(wide[seen], each[seen], rtol=1e-6)


def test_the_scale_of_longwave_radiation_is_that_of_all_levels_together():
    longwave = OutgoingLongwave.of(CHANNELS)
    flux = xr.Dataset(
        {"olr": (("time", "latitude", "longitude"), np.full((4, 6, 8), 240.0))},
        {"time": TIMES, "latitude": LATITUDE, "longitude": LONGITUDE},
    )
    stream = stream_of(Observations("olr", flux, "grid", "olr", 2.0, operator=longwave))
    at = lambda x: float(longwave(jnp.asarray(x, jnp.float32)[None, None, None])[0, 0, 0])
    slope = [(at(CLIMATE[0, 0] + d) - at(CLIMATE[0, 0] - d)) / 2.0 for d in np.eye(3)]
    np.testing.assert_allclose(np.asarray(stream.scale)[0, 2, 2], np.dot(slope, STD), rtol=1e-3)


def test_the_scale_is_the_climatological_spread_of_what_is_observed():
    stream = stream_of(Observations("field", field(states()), "grid", error=1.0))
    np.testing.assert_allclose(np.asarray(stream.scale)[0, 1, 1], STD, rtol=1e-6)


def test_station_errors_are_recovered():
    count, bias, error = 3000, np.array([1.0, -2.0, 0.0]), np.array([0.5, 1.0, 2.0])
    rng = np.random.default_rng(1)
    times = TIMES[0] + np.arange(count) * np.timedelta64(1, "D")
    truth = states(count)
    operator = point_operator(stations(np.zeros((1, 3)), TIMES[:1]), GRID, CHANNELS, "temperature")
    clean = np.asarray(operator(jnp.asarray(truth)))
    values = clean + bias + error * rng.standard_normal((count, 3))
    values[rng.random(values.shape) < 0.3] = np.nan
    # Reports of other days, and states of days without reports.
    data = stations(values, times).isel(time=slice(500, None))
    found_bias, found_error = station_errors(data, "temperature", operator, times, truth)
    n = np.isfinite(values[500:]).sum(axis=0)
    assert np.all(np.abs(found_bias - bias) < 4 * error / np.sqrt(n))
    assert np.all(np.abs(found_error - error) < 4 * error / np.sqrt(2 * n))
    assert found_bias.dtype == found_error.dtype == np.float32


def test_station_errors_need_enough_values():
    times = TIMES[0] + np.arange(40) * np.timedelta64(1, "D")
    values = np.full((40, 2), 280.0)
    values[:11, 1] = np.nan
    data = stations(values, times)
    operator = point_operator(data, GRID, CHANNELS, "temperature")
    with pytest.raises(InputError, match="station s1 has 29 values in the training period, at lea"):
        station_errors(data, "temperature", operator, times, states(40))


# --- simulated observations --------------------------------------------------------------------


@pytest.mark.parametrize("operator", [Coarsen(2), Stride(2, 1)])
def test_simulated_observations_have_the_error_that_they_say(operator):
    truth = states(40)
    seen = simulate(jax.random.key(0), operator, truth, 1.5, every=4)
    clean = np.asarray(operator(jnp.asarray(truth)))
    assert seen.shape == clean.shape
    there = np.isfinite(seen)
    np.testing.assert_array_equal(there.all(axis=(1, 2, 3)), np.arange(40) % 4 == 0)
    np.testing.assert_array_equal(there.any(axis=(1, 2, 3)), np.arange(40) % 4 == 0)
    error = (seen - clean)[there]
    assert abs(error.mean()) < 4 * 1.5 / np.sqrt(error.size)
    assert abs(error.std() - 1.5) < 4 * 1.5 / np.sqrt(2 * error.size)
    np.testing.assert_array_equal(seen, simulate(jax.random.key(0), operator, truth, 1.5, every=4))


# --- what is refused ---------------------------------------------------------------------------


def points_at(**places):
    return stations(np.full((4, 3), 280.0), **{k: np.asarray(v) for k, v in places.items()})


FIELD = field(states())
POINTS = stations(np.full((4, 3), 280.0))
LATE = TIMES + np.timedelta64(3650, "D")
BAD = {
    "stream 'y': temperature has dimensions .*latitude.*, expected": (FIELD, "points", {}),
    "stream 'y' has no variable 'wind'; its data holds .'temperature'": (
        FIELD,
        "grid",
        {"variable": "wind"},
    ),
    "stream 'y' has error 0.0: standard deviations must be > 0": (FIELD, "grid", {"error": 0.0}),
    "stream 'y' has error -1.0: standard deviations": (
        FIELD,
        "grid",
        {"error": np.array([1.0, -1.0, 1.0])},
    ),
    "stream 'y' has error nan": (FIELD, "grid", {"error": float("nan")}),
    "stream 'y' has no error: give one in units": (FIELD, "grid", {"error": None}),
    r"errors or biases of shape \(2,\): give one number, or 3 .one for each level": (
        FIELD,
        "grid",
        {"error": np.ones(2)},
    ),
    r"errors or biases of shape \(4,\): give one number, or 3 .one for each station": (
        POINTS,
        "points",
        {"bias": np.ones(4)},
    ),
    "stream 'y' has times 2010-12-30T00:00 to 2011-01-02T00:00, none of which": (
        field(states(), times=LATE),
        "grid",
        {},
    ),
    "stream 'y' has error 1e.30: standard deviations": (FIELD, "grid", {"error": 1e30}),
    "stream 'y': dimension time has no times": (FIELD.drop_vars("time"), "grid", {}),
    "stream 'y': time must ascend without duplicates, got 2001-01-01T00:00 twice": (
        FIELD.isel(time=[0, 1, 0]),
        "grid",
        {},
    ),
    "stream 'y': time must ascend without duplicates, got 2001-01-02T00:00 twice": (
        POINTS.isel(time=[1, 1]),
        "points",
        {},
    ),
    "stream 'y': time has missing entries .NaT": (
        POINTS.assign_coords(time=[*TIMES[:3], np.datetime64("NaT")]),
        "points",
        {},
    ),
    "stream 'y': (dimension time has no times|no coordinate 'time')": (
        POINTS.drop_vars("time"),
        "points",
        {},
    ),
    "stream 'y' holds a ndarray: give an xarray Dataset": (np.zeros(3), "grid", {}),
    "stream 'y' has align=False without an own operator": (FIELD, "grid", {"align": False}),
    "stream 'y': temperature has .*a grid with latitude and longitude is expected": (
        FIELD.isel(latitude=0),
        "grid",
        {},
    ),
    "stream 'y' is on another grid .6 x 8, 30 to 55 N, -7 to 28 E. than the model's": (
        FIELD.assign_coords(longitude=LONGITUDE + 3.0),
        "grid",
        {},
    ),
    "stream 'y': temperature has units 'm'": (
        FIELD.assign(temperature=FIELD.temperature.assign_attrs(units="m")),
        "grid",
        {},
    ),
    "stream 'y': temperature has units 'kg'": (
        POINTS.assign(temperature=POINTS.temperature.assign_attrs(units="kg")),
        "points",
        {},
    ),
    "stream 'y': temperature reaches -60.2459 K": (FIELD - 273.15, "grid", {}),
    "stream 'y': temperature (reaches|is) -9999 K": (POINTS * 0 - 9999.0, "points", {}),
    "stream 'y': altitude has units 'furlong', not m, km or ft": (
        POINTS.assign_coords(altitude=POINTS.altitude.assign_attrs(units="furlong")),
        "points",
        {},
    ),
    "stream 'y': station s1 has latitude 99": (
        points_at(latitude=[31.0, 99.0, 50.0]),
        "points",
        {},
    ),
    "stream 'y': an error is negative, zero or missing: every": (
        POINTS.assign(error=("station", [1.0, -2.0, 1.0])),
        "points",
        {"error": None},
    ),
    "stream 'y': an error is negative, zero or missing": (
        POINTS.assign(error=("station", [1.0, np.nan, 1.0])),
        "points",
        {"error": None},
    ),
    "stream 'y': error has dimensions .'channel',., which 'temperature'": (
        FIELD.assign(error=("channel", [1.0, 2.0])),
        "grid",
        {"error": None},
    ),
    "stream 'y': .*an error is negative, zero or infinite": (
        FIELD.assign(error=-2.0),
        "grid",
        {"error": None},
    ),
    "stream 'y' observes temperature 700 hPa, which the state does not have: it has temp": (
        FIELD.assign_coords(level=[300.0, 500.0, 700.0]),
        "grid",
        {},
    ),
    "stream 'y' is on another grid .5 x 8": (
        FIELD.isel(latitude=slice(5)),
        "grid",
        {},
    ),
    "has no finite value": (FIELD * np.nan, "grid", {}),
    "stream 'y': no coordinate 'latitude' for its stations": (
        POINTS.drop_vars("latitude"),
        "points",
        {},
    ),
    "have no altitude or level, but the state has it on 3 levels": (
        POINTS.drop_vars("altitude"),
        "points",
        {},
    ),
    "observation 1 at latitude 70, longitude 7 lies outside the domain": (
        points_at(latitude=[31.0, 70.0, 50.0]),
        "points",
        {},
    ),
    "observation 2 at latitude 52, longitude 40 lies outside the domain": (
        points_at(longitude=[0.0, 20.0, 40.0]),
        "points",
        {},
    ),
    "observation 0 at 5 hPa lies outside the levels 300 to 1000 hPa": (
        points_at(level=[5.0, 500.0, 850.0]),
        "points",
        {},
    ),
    "an error is negative, zero or missing: every value needs one > 0": (
        POINTS.assign(error=("station", [1.0, 0.0, 1.0])),
        "points",
        {"error": None},
    ),
}


@pytest.mark.parametrize("message", list(BAD))
def test_bad_observations_are_refused(message):
    data, kind, options = BAD[message]
    with pytest.raises(InputError, match=message) as caught:
        stream_of(Observations("y", data, kind, **{"error": 1.0, **options}))
    assert "\n" not in str(caught.value)


def test_an_operator_of_ones_own_decides_the_shape():
    flux = xr.Dataset(
        {"olr": (("time", "latitude", "longitude"), np.full((4, 6, 8), 240.0))},
        {"time": TIMES, "latitude": LATITUDE, "longitude": LONGITUDE},
    )
    operator = OutgoingLongwave.of(CHANNELS)
    stream = stream_of(Observations("olr", flux, "grid", "olr", 2.0, operator=operator))
    assert stream.values.shape == (4, 6, 8)
    own = Points.at(GRID, CHANNELS, np.array([40.0]), np.array([5.0]), np.array([1000.0]))
    data = points_at()
    with pytest.raises(InputError, match=r"values of shape \(4, 3\) where its operator gives"):
        stream_of(Observations("y", data, "points", error=1.0, operator=own))


# --- the same observations in other forms ------------------------------------------------------


def west(data):
    """The meridians in the other range of longitudes."""
    turned = (data.longitude.values + 360.0) % 360.0
    return data.assign_coords(longitude=("longitude", turned)).sortby("longitude")


FORMS = {
    "north first": lambda d: d.isel(latitude=slice(None, None, -1)),
    "0 to 360": west,
    "levels in another order": lambda d: d.isel(level=[2, 0, 1]),
    "levels in Pa, downwards": lambda d: d.isel(level=[2, 1, 0]).assign_coords(
        level=("level", np.array(LEVELS[::-1]) * 100.0, {"units": "Pa"})
    ),
    "latest first": lambda d: d.isel(time=slice(None, None, -1)),
    "microseconds off": lambda d: d.assign_coords(time=d.time + np.timedelta64(3, "us")),
    "degC": lambda d: d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="degC")),
    "other names": lambda d: d.rename(latitude="lat", longitude="lon", level="plev"),
    "single precision": lambda d: d.assign_coords(longitude=d.longitude.astype(np.float32)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "coarse", "stride"])
@pytest.mark.parametrize("form", FORMS)
def test_fields_are_matched_by_their_coordinates(form, kind):
    """Whatever the order of the data, the stream is the same, errors of levels included."""
    truth, lat, lon = states(), LATITUDE, LONGITUDE
    if kind == "coarse":
        truth = truth.reshape(4, 3, 2, 4, 2, 3).mean(axis=(2, 4))
        lat, lon = LATITUDE.reshape(-1, 2).mean(axis=1), LONGITUDE.reshape(-1, 2).mean(axis=1)
    elif kind == "stride":
        truth, lat, lon = truth[:, 1::2, 1::2], LATITUDE[1::2], LONGITUDE[1::2]
    # A dimension that stays the last, so that one number for each level has a meaning.
    plain = field(truth, lat, lon).assign(error=("level", [0.5, 1.0, 2.0]))
    expected = stream_of(Observations("y", plain, kind))
    found = stream_of(Observations("y", FORMS[form](plain), kind))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.covariance.variance, expected.covariance.variance)
    np.testing.assert_allclose(found.values, truth, atol=1e-4)


def test_numbers_for_each_level_follow_their_levels():
    truth, each = states(), np.array([0.5, 1.0, 2.0])
    turned = field(truth + each).isel(level=[2, 0, 1])
    order = [2, 0, 1]
    stream = stream_of(Observations("y", turned, "grid", error=2.0 * each[order], bias=each[order]))
    np.testing.assert_allclose(stream.values, truth, atol=1e-4)
    np.testing.assert_allclose(standard_deviation(stream)[0, 0, 0], 2.0 * each, rtol=1e-6)


def test_errors_and_biases_are_in_the_units_of_the_data():
    """0.5 degF is 0.2778 K."""
    truth = states()
    fahrenheit = field((truth - 273.15) * 1.8 + 32.0 + 0.9)
    fahrenheit.temperature.attrs["units"] = "degF"
    stream = stream_of(Observations("y", fahrenheit, "grid", error=0.5, bias=0.9))
    np.testing.assert_allclose(stream.values, truth, atol=1e-3)
    np.testing.assert_allclose(standard_deviation(stream), 0.5 / 1.8, rtol=1e-5)


def test_what_sel_leaves_of_a_level_is_a_level():
    truth = states()
    one = stream_of(Observations("y", field(truth).sel(level=500.0), "grid", error=1.0))
    np.testing.assert_array_equal(one.values, truth[..., 1:2])
    np.testing.assert_allclose(one.operator(jnp.asarray(truth)), truth[..., 1:2])
    places = stations(np.full((4, 3), 280.0)).drop_vars("altitude")
    at_one = stream_of(Observations("y", places.assign_coords(level=500.0), "points", error=1.0))
    expected = places.assign_coords(level=("station", [500.0] * 3))
    at_each = stream_of(Observations("y", expected, "points", error=1.0))
    np.testing.assert_array_equal(at_one.operator.channel, at_each.operator.channel)


def test_an_array_in_place_of_a_dataset_is_taken():
    data = field(states())
    array = stream_of(Observations("y", data.temperature.rename(None), "grid", error=1.0))
    np.testing.assert_array_equal(
        array.values, stream_of(Observations("y", data, "grid", error=1.0)).values
    )


STATION_FORMS = {
    "short names": lambda d: d.rename(latitude="lat", longitude="lon", altitude="elev"),
    "variables": lambda d: d.reset_coords(["latitude", "longitude", "altitude"]),
    "kilometres": lambda d: d.assign_coords(
        altitude=(d.altitude / 1000.0).assign_attrs(units="km")
    ),
    "feet": lambda d: d.assign_coords(altitude=(d.altitude / 0.3048).assign_attrs(units="ft")),
    "degC": lambda d: d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="degC")),
    "latest first": lambda d: d.isel(time=slice(None, None, -1)),
    "station first": lambda d: d.transpose("station", "time"),
    "scalar error": lambda d: d.assign(error=1.0),
    "error of stations": lambda d: d.assign(error=("station", [1.0] * 3)),
    "error of times": lambda d: d.assign(error=("time", [1.0] * 4)),
    "moving": lambda d: d.assign_coords(
        {
            n: (("time", "station"), np.tile(d[n].values, (4, 1)))
            for n in ("latitude", "longitude", "altitude")
        }
    ),
    "moving in two": lambda d: d.assign_coords(
        latitude=(("station", "time"), np.tile(d.latitude.values[:, None], (1, 4)))
    ),
}


@pytest.mark.parametrize("form", STATION_FORMS)
def test_stations_are_the_same_in_every_form(form):
    truth = states()
    plain = stations(280.0 + np.arange(12.0).reshape(4, 3))
    expected = stream_of(Observations("y", plain, "points", error=1.0))
    changed = STATION_FORMS[form](plain)
    error = None if "error" in changed else 1.0
    found = stream_of(Observations("y", changed, "points", error=error))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
    at = lambda stream: np.where(stream.mask, stream.operator(jnp.asarray(truth)), 0.0)
    np.testing.assert_allclose(at(found), at(expected), atol=1e-3)
    wide = lambda stream: np.broadcast_to(standard_deviation(stream), (4, 32))[:, :3]
    np.testing.assert_allclose(wide(found), wide(expected), rtol=1e-6)


@pytest.mark.slow
def test_a_moving_station_is_where_it_is_at_each_time():
    """A sonde drifts over grid points; at the last time it reports nothing."""
    truth = states()
    rows, columns = np.array([0, 1, 2, 3]), np.array([4, 4, 5, 6])
    values = truth[np.arange(4), rows, columns, 2][:, None]
    latitude = LATITUDE[rows].astype(float)
    latitude[3] = values[3] = np.nan
    data = stations(values).drop_vars("altitude")
    data = data.assign_coords(
        latitude=(("time", "station"), latitude[:, None]),
        longitude=(("time", "station"), LONGITUDE[columns][:, None]),
        level=1000.0,
    )
    stream = stream_of(Observations("sonde", data, "points", error=1.0))
    np.testing.assert_array_equal(np.asarray(stream.mask)[:, 0], [True, True, True, False])
    seen = np.asarray(stream.operator(jnp.asarray(truth)))[:3, 0]
    np.testing.assert_allclose(seen, values[:3, 0], rtol=1e-6)
    lost = data.assign_coords(latitude=(("time", "station"), np.full((4, 1), np.nan)))
    with pytest.raises(InputError, match="stream 'sonde': station s0 has latitude nan"):
        stream_of(Observations("sonde", lost, "points", error=1.0))
    with pytest.raises(InputError, match="stream 'sonde' has no finite value"):
        stream_of(Observations("sonde", data * np.nan, "points", error=1.0))


def test_an_own_operator_says_whether_its_grid_is_the_models():
    """One that looks at the south only has a grid of its own."""
    truth = states()
    south = lambda state: state[:, :3, :, 0]
    values = truth[:, :3, :, 0]
    data = xr.Dataset(
        {"tb": (("time", "latitude", "longitude"), values)},
        {"time": TIMES, "latitude": LATITUDE[:3], "longitude": LONGITUDE},
    )
    options = dict(variable="tb", error=1.0, operator=south)
    stream = stream_of(Observations("y", data, "grid", align=False, **options))
    np.testing.assert_array_equal(stream.values, values)
    with pytest.raises(InputError, match=r"on another grid \(3 x 8"):
        stream_of(Observations("y", data, "grid", **options))
    whole = lambda state: state[..., 0]
    full = xr.Dataset(
        {"tb": (("time", "latitude", "longitude"), truth[..., 0])},
        {"time": TIMES, "latitude": LATITUDE, "longitude": LONGITUDE},
    ).isel(latitude=slice(None, None, -1))
    aligned = stream_of(Observations("y", west(full), "grid", "tb", 1.0, operator=whole))
    np.testing.assert_array_equal(aligned.values, truth[..., 0])


@pytest.mark.slow
def test_padded_times_are_not_observed():
    """Of every covariance, and of stations that move."""
    truth, values = states(1), np.full((1, 3), 280.0)
    moving = stations(values, TIMES[:1])
    moving = moving.assign_coords(latitude=(("time", "station"), [[32.0, 40.0, 50.0]]))
    each = Observations("a", field(truth, times=TIMES[:1]), "grid", error=1.0)
    for observations in (each, Observations("b", moving, "points", error=1.0)):
        stream = stream_of(observations, TIMES[:1])
        wide = pad_times(stream, 3)
        assert wide.mask.shape[0] == wide.values.shape[0] == 3
        assert not wide.mask[1:].any()
        x = jnp.asarray(states(3))
        residual = np.asarray(wide.covariance.whiten(innovation(wide, x), jnp.zeros(())))
        alone = stream.covariance.whiten(innovation(stream, x[:1]), jnp.zeros(()))
        np.testing.assert_allclose(residual[:1], alone, atol=1e-3)
        assert not residual[1:].any()
