"""Significance of score differences: a paired block bootstrap over time."""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

from slams_jax.errors import InputError

SAMPLES = 2000
FEWEST = 4  # smallest number of blocks in a series


class Difference(NamedTuple):
    """Difference in score between two systems over the same times, first minus second.

    Attributes:
        value: (channel,), units of the score.
        low: lower end of the confidence interval (channel,).
        high: upper end of the confidence interval (channel,).
        p_value: two-sided, for the hypothesis of no difference (channel,).
        block: length of the blocks, in times.
    """

    value: Float[np.ndarray, " channel"]
    low: Float[np.ndarray, " channel"]
    high: Float[np.ndarray, " channel"]
    p_value: Float[np.ndarray, " channel"]
    block: int


def paired_difference(
    first: Float[np.ndarray, "time channel"],
    second: Float[np.ndarray, "time channel"],
    *,
    root: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Difference of two mean scores, its confidence interval and its p-value.

    The same random blocks of times, on a circle (Politis and Romano 1992), are drawn for both
    systems, so that common difficulties cancel and correlated times stay together. `block_length`
    gives their length. With few blocks, the resampled differences scatter too little, which
    `_widening` corrects. The interval is symmetric (Hall 1988), value ± the quantile of
    |deviation|; the p-value is the frequency of deviations as large as the value.

    Args:
        first: mean score at each time, averaged over area (time, channel).
        second: scores of the other system at the same times.
        root: the scores are mean squares, and the difference is that of their roots.
        confidence: of the interval.
        seed: of the resampling.

    Raises:
        InputError: scores of different shapes, or at fewer than `FEWEST` times.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or len(first) < FEWEST:
        raise InputError(
            f"paired scores need equal shapes and at least {FEWEST} times, got {first.shape} and "
            f"{second.shape}"
        )
    value_of = np.sqrt if root else (lambda mean: mean)
    means = first.mean(axis=0), second.mean(axis=0)
    value = value_of(means[0]) - value_of(means[1])
    # The contribution of each time to the difference, to first order; its correlation in time
    # determines the length of the blocks.
    slope = [0.5 / np.sqrt(np.maximum(m, 1e-30)) if root else 1.0 for m in means]
    memory = correlation(first * slope[0] - second * slope[1])
    block = block_length(len(first), float(np.nanmedian(memory)))
    drawn = _block_counts(np.random.default_rng(seed), len(first), block)
    deviation = np.abs(value_of(drawn @ first) - value_of(drawn @ second) - value)
    deviation = deviation * _widening(len(first), block, memory, confidence)
    reach = np.quantile(deviation, confidence, axis=0)
    p_value = (1.0 + (deviation >= np.abs(value)).sum(axis=0)) / (SAMPLES + 1.0)
    return Difference(value, value - reach, value + reach, p_value, block)


def correlation(series: Float[np.ndarray, "time channel"]) -> Float[np.ndarray, " channel"]:
    """Lag-one autocorrelation, in [0, 0.95], corrected for the bias of short series.

    An estimate from n times is too small by (1 + 3ρ)/n (Kendall 1954). A constant series counts as
    uncorrelated.
    """
    series = np.asarray(series, np.float64)
    departure = series - series.mean(axis=0)
    square = (departure**2).sum(axis=0)
    nearest = (departure[1:] * departure[:-1]).sum(axis=0) / np.where(square > 0, square, 1.0)
    number = len(series)
    return np.clip((number * nearest + 1.0) / (number - 3.0), 0.0, 0.95)


def block_length(number: int, memory: float) -> int:
    """Block length for n times with autocorrelation ρ, at most a quarter of them.

        l = (n - l + 1)^(2/3 (1 - n'/n)) ,   n' = n (1 - ρ)/(1 + ρ)

    Wilks 1997, J. Climate 10, 65-82, eq. 19, solved by iteration.
    """
    exponent = 2.0 / 3.0 * (1.0 - (1.0 - memory) / (1.0 + memory))
    length = 1.0
    for _ in range(100):
        length = (number - length + 1.0) ** exponent
    return int(np.clip(round(length), 1, number // FEWEST))


def _block_counts(rng: np.random.Generator, number: int, block: int) -> np.ndarray:
    """Weight of each time in each resampled mean (sample, time)."""
    starts = rng.integers(0, number, (SAMPLES, -(-number // block)))
    index = (starts[..., None] + np.arange(block)) % number
    index = index.reshape(SAMPLES, -1)[:, :number]
    counts = np.zeros((SAMPLES, number))
    np.add.at(counts, (np.arange(SAMPLES)[:, None], index), 1.0)
    return counts / number


def _widening(number: int, block: int, memory: np.ndarray, confidence: float) -> np.ndarray:
    """Factor by which deviations of resampled means are too small, (channel,).

    For a first-order autoregressive series, the variance of the mean is σ² v / n with v from all
    lags, while resampled blocks include only the lags within a block, minus the loss v l / n due to
    the mean of the series. The second factor is the ratio of the tails of Student's t and of the
    Gaussian for n / v independent times.
    """
    lags, within = np.arange(1, number)[:, None], np.arange(1, block)[:, None]
    v = 1.0 + 2.0 * ((1.0 - lags / number) * memory**lags).sum(axis=0)
    in_blocks = (
        1.0 + 2.0 * ((1.0 - within / block) * memory**within).sum(axis=0) - v * block / number
    )
    tail = 0.5 + 0.5 * confidence
    freedom = np.maximum(number / v - 1.0, 2.0)
    heavy = scipy.special.stdtrit(freedom, tail) / scipy.special.ndtri(tail)
    return np.sqrt(v / np.maximum(in_blocks, 0.1)) * heavy
