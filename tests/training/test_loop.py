import json

import grain
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from slams_jax.errors import InputError, RunError
from slams_jax.training import (
    OptimiserConfig,
    data_mesh,
    init_state,
    learning_rate_schedule,
    make_optimiser,
    make_step,
    read_metrics,
    replicated,
    restore_model,
    restore_run,
    shard_batch,
)
from support.training_problem import (
    assert_same,
    data,
    init_fn,
    loader,
    loss_fn,
    optimiser,
    predict,
    train,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 1e3}, "steps must be an integer, got 1000.0"),
        ({"warmup_steps": 10}, r"warmup_steps must be in \[0, steps=10\), got 10"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"decay": "exponential"}, "decay must be one of .*'cosine'.*, got 'exponential'"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or positive"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, or None, got 0.0"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        ({"b1": -0.1}, "b1 must be"),
        ({"b2": 1.0}, "b2 must be"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
    ],
)
def test_optimiser_out_of_range(changes, message, monkeypatch):
    # As users run it: without the type checks of the tests, which would refuse some before.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        OptimiserConfig(**{"steps": 10, **changes})


@pytest.mark.parametrize(
    ("decay", "middle", "end"),
    [("linear", 0.05, 0.0), ("cosine", 0.05, 0.0), ("constant", 0.1, 0.1)],
)
def test_learning_rate_warms_up_and_decays(decay, middle, end):
    config = OptimiserConfig(steps=24, learning_rate=0.1, warmup_steps=4, decay=decay)
    with jax.numpy_dtype_promotion("standard"):
        schedule = learning_rate_schedule(config)
        rates = [float(schedule(np.int32(n))) for n in (0, 2, 4, 14, 24)]
    np.testing.assert_allclose(rates, [0.02, 0.06, 0.1, middle, end], rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_weight_decay_acts_on_kernels_only():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    config = OptimiserConfig(steps=9, learning_rate=0.1, decay="constant", weight_decay=0.5)
    transformation = make_optimiser(config)
    with jax.numpy_dtype_promotion("standard"):
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = transformation.update(zeros, transformation.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0.0)


@pytest.mark.parametrize(("clip", "norm"), [(2.0, 2.0), (20.0, 10.0), (None, 10.0)])
def test_gradients_are_clipped_by_their_global_norm(clip, norm):
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    grads = {"a": jnp.array([5.0, 5.0]), "b": jnp.array([5.0, -5.0])}
    transformation = make_optimiser(OptimiserConfig(steps=9, clip_norm=clip, b1=0.0))
    with jax.numpy_dtype_promotion("standard"):
        _, state = transformation.update(grads, transformation.init(params), params)
    mean = optax.tree.get(state, "mu")  # with b1 = 0 the gradient that AdamW saw
    np.testing.assert_allclose(optax.tree.norm(mean), norm, rtol=1e-6)


def steps_on(devices, count=6, ema_decay=0.9):
    """States and infos of a few steps on so many devices, copied to the host."""
    mesh = data_mesh(jax.devices()[:devices])
    config = optimiser(ema_decay=ema_decay, weight_decay=0.01)
    state = jax.device_put(init_state(jax.random.key(3), init_fn, config), replicated(mesh))
    step = make_step(loss_fn, config, mesh=mesh)
    history = [jax.device_get(state._replace(key=jax.random.key_data(state.key)))]
    infos = []
    for batch, _ in zip(loader(), range(count), strict=False):
        state, info = step(state, shard_batch(batch, mesh))
        history.append(jax.device_get(state._replace(key=jax.random.key_data(state.key))))
        infos.append(jax.device_get(info))
    return history, infos


@pytest.mark.slow
def test_eight_devices_give_the_parameters_of_one():
    one, infos_one = steps_on(1)
    for devices in (2, 8):
        many, infos_many = steps_on(devices)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
        for a, b in zip(infos_one, infos_many, strict=True):
            np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    moved = np.abs(one[-1].params["out"]["kernel"] - one[0].params["out"]["kernel"])
    assert np.all(moved > 1e-3)


@pytest.mark.slow
def test_average_follows_with_its_warm_up():
    history, _ = steps_on(1, ema_decay=0.25)
    average = history[0].params["out"]["kernel"]
    np.testing.assert_array_equal(history[0].ema["out"]["kernel"], average)
    for n, state in enumerate(history[1:], start=1):
        decay = min(0.25, (1 + n) / (10 + n))  # the bound holds for one step, then the decay
        average = decay * average + (1 - decay) * state.params["out"]["kernel"]
        np.testing.assert_allclose(state.ema["out"]["kernel"], average, rtol=1e-5, atol=1e-7)


def test_step_compiles_once_and_donates_its_state():
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    mesh = data_mesh()
    config = optimiser()
    state = jax.device_put(init_state(jax.random.key(0), init_fn, config), replicated(mesh))
    step = make_step(loss_fn, config, mesh=mesh)
    batch = shard_batch(next(iter(loader())), mesh)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        after, _ = step(state, batch)
        first = len(compiled)
        with jax.transfer_guard("disallow"):
            jax.block_until_ready(step(after, batch))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert first == len(compiled) == 1
    for before in (state, after):
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


@pytest.mark.slow
def test_fixed_arrays_are_arguments_of_the_program():
    """A closure copies them into it; the step is the same."""
    table = jnp.linspace(0.0, 1.0, 10_000)
    shifted = lambda key, batch, table: {n: x + jnp.mean(table) for n, x in batch.items()}
    config, mesh = optimiser(), data_mesh(jax.devices()[:1])
    batch = shard_batch(next(iter(loader())), mesh)
    losses, sizes = [], []
    for prepare, fixed in (
        (shifted, (jax.device_put(table, replicated(mesh)),)),
        (lambda key, batch: shifted(key, batch, table), ()),
    ):
        state = jax.device_put(init_state(jax.random.key(0), init_fn, config), replicated(mesh))
        step = make_step(loss_fn, config, mesh=mesh, prepare=prepare, fixed=len(fixed))
        sizes.append(len(step.lower(state, batch, *fixed).as_text()))
        losses.append(step(state, batch, *fixed)[1]["loss"])
    assert sizes[1] > sizes[0] + 7 * table.size
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.slow
def test_each_step_draws_from_its_own_key():
    def noisy(params, model_state, key, batch):
        loss, (model_state, _) = loss_fn(params, model_state, key, batch)
        return loss, (model_state, {"draw": jax.random.normal(key)})

    config = optimiser()
    state = init_state(jax.random.key(0), init_fn, config)
    key = jax.random.clone(state.key)
    expected = [jax.random.normal(jax.random.fold_in(key, n)) for n in range(3)]
    step, mesh = make_step(noisy, config), data_mesh()
    state = jax.device_put(state, replicated(mesh))
    for n, batch in zip(range(3), loader(), strict=False):
        state, info = step(state, shard_batch(batch, mesh))
        np.testing.assert_allclose(info["draw"], expected[n], rtol=1e-6)


@pytest.mark.slow
def test_compiler_options_reach_the_compiler(tmp_path):
    options = {"xla_no_such_option": True}
    with pytest.raises(Exception, match="xla_no_such_option"):
        train(tmp_path, compiler_options=options)
    options = {"xla_cpu_enable_fast_math": False}
    train(tmp_path, compiler_options=options, optimiser=optimiser(steps=4), validate=None)


@pytest.mark.slow
def test_run_learns_and_writes_its_metrics(tmp_path, caplog):
    with caplog.at_level("INFO"):
        state = train(tmp_path, optimiser=optimiser(steps=50, learning_rate=0.05))
    assert int(state.step) == 50
    assert float(state.model_state["count"]) == 50
    x, y = data()
    error = np.mean((np.asarray(predict(state.ema, x)) - y) ** 2)
    assert error < 0.3 * np.mean(y**2)

    records = read_metrics(tmp_path / "metrics.jsonl")
    steps = [r["step"] for r in records]
    due = sorted({*range(3, 51, 3), *range(4, 51, 4), 50})
    assert steps == due
    logged = [r for r in records if "loss" in r]
    assert [r["step"] for r in logged] == [*range(3, 51, 3), 50]
    assert all(r["samples_per_second"] > 0 for r in logged)
    assert [r["step"] for r in records if "validation/loss" in r] == [*range(4, 51, 4), 50]
    assert records[-1]["validation/loss"] == pytest.approx(error, rel=1e-5)
    assert list((tmp_path / "tensorboard").glob("events*"))
    line = next(r.message for r in caplog.records if r.message.startswith("step 48/50"))
    assert all(word in line for word in ("loss", "samples/s", "0:00:0", "left"))
    assert not any("orbax" in r.pathname for r in caplog.records)


@pytest.mark.slow
def test_records_hold_the_means_of_their_interval(tmp_path):
    def counting(params, model_state, key, batch):
        loss, (model_state, _) = loss_fn(params, model_state, key, batch)
        return loss, (model_state, {"count": model_state["count"]})

    train(tmp_path, loss_fn=counting, log_every=4, optimiser=optimiser(steps=10), validate=None)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["count"]) for r in records] == [(4, 2.5), (8, 6.5), (10, 9.5)]


@pytest.mark.slow
def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    # The sample is drawn once in the 8 batches of an epoch: in which one is found here.
    x, _ = data()
    order = [np.asarray(batch["x"]) for batch, _ in zip(loader(), range(16), strict=False)]
    seen = [n for n, batch in enumerate(order, 1) if np.any(np.all(batch == x[5][None], axis=1))]
    bad = seen[0] if seen[0] > 3 else seen[1]
    start = 0 if bad == seen[0] else 8
    source = loader(spoil=5)
    batches = iter(source)
    for _ in range(start):
        next(batches)
    step = bad - start
    with pytest.raises(RunError, match=rf"loss is nan at step {step} \(the last good") as error:
        train(tmp_path, loader=batches, checkpoint_every=2, validate=None, log_every=5)
    assert "\n" not in str(error.value)
    good = (step - 1) // 2 * 2
    assert f"of step {good}," in str(error.value)
    params, model_state, _, _ = restore_model(tmp_path, "last")
    assert float(model_state["count"]) == good
    assert all(np.all(np.isfinite(p)) for p in jax.tree.leaves(params))
    assert all(r["step"] < step for r in read_metrics(tmp_path / "metrics.jsonl"))


@pytest.mark.slow
def test_finished_run_is_returned_at_once(tmp_path):
    state = train(tmp_path, optimiser=optimiser(steps=4))

    def untouched(*_):
        raise AssertionError("a finished run trains no more")

    again = train(tmp_path, optimiser=optimiser(steps=4), loss_fn=untouched, loader=[])
    assert_same(state, again)


@pytest.mark.slow
def test_a_run_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    train("~/run", optimiser=optimiser(steps=4))
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    assert read_metrics("~/run/metrics.jsonl") == read_metrics(tmp_path / "run" / "metrics.jsonl")
    both = (restore_model(run)[0] for run in ("~/run", tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, *both)
    assert restore_run("~/run").step == 4


@pytest.mark.slow
def test_a_batch_that_does_not_divide_uses_fewer_devices(tmp_path):
    state = train(
        tmp_path, loader=loader(6), optimiser=optimiser(steps=3), validate=None, devices=None
    )
    assert len(state.params["out"]["kernel"].sharding.device_set) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"log_every": 0}, InputError, "log_every must be at least 1, got 0"),
        ({"validate_every": 0}, InputError, "validate_every must be at least 1, got 0"),
        ({"checkpoint_every": -1}, InputError, "checkpoint_every must be at least 1"),
        ({"metadata": {"config": {1, 2}}}, InputError, "metadata must hold what JSON can"),
        ({"validate": lambda p, m: {"error": 1.0}}, InputError, r"\"loss\".*got \['error'\]"),
        ({"loader": grain.MapDataset.range(0)}, RunError, "the loader ended"),
    ],
)
def test_bad_arguments(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(tmp_path, **changes)


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file/run"):
        train(tmp_path / "file" / "run")


def test_torn_record_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
