import numpy as np
import pytest
import xarray as xr

from slams_jax.data.channels import stack_channels, unstack_channels
from slams_jax.errors import InputError
from slams_jax.schema import Channel, channels_of

TIMES = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
LATITUDE, LONGITUDE = (-10.0, 0.0, 10.0), (0.0, 20.0)
MIXED = (
    *channels_of(["temperature", "geopotential"], (500.0, 850.0)),
    Channel("mean_sea_level_pressure"),
)


def states(channels, members=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((members, 3, 3, 2, len(channels))).astype(np.float32)


def test_round_trip_of_several_variables():
    values = states(MIXED)
    dataset = unstack_channels(values, MIXED, TIMES, LATITUDE, LONGITUDE)
    assert dataset["temperature"].dims == ("member", "time", "level", "latitude", "longitude")
    assert dataset["mean_sea_level_pressure"].dims == ("member", "time", "latitude", "longitude")
    assert (
        dataset["geopotential"].sel(member=1, level=850.0, latitude=10.0, longitude=20.0)[2]
        == (values[1, 2, 2, 1, 3])
    )
    assert {v: dataset[v].attrs["units"] for v in dataset.data_vars} == {
        "temperature": "K",
        "geopotential": "m2 s-2",
        "mean_sea_level_pressure": "Pa",
    }
    assert dataset["member"].attrs["standard_name"] == "realization"
    assert dataset["level"].attrs == {
        "standard_name": "air_pressure",
        "units": "hPa",
        "positive": "down",
    }
    for i in range(2):
        np.testing.assert_array_equal(stack_channels(dataset.isel(member=i), MIXED), values[i])


def test_channels_come_in_the_order_asked_for_whatever_that_of_the_data():
    channels = channels_of(["temperature"], (500.0, 850.0))
    values = states(channels, members=1)
    dataset = unstack_channels(values, channels, TIMES, LATITUDE, LONGITUDE).isel(member=0)
    turned = dataset.transpose("longitude", "level", "time", "latitude").isel(level=[1, 0])
    np.testing.assert_array_equal(stack_channels(turned, channels), values[0])
    np.testing.assert_array_equal(stack_channels(turned, channels[1:]), values[0, ..., 1:])


def test_a_variable_of_several_components():
    channels = (Channel("lorenz63"),) * 3
    values = states(channels)
    dataset = unstack_channels(values, channels, TIMES, LATITUDE, LONGITUDE)
    assert dataset["lorenz63"].dims == ("member", "time", "latitude", "longitude", "component")
    np.testing.assert_array_equal(stack_channels(dataset.isel(member=1), channels), values[1])


def test_times_of_any_resolution_become_nanoseconds():
    values = states(MIXED, members=1)
    dataset = unstack_channels(values, MIXED, TIMES.astype("datetime64[D]"), LATITUDE, LONGITUDE)
    assert dataset["time"].dtype == np.dtype("datetime64[ns]")


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([Channel("wind", 500.0)], "variable 'wind' is missing: the data have geopotential, mean"),
        ([Channel("temperature", 700.0)], r"'temperature' lacks the levels \[700.0\] hPa: it is"),
        ([Channel("mean_sea_level_pressure", 500.0)], r"lacks the levels \[500.0\].*it is on \[\]"),
        ([Channel("temperature")], "'temperature' has 2 channels, but 1 are expected"),
    ],
)
def test_errors(channels, message):
    dataset = unstack_channels(states(MIXED), MIXED, TIMES, LATITUDE, LONGITUDE).isel(member=0)
    with pytest.raises(InputError, match=message):
        stack_channels(dataset, channels)


def test_missing_values_stay_missing():
    values = states(MIXED, members=1)
    values[0, 1, 2, 0] = np.nan
    dataset = unstack_channels(values, MIXED, TIMES, LATITUDE, LONGITUDE).isel(member=0)
    assert isinstance(dataset, xr.Dataset)
    np.testing.assert_array_equal(stack_channels(dataset, MIXED), values[0])
