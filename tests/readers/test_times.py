"""When the values of a file are valid: forecasts, calendars, resolution."""

import numpy as np
import pytest
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import check_times, from_dataset, open_dataset, period_bounds
from slams_jax.readers.times import decode_times
from support.data_samples import gridded, times, write

STARTS, HOURS = times(4), 24.0
CFGRIB_TIME = {"standard_name": "time", "long_name": "initial time of forecast"}
CFGRIB_STEP = {
    "standard_name": "forecast_period",
    "long_name": "time since forecast_reference_time",
    "units": "hours",
}
VALID = {"standard_name": "time", "long_name": "time"}
REFERENCE = {"standard_name": "forecast_reference_time"}
DAY = np.timedelta64(24, "h")


def forecast(**coordinates) -> xr.Dataset:
    """Forecasts of 24 h whose dimension `time` holds the starts, plus other coordinates."""
    return gridded(4).isel(level=0, drop=True).assign_coords(coordinates)


def along(values, **attributes):
    return ("time", values, attributes)


# Each is valid a day after STARTS.
FORECASTS = {
    "cfgrib": forecast(
        step=((), HOURS, CFGRIB_STEP),
        valid_time=along(STARTS + DAY, **VALID),
        time=along(STARTS, **CFGRIB_TIME),
    ),
    "cfgrib, valid_time first": forecast(
        valid_time=along(STARTS + DAY, **VALID),
        time=along(STARTS, **CFGRIB_TIME),
        step=((), HOURS, CFGRIB_STEP),
    ),
    "cfgrib, no attributes": forecast(step=((), DAY), valid_time=along(STARTS + DAY)),
    "no valid_time": forecast(step=((), HOURS, CFGRIB_STEP), time=along(STARTS, **CFGRIB_TIME)),
    "start by its standard name": forecast(
        time=along(STARTS, **REFERENCE), lead=((), 1.0, {"units": "days"})
    ),
    "lead a dimension of one": forecast(time=along(STARTS, **REFERENCE)).expand_dims(
        step=[DAY.astype("timedelta64[ns]")]
    ),
    "iris": forecast(
        time=along(STARTS + DAY, standard_name="time"),
        forecast_reference_time=along(STARTS, **REFERENCE),
        forecast_period=((), HOURS, {"standard_name": "forecast_period", "units": "hours"}),
    ),
    "CF without the start": forecast(
        time=along(STARTS + DAY, standard_name="time"),
        forecast_period=((), HOURS, {"standard_name": "forecast_period", "units": "hours"}),
    ),
    "dimension of starts, times beside it": forecast(time=along(STARTS + DAY, **VALID))
    .swap_dims(time="forecast_reference_time")
    .assign_coords(forecast_reference_time=("forecast_reference_time", STARTS, REFERENCE)),
    "one start, leads along a dimension": forecast()
    .drop_vars("time")
    .rename(time="step")
    .assign_coords(time=STARTS[0], step=24.0 * np.arange(1, 5))
    .assign(step=lambda d: d.step.assign_attrs(CFGRIB_STEP)),
    "WeatherBench 2, one start": forecast()
    .drop_vars("time")
    .rename(time="prediction_timedelta")
    .assign_coords(prediction_timedelta=DAY * np.arange(1, 5))
    .expand_dims(time=STARTS[:1]),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORECASTS)
def test_forecasts_are_dated_by_their_validity(form, tmp_path):
    given = FORECASTS[form]
    expected = gridded(4).isel(level=0).temperature
    read = from_dataset(given)
    np.testing.assert_array_equal(read.time, STARTS + DAY)
    np.testing.assert_array_equal(read.temperature, expected)
    with open_dataset(write(given, tmp_path / "forecast.nc")) as file:
        np.testing.assert_array_equal(file.time, STARTS + DAY)
        np.testing.assert_array_equal(file.temperature, expected)


def test_one_forecast_without_a_time_dimension(tmp_path):
    one = FORECASTS["cfgrib"].isel(time=0)
    for order in (["time", "step", "valid_time"], ["valid_time", "step", "time"]):
        given = one.drop_vars(order).assign_coords({n: one[n] for n in order})
        with open_dataset(write(given, tmp_path / f"{order[0]}.nc")) as read:
            np.testing.assert_array_equal(read.time, STARTS[:1] + DAY)


def test_an_analysis_may_say_its_start(tmp_path):
    step = ((), 0.0, CFGRIB_STEP)
    read = from_dataset(forecast(time=along(STARTS, **CFGRIB_TIME), step=step))
    np.testing.assert_array_equal(read.time, STARTS)


AMBIGUOUS = {
    "several starts and leads": (
        forecast(time=along(STARTS, **CFGRIB_TIME)).expand_dims(step=DAY * np.arange(1, 3)),
        r"forecasts along (step and time|time and step): choose one",
    ),
    "time beside a step": (
        forecast(step=((), HOURS, {"units": "hours"})),
        "time may be the start of the forecast or the time at which it is valid, step later",
    ),
    "WeatherBench 2 with one lead": (
        forecast(time=along(STARTS, standard_name="time"), prediction_timedelta=((), DAY)),
        "time may be the start",
    ),
    "a start without a lead": (
        forecast(time=along(STARTS, **REFERENCE)),
        "time is the start of a forecast and its lead time is not given",
    ),
    "a lead without units": (
        forecast(time=along(STARTS, **REFERENCE), step=((), 24.0)),
        "lead time step has units ''",
    ),
    "two times that differ": (
        forecast(
            time=along(STARTS, standard_name="time"),
            validity=along(STARTS + DAY, standard_name="time"),
        ),
        "time .* and validity .* both say when its values are valid",
    ),
}


@pytest.mark.parametrize("form", AMBIGUOUS)
def test_forecasts_that_leave_it_open_are_refused(form, tmp_path):
    given, message = AMBIGUOUS[form]
    path = write(given, tmp_path / "forecast.nc")
    for attempt in (lambda: from_dataset(given), lambda: open_dataset(path)):
        with pytest.raises(InputError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


# --- resolution ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-7000, 3, 400_000_000])
def test_times_are_rounded_to_the_second(offset):
    exact = times(5, hours=1)
    np.testing.assert_array_equal(check_times(exact + np.timedelta64(offset, "ns")), exact)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("since", ["1900-01-01", "1800-01-01", "2000-12-31"])
def test_hours_stored_as_days_are_hours(dtype, since, tmp_path):
    hourly = gridded(50).assign_coords(time=times(50, hours=1))
    days = (hourly.time.values - np.datetime64(since, "ns")) / np.timedelta64(1, "D")
    stored = ("time", days.astype(dtype), {"units": f"days since {since}"})
    with open_dataset(write(hourly.assign_coords(time=stored), tmp_path / "a.nc")) as read:
        np.testing.assert_array_equal(read.time, hourly.time)


def test_single_precision_that_cannot_tell_the_times_is_refused():
    units = {"units": "days since 1800-01-01"}
    days = 73000 + np.arange(20) / 96  # every 15 minutes
    exact = decode_times(xr.Variable("time", days, units), source="a.nc")
    assert exact[1] - exact[0] == np.timedelta64(15, "m")
    with pytest.raises(InputError, match="stored in single precision, to 338 s"):
        decode_times(xr.Variable("time", days.astype(np.float32), units), source="a.nc")


# --- dates and calendars ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "date", ["now", "today", "2001.5", 2001.5, "NaT", "", "01/02/2001", "2001-13-01", "Q1", None]
)
def test_what_is_no_date_is_refused(date):
    with pytest.raises(InputError, match="is not two dates"):
        period_bounds((date, "2002"))
    with pytest.raises(InputError, match="is not two dates"):
        period_bounds(("1999", date))


@pytest.mark.parametrize(
    ("date", "first"),
    [
        ("2001", "2001-01-01"),
        (2001, "2001-01-01"),
        ("2001-02", "2001-02-01"),
        ("20010203", "2001-02-03"),
        ("2001-02-03T04", "2001-02-03T04"),
        ("2001-02-03 04:05:06", "2001-02-03T04:05:06"),
        ("2001-02-03T04:05Z", "2001-02-03T04:05"),
        (np.datetime64("2001-02-03T04:05:06", "ns"), "2001-02-03T04:05:06"),
    ],
)
def test_dates_of_iso_8601_are_read(date, first):
    assert period_bounds((date, "2002"))[0] == np.datetime64(first, "ns")


def test_months_of_30_days_are_no_dates(tmp_path):
    in_january = ("time", np.arange(5.0), {"units": "days since 2001-01-05", "calendar": "360_day"})
    path = write(gridded().assign_coords(time=in_january), tmp_path / "a.nc")
    with pytest.raises(InputError, match="its calendar '360_day' has months of 30 days"):
        open_dataset(path)
    decoded = gridded().convert_calendar("360_day", align_on="date", use_cftime=True)
    with pytest.raises(InputError, match="its calendar '360_day'"):
        from_dataset(decoded)
