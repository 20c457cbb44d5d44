"""Summary statistics of the fields of an archive, each read once in blocks of times."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from slams_jax.data.store import Field
from slams_jax.data.windows import read_rows

_CHUNK_BYTES = 2**26
_SAMPLE = 2**20  # values in a histogram, at most


class FieldSummary(NamedTuple):
    """Statistics of the known values of a field; physical units, or those of its transform."""

    minimum: np.ndarray  # (channel,)
    mean: np.ndarray  # (channel,), weighted by area
    maximum: np.ndarray  # (channel,)
    std: np.ndarray  # (channel,), weighted by area, about the mean
    missing: np.ndarray  # (channel,), share of the values
    missing_over_time: np.ndarray  # (time,), share of the values over all channels
    mean_map: np.ndarray  # (lat, lon, channel)


def field_summary(field: Field, weights: np.ndarray) -> FieldSummary:
    """Summarise a field.

    Args:
        field: of an archive.
        weights: relative area of the grid points (lat, lon).
    """
    shape = field.array.shape
    count, total, square = (np.zeros(shape[1:]) for _ in range(3))
    low, high = np.full(shape[3], np.inf), np.full(shape[3], -np.inf)
    missing_over_time, shift = np.zeros(shape[0]), np.zeros(shape[3])
    for start, block in _blocks(field.array):
        valid = np.isfinite(block)
        if start == 0:  # near the mean, so that squares lose no digits
            first = np.where(valid, block, 0.0).sum(axis=(0, 1, 2), dtype=np.float64)
            shift = first / np.maximum(valid.sum(axis=(0, 1, 2)), 1)
        low = np.minimum(low, np.min(block, axis=(0, 1, 2), initial=np.inf, where=valid))
        high = np.maximum(high, np.max(block, axis=(0, 1, 2), initial=-np.inf, where=valid))
        missing_over_time[start : start + len(block)] = 1.0 - valid.mean(axis=(1, 2, 3))
        departure = np.where(valid, block - shift, 0.0)
        count += valid.sum(axis=0)
        total += departure.sum(axis=0)
        square += np.einsum("tijc,tijc->ijc", departure, departure)
    area = np.asarray(weights, np.float64)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (area * total).sum((0, 1)) / (area * count).sum((0, 1))
        variance = (area * square).sum((0, 1)) / (area * count).sum((0, 1)) - mean**2
        mean_map = total / count + shift
    empty = count.sum((0, 1)) == 0
    return FieldSummary(
        minimum=np.where(empty, np.nan, low),
        mean=mean + shift,
        maximum=np.where(empty, np.nan, high),
        std=np.sqrt(np.maximum(variance, 0.0)),
        missing=1.0 - count.sum((0, 1)) / (shape[0] * shape[1] * shape[2]),
        missing_over_time=missing_over_time,
        mean_map=mean_map.astype(np.float32),
    )


def sample(field: Field, channel: int) -> np.ndarray:
    """Known values of a channel at evenly spaced times, float32 (value,), for a histogram."""
    per_time = field.array.shape[1] * field.array.shape[2]
    times = max(1, min(len(field.array), _SAMPLE // per_time))
    rows = np.unique(np.linspace(0, len(field.array) - 1, times).astype(int))
    values = np.stack([read_rows(field.array, int(r), int(r) + 1)[0, ..., channel] for r in rows])
    return values[np.isfinite(values)]


def _blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes) // 4)
    for start in range(0, len(array), step):
        yield start, read_rows(array, start, min(start + step, len(array)))
