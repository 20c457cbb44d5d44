"""Files are written complete or absent."""

import numpy as np
import pytest
import xarray as xr
import zarr

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


def test_a_store_is_cut_and_appended_to_whatever_a_kill_left(tmp_path):
    path = tmp_path / "run.zarr"

    def piece(first, last):
        values = np.arange(float(first), last)
        return xr.Dataset({"x": (("time", "y"), values[:, None])}, {"time": values, "y": [7.0]})

    def stored():
        with xr.open_zarr(path, consolidated=False, chunks=None) as dataset:
            return dataset.load()

    storage.append_dataset(piece(0, 3), path, 0)
    storage.append_dataset(piece(3, 6), path, 3)
    storage.append_dataset(piece(4, 9), path, 4)
    xr.testing.assert_identical(stored(), piece(0, 9))
    zarr.open_group(path)["x"].resize((12, 1))  # killed before the times followed
    storage.append_dataset(piece(7, 10), path, 7)
    xr.testing.assert_identical(stored(), piece(0, 10))
    with pytest.raises(InputError, match="lacks some of its first 11 times"):
        storage.append_dataset(piece(11, 12), path, 11)
    storage.append_dataset(piece(0, 2), path, 0)
    xr.testing.assert_identical(stored(), piece(0, 2))


def test_records_are_read_up_to_a_torn_line_and_cut(tmp_path):
    path = tmp_path / "records.jsonl"
    assert storage.read_records(path) == []
    with storage.open_records(path, lambda record: True) as file:
        for k in range(4):
            storage.write_record(file, {"k": k})
        file.write('{"k": 4')
    assert [r["k"] for r in storage.read_records(path)] == [0, 1, 2, 3]
    with storage.open_records(path, lambda record: record["k"] < 2) as file:
        storage.write_record(file, {"k": 9})
    assert [r["k"] for r in storage.read_records(path)] == [0, 1, 9]
