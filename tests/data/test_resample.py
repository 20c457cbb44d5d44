import numpy as np
import pytest
import xarray as xr

from slams_jax.data import resample
from slams_jax.data.resample import match_times, persistence, shifted
from slams_jax.data.transforms import transform
from slams_jax.errors import InputError
from support.data_samples import gridded, times

DAYS = times(5)


def hourly(step=6, count=20, start="2001-01-01"):
    values = np.arange(count, dtype=np.float32)[:, None, None] + np.float32([[0.0, 100.0]])
    coords = {"time": times(count, start, hours=step), "latitude": [0.0], "longitude": [0.0, 1.0]}
    return xr.Dataset({"a": (("time", "latitude", "longitude"), values, {"units": "m"})}, coords)


def first(dataset):
    return dataset["a"].values[:, 0, 0]


def test_sums_and_means_are_of_the_interval_that_ends():
    given = hourly()
    # Days at 00 UTC: the values at 06, 12, 18 and 00 make one up; the first day has but one.
    sums, means = (first(match_times(given, DAYS, how)) for how in ("sum", "mean"))
    np.testing.assert_array_equal(sums, [np.nan, 10, 26, 42, 58])
    np.testing.assert_array_equal(means, [np.nan, 2.5, 6.5, 10.5, 14.5])
    half = match_times(given, DAYS, "mean", hours=12.0)
    np.testing.assert_array_equal(first(half), [0.0, 3.5, 7.5, 11.5, 15.5])
    np.testing.assert_array_equal(half["a"].values[1:, 0, 1], first(half)[1:] + 100)
    np.testing.assert_array_equal(half.time, DAYS)
    assert half["a"].attrs["units"] == "m"


def test_a_mean_needs_half_and_a_sum_all():
    given = hourly()
    given["a"].values[[5, 6], 0, 0] = np.nan  # two of four of the second day
    given["a"].values[[9, 10, 11], 0, 0] = np.nan  # three of four of the third
    np.testing.assert_array_equal(
        first(match_times(given, DAYS, "mean")), [np.nan, 2.5, 7.5, np.nan, 14.5]
    )
    np.testing.assert_array_equal(
        first(match_times(given, DAYS, "sum")), [np.nan, 10, np.nan, np.nan, 58]
    )
    gap = given.isel(time=np.delete(np.arange(20), [13, 14, 15]))  # not missing but absent
    assert np.isnan(first(match_times(gap, DAYS, "mean"))[4])
    assert first(match_times(gap, DAYS, "mean", known=0.25))[4] == 16.0


def test_nearest_within_a_tolerance():
    given = hourly(step=24, count=4, start="2001-01-01T06")
    np.testing.assert_array_equal(first(match_times(given, DAYS, "nearest")), [0, 1, 2, 3, np.nan])
    assert np.isnan(first(match_times(given, DAYS[:1], "nearest", hours=6.0))) == [False]
    with pytest.raises(InputError, match="no value at any time"):
        match_times(given, DAYS, "nearest", hours=5.0)
    both = hourly(step=12, count=2, start="2000-12-31T18")  # six hours before and after
    assert first(match_times(both, DAYS[:1], "nearest"))[0] == 0.0


def test_dates_may_be_moved_and_exact_is_left_alone():
    given = hourly(step=24, count=5)
    later = shifted(given, 24.0)
    np.testing.assert_array_equal(later.time, given.time.values + np.timedelta64(1, "D"))
    assert match_times(given, DAYS) is given
    nearest = first(match_times(later, DAYS, "nearest", hours=1))
    np.testing.assert_array_equal(nearest, [np.nan, 0, 1, 2, 3])


def test_blocks_and_indices_do_not_matter(monkeypatch):
    given = gridded(40)
    wanted = times(12, hours=72)
    whole = match_times(given, wanted, "mean").temperature.values
    monkeypatch.setattr(
        resample, "first_axis_blocks", lambda i, n: (slice(s, s + 2) for s in range(0, i.size, 2))
    )
    lazily = match_times(given, wanted, "mean").temperature
    np.testing.assert_array_equal(lazily[1:9:2, 1, ::-1], whole[1:9:2, 1, ::-1])
    np.testing.assert_array_equal(lazily.values, whole)
    np.testing.assert_allclose(whole[3], given.temperature[7:10].mean("time"), rtol=1e-6)


@pytest.mark.parametrize(
    ("how", "hours", "message"),
    [
        ("median", 0.0, "unknown time matching 'median'"),
        ("mean", -1.0, "hours must be 0 or more"),
        ("sum", 3.0, "over 3 h of data every 6 h: lengthen the interval"),
    ],
)
def test_bad_matching_gives_one_line(how, hours, message):
    with pytest.raises(InputError, match=message):
        match_times(hourly(), DAYS, how, hours=hours)


@pytest.mark.parametrize("how", ["nearest", "mean", "sum"])
def test_no_time_in_common_gives_one_line(how):
    with pytest.raises(InputError, match=f"a .2001-01-01.*no value at any time.*1990.* by {how}"):
        match_times(hourly(), times(3, "1990-01-01"), how, name="a")


def test_log1p_of_a_scale():
    given = hourly()
    given["a"].values[3, 0, 0] = np.nan
    given["a"].values[0] = [[-1e-9, 0.0]]  # of packing
    found = transform(given, "log1p", 4.0)["a"]
    expected = np.log1p(np.maximum(given["a"].values, 0) / 4)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    np.testing.assert_allclose(found[4:7, 0], expected[4:7, 0], rtol=1e-6)
    assert found.attrs["units"] == "1"
    assert transform(given, "") is given
    given["a"].values[7, 0, 1] = -5.0
    found = transform(given, "log1p", 4.0, name="rain")
    assert np.isfinite(found["a"][8]).all()  # nothing is read before it is asked for
    with pytest.raises(InputError, match=r"rain: a is as low as -5.*log1p needs values from 0 up"):
        found.load()
    with pytest.raises(InputError, match="unknown transform 'sqrt'"):
        transform(given, "sqrt")
    with pytest.raises(InputError, match="scale of log1p must be a positive number"):
        transform(given, "log1p", 0.0)


def test_rain_says_whether_it_rained():
    given = hourly()
    given["a"].values[3, 0, 0] = np.nan
    given["a"].values[0] = [[-1e-9, 0.0]]  # of packing
    found = transform(given, "log1p+wet", 4.0)
    assert list(found) == ["a", "a_wet"]
    xr.testing.assert_equal(found["a"], transform(given, "log1p", 4.0)["a"])
    np.testing.assert_array_equal(found["a_wet"][0], [[0.0, 0.0]])
    known = given["a"].notnull()
    expected = (given["a"] > 0).where(known)
    np.testing.assert_array_equal(found["a_wet"].values, expected.values)
    assert found["a_wet"].mean() > 0.5


def test_persistence_stops_at_gaps():
    given = gridded(6).isel(time=[0, 1, 2, 4, 5])
    background = persistence(given)
    np.testing.assert_array_equal(background.time, given.time[[1, 2, 4]])
    np.testing.assert_array_equal(
        background.temperature.values, given.temperature.values[[0, 1, 3]]
    )
    with pytest.raises(InputError, match="a single time has no previous one"):
        persistence(given.isel(time=[0]))
