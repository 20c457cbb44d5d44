import itertools

import numpy as np
import pytest

from slams_jax.data import window_loader, window_starts
from slams_jax.errors import InputError
from support.data_samples import times


def arrays(count=30):
    index = np.arange(count, dtype=np.float32)
    return {"state": index[:, None] * np.ones(2, dtype=np.float32), "number": index}


def take(loader, count):
    return [b["number"].copy() for b in itertools.islice(loader, count)]


def test_batches_of_consecutive_times():
    batch = next(window_loader(arrays(), length=4, batch_size=3, seed=0))
    assert batch["state"].shape == (3, 4, 2)
    np.testing.assert_array_equal(np.diff(batch["number"], axis=1), 1)
    np.testing.assert_array_equal(batch["state"][..., 1], batch["number"])


def test_order_depends_on_the_seed_alone():
    def run(seed):
        return np.stack(take(window_loader(arrays(), length=4, batch_size=3, seed=seed), 25))

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_every_epoch_holds_each_window_once_in_another_order():
    loader = window_loader(arrays(30), length=3, batch_size=7, seed=0)
    starts = np.concatenate([b[:, 0] for b in take(loader, 8)]).reshape(2, 28)
    for epoch in starts:
        assert sorted(epoch) == list(range(28))
    assert not np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], np.sort(starts[0]))


@pytest.mark.slow
@pytest.mark.parametrize("before", [0, 1, 5, 23])
def test_resumes_with_exactly_the_batches_that_follow(before):
    loader = window_loader(arrays(), length=3, batch_size=4, seed=3)
    take(loader, before)
    state = loader.get_state()
    expected = take(loader, 20)
    resumed = window_loader(arrays(), length=3, batch_size=4, seed=3)
    take(resumed, 2)
    resumed.set_state(state)
    np.testing.assert_array_equal(np.stack(take(resumed, 20)), np.stack(expected))


@pytest.mark.parametrize("count", [2, 3])
def test_shards_are_disjoint_and_together_complete(count):
    total = 24
    epochs = []
    for shard in range(count):
        loader = window_loader(
            arrays(total), length=1, batch_size=count, seed=5, shard_index=shard, shard_count=count
        )
        starts = np.concatenate(take(loader, 2 * total // count)).ravel()
        epochs.append(starts.reshape(2, total // count))
    for epoch in range(2):
        together = np.concatenate([shard[epoch] for shard in epochs])
        assert sorted(together) == list(range(total))
    assert not np.array_equal(epochs[0][0], epochs[0][1])


def test_processes_together_give_the_batches_of_one():
    """Beyond the end of an epoch that no batch divides, and resumed by another number of them."""
    alone = window_loader(arrays(13), length=1, batch_size=4, seed=5)
    pair = [
        window_loader(arrays(13), length=1, batch_size=4, seed=5, shard_index=i, shard_count=2)
        for i in range(2)
    ]
    expected = np.stack(take(alone, 12))
    found = np.concatenate([np.stack(take(part, 8)) for part in pair], axis=1)
    np.testing.assert_array_equal(found, expected[:8])
    resumed = window_loader(arrays(13), length=1, batch_size=4, seed=5)
    resumed.set_state(pair[1].get_state())
    np.testing.assert_array_equal(np.stack(take(resumed, 4)), expected[8:])


def test_without_shuffling_one_pass_in_order():
    loader = window_loader(arrays(10), length=2, batch_size=4, seed=0, shuffle=False)
    batches = [b["number"][:, 0].tolist() for b in loader]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_windows_stay_inside_the_span_and_cross_no_gap():
    when = np.concatenate([times(10), times(8, "2001-01-15"), times(3, "2001-01-23T06")])
    starts = window_starts(when, 21, length=4, span=slice(2, 20))
    # Of the second run only 10..17 is left, and 18, 19 come six hours late.
    assert starts.tolist() == [2, 3, 4, 5, 6, 10, 11, 12, 13, 14]
    loader = window_loader(
        {**arrays(21), "times": when}, length=4, batch_size=1, seed=0, times=when, span=slice(2, 20)
    )
    for batch in itertools.islice(loader, 20):
        assert batch["number"].min() >= 2
        assert batch["number"].max() < 20
        assert np.all(np.diff(batch["times"]) == np.timedelta64(24, "h"))
    assert window_starts(None, 21, length=4, span=slice(2, 20)).size == 15
    assert window_starts(when, 21, length=1, span=slice(2, 20)).size == 18


def test_transform_sees_one_window():
    def shifted(window):
        assert window["state"].shape == (3, 2)
        return {"z": window["state"] - window["number"][:1, None]}

    batch = next(window_loader(arrays(), length=3, batch_size=2, seed=0, transform=shifted))
    assert set(batch) == {"z"}
    np.testing.assert_array_equal(batch["z"][..., 0], [[0, 1, 2]] * 2)


def test_reads_memory_maps_and_gives_copies(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12.0, dtype=np.float32))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    batch = next(window_loader({"number": mapped}, length=2, batch_size=2, seed=0))
    assert type(batch["number"]) is np.ndarray
    batch["number"][:] = 0  # writable: not the file
    assert mapped[-1] == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "length of a window must be at least 1"),
        ({"length": 31}, "no 31 consecutive times among the 30"),
        ({"length": 5, "span": slice(3, 7)}, "no 5 consecutive times among the 4"),
        ({"span": slice(0, 20, 2)}, "step 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index"),
        ({"shard_count": 3}, "batch_size 2 cannot be divided among 3 processes"),
        ({"shard_count": 2, "shuffle": False}, "a single pass in order needs shard_count=1"),
        ({"times": times(29)}, "29 times do not match arrays of 30"),
        ({"arrays": {}}, "no arrays"),
        ({"arrays": {"a": np.zeros(30), "b": np.zeros(29)}}, "same number of times"),
    ],
)
def test_bad_input_gives_one_line(change, message):
    options = {"arrays": arrays(), "length": 3, "batch_size": 2, "seed": 0, **change}
    with pytest.raises(InputError, match=message) as caught:
        window_loader(options.pop("arrays"), **options)
    assert "\n" not in str(caught.value)
