"""The axes of a mesh of devices, and what is split over which of them.

    data     samples of a batch in training, windows of a trajectory in an analysis
    member   members of an ensemble
    space    bands of latitude of one field

Code names axes with `split`; the caller chooses the ambient mesh with `jax.set_mesh(mesh)`, and
XLA's partitioner adds the communication between its devices. Without a mesh, or with one device
along an axis, nothing is split: the same code runs everywhere. What reads the ambient mesh, here or
through these functions, says so in its docstring; it is read when a function is traced.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from slams_jax.errors import InputError

DATA, MEMBER, SPACE = "data", "member", "space"
_AT_ONCE = 2**26  # bytes fetched from other processes at once


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_along(axis: str) -> int:
    """Number of devices along `axis` of the ambient mesh; 1 where there is no such axis."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def split(x: Array, *axes: str | None) -> Array:
    """`x`, its leading axes split over the named axes of the ambient mesh (None: not split)."""
    names = [axis if axis is not None and devices_along(axis) > 1 else None for axis in axes]
    if not any(names):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*names))


def analysis_mesh(
    members: int,
    *,
    windows: int = 1,
    space: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """The mesh of an analysis: devices left over by `windows` and `space` share the members.

    One process leaves devices idle that would not shorten the run: of 8 devices, 9 members take 5
    (two each, but for one), as fast as 8 would.

    Args:
        members: to draw.
        windows: devices over which the windows of each trajectory are split.
        space: devices over which the latitudes of each field are split, so that fields too large
            for one device can be analysed. Best where it divides the number of latitudes, of the
            state and of the latent.
        devices: all of every process unless given.

    Raises:
        InputError: numbers that do not go with those of the devices.
    """
    chosen = jax.devices() if devices is None else list(devices)
    for name, value in (("windows", windows), ("space", space)):
        if value < 1:
            raise InputError(f"{name} must be at least 1 device, got {value}")
    groups, rest = divmod(len(chosen), windows * space)
    if groups == 0 or (rest and jax.process_count() > 1):
        raise InputError(
            f"windows ({windows}) times space ({space}) must divide the number of devices, "
            f"{len(chosen)}"
        )
    if jax.process_count() == 1:
        groups = -(-members // -(-members // groups))
    shape = (groups, windows, space)
    grid = np.asarray(chosen[: groups * windows * space]).reshape(shape)
    return Mesh(grid, (MEMBER, DATA, SPACE), axis_types=(AxisType.Auto,) * 3)


def place(tree: PyTree, mesh: Mesh, spec: Callable[[Any], PartitionSpec]) -> PyTree:
    """Arrays that every process has -> arrays on the devices of `mesh`, split as `spec` says.

    Args:
        tree: of arrays.
        mesh: the devices.
        spec: array -> how it is split.
    """

    def one(x: Any) -> Array:
        sharding = NamedSharding(mesh, spec(x))
        if jax.process_count() == 1:
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            numbers = place(jax.random.key_data(x), mesh, spec)
            return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(x))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree)


def shardings(tree: PyTree, mesh: Mesh, spec: Callable[[Any], PartitionSpec]) -> PyTree:
    """The sharding on `mesh` of each array of `tree`, or of its shape."""
    return jax.tree.map(lambda x: NamedSharding(mesh, spec(x)), tree)


def whole(_: Any) -> PartitionSpec:
    """For `place`: not split, every device has all of it."""
    return PartitionSpec()


def in_bands(mesh: Mesh, *shapes: tuple[int, int]) -> Callable[[Any], PartitionSpec]:
    """For `place`: fields on grids of `shapes` (lat, lon) in bands of latitude, the rest whole.

    A field has the grid in its first two axes, or its second and third, or all points in its first.
    """
    bands = mesh.shape[SPACE]
    grids = [shape for shape in shapes if shape[0] % bands == 0]

    def spec(x: Any) -> PartitionSpec:
        shape = np.shape(x)
        if shape[:2] in grids or (shape and shape[0] in [lat * lon for lat, lon in grids]):
            return PartitionSpec(SPACE)
        if shape[1:3] in grids:
            return PartitionSpec(None, SPACE)
        return PartitionSpec()

    return spec


def to_host(x: Any) -> np.ndarray:
    """The whole of an array that may be split over devices, in every process.

    What lies with other processes is fetched over the devices; if it is large, one row of the first
    axis at a time: the whole need not fit on a device.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    everywhere = NamedSharding(x.sharding.mesh, PartitionSpec())  # pyright: ignore[reportAttributeAccessIssue]
    if x.nbytes <= _AT_ONCE:
        return np.asarray(jax.jit(lambda x: x, out_shardings=everywhere)(x))
    row = jax.jit(lambda x, i: x[i], out_shardings=everywhere)
    return np.stack([np.asarray(row(x, np.int32(i))) for i in range(x.shape[0])])
