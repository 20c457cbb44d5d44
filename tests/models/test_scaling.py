"""Training on many devices, in parts, with a shared state and in bfloat16, against one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import CosineSchedule
from slams_jax.errors import InputError
from slams_jax.mesh import place
from slams_jax.models import score
from slams_jax.models.cost import collectives_in
from slams_jax.models.score import ScoreConfig
from slams_jax.networks import compiler_options
from slams_jax.training import (
    OptimiserConfig,
    batch_mesh,
    data_mesh,
    init_state,
    make_step,
    shard_batch,
    state_spec,
)
from slams_jax.training.devices import SMALLEST

pytestmark = pytest.mark.optimised  # what the compiler sends and keeps

CONFIG = ScoreConfig(window=3, channels=2, widths=(16,), blocks=1, embedding=8, prediction="v")
SCHEDULE = CosineSchedule()
OPTIMISER = OptimiserConfig(steps=10, learning_rate=1e-2, weight_decay=0.01)
WINDOWS = np.random.default_rng(0).normal(size=(16, 3, 8, 8, 2)).astype(np.float32)


def prepare(key, batch):
    return score.noisy(CONFIG, SCHEDULE, key, batch)


def loss_fn(params, model_state, key, batch):
    value, info = score.error(CONFIG, params, batch)
    return value, (model_state, info)


def init_fn(key):
    """Parameters with nothing left at zero, so that every path counts."""
    noise = np.random.default_rng(9)
    params = score.init(CONFIG, key, (8, 8))
    return jax.tree.map(lambda x: x + 0.1 * noise.normal(size=x.shape).astype("f4"), params), {}


def trained(devices, **options):
    """State and info after three steps on so many devices, and the program of the step."""
    mesh = data_mesh(jax.devices()[:devices])
    spec = state_spec(mesh, sharded=options.get("sharded", False))
    state = place(init_state(jax.random.key(3), init_fn, OPTIMISER), mesh, spec)
    step = make_step(
        loss_fn,
        OPTIMISER,
        mesh=mesh,
        prepare=prepare,
        compiler_options=compiler_options() or None,
        **options,
    )
    batch = shard_batch(WINDOWS, mesh)
    program = step.lower(state, batch).compile()
    for _ in range(3):
        state, info = program(state, batch)
    return state, info, program


@pytest.fixture(scope="module")
def alone():
    return trained(1)


def large(params):
    return [p for p in jax.tree.leaves(params) if p.size >= SMALLEST]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "options"),
    [
        (8, {}),
        (8, {"sharded": True}),
        (2, {"accumulate": 2, "sharded": True}),
    ],
)
def test_parameters_are_those_of_one_device(alone, devices, options):
    state, info, program = trained(devices, **options)
    for name in ("params", "ema"):
        pairs = zip(*(jax.tree.leaves(getattr(s, name)) for s in (state, alone[0])), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(info["loss"], alone[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(info["grad_norm"], alone[1]["grad_norm"], rtol=1e-4)
    found = collectives_in(program.as_text())
    size = 4 * sum(p.size for p in jax.tree.leaves(state.params))
    # Every gradient is summed once, with the loss and what is logged, and nothing else is told.
    count, summed = found["all-reduce"]
    assert 0 < summed - size < 256
    if options.get("sharded"):
        shared = large(state.params)
        assert found["all-gather"] == (len(shared), 4 * sum(p.size for p in shared))
        # The norm of the gradient needs a second sum; the first may be done as gradients come.
        assert 2 <= count <= 1 + len(shared)
        assert set(found) == {"all-reduce", "all-gather"}
    else:
        assert count == 1
        assert set(found) == {"all-reduce"}


def test_shared_states_take_their_part_of_the_memory():
    mesh = data_mesh()
    state = place(
        init_state(jax.random.key(3), init_fn, OPTIMISER), mesh, state_spec(mesh, sharded=True)
    )
    adam = next(
        s
        for s in jax.tree.leaves(state.opt_state, is_leaf=lambda s: hasattr(s, "mu"))
        if hasattr(s, "mu")
    )
    for tree in (state.params, state.ema, adam.mu, adam.nu):
        assert large(tree)
        for x in large(tree):
            assert x.addressable_shards[0].data.size == x.size // 8


def test_parts_must_divide_a_batch():
    assert batch_mesh(16, accumulate=4).devices.size == 4
    for accumulate in (0, 3):
        with pytest.raises(InputError, match=f"must divide the batch of 16, got {accumulate}"):
            batch_mesh(16, accumulate=accumulate)


@pytest.mark.slow
def test_bfloat16_computes_and_float32_remembers():
    config = ScoreConfig(**{**vars(CONFIG), "compute": "bfloat16"})
    params, _ = init_fn(jax.random.key(0))
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    batch = prepare(jax.random.key(1), jnp.asarray(WINDOWS[:4]))
    loss = lambda config: jax.jit(jax.value_and_grad(lambda p: score.error(config, p, batch)[0]))
    (half, grads), (full, exact) = (loss(c)(params) for c in (config, CONFIG))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, rtol=2e-2)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        assert np.linalg.norm(a - b) <= 0.1 * np.linalg.norm(b) + 1e-6
    assert not np.array_equal(half, full)
    lowered = jax.jit(lambda x, t: score.predict(config, params, x, t)).lower(
        batch["inputs"], batch["t"]
    )
    convolutions = [
        line for line in lowered.as_text().splitlines() if "stablehlo.convolution" in line
    ]
    assert convolutions
    assert all("bf16" in line and "f32" not in line.replace("bf16", "") for line in convolutions)
