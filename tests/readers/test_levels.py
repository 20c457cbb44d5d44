"""Vertical coordinates, and dimensions that are no part of a field."""

import numpy as np
import pytest
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import from_dataset, open_dataset
from slams_jax.readers.coordinates import pressures
from support.data_samples import gridded, write

HYBRID = "hybrid level at midpoints (1000*(A+B))"
NO_PRESSURE = {
    "hybrid, in hPa, by its long name": (
        "lev",
        [500.0, 850.0],
        {"units": "hPa", "long_name": HYBRID},
    ),
    "hybrid, in hPa, by its standard name": (
        "lev",
        [500.0, 850.0],
        {"units": "hPa", "standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"},
    ),
    "hybrid, by its formula": (
        "level",
        [500.0, 850.0],
        {"units": "hPa", "formula_terms": "a: hyam b: hybm p0: P0 ps: PS"},
    ),
    "logarithm of pressure": (
        "lev",
        [500.0, 850.0],
        {"units": "hPa", "standard_name": "atmosphere_ln_pressure_coordinate"},
    ),
    "hybrid, by its own name": ("hybrid", [100.0, 125.0], {"units": "hPa"}),
    "numbers from 1": ("level", [1.0, 2.0, 3.0], {}),
    "numbers of the lowest": ("level", [135.0, 136.0, 137.0], {}),
    "some numbers": ("level", [49.0, 60.0, 91.0], {}),
    "one number": ("lev", [137.0], {}),
    "model_level_number": ("level", [50.0, 100.0], {"standard_name": "model_level_number"}),
    "sigma": ("level", [0.5, 0.8, 1.0], {"units": "1"}),
    "potential temperature": ("theta", [300.0, 350.0], {"units": "K"}),
    "height": ("height", [100.0, 500.0], {"units": "m"}),
    "no values": ("level", None, {}),
}
PRESSURE = {
    "hPa": ("level", [500.0, 850.0], {"units": "hPa"}),
    "kPa": ("level", [50.0, 85.0], {"units": "kPa"}),
    "Pa without units": ("level", [50000.0, 85000.0], {}),
    "hPa without units": ("level", [500.0, 850.0], {}),
    "by its name": ("plev", [50130.0, 85070.0], {}),
    "by its standard name": ("z3", [501.3, 850.7], {"standard_name": "air_pressure"}),
    "by its long name": ("lev", [501.3, 850.7], {"long_name": "pressure level"}),
}


def on(dim, values, attributes) -> xr.Dataset:
    size = 2 if values is None else len(values)
    dataset = gridded(levels=tuple(range(size))).drop_vars("level").rename(level=dim)
    return dataset if values is None else dataset.assign_coords({dim: (dim, values, attributes)})


@pytest.mark.slow
@pytest.mark.parametrize("form", NO_PRESSURE)
def test_vertical_coordinates_that_are_not_pressure_are_refused(form, tmp_path):
    given = on(*NO_PRESSURE[form])
    path = write(given, tmp_path / "a.nc")
    for attempt in (lambda: from_dataset(given), lambda: open_dataset(path)):
        with pytest.raises(InputError, match="is not a pressure: interpolate") as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", PRESSURE)
def test_pressures_are_read(form, tmp_path):
    given = on(*PRESSURE[form])
    with open_dataset(write(given, tmp_path / "a.nc")) as read:
        np.testing.assert_allclose(read.level, [500.0, 850.0], atol=1.5)
        np.testing.assert_array_equal(read.temperature, given.temperature)


def test_levels_that_data_are_published_on_need_no_units():
    era5 = [1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400]
    era5 += [450, 500, 550, 600, 650, 700, 750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000]
    np.testing.assert_array_equal(pressures("level", xr.Variable("level", era5)), era5)
    assert pressures("level", xr.Variable("level", np.arange(1, 38))) is None


def test_one_height_is_a_remark_and_one_model_level_is_not():
    surface = gridded(levels=(0.0,)).drop_vars("level")
    at = lambda name, **attrs: surface.rename(level=name).assign_coords(
        {name: (name, [2.0], attrs)}
    )
    for given in (at("height", units="m"), at("heightAboveGround"), at("level", units="m")):
        assert from_dataset(given).temperature.dims == ("time", "latitude", "longitude")
    with pytest.raises(InputError, match="vertical dimension hybrid"):
        from_dataset(at("hybrid"))
    near_ground = at("lev", units="level").rename(temperature="t2m")
    assert from_dataset(near_ground)["2m_temperature"].dims == ("time", "latitude", "longitude")


# --- versions of ERA5, and other dimensions -------------------------------------------------------


def versions(name="expver", values=(1, 5)) -> xr.Dataset:
    """ERA5 up to the third time, ERA5T from there on."""
    whole = gridded()
    final, preliminary = (whole.copy(deep=True) for _ in range(2))
    final.temperature[3:] = np.nan
    preliminary.temperature[:3] = np.nan
    return xr.concat([final, preliminary], xr.Variable(name, list(values)))


@pytest.mark.parametrize("order", [("expver", "time"), ("time", "expver")])
@pytest.mark.parametrize("values", [(1, 5), ("0001", "0005")])
def test_era5_and_era5t_are_merged(order, values, tmp_path):
    given = versions(values=values).transpose(*order, ...)
    expected = gridded().temperature
    with open_dataset(write(given, tmp_path / "a.nc")) as read:
        assert read.temperature.dims == expected.dims
        np.testing.assert_array_equal(read.temperature[2:4, 1], expected[2:4, 1])
        np.testing.assert_array_equal(read.temperature, expected)
    np.testing.assert_array_equal(from_dataset(given).temperature, expected)


def test_versions_that_contradict_each_other_are_refused():
    given = versions()
    given.temperature[1, 2] = 251.0
    with pytest.raises(InputError, match="expver: both versions have values, and they differ"):
        from_dataset(given).load()


@pytest.mark.parametrize("name", ["expver", "realm", "quantile", "heightAboveGround2"])
def test_an_extra_dimension_is_named(name, tmp_path):
    given = gridded().isel(level=0, drop=True).expand_dims({name: 3})
    path = write(given, tmp_path / "a.nc")
    for attempt in (lambda: from_dataset(given), lambda: open_dataset(path)):
        with pytest.raises(InputError, match=f"dimension {name} ") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    one = from_dataset(given.isel({name: [0]}))
    assert one.temperature.dims == ("time", "latitude", "longitude")
    np.testing.assert_array_equal(one.temperature, gridded().temperature[:, 0])


@pytest.mark.parametrize("name", ["number", "realization", "member"])
def test_members_stand_first(name):
    given = xr.concat([gridded(), gridded(seed=1)], name).transpose(..., name)
    read = from_dataset(given)
    assert read.temperature.dims == ("member", "time", "level", "latitude", "longitude")
    np.testing.assert_array_equal(read.temperature[1], gridded(seed=1).temperature)
