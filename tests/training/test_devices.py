import jax
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.training import batch_mesh, batched, data_mesh, replicated, shard_batch
from slams_jax.training.devices import batch_size


def test_mesh_has_one_auto_axis_over_all_devices():
    mesh = data_mesh()
    assert mesh.axis_names == ("data",)
    assert mesh.devices.size == len(jax.devices()) == 8
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,)
    assert data_mesh(jax.devices()[:3]).devices.size == 3
    with pytest.raises(InputError, match="devices is empty"):
        data_mesh([])


@pytest.mark.parametrize(("size", "devices"), [(16, 8), (12, 6), (7, 7), (11, 1), (3, 3)])
def test_as_many_devices_as_divide_the_batch(size, devices, caplog):
    with caplog.at_level("WARNING", logger="slams_jax"):
        assert batch_mesh(size).devices.size == devices
    assert (f"a batch of {size} does not divide" in caplog.text) == (devices < 8)


def test_batch_is_split_and_whole():
    mesh = data_mesh()
    batch = {"x": np.arange(48, dtype=np.float32).reshape(16, 3), "y": np.arange(16)}
    placed = shard_batch(batch, mesh)
    assert placed["x"].sharding == batched(mesh)
    assert [s.data.shape for s in placed["x"].addressable_shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(placed["x"], batch["x"])
    whole = jax.device_put(batch["x"], replicated(mesh))
    assert [s.data.shape for s in whole.addressable_shards] == [(16, 3)] * 8


def test_batches_that_cannot_be_split_are_named():
    assert batch_size({"x": np.zeros((4, 2)), "y": np.zeros(4)}) == 4
    for batch in ({}, {"x": np.zeros(())}, {"x": np.zeros((4, 2)), "y": np.zeros((3, 2))}):
        with pytest.raises(InputError, match="share a first axis"):
            batch_size(batch)
