import shutil
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import orbax.checkpoint as ocp
import pytest

from slams_jax.errors import InputError, RunError
from slams_jax.records import first_difference
from slams_jax.training import arrays, checkpoint, read_metrics, restore_model, restore_run
from support.training_problem import (
    CONFIG,
    STATISTICS,
    assert_same,
    init_fn,
    loader,
    loss_fn,
    optimiser,
    train,
    validate,
)


class Killed(BaseException):
    pass


def killed_at(step):
    """A validation in which the run dies, after records and checkpoints of other steps."""

    def check(params, model_state):
        if int(model_state["count"]) == step:
            raise Killed
        return validate(params, model_state)

    return check


def lasting(directory):
    """The records without what depends on the clock."""
    records = read_metrics(directory / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k != "samples_per_second"} for r in records]


def same_tree(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 20 steps without a stop, and its state. Copy it before changing it."""
    directory = tmp_path_factory.mktemp("straight")
    return directory, train(directory, checkpoint_every=10)


@pytest.fixture
def run(straight, tmp_path):
    return shutil.copytree(straight[0], tmp_path / "run")


@pytest.mark.slow
def test_resume_is_exact_to_the_bit(straight, tmp_path):
    directory, state = straight
    with pytest.raises(Killed):
        train(tmp_path, checkpoint_every=10, validate=killed_at(16))
    # It died after the records of 12 and 15 and the checkpoint of 10: those come again.
    assert [r["step"] for r in lasting(tmp_path)][-1] == 15
    assert float(restore_model(tmp_path, "last")[1]["count"]) == 10
    resumed = train(tmp_path, checkpoint_every=10)
    assert_same(state, resumed)
    assert lasting(tmp_path) == lasting(directory)
    for which in ("best", "last"):
        assert same_tree(restore_model(tmp_path, which)[:3], restore_model(directory, which)[:3])


@pytest.mark.slow
def test_resume_on_fewer_devices(straight, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, checkpoint_every=10, validate=killed_at(12))
    resumed = train(tmp_path, checkpoint_every=10, devices=jax.devices()[:2])
    for a, b in zip(
        jax.tree.leaves(straight[1].params), jax.tree.leaves(resumed.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_run_killed_before_its_first_checkpoint_starts_anew(straight, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, checkpoint_every=10, validate=killed_at(8))
    assert [r["step"] for r in lasting(tmp_path)] == [3, 4, 6]
    assert_same(straight[1], train(tmp_path, checkpoint_every=10))
    assert lasting(tmp_path) == lasting(straight[0])


def test_restored_model_is_what_was_trained(straight):
    directory, state = straight
    params, model_state, statistics, metadata = restore_model(directory, "last")
    assert same_tree(params, state.ema)
    assert not same_tree(params, state.params)
    assert same_tree(model_state, state.model_state)
    assert isinstance(params["out"]["kernel"], jax.Array)
    assert statistics["mean"].dtype == np.float64
    assert same_tree(statistics, STATISTICS)
    levels = list(CONFIG["model"]["levels"])
    assert metadata == {
        "config": {"model": {"width": 8, "levels": levels}, "name": "small"},
        "note": "kept",
    }


@pytest.mark.slow
def test_best_is_of_the_least_validation_loss(tmp_path):
    losses = {4: 3.0, 8: 1.0, 12: float("nan"), 16: 2.0, 20: 1.0}

    def check(params, model_state):
        return {"loss": losses[int(model_state["count"])]}

    train(tmp_path, validate=check)
    assert float(restore_model(tmp_path, "best")[1]["count"]) == 8
    assert float(restore_model(tmp_path, "last")[1]["count"]) == 20
    kept = {p.name for p in (tmp_path / "checkpoint" / "last").iterdir()}
    assert kept == {"15", "20"}
    values = [r["validation/loss"] for r in lasting(tmp_path) if "validation/loss" in r]
    assert values == [3.0, 1.0, None, 2.0, 1.0]


class Moments(NamedTuple):
    mean: np.ndarray
    std: np.ndarray


@pytest.mark.slow
def test_empty_and_odd_trees(tmp_path, caplog):
    def stateless(params, model_state, key, batch):
        loss, (_, info) = loss_fn(params, {"count": 0.0}, key, batch)
        return loss, ({}, info)

    short = {
        "loss_fn": stateless,
        "init_fn": lambda key: (init_fn(key)[0], {}),
        "optimiser": optimiser(steps=3),
        "validate": None,
        "metadata": None,
    }
    state = train(tmp_path / "a", **short, statistics=None)
    params, model_state, statistics, metadata = restore_model(tmp_path / "a")
    assert "no best checkpoint" in caplog.text
    assert same_tree(params, state.ema)
    assert (model_state, statistics, metadata) == ({}, {}, {})
    assert_same(state, train(tmp_path / "a", **short, statistics=None))

    moments = Moments(np.ones(2, np.float32), np.arange(3))
    train(tmp_path / "b", **short, statistics=(moments, [np.float32(5.0)]))
    statistics = restore_model(tmp_path / "b")[2]
    assert same_tree(Moments(**statistics["0"]), moments)
    assert statistics["1"]["0"] == 5.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metadata": {"config": {**CONFIG, "model": {"width": 9, "levels": [10, 50]}}}},
            "config.model.width is 8 there and 9 here",
        ),
        ({"metadata": {"config": {"name": "small"}}}, "config.model is set there"),
        ({"optimiser": optimiser(b1=0.5)}, "b1 is 0.9 there and 0.5 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
    ],
)
def test_checkpoint_of_another_run(run, changes, message):
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match=message) as error:
        train(run, **{"checkpoint_every": 10, **changes})
    assert "another directory, or start over with resume=False" in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(run.rglob("*")) == before


def test_checkpoint_of_another_model(run):
    def wider(key):
        params, model_state = init_fn(key)
        return {**params, "out": {"kernel": jnp.zeros((8, 2))}}, model_state

    with pytest.raises(InputError, match=r"ema.out.kernel is float32\[8, 1\] there and .*8, 2"):
        train(run, checkpoint_every=10, init_fn=wider)

    def more(key):
        params, model_state = init_fn(key)
        return {**params, "more": {"kernel": jnp.zeros((8, 2))}}, model_state

    with pytest.raises(InputError, match=r"it has no ema.more.kernel;"):
        train(run, checkpoint_every=10, init_fn=more)


@pytest.mark.slow
def test_start_over(run):
    state = train(run, optimiser=optimiser(steps=5, b1=0.5), resume=False)
    assert int(state.step) == 5
    assert [r["step"] for r in lasting(run)] == [3, 4, 5]
    assert {p.name for p in (run / "checkpoint" / "last").iterdir()} == {"5"}
    assert len(list((run / "tensorboard").glob("events*"))) == 1


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


# Orbax's reads that end after the failed one find their event loop closed, now and then too late
# for the library to hush them.
late_reads = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
DAMAGES = {
    "flip": flip,
    "cut": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "empty": lambda p: p.write_bytes(b""),
    "remove": lambda p: p.unlink(),
}


@pytest.mark.slow
@late_reads
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_restores_silently_wrong(run, damage, caplog):
    """Every file of everything that a run resumes from."""
    newest = run / "checkpoint" / "last" / "20"
    whole = shutil.copytree(newest, run / "whole")
    good = restore_run(run)
    shutil.rmtree(newest)
    before = restore_run(run)
    assert (good.step, before.step) == (20, 10)
    files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    fallen = set()
    for name in (n for n in files if (whole / n).stat().st_size):
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(whole, newest)
        DAMAGES[damage](newest / name)
        caplog.clear()
        found = restore_run(run)
        expected = good if found.step == 20 else before
        assert found.record == expected.record, name
        assert same_tree(found.items, expected.items), name
        if found.step == 10:
            fallen.add(name.parts[0])
            said = [r.message for r in caplog.records if r.name.startswith("slams_jax.")]
            assert len(said) == 1, name
            assert f"{newest} is damaged (" in said[0]
            assert "\n" not in said[0]
    assert fallen >= {"model", "state", "statistics", "record"}


def test_a_step_without_files_is_no_checkpoint(straight, run, caplog):
    (run / "checkpoint" / "last" / "30").mkdir()
    assert restore_run(run).step == 20
    assert "last/30 is damaged (" in caplog.text
    assert_same(straight[1], train(run, checkpoint_every=10))


def test_a_checkpoint_of_another_version_is_named(run, monkeypatch, caplog):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(RunError, match=r"last/10 is damaged \(its format is 1, .* reads 2\)"):
        restore_run(run)
    assert "last/20 is damaged (its format is 1, this version reads 2)" in caplog.text


@pytest.mark.slow
@late_reads
def test_resume_falls_back_to_the_previous_checkpoint(straight, run, caplog):
    last = run / "checkpoint" / "last"
    data = max((p for p in (last / "20" / "state").rglob("d/*")), key=lambda p: p.stat().st_size)
    flip(data)
    assert_same(straight[1], train(run, checkpoint_every=10))
    assert caplog.text.count("is damaged (") == 1
    assert lasting(run) == lasting(straight[0])
    assert (run / "checkpoint" / "damaged" / "20").is_dir()
    assert float(restore_model(run, "last")[1]["count"]) == 20


def test_damaged_best_falls_back_to_the_last(run, caplog):
    best = run / "checkpoint" / "best"
    for path in best.rglob("record/metadata"):
        flip(path)
    assert float(restore_model(run, "best")[1]["count"]) == 20
    assert "is damaged (" in caplog.text
    assert "using the last one" in caplog.text


def test_all_damaged_or_none(run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no checkpoint in .*nothing: train there first"):
        restore_model(tmp_path / "nothing")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=r'which must be "best" or "last", got .middle.'):
        restore_model(run, "middle")
    for path in run.rglob("record/metadata"):
        path.unlink()
    with pytest.raises(RunError, match=r"is damaged .* and there is no other"):
        restore_model(run, "best")
    with pytest.raises(RunError, match="start over with resume=False"):
        train(run, checkpoint_every=10)


@pytest.mark.slow
def test_bad_values_are_never_saved(tmp_path):
    def silent(params, model_state, key, batch):
        loss, (model_state, info) = loss_fn(params, model_state, key, batch)
        count = jnp.where(model_state["count"] > 7, jnp.nan, model_state["count"])
        return loss, ({"count": count}, info)

    with pytest.raises(
        RunError, match=r"model.model_state.count is not finite at step 10 .*of step 5,"
    ):
        train(tmp_path, loss_fn=silent, validate=None)


class Step(NamedTuple):
    step: int


@pytest.mark.parametrize(
    ("steps", "kept"),
    [([5, 10, 15], [10, 15]), ([5, 7, 8], [5, 7, 8]), ([5, 7, 8, 9], [5, 8, 9]), ([3], [3])],
)
def test_the_newest_on_the_interval_is_kept(steps, kept):
    policy = checkpoint._Newest(2, 5)
    found = policy.should_preserve([Step(n) for n in steps], context=None)
    assert [n for n, keep in zip(steps, found, strict=True) if keep] == kept


def test_the_next_interface_of_orbax_reads_the_checkpoints(straight):
    """Orbax 1.0 makes `v1` its only interface."""
    release = tuple(int(n) for n in version("orbax-checkpoint").split(".")[:2])
    if release < (0, 12):
        pytest.skip("v1 of this version of orbax does not read its own checkpoints yet")
    directory, _ = straight
    restored = restore_run(directory)
    read = ocp.v1.load_checkpointables(directory / "checkpoint" / "last" / str(restored.step))
    record = read.pop("record")
    del record["digest"]
    assert record == restored.record
    assert same_tree(read, dict(restored.items))


def test_first_difference_names_the_field():
    assert first_difference({"a": [1, 2]}, {"a": [1, 2]}) is None
    assert first_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == (
        "a.c is 2 there and 3 here"
    )
    assert first_difference({}, {"z": None}) == "z is not set there"


def test_digest_sees_a_bit_a_shape_and_a_dtype():
    tree = arrays.nested({"a": np.arange(6, dtype=np.float32), "b": [np.int32(1)]})
    described = arrays.manifest(tree)
    arrays.verify(tree, described, where="x")
    for change in (
        {"a": np.nextafter(tree["a"], 9, dtype=np.float32)},
        {"a": tree["a"].reshape(2, 3)},
        {"a": tree["a"].view(np.int32)},
        {"b": {}},
    ):
        with pytest.raises(arrays.Damage, match=r"x\.[ab].* does not match its digest"):
            arrays.verify({**tree, **change}, described, where="x")


@pytest.mark.slow
def test_loader_position_is_restored(tmp_path):
    seen = []

    class Watching:
        """A loader that tells where it was set to."""

        def __init__(self):
            self.batches = iter(loader())

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.batches)

        def get_state(self):
            return self.batches.get_state()

        def set_state(self, state):
            seen.append(state)
            self.batches.set_state(state)

    with pytest.raises(Killed):
        train(tmp_path, checkpoint_every=10, validate=killed_at(12))
    train(tmp_path, checkpoint_every=10, loader=Watching())
    assert seen == [{"next_index": 10}]
