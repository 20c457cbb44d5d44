"""The cost model against counts of compiled programs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from slams_jax.errors import InputError
from slams_jax.models import cost, score
from slams_jax.models.score import ScoreConfig
from slams_jax.networks import compiler_options

pytestmark = pytest.mark.optimised  # counts are those of optimised programs

CONFIG = ScoreConfig(window=3, channels=4, widths=(16, 32), blocks=1, embedding=16, prediction="v")
SHAPE, BATCH = (32, 64), 2


@pytest.fixture(scope="module")
def programs():
    """Forward pass and gradient of the loss, compiled."""
    params = score.init(CONFIG, jax.random.key(0), (8, 8))
    window = jax.ShapeDtypeStruct((BATCH, 3, *SHAPE, 4), jnp.float32)
    scale = jax.ShapeDtypeStruct((BATCH, 3, 1, 1, 1), jnp.float32)
    batch = {
        "inputs": window,
        "goal": window,
        "scale": scale,
        "t": jax.ShapeDtypeStruct((BATCH, 3), jnp.float32),
    }
    loss = lambda params, batch: score.error(CONFIG, params, batch)[0]
    options = compiler_options() or None
    compiled = lambda f: jax.jit(f, compiler_options=options).lower(params, batch).compile()
    return params, compiled(loss), compiled(jax.grad(loss))


def flops(program):
    return program.cost_analysis()["flops"]


@pytest.mark.slow
def test_counts_of_compiled_programs(programs):
    params, forward, gradient = programs
    one = cost.network_cost(CONFIG, SHAPE)
    step = cost.training_cost(CONFIG, SHAPE, batch=BATCH)
    assert one.parameters == sum(p.size for p in jax.tree.leaves(params))
    assert BATCH * one.flops == pytest.approx(flops(forward), rel=0.05)
    assert step.flops == pytest.approx(flops(gradient), rel=0.05)
    kept, alive = (4 * BATCH * n for n in (one.kept, one.alive))
    assert kept == pytest.approx(gradient.memory_analysis().temp_size_in_bytes, rel=0.25)
    assert alive == pytest.approx(forward.memory_analysis().temp_size_in_bytes, rel=0.25)
    assert step.traffic == pytest.approx(gradient.cost_analysis()["bytes accessed"], rel=0.25)


@pytest.mark.slow
def test_parameters_of_every_shape_of_network():
    for changes in (
        dict(widths=(8,)),
        dict(widths=(4, 8, 12), kernel=5),
        dict(coordinates="none", blocks=0),
        dict(coordinates="both", window=1),
        dict(frame_noise=False),
        dict(prediction="departure"),
    ):
        config = dataclasses.replace(CONFIG, **changes)
        shapes = jax.eval_shape(
            lambda key, c=config: score.init(c, key, (12, 12)), jax.random.key(0)
        )
        expected = sum(s.size for s in jax.tree.leaves(shapes))
        assert cost.network_cost(config, (12, 12)).parameters == expected


def test_devices_share_what_they_can():
    one = cost.training_cost(CONFIG, SHAPE, batch=32)
    many = cost.training_cost(CONFIG, SHAPE, batch=32, devices=8)
    shared = cost.training_cost(CONFIG, SHAPE, batch=32, devices=8, sharded=True)
    parts = cost.training_cost(CONFIG, SHAPE, batch=32, devices=8, accumulate=4)
    parameters = cost.network_cost(CONFIG, SHAPE).parameters
    assert one.sent == 0
    assert many.flops == parts.flops == one.flops / 8
    assert many.sent == 2 * 7 / 8 * 4 * parameters
    assert shared.sent == 1.5 * many.sent
    assert many.memory - shared.memory == 4 * parameters * (4 * 7 / 8 - 1)
    assert parts.memory < many.memory
    half = dataclasses.replace(CONFIG, compute="bfloat16")
    assert cost.training_cost(half, SHAPE, batch=32).traffic < 0.6 * one.traffic
    with pytest.raises(InputError, match="a batch of 32 does not divide over 8 devices in 3"):
        cost.training_cost(CONFIG, SHAPE, batch=32, devices=8, accumulate=3)


def test_the_slowest_limit_is_the_time():
    chip = cost.Chip("a", flops=1e3, memory=0.0, bandwidth=1e2, near=10.0, far=1.0, group=2)
    step = cost.StepCost(flops=2e3, memory=0.0, traffic=1e2, sent=5.0)
    assert cost.step_seconds(step, chip, devices=2) == pytest.approx(2.5)
    assert cost.step_seconds(step, chip, devices=4) == pytest.approx(7.0)
    assert cost.step_seconds(step, chip, devices=2, utilisation=0.5) == pytest.approx(4.5)


def test_collectives_are_read_from_a_program():
    text = """
      %a = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%x, %y), channel_id=1
      %b = f32[8]{0} all-gather-start(%z), dimensions={0}
      %c = f32[] all-reduce(%w), to_apply=%add
      %d = f32[3]{0} add(%all-reduce, %b)
    """
    assert cost.collectives_in(text) == {"all-reduce": (2, 36), "all-gather": (1, 32)}
