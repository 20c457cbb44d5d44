"""Windows of consecutive times, loaded by grain: deterministic, sharded and resumable."""

import mmap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from slams_jax.data.resample import usual_step
from slams_jax.errors import InputError, RunError
from slams_jax.mesh import cores
from slams_jax.readers.periods import check_times

if TYPE_CHECKING:
    import grain

Batch = dict[str, np.ndarray]


class _Windows:
    """Random access to the windows of arrays that share their first axis."""

    def __init__(self, arrays: Mapping[str, np.ndarray], starts: np.ndarray, length: int):
        self._arrays = dict(arrays)
        self._starts = starts
        self._length = length

    def __len__(self) -> int:
        return int(self._starts.size)

    def __getitem__(self, index: Any) -> Batch:
        start = int(self._starts[index])
        return {n: read_rows(a, start, start + self._length) for n, a in self._arrays.items()}


def read_rows(array: np.ndarray, start: int, stop: int) -> np.ndarray:
    """A copy of some rows of an array; those of a memory-mapped file are read from the file.

    An unreadable page of a memory map would kill the process without a message (SIGBUS).

    Raises:
        RunError: the file is gone, truncated or unreadable.
    """
    if not (isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)):
        return np.array(array[start:stop])
    rows = np.empty((stop - start, *array.shape[1:]), array.dtype)
    try:
        with open(str(array.filename), "rb") as file:
            file.seek(array.offset + start * array.strides[0])
            count = file.readinto(rows.data)
    except OSError as error:
        raise RunError(
            f"{array.filename}: cannot be read ({error.strerror or error}): start again"
        ) from error
    if count != rows.nbytes:
        raise RunError(
            f"{array.filename}: truncated, it ends before row {stop - 1} of {len(array)}: "
            "start again"
        )
    return rows


def window_starts(
    times: np.ndarray | None, size: int, *, length: int, span: slice = slice(None)
) -> np.ndarray:
    """First indices, int (window,), of every `length` consecutive times inside `span`.

    Args:
        times: datetime64 (time,), ascending; no window crosses a gap, that is a step other than
            the most frequent one. None means that there are no gaps.
        size: number of times.
        length: times in a window.
        span: slice of the times to which the windows are confined, step 1.

    Raises:
        InputError: a length below 1, or no window that fits.
    """
    if length < 1:
        raise InputError(f"the length of a window must be at least 1, got {length}")
    first, last, step = span.indices(size)
    if step != 1:
        raise InputError(f"span must have step 1, got {span}")
    starts = np.arange(first, last - length + 1)
    if times is not None and length > 1:
        times = check_times(times)
        if times.size != size:
            raise InputError(f"{times.size} times do not match arrays of {size}")
        gaps = np.concatenate([[0], np.cumsum(np.diff(times) != usual_step(times))])
        starts = starts[gaps[starts + length - 1] == gaps[starts]]
    if starts.size == 0:
        raise InputError(
            f"no {length} consecutive times among the {max(0, last - first)} of the period: "
            "shorten the window or lengthen the period"
        )
    return starts


def window_loader(
    arrays: Mapping[str, np.ndarray],
    *,
    length: int,
    batch_size: int,
    seed: int,
    times: np.ndarray | None = None,
    span: slice = slice(None),
    shuffle: bool = True,
    transform: Callable[[Batch], Batch] | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
) -> "grain.DatasetIterator":
    """Batches of windows of `arrays`.

    The order depends only on `seed`. The iterator's `get_state()` and `set_state()` resume it with
    exactly the batches that would have followed.

    Args:
        arrays: by name, (time, ...) each, with the same number of times; may be memory-mapped, and
            may include the times themselves for `transform`.
        length: number of times in a window.
        batch_size: number of windows in a batch, over all processes.
        seed: seed of the shuffling.
        times: datetime64 (time,); no window crosses a gap. None means that there are no gaps.
        span: slice of the times to which the windows are confined, as from `split_periods`.
        shuffle: iterate forever, in a new order each epoch; otherwise pass once in order, with a
            last batch that may be smaller (one process only).
        transform: applied to each window, {name: (length, ...)}, before batching; deterministic.
        shard_index: index of this process.
        shard_count: number of processes; each loads its part of every batch.

    Returns:
        An iterator of {name: (batch_size / shard_count, length, ...)}.

    Raises:
        InputError: arrays of different lengths, no window that fits, or numbers out of range.
    """
    import grain  # slow to import

    size = _checked_size(arrays)
    _check_batches(batch_size, seed, shuffle, shard_index, shard_count)
    starts = window_starts(times, size, length=length, span=span)
    windows, part = _Windows(arrays, starts, length), batch_size // shard_count

    def read(rows: np.ndarray) -> Batch:
        own = [windows[row] for row in rows[shard_index * part : (shard_index + 1) * part]]
        own = own if transform is None else [transform(window) for window in own]
        return {name: np.stack([window[name] for window in own]) for name in own[0]}

    # Indices are batched for all processes together, so that neither the order nor the position
    # in it depends on the number of processes.
    rows = grain.MapDataset.range(starts.size)
    if shuffle:
        rows = rows.seed(seed).shuffle().repeat()
    dataset = rows.batch(batch_size, drop_remainder=shuffle).map(read)
    # Reading and arithmetic on arrays let other threads run; a device that waits for two of them
    # is idle most of the time.
    options = grain.ReadOptions(num_threads=min(8, cores()), prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))


def _checked_size(arrays: Mapping[str, np.ndarray]) -> int:
    """The number of times that all arrays have."""
    if not arrays:
        raise InputError("no arrays to take windows from: give at least one")
    sizes = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"arrays must have the same number of times, got {sizes}")
    return next(iter(sizes.values()))


def _check_batches(
    batch_size: int, seed: int, shuffle: bool, shard_index: int, shard_count: int
) -> None:
    """Check the numbers that decide how windows are batched."""
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be in [0, 2**32), got {seed}")
    if shard_count > 1 and not shuffle:
        raise InputError("a single pass in order needs shard_count=1: shuffle, or use one process")
    if not 0 <= shard_index < shard_count:
        raise InputError(f"shard_index must be in [0, {shard_count}), got {shard_index}")
    if batch_size % shard_count:
        raise InputError(
            f"batch_size {batch_size} cannot be divided among {shard_count} processes: choose a "
            f"multiple of {shard_count}"
        )
