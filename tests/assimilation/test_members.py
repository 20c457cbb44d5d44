"""An ensemble that is drawn part by part, and goes on where it was killed."""

import errno
import os

import jax
import numpy as np
import pytest

from slams_jax.assimilation.analysis import ComputeConfig, assimilate
from slams_jax.assimilation.members import INDEX, STATES, MemberStore, holds_members
from slams_jax.data import climatology
from slams_jax.data.channels import unstack_channels
from slams_jax.diffusion import SamplerConfig
from slams_jax.errors import RunError
from slams_jax.mesh import analysis_mesh
from support.small_model import BIAS, CHANNELS, GRID, times

MEMBERS = 5


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def analyse(state_model):
    """An analysis of five members, two at a time, with any argument changed."""
    model = state_model
    truth = climatology(model.statistics["state"], times()) + BIAS
    states = np.broadcast_to(truth, (len(times()), *GRID.shape, 3)).astype(np.float32)
    background = unstack_channels(
        states[None], CHANNELS, times(), GRID.latitude, GRID.longitude
    ).isel(member=0)
    mesh = analysis_mesh(MEMBERS, devices=jax.devices()[:1])

    def run(keep, seed=3, members=MEMBERS, shift=0.0):
        return assimilate(
            model,
            background + shift,
            [],
            members=members,
            key=jax.random.key(seed),
            sampler=SamplerConfig(steps=4),
            compute=ComputeConfig(mesh=mesh, member_batch=2, keep=keep),
        )

    return run


@pytest.fixture(scope="module")
def straight(analyse):
    return analyse(None)


@pytest.fixture
def parts(monkeypatch):
    """The parts that are written, one after the other; ends the process before some of them."""
    original, written = MemberStore.put, []

    def put(self, first, states, note):
        if first == put.kill_at:
            raise Killed
        written.append(first)
        original(self, first, states, note)

    put.kill_at = None
    monkeypatch.setattr(MemberStore, "put", put)
    return put, written


def assert_equal(a, b):
    np.testing.assert_array_equal(a["temperature"].values, b["temperature"].values)
    for name in ("evaluations", "diagnostics", "streams"):
        assert a.attrs[name] == b.attrs[name]


@pytest.mark.slow
def test_members_that_are_there_are_not_drawn_again(analyse, straight, parts, tmp_path):
    put, written = parts
    put.kill_at = 4
    with pytest.raises(Killed):
        analyse(tmp_path)
    assert written == [0, 2]
    put.kill_at = None
    assert_equal(analyse(tmp_path), straight)
    assert written == [0, 2, 4]
    assert_equal(analyse(tmp_path), straight)
    assert written == [0, 2, 4]
    assert {p.name for p in tmp_path.iterdir()} == {STATES, INDEX}


def test_members_may_be_kept_in_the_home_folder(analyse, straight, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_equal(analyse("~/members"), straight)
    assert {p.name for p in (tmp_path / "members").iterdir()} == {STATES, INDEX}


def test_what_another_analysis_left_is_not_used(analyse, straight, parts, tmp_path):
    _, written = parts
    for change in ({"seed": 4}, {"shift": 0.1}, {"members": 4}, {}):
        written.clear()
        found = analyse(tmp_path, **change)
        assert written == [0, 2, 4][: -(-change.get("members", MEMBERS) // 2)]
    assert_equal(found, straight)


def test_damaged_members_are_drawn_again(analyse, straight, parts, tmp_path, caplog):
    _, written = parts
    analyse(tmp_path)
    written.clear()
    content = bytearray((tmp_path / STATES).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / STATES).write_bytes(content)
    assert_equal(analyse(tmp_path), straight)
    assert written == [2]
    assert "members 2 to 3 do not match their digest: drawn again" in caplog.text
    for damage in (content[:1000], b""):
        (tmp_path / STATES).write_bytes(damage)
        assert_equal(analyse(tmp_path), straight)
    (tmp_path / INDEX).write_text('{"identity": ')
    assert_equal(analyse(tmp_path), straight)
    assert written == [2, *[0, 2, 4] * 3]


def test_no_room_for_the_members_is_known_before_the_first(analyse, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"cannot hold the members, .* GiB in all \(No space left"):
        analyse(tmp_path)
    monkeypatch.undo()
    store = MemberStore(tmp_path, (2, 3), "x")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        store.put(0, np.ones((1, 3), np.float32), {})
    monkeypatch.undo()
    assert MemberStore(tmp_path, (2, 3), "x").get(0, 1) is None


def test_a_store_gives_back_what_was_put(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    store = MemberStore(tmp_path / "new", (5, 2, 4), "x")
    assert not holds_members(tmp_path / "new")
    store.put(2, rows, {"n": 1})
    assert holds_members(tmp_path / "new")
    np.testing.assert_array_equal(store.states[2:], rows)
    again = MemberStore(tmp_path / "new", (5, 2, 4), "x")
    assert again.get(2, 5) == {"n": 1}
    assert again.get(0, 2) is again.get(2, 4) is None
    assert MemberStore(tmp_path / "new", (5, 2, 4), "y").get(2, 5) is None
