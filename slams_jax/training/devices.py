"""Devices: a mesh with the one axis `data`, batches split over it, and where the state lies.

The same code runs on one CPU and on many hosts: each process hands in its own part of a batch,
and the partitioner sums the gradients.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from slams_jax.errors import InputError
from slams_jax.mesh import DATA

LOG = logging.getLogger(__name__)

SMALLEST = 1024  # values; what is smaller than that is not worth splitting


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axis `data` over `devices` (all of every process unless given).

    The axis is of type Auto: the compiler propagates the shardings.

    Raises:
        InputError: an empty list of devices.
    """
    chosen = jax.devices() if devices is None else list(devices)
    if not chosen:
        raise InputError("devices is empty: give at least one, or None for all of them")
    return Mesh(np.asarray(chosen), (DATA,), axis_types=(AxisType.Auto,))


def batch_mesh(
    batch_size: int, devices: Sequence[jax.Device] | None = None, *, accumulate: int = 1
) -> Mesh:
    """A mesh over as many of `devices` as divide `batch_size`, the samples of all processes.

    One process leaves the devices that are too many idle, and says so in the log; the result
    of the training does not depend on it.

    Args:
        batch_size: samples of all processes.
        devices: all of every process unless given.
        accumulate: equal parts that the batch is taken in, each to be divided over the devices.

    Raises:
        InputError: `batch_size` is no multiple of `accumulate`, or does not divide over the
            devices of several processes, none of which can be left out.
    """
    if accumulate < 1 or batch_size % accumulate:
        raise InputError(f"accumulate must divide the batch of {batch_size}, got {accumulate}")
    batch_size //= accumulate
    chosen = jax.devices() if devices is None else list(devices)
    count = max(n for n in range(1, len(chosen) + 1) if batch_size % n == 0) if chosen else 0
    if count < len(chosen):
        if jax.process_count() > 1:
            raise InputError(
                f"a batch of {batch_size} does not divide over {len(chosen)} devices of "
                f"{jax.process_count()} processes: choose a multiple of {len(chosen)}"
            )
        LOG.warning(
            "a batch of %d does not divide over %d devices: using %d of them",
            batch_size,
            len(chosen),
            count,
        )
    return data_mesh(chosen[:count])


def in_batches(mesh: Mesh) -> Callable[[Any], PartitionSpec]:
    """For `mesh.place`: split along the first axis if it divides over the devices, else whole."""

    def spec(x: Any) -> PartitionSpec:
        return PartitionSpec(DATA) if x.shape[0] % mesh.shape[DATA] == 0 else PartitionSpec()

    return spec


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: the state."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The sharding of what is split along its first axis: a batch."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def state_spec(mesh: Mesh, *, sharded: bool) -> Callable[[Any], PartitionSpec]:
    """How the arrays of a state are split: not at all, or along one axis each where `sharded`.

    That is the longest axis that the number of devices divides (the last of equal ones). Arrays
    without one, and small ones, are whole on every device.
    """
    count = mesh.shape[DATA]

    def spec(x: Any) -> PartitionSpec:
        fits = [axis for axis, n in enumerate(x.shape) if n % count == 0]
        if not sharded or count == 1 or not fits or x.size < SMALLEST:
            return PartitionSpec()
        longest = max(fits, key=lambda axis: (x.shape[axis], axis))
        return PartitionSpec(*[None] * longest, DATA)

    return spec


def batch_size(batch: PyTree) -> int:
    """The number of samples in this process's part of a batch: the common size of the first axes.

    Raises:
        InputError: no arrays, or first axes of different sizes.
    """
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(
            f"the arrays of a batch must share a first axis of at least 1, got {sorted(sizes)}"
        )
    return sizes.pop()


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's part of a batch of host arrays -> global arrays split over the mesh."""
    sharding = batched(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def is_writer() -> bool:
    """Whether this process writes metrics and messages: the first of all."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Wait until every process is here, at the place called `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
