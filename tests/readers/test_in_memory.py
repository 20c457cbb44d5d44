"""Datasets in memory go through what files go through."""

import numpy as np
import pytest
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import from_dataset, open_dataset
from support.data_samples import gridded, write

FORMS = {
    "own": lambda d: d,
    "north first, top last": lambda d: d.isel(
        latitude=slice(None, None, -1), level=slice(None, None, -1)
    ),
    "-180 to 180": lambda d: d.assign_coords(
        longitude=("longitude", (d.longitude.values + 180) % 360 - 180)
    ).sortby("longitude"),
    "degC": lambda d: d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="degC")),
    "degF": lambda d: d.assign(
        temperature=((d.temperature - 273.15) * 1.8 + 32).assign_attrs(units="degF")
    ),
    "other names and order": lambda d: d.rename(
        temperature="ta", level="plev", latitude="lat", longitude="lon"
    ).transpose("lon", "plev", "lat", "time"),
    "Pa": lambda d: d.assign_coords(level=("level", d.level.values * 100, {"units": "Pa"})),
    "double precision": lambda d: d.astype(np.float64),
    "dates of cftime": lambda d: d.convert_calendar("noleap", use_cftime=True),
    "microseconds off": lambda d: d.assign_coords(time=d.time + np.timedelta64(7, "us")),
    "dask": lambda d: d.chunk(time=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_reads_as_the_file_written_from_it(form, tmp_path):
    expected = gridded()
    given = FORMS[form](expected)
    read = from_dataset(given, variables=["temperature"]).load()
    assert read.temperature.dims == ("time", "level", "latitude", "longitude")
    for name in ("time", "level", "latitude", "longitude"):
        np.testing.assert_array_equal(read[name], expected[name])
    np.testing.assert_allclose(read.temperature, expected.temperature, atol=1e-4)
    with open_dataset(write(given, tmp_path / "a.nc"), variables=["temperature"]) as file:
        np.testing.assert_array_equal(read.temperature, file.temperature)
        assert read.temperature.attrs == file.temperature.attrs


def test_a_region_across_the_seam_becomes_one_piece():
    region = gridded(longitude=(350.0, 355.0, 360.0, 365.0, 370.0))
    read = from_dataset(region)
    np.testing.assert_array_equal(read.longitude, [-10.0, -5.0, 0.0, 5.0, 10.0])
    np.testing.assert_array_equal(read.temperature, region.temperature)


def test_data_arrays_and_the_scalar_level_that_sel_leaves():
    whole = gridded()
    one = whole.sel(level=850.0)
    read = from_dataset(one, levels=[850])
    np.testing.assert_array_equal(read.temperature, whole.temperature.sel(level=[850.0]))
    np.testing.assert_array_equal(from_dataset(whole.temperature).temperature, whole.temperature)
    unnamed = whole.temperature.rename(None)
    read = from_dataset(unnamed, variables=["temperature"])
    np.testing.assert_array_equal(read.temperature, whole.temperature)
    with pytest.raises(InputError, match="no level 500 hPa: it has 850 hPa"):
        from_dataset(one, levels=[500])
    near_ground = one.rename(temperature="t2m")
    assert from_dataset(near_ground)["2m_temperature"].dims == ("time", "latitude", "longitude")


def one_value(dataset, value):
    dataset.temperature.values[3, 1, 2, 2] = value
    return dataset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.isel(time=[0, 2, 1]), "obs: time must ascend"),
        (lambda d: d.isel(time=[0, 1, 1]), "obs: time must ascend .* twice"),
        (lambda d: d.isel(time=slice(None, None, -1)), "obs: time must ascend"),
        (
            lambda d: d.assign_coords(time=[*d.time.values[:4], np.datetime64("NaT", "ns")]),
            "missing entries",
        ),
        (lambda d: d.drop_vars("time"), "dimension time has no times"),
        (lambda d: d.isel(time=0, drop=True), "neither a time dimension nor a time"),
        (lambda d: d.assign_coords(time=np.arange(5)), "are no dates"),
        (
            lambda d: d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="K")),
            "obs: temperature reaches .*Celsius for Kelvin",
        ),
        (lambda d: one_value(d, 3.0), "reaches 3 K"),
        (lambda d: one_value(d, np.inf), "infinite"),
        (lambda d: d.drop_vars("latitude"), "no one-dimensional latitude"),
        (lambda d: d.expand_dims(realm=2), "its dimension realm is not"),
        (lambda d: d.drop_vars("temperature"), "obs: holds no variable"),
        (lambda d: np.zeros(3), "obs is a ndarray"),
    ],
)
def test_what_a_file_is_refused_for_a_dataset_is_refused_for(change, message):
    with pytest.raises(InputError, match=message) as caught:
        from_dataset(change(gridded()), name="obs").load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dims", "values"),
    [
        ((), 0.9),
        (("level",), [0.9, 1.8, 2.7]),
        (("time",), np.arange(1, 6) * 0.9),
        (("latitude", "longitude"), 0.9 * np.arange(1, 25).reshape(4, 6)),
    ],
)
def test_errors_go_the_way_of_their_values(dims, values, tmp_path):
    """An error in degrees Fahrenheit is a difference; north comes first, as for the values."""
    values = np.asarray(values)
    expected = xr.DataArray(values / 1.8, dims=dims).broadcast_like(gridded().temperature)
    expected = expected.transpose("time", "level", "latitude", "longitude")
    given = FORMS["degF"](gridded()).assign(error=(dims, values))
    given = given.isel(latitude=slice(None, None, -1), level=slice(None, None, -1))
    path = write(given, tmp_path / "a.nc")
    both = ["temperature", "error"]
    for read in (from_dataset(given, variables=both), open_dataset(path, variables=both)):
        assert read.error.dims == read.temperature.dims
        np.testing.assert_allclose(read.temperature, gridded().temperature, rtol=1e-6)
        np.testing.assert_allclose(read.error, expected, rtol=1e-6)
        read.close()
    for wrong in (-given.error, given.error * 0):
        with pytest.raises(InputError, match="dataset: error: an error is negative, zero"):
            from_dataset(given.assign(error=wrong), variables=both).load()
    marked = gridded()
    marked.temperature.attrs["error"] = -1.0
    with pytest.raises(InputError, match=r"its attribute error is -1\.0: give errors > 0"):
        from_dataset(marked)
    several = given.assign(q=given.temperature)
    with pytest.raises(InputError, match="error may be that of temperature or specific_humidity"):
        from_dataset(several, variables=["temperature", "q", "error"])


@pytest.mark.parametrize("error", [0.5, [0.5, 1.0, 2.0]])
def test_an_error_that_is_an_attribute_stays(error):
    given = FORMS["degF"](gridded())
    given.temperature.attrs["error"] = error
    read = from_dataset(given)
    np.testing.assert_allclose(read.temperature.attrs["error"], np.asarray(error) / 1.8)
