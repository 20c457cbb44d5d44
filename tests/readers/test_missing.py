"""Fill values that are values."""

import logging

import numpy as np
import pytest
import xarray as xr
import zarr

from slams_jax.errors import InputError
from slams_jax.readers import open_dataset
from support.data_samples import gridded, write


def rain(share_dry: float = 0.6) -> xr.Dataset:
    """mm, zero on dry days."""
    rng = np.random.default_rng(0)
    surface = gridded(6).isel(level=0, drop=True)
    wet = rng.random(surface.temperature.shape) > share_dry
    values = np.where(wet, rng.gamma(1.0, 4.0, wet.shape), 0.0).astype(np.float32)
    return surface.assign(tp=(surface.temperature.dims, values, {"units": "mm"}))[["tp"]]


def zarr_store(path, *, fill=0.0, version=2, missing_value=None):
    """`rain` as Zarr writes it by itself, with its default `fill_value`."""
    dataset = rain()
    if missing_value is not None:
        dataset.tp.attrs["missing_value"] = np.float32(missing_value)
    dataset.to_zarr(path, zarr_format=version, consolidated=False)
    group = zarr.open_group(path, zarr_format=version)
    attributes = dict(group["tp"].attrs)
    dims = {} if version == 2 else {"dimension_names": dataset.tp.dims}
    array = group.create_array(
        "tp", shape=dataset.tp.shape, dtype="f4", fill_value=fill, overwrite=True, **dims
    )
    array[:] = dataset.tp.values
    array.attrs.update(attributes)
    return path


@pytest.mark.filterwarnings("ignore:.*[Cc]onsolidated")
@pytest.mark.parametrize("version", [2, 3])
def test_zeros_of_a_zarr_store_stay_zeros(version, tmp_path):
    expected = rain().tp.values / 1000
    with open_dataset(zarr_store(tmp_path / "a.zarr", version=version)) as read:
        np.testing.assert_allclose(read.total_precipitation, expected, rtol=1e-6)
        assert float((read.total_precipitation == 0).mean()) > 0.5


@pytest.mark.filterwarnings("ignore:.*[Cc]onsolidated")
def test_zeros_of_a_coordinate_stay_zeros(tmp_path):
    dataset = gridded(latitude=(-30.0, 0.0, 30.0))
    path = tmp_path / "a.zarr"
    dataset.to_zarr(path, zarr_format=2, consolidated=False)
    group = zarr.open_group(path, zarr_format=2)
    attributes = dict(group["latitude"].attrs)
    latitude = group.create_array("latitude", shape=3, dtype="f8", fill_value=0.0, overwrite=True)
    latitude[:] = dataset.latitude.values
    latitude.attrs.update(attributes)
    with open_dataset(path) as read:
        np.testing.assert_array_equal(read.latitude, dataset.latitude)


@pytest.mark.filterwarnings("ignore:.*[Cc]onsolidated")
def test_zeros_that_are_declared_missing_twice_are_missing_or_refused(tmp_path):
    path = zarr_store(tmp_path / "a.zarr", missing_value=0.0)
    with pytest.raises(InputError, match="of its first field is 0, which the file declares"):
        open_dataset(path)
    temperature = gridded()  # no kelvin is zero: a good fill value
    temperature.temperature[:, :, :2] = np.nan
    temperature.to_zarr(
        tmp_path / "b.zarr",
        zarr_format=2,
        consolidated=False,
        encoding={"temperature": {"_FillValue": 0.0, "missing_value": 0.0}},
    )
    with open_dataset(tmp_path / "b.zarr") as read:
        np.testing.assert_array_equal(read.temperature, temperature.temperature)


def packed(fill, dtype="i2", offset=0.0):
    return {"tp": {"dtype": dtype, "scale_factor": 0.1, "add_offset": offset, "_FillValue": fill}}


@pytest.mark.parametrize(
    ("share", "encoding", "message"),
    [
        (0.6, {"tp": {"_FillValue": 0.0}}, r"\d\d% of its first field is 0, .*total_precipitation"),
        (0.6, {"tp": {"_FillValue": -9999.0}}, None),
        (0.6, {"tp": {"_FillValue": None}}, None),
        (0.0, {"tp": {"_FillValue": 0.0}}, None),
        (0.6, packed(-32768), None),
        (0.6, packed(0), "of its first field is 0"),
    ],
)
def test_a_fill_value_that_is_a_value_is_refused(share, encoding, message, tmp_path):
    path = write(rain(share), tmp_path / "a.nc", encoding=encoding)
    if message is None:
        with open_dataset(path) as read:
            np.testing.assert_allclose(read.total_precipitation * 1000, rain(share).tp, atol=0.051)
        return
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value)


def test_the_share_that_is_missing_is_logged(tmp_path, caplog):
    dataset = gridded()
    dataset.temperature[:, :, :, :3] = np.nan
    path = write(dataset, tmp_path / "a.nc")
    with caplog.at_level(logging.INFO, logger="slams_jax"):
        open_dataset(path).close()
    assert "a.nc: temperature: 50.0% of its first field is missing" in caplog.text
