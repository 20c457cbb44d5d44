"""Runs that are asked to end, diverge, lose their disk or their data: nothing is lost."""

import errno
import os
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from slams_jax.data import window_loader
from slams_jax.errors import Diverged, InputError, Preempted, RunError
from slams_jax.storage import LOCK, locked
from slams_jax.training import board, metrics, read_metrics, restore_run
from slams_jax.training.preemption import watched
from support.training_problem import assert_same, data, loader, loss_fn, optimiser, train, validate


class Killed(BaseException):
    pass


def lasting(directory):
    records = read_metrics(directory / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k != "samples_per_second"} for r in records]


def at_step(step, act):
    """A validation in which something happens at a step."""

    def check(params, model_state):
        if int(model_state["count"]) == step:
            act()
        return validate(params, model_state)

    return check


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def die():
    raise Killed


def saved_steps(directory):
    return {int(p.name) for p in (directory / "checkpoint" / "last").iterdir()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    directory = tmp_path_factory.mktemp("straight")
    return directory, train(directory)


def assert_as_if_nothing_had_happened(run, straight):
    directory, state = run
    assert_same(state, straight[1])
    assert lasting(directory) == lasting(straight[0])
    ours, theirs = restore_run(directory), restore_run(straight[0])
    assert ours.record["arrays"] == theirs.record["arrays"]
    assert ours.record["data"] == theirs.record["data"]


# --- being asked to end ------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_saves_out_of_turn_and_the_run_goes_on(straight, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="at step 8 of 20, which is saved"):
        train(tmp_path, validate=at_step(8, terminate))
    assert signal.getsignal(signal.SIGTERM) is before
    assert saved_steps(tmp_path) == {5, 8}
    assert [r["step"] for r in lasting(tmp_path)] == [3, 4, 6, 8]
    with pytest.raises(Preempted, match="at step 12"):
        train(tmp_path, validate=at_step(12, terminate))
    # The newest two, and the newest on the interval.
    assert saved_steps(tmp_path) == {10, 12}
    assert_as_if_nothing_had_happened((tmp_path, train(tmp_path)), straight)


@pytest.mark.slow
def test_sigterm_before_the_first_step_ends_at_once(tmp_path):
    batches = loader()

    class Asking:
        def __iter__(self):
            terminate()
            return iter(batches)

    with pytest.raises(Preempted, match="at step 0 of 20"):
        train(tmp_path, loader=Asking())
    assert saved_steps(tmp_path) == set()


def test_another_thread_does_not_watch():
    answers = []

    def ask():
        with watched() as should_stop:
            answers.append(should_stop(3))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]


# --- two runs ----------------------------------------------------------------------------------


def test_two_runs_do_not_share_a_directory(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match=r"is in use by another run \(process"):
        train(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_goes_with_the_directories_that_it_made(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b") as directory:
        (directory / "result").write_text("")
    assert [p.name for p in directory.iterdir()] == ["result"]


def test_a_killed_run_leaves_no_lock(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time\n"
            "file = open(sys.argv[1], 'w')\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "print('locked', flush=True)\n"
            "time.sleep(600)",
            str(tmp_path / LOCK),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"locked\n"
        with (
            pytest.raises(InputError, match=r"is in use by another run \(unknown"),
            locked(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked(tmp_path):
        pass


def test_a_lock_in_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file.*choose another directory"):
        locked(tmp_path / "file").__enter__()


# --- disk and data -----------------------------------------------------------------------------


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refuse_as_tensorstore(*_, **__):
    # What a real full disk (a small tmpfs) gave.
    raise ValueError("RESOURCE_EXHAUSTED: Error writing: [OS error 28: No space left on device]")


class Full:
    """A file on a full disk, which takes half of what it is given."""

    def __init__(self, file):
        self.file = file

    def write(self, text):
        self.file.write(text[: len(text) // 2])
        refuse()

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["records", "board", "checkpoint"])
def test_a_full_disk_stops_the_run_and_it_goes_on_later(straight, tmp_path, monkeypatch, place):
    def fill():
        if place == "records":
            original = metrics.MetricsWriter.write

            def write(self, step, values):
                self._file = Full(self._file)
                original(self, step, values)

            monkeypatch.setattr(metrics.MetricsWriter, "write", write)
        elif place == "board":
            monkeypatch.setattr(board.RecordWriter, "write", refuse)
        else:
            monkeypatch.setattr(ocp.CheckpointManager, "save", refuse_as_tensorstore)

    with pytest.raises(RunError, match=r"(?i)no space left on") as error:
        train(tmp_path, validate=at_step(8, fill))
    assert str(tmp_path) in str(error.value)
    assert "the same run goes on from there" in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert restore_run(tmp_path).step == 5
    assert_as_if_nothing_had_happened((tmp_path, train(tmp_path)), straight)


@pytest.mark.slow
def test_data_that_are_lost_in_the_middle_of_an_epoch(tmp_path):
    path = tmp_path / "x.npy"
    x, y = data(256)
    np.save(path, x)
    whole = path.read_bytes()

    def batches():
        arrays = {"x": np.load(path, mmap_mode="r"), "y": y}
        first = lambda window: {name: rows[0] for name, rows in window.items()}
        return window_loader(arrays, length=1, batch_size=8, seed=0, transform=first)

    straight = (tmp_path / "a", train(tmp_path / "a", loader=batches()))
    # Cut, so that a page of the memory map would end the process.
    cut = at_step(8, lambda: os.truncate(path, 200))
    with pytest.raises(RunError, match=r"x.npy: truncated, it ends before row") as error:
        train(tmp_path / "b", loader=batches(), validate=cut)
    reached = restore_run(tmp_path / "b").step
    assert reached >= 8
    assert f"the last good checkpoint is of step {reached}," in str(error.value)
    assert lasting(tmp_path / "b")[-1]["step"] <= reached
    path.write_bytes(whole)
    again = train(tmp_path / "b", loader=batches())
    assert_as_if_nothing_had_happened((tmp_path / "b", again), straight)


# --- divergence --------------------------------------------------------------------------------


def spoiled(batch_number, value):
    """A loss that takes a value in every batch that holds a sample of one of them."""
    batches = [np.asarray(b["x"])[:, 0] for b, _ in zip(loader(), range(8), strict=False)]
    sample = batches[batch_number - 1][0]

    def loss(params, model_state, key, batch):
        loss, rest = loss_fn(params, model_state, key, batch)
        here = jnp.any(batch["x"][:, 0] == sample)
        return loss * jnp.where(here, value, 1.0), rest

    return loss


@pytest.mark.slow
def test_a_run_that_diverges_rolls_back_and_goes_on_with_other_data(tmp_path, caplog):
    options = {"loss_fn": spoiled(7, np.nan), "rollbacks": 4, "validate_every": 2}
    straight = (tmp_path / "a", train(tmp_path / "a", **options))
    history = restore_run(tmp_path / "a").record["rollbacks"]
    # Batch 7 comes at step 7, is seen at step 8, and the run goes on with batch 9 as its sixth.
    assert history[0] == {"to": 5, "reason": "loss is nan at step 7"}
    assert caplog.text.count("rolling back to step") == len(history)
    records = lasting(tmp_path / "a")
    assert [r["step"] for r in records] == sorted({*range(3, 21, 3), *range(2, 21, 2)})
    assert [r["rollbacks"] for r in records if r["step"] == 3] == [0]
    assert records[-1]["rollbacks"] == len(history)
    used = [np.asarray(b["x"]) for b, _ in zip(loader(), range(9), strict=False)]
    assert not any(np.array_equal(used[8], x) for x in used[:8])

    # It is the same run whether it is killed after the rollback, or asked to end before it.
    with pytest.raises(Killed):
        train(tmp_path / "b", validate=at_step(8, die), **options)
    assert_as_if_nothing_had_happened((tmp_path / "b", train(tmp_path / "b", **options)), straight)
    with pytest.raises(Preempted, match="at step 6"):
        train(tmp_path / "c", validate=at_step(6, terminate), **options)
    assert saved_steps(tmp_path / "c") == {5, 6}
    assert_as_if_nothing_had_happened((tmp_path / "c", train(tmp_path / "c", **options)), straight)


@pytest.mark.slow
def test_rollbacks_and_the_loss_have_their_limits(tmp_path):
    options = {"loss_fn": spoiled(2, 1e6), "validate": None, "optimiser": optimiser(steps=4)}
    state = train(tmp_path / "finite", **options)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    with pytest.raises(Diverged, match=r"loss is .* at step 2 \(no checkpoint yet.*lower the lear"):
        train(tmp_path / "stopped", loss_limit=1e3, **options)
    always = {**options, "loss_fn": spoiled(1, np.inf), "loader": loader(64)}
    with pytest.raises(Diverged, match="loss is inf at step 1"):
        train(tmp_path / "always", rollbacks=1, **always)
    with pytest.raises(InputError, match="rollbacks must be at least 0, got -1"):
        train(tmp_path / "negative", rollbacks=-1)
