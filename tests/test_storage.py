"""Files are written complete or absent."""

import numpy as np
import pytest
import xarray as xr

from slams_jax import storage
from slams_jax.errors import InputError
from support.small_world import tree


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_nothing(suffix, error, tmp_path, monkeypatch):
    dataset = xr.Dataset({"x": ("time", np.arange(3.0))})
    target = tmp_path / f"analysis{suffix}"
    storage.write_dataset(dataset, target)
    before = tree(tmp_path)
    name = "to_zarr" if suffix == ".zarr" else "to_netcdf"
    original = getattr(xr.Dataset, name)

    def torn(self, path, **options):
        original(self, path, **options)
        raise error

    monkeypatch.setattr(xr.Dataset, name, torn)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    for path in (target, tmp_path / f"new{suffix}"):
        with pytest.raises(expected) as caught:
            storage.write_dataset(dataset, path)
        assert expected is KeyboardInterrupt or "No space left" in str(caught.value)
    assert tree(tmp_path) == before  # the old one is there, the new one is not


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_an_old_output_is_replaced(suffix, tmp_path):
    target = tmp_path / f"analysis{suffix}"
    for size in (3, 4):
        storage.write_dataset(xr.Dataset({"x": ("time", np.arange(float(size)))}), target)
    engine = "zarr" if suffix == ".zarr" else "h5netcdf"
    options = {"consolidated": False} if suffix == ".zarr" else {}
    with xr.open_dataset(target, engine=engine, **options) as found:
        assert found.sizes["time"] == 4


def test_a_text_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*none"):
        storage.write_text("x", tmp_path / "none" / "metrics.json")
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*metrics\.json"):
        storage.write_text("x", tmp_path / "metrics.json")
    assert tree(tmp_path) == ["metrics.json"]
