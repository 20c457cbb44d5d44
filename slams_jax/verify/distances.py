"""Distances between distributions, the places of their values left out."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slams_jax.verify.points import AnyArray, Score

PAIRS = 4096  # vectors a side, above which every n-th is taken: memory grows with their square


def wasserstein(
    sample: Float[AnyArray, "*samples channel"], reference: Float[AnyArray, "*references channel"]
) -> Score:
    """1-D Wasserstein distance W1 between the pooled values of each channel.

        W1 = ∫₀¹ |F⁻¹(q) - G⁻¹(q)| dq

    For samples of one size that is the mean distance of the sorted values, the metric of SLAMS
    (Qu et al. 2024); for others the two staircases of quantiles are subtracted step by step. The
    places of the values do not enter: a draw from the climate scores well. Missing values (NaN)
    are left out of either sample. Computed on the host in float64: the sizes depend on the data.

    Args:
        sample: (..., channel), any number of values, e.g. members in front.
        reference: (..., channel).

    Returns:
        (channel,), units of the values; NaN for a channel with no value on a side.
    """
    columns = [np.asarray(a, np.float64).reshape(-1, a.shape[-1]).T for a in (sample, reference)]
    distances = [
        _quantile_distance(a[np.isfinite(a)], b[np.isfinite(b)])
        for a, b in zip(*columns, strict=True)
    ]
    return jnp.asarray(distances, dtype=jnp.float32)


def _quantile_distance(first: np.ndarray, second: np.ndarray) -> float:
    """W1 of two samples (n,) and (m,) through the coupling of their quantiles."""
    n, m = first.size, second.size
    if n == 0 or m == 0:
        return np.nan
    first, second = np.sort(first), np.sort(second)
    if n == m:
        return float(np.mean(np.abs(first - second)))
    # Probabilities in units of 1/(n m), whole numbers, so that no step is lost to rounding.
    steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    gap = np.abs(first[steps[:-1] // m] - second[steps[:-1] // n])
    return float(np.sum(gap * np.diff(steps)) / (n * m))


def energy_distance(
    sample: Float[AnyArray, "*samples channel"], reference: Float[AnyArray, "*references channel"]
) -> float:
    """Energy distance of two samples of vectors, e.g. profiles (Székely and Rizzo 2013).

        √(2 E|X - Y| - E|X - X'| - E|Y - Y'|)

    with Euclidean lengths of the whole last axis: zero if and only if both have one distribution,
    correlations between the channels included, which W1 of each channel does not see. Divide by
    `climatological_std` first, so that all channels count alike. Of more than `PAIRS` vectors a
    side every n-th is taken. J. Stat. Plan. Inference 143, 1249-1272.

    Args:
        sample: (..., channel), e.g. members in front; vectors with a value missing are left out.
        reference: (..., channel).

    Returns:
        Units of the values; NaN without a vector on a side.
    """
    x, y = (_vectors(np.asarray(a, np.float64)) for a in (sample, reference))
    if not (len(x) and len(y)):
        return np.nan
    from scipy.spatial.distance import cdist  # slow to import

    mean = lambda a, b: float(cdist(a, b).mean())
    return float(np.sqrt(max(2.0 * mean(x, y) - mean(x, x) - mean(y, y), 0.0)))


def _vectors(values: np.ndarray) -> np.ndarray:
    """The complete vectors (n, channel), thinned evenly to `PAIRS`."""
    vectors = values.reshape(-1, values.shape[-1])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    if len(vectors) <= PAIRS:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, PAIRS).round().astype(int)]
