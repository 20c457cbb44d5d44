"""Distances between distributions of values, regardless of position."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slams_jax.verify.points import AnyArray, Score

PAIRS = 4096  # vectors per sample; larger ones are thinned, since memory grows quadratically


def wasserstein(
    sample: Float[AnyArray, "*samples channel"], reference: Float[AnyArray, "*references channel"]
) -> Score:
    """1-D Wasserstein distance W1 between the pooled values of each channel.

        W1 = ∫₀¹ |F⁻¹(q) - G⁻¹(q)| dq

    For samples of equal size this is the mean distance of the sorted values, the metric of SLAMS
    (Qu et al. 2024); otherwise the two quantile functions are subtracted step by step. Position
    does not matter: a draw from the climatology scores well. Missing values (NaN) are ignored in
    both samples. Computed on the host in float64, since the sizes depend on the data.

    Args:
        sample: (..., channel), any number of values, for instance with members in front.
        reference: (..., channel).

    Returns:
        (channel,), units of the values; NaN for a channel without values in one of the samples.
    """
    columns = [np.asarray(a, np.float64).reshape(-1, a.shape[-1]).T for a in (sample, reference)]
    distances = [
        _quantile_distance(a[np.isfinite(a)], b[np.isfinite(b)])
        for a, b in zip(*columns, strict=True)
    ]
    return jnp.asarray(distances, dtype=jnp.float32)


def _quantile_distance(first: np.ndarray, second: np.ndarray) -> float:
    """W1 of two samples (n,) and (m,) from their quantiles."""
    n, m = first.size, second.size
    if n == 0 or m == 0:
        return np.nan
    first, second = np.sort(first), np.sort(second)
    if n == m:
        return float(np.mean(np.abs(first - second)))
    # Probabilities as integers, in units of 1/(n m), so that rounding loses no step.
    steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    gap = np.abs(first[steps[:-1] // m] - second[steps[:-1] // n])
    return float(np.sum(gap * np.diff(steps)) / (n * m))


def energy_distance(
    sample: Float[AnyArray, "*samples channel"], reference: Float[AnyArray, "*references channel"]
) -> float:
    """Energy distance between two samples of vectors such as profiles (Székely and Rizzo 2013).

        √(2 E|X - Y| - E|X - X'| - E|Y - Y'|)

    with Euclidean norms over the last axis. It is zero if and only if both distributions are equal,
    including correlations between channels, which W1 of each channel ignores. Divide by
    `climatological_std` first to give all channels equal weight. Samples of more than `PAIRS`
    vectors are thinned. J. Stat. Plan. Inference 143, 1249-1272.

    Args:
        sample: (..., channel), for instance with members in front; incomplete vectors are ignored.
        reference: (..., channel).

    Returns:
        Units of the values; NaN if one of the samples has no complete vector.
    """
    x, y = (_vectors(np.asarray(a, np.float64)) for a in (sample, reference))
    if not (len(x) and len(y)):
        return np.nan
    from scipy.spatial.distance import cdist  # slow to import

    mean = lambda a, b: float(cdist(a, b).mean())
    return float(np.sqrt(max(2.0 * mean(x, y) - mean(x, x) - mean(y, y), 0.0)))


def _vectors(values: np.ndarray) -> np.ndarray:
    """The complete vectors (n, channel), evenly thinned to `PAIRS`."""
    vectors = values.reshape(-1, values.shape[-1])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    if len(vectors) <= PAIRS:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, PAIRS).round().astype(int)]
