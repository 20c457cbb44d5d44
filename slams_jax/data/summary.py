"""What an archive holds, in numbers: read once, in blocks of times."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from slams_jax.data.store import Field
from slams_jax.data.windows import read_rows

_CHUNK_BYTES = 2**26
_SAMPLE = 2**20  # values that a histogram is of, at most


class Survey(NamedTuple):
    """Numbers of a field, over what is known of it; physical units, or those of its transform."""

    minimum: np.ndarray  # (channel,)
    mean: np.ndarray  # (channel,), by area
    maximum: np.ndarray  # (channel,)
    std: np.ndarray  # (channel,), by area, about the mean
    missing: np.ndarray  # (channel,), share of the values
    missing_over_time: np.ndarray  # (time,), share of the values of all channels
    mean_map: np.ndarray  # (lat, lon, channel)


def survey(field: Field, weights: np.ndarray) -> Survey:
    """The numbers of a field.

    Args:
        field: of an archive.
        weights: relative area of the points (lat, lon).
    """
    shape = field.array.shape
    count, total, square = (np.zeros(shape[1:]) for _ in range(3))
    low, high = np.full(shape[3], np.inf), np.full(shape[3], -np.inf)
    known_over_time = np.zeros(shape[0])
    shift = None  # near the mean, so that squares lose no digits
    for start, block in _blocks(field.array):
        known = np.isfinite(block)
        if shift is None:
            total_0 = np.where(known, block, 0.0).sum(axis=(0, 1, 2), dtype=np.float64)
            shift = total_0 / np.maximum(known.sum(axis=(0, 1, 2)), 1)
        low = np.minimum(low, np.min(block, axis=(0, 1, 2), initial=np.inf, where=known))
        high = np.maximum(high, np.max(block, axis=(0, 1, 2), initial=-np.inf, where=known))
        known_over_time[start : start + len(block)] = known.mean(axis=(1, 2, 3))
        departure = np.where(known, block - shift, 0.0)
        count += known.sum(axis=0)
        total += departure.sum(axis=0)
        square += np.einsum("tijc,tijc->ijc", departure, departure)
    assert shift is not None
    area = np.asarray(weights, np.float64)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (area * total).sum((0, 1)) / (area * count).sum((0, 1))
        variance = (area * square).sum((0, 1)) / (area * count).sum((0, 1)) - mean**2
        mean_map = total / count + shift
    nothing = count.sum((0, 1)) == 0
    return Survey(
        np.where(nothing, np.nan, low),
        mean + shift,
        np.where(nothing, np.nan, high),
        np.sqrt(np.maximum(variance, 0.0)),
        1.0 - count.sum((0, 1)) / (shape[0] * shape[1] * shape[2]),
        1.0 - known_over_time,
        mean_map.astype(np.float32),
    )


def sample(field: Field, channel: int) -> np.ndarray:
    """Known values of a channel at times spread over all, float32 (value,), for a histogram."""
    per_time = field.array.shape[1] * field.array.shape[2]
    times = max(1, min(len(field.array), _SAMPLE // per_time))
    rows = np.unique(np.linspace(0, len(field.array) - 1, times).astype(int))
    values = np.stack([read_rows(field.array, int(r), int(r) + 1)[0, ..., channel] for r in rows])
    return values[np.isfinite(values)]


def _blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes) // 4)
    for start in range(0, len(array), step):
        yield start, read_rows(array, start, min(start + step, len(array)))
