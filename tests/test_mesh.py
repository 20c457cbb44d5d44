"""Meshes, and that what is split over devices is what one device computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from slams_jax.diffusion import CosineSchedule, sample_ensemble
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.errors import InputError
from slams_jax.mesh import DATA, MEMBER, SPACE, analysis_mesh, in_bands, place, to_host
from slams_jax.models import score
from slams_jax.models.cost import collectives_in
from slams_jax.networks import pad
from support.devices import mesh_of

pytestmark = pytest.mark.optimised  # what the compiler sends and keeps


def shape_of(mesh):
    return tuple(mesh.shape[axis] for axis in (MEMBER, DATA, SPACE))


@pytest.mark.parametrize(
    ("members", "split", "shape"),
    [
        (16, {}, (8, 1, 1)),
        (9, {}, (5, 1, 1)),  # two each, but for one: no sooner on eight
        (3, {}, (3, 1, 1)),
        (16, {"space": 4}, (2, 1, 4)),
        (1, {"windows": 2, "space": 3}, (1, 2, 3)),
    ],
)
def test_members_share_the_devices_that_are_left(members, split, shape):
    mesh = analysis_mesh(members, **split)
    assert shape_of(mesh) == shape
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"space": 0}, "space must be at least 1 device, got 0"),
        ({"windows": 3, "space": 3}, r"windows \(3\) times space \(3\) .* number of devices, 8"),
    ],
)
def test_devices_that_are_not_there(split, message):
    with pytest.raises(InputError, match=message):
        analysis_mesh(4, **split)


def test_fields_lie_in_bands_and_the_rest_is_whole():
    mesh = mesh_of(space=4)
    tree = {
        "trajectory": np.zeros((3, 8, 6, 2)),
        "frame": np.zeros((8, 6, 2)),
        "patterns": np.zeros((48, 5)),
        "stations": np.zeros((3, 7)),
        "number": np.zeros(()),
        "odd": np.zeros((3, 5, 6, 2)),
    }
    placed = place(tree, mesh, in_bands(mesh, (8, 6), (5, 6)))
    shapes = {name: x.addressable_shards[0].data.shape for name, x in placed.items()}
    assert shapes == {
        "trajectory": (3, 2, 6, 2),
        "frame": (2, 6, 2),
        "patterns": (12, 5),
        "stations": (3, 7),
        "number": (),
        "odd": (3, 5, 6, 2),
    }
    for name, x in placed.items():
        np.testing.assert_array_equal(to_host(x), tree[name])


@pytest.mark.parametrize("padding", ["sphere", "torus", "edge"])
def test_bands_exchange_rows_and_nothing_else(padding):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    mesh = mesh_of(space=4)
    bands = NamedSharding(mesh, PartitionSpec(None, SPACE))
    # A stencil: what is padded does not divide over the devices, its result does.
    padded = lambda x: sum(pad(x, ((2, 3), (1, 2)), padding)[:, i : i + 8] * i for i in range(6))
    with jax.set_mesh(mesh):
        program = jax.jit(padded, out_shardings=bands).lower(jax.device_put(x, bands)).compile()
    np.testing.assert_allclose(program(jax.device_put(x, bands)), padded(x), atol=1e-5)
    found = collectives_in(program.as_text())
    assert set(found) <= {"collective-permute", "all-reduce"}
    # Summed are the rows from beyond the edges, five for each slice, which one device has.
    row = x[:, :1].nbytes * 9 // 6
    assert found.get("all-reduce", (0, 0))[1] <= 6 * 5 * row


def denoise(space):
    """A compiled trajectory denoiser on so many devices, with its argument."""
    config = score.ScoreConfig(
        window=3, channels=4, widths=(8, 16), blocks=1, embedding=8, prediction="v"
    )
    params = score.init(config, jax.random.key(0), (8, 8))
    noise = lambda x: 0.1 * np.random.default_rng(9).normal(size=x.shape).astype(np.float32)
    params = jax.tree.map(lambda x: x + noise(x), params)
    window = score.window_denoiser(config, CosineSchedule(), params)
    trajectory = trajectory_denoiser(window, 3)
    mesh = mesh_of(space=space)
    bands = NamedSharding(mesh, PartitionSpec(None, SPACE))
    x = np.random.default_rng(1).standard_normal((5, 64, 64, 4), np.float32)
    x = jax.device_put(x, bands)
    with jax.set_mesh(mesh):
        function = jax.jit(lambda x: trajectory(x, jnp.float32(0.5)), out_shardings=bands)
        return function.lower(x).compile(), x


@pytest.mark.slow
def test_bands_take_their_part_of_the_memory():
    """So that a field that is too large for one device has room on several."""
    (alone, x), (shared, xs) = denoise(1), denoise(4)
    np.testing.assert_allclose(shared(xs), alone(x), atol=1e-5)
    memory = [p.memory_analysis() for p in (alone, shared)]
    total = [m.temp_size_in_bytes + m.argument_size_in_bytes for m in memory]
    assert total[1] < 0.35 * total[0]
    found = collectives_in(shared.as_text())
    assert not {"all-gather", "all-to-all"} & set(found)
    assert found["all-reduce"][1] < x.nbytes


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_each_device_draws_its_members(batch):
    """Seven members on three devices: member i is that of key i."""
    draw = lambda key: jax.random.normal(key, (4,))
    mesh = analysis_mesh(7, devices=jax.devices()[:3])
    with jax.set_mesh(mesh):
        found = jax.jit(lambda key: sample_ensemble(key, draw, 7, batch=batch))(jax.random.key(2))
    expected = [draw(jax.random.fold_in(jax.random.key(2), i)) for i in range(7)]
    np.testing.assert_array_equal(found, np.stack(expected))
