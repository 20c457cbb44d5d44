r"""Variance of modes and its correlation in time.

A mode is a stationary process with the correlations c_0 = 1, c_1, ..., c_p that were estimated; at
larger lags it is the autoregressive process of order p that has them, the extension of maximum
entropy (Burg 1975). It is complex for a travelling wave: c_l = E[a(t + l) a(t)^*] / E[|a|^2].
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

PERSISTENCE = 0.995  # the largest partial autocorrelation: keeps processes stationary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Of the modes of one part; one mode stands for all of the part that have its statistics.

    Attributes:
        variance: of each mode.
        lags: correlations c_1, ..., c_p; none for modes that are independent in time.
    """

    variance: Float[Array, "block mode"]
    lags: Inexact[Array, "block mode lag"]

    def correlation(self, count: int) -> Inexact[Array, "block mode time time"]:
        """The correlation matrix of `count` consecutive times, E[a(s) a(t)^*] at [s, t]."""
        apart = np.arange(count)[:, None] - np.arange(count)[None, :]
        forward = _correlations(self.lags, count)[..., np.abs(apart)]
        return jnp.where(np.broadcast_to(apart >= 0, forward.shape), forward, forward.conj())


@functools.partial(jax.jit, static_argnames="count")
def _correlations(lags: Inexact[Array, "block mode lag"], count: int) -> Array:
    """c_0, ..., c_(count - 1), along the last axis."""
    one = jnp.ones(lags.shape[:-1], lags.dtype)
    order = lags.shape[-1]
    known = [lags[..., i] for i in range(order)]
    if not order:
        return jnp.stack([one] + [jnp.zeros_like(one)] * (count - 1), axis=-1)
    weights = jnp.stack(_levinson(known)[0], axis=-1)
    last = jnp.stack(known[::-1], axis=-1)  # newest first: c_l = sum_k weights_k c_(l - k)

    def extend(last: Array, _: None) -> tuple[Array, Array]:
        new = jnp.sum(weights * last, axis=-1)
        return jnp.concatenate([new[..., None], last[..., :-1]], axis=-1), new

    _, more = jax.lax.scan(extend, last, length=max(count - order - 1, 0))
    parts = [jnp.stack([one, *known], axis=-1), jnp.moveaxis(more, 0, -1)]
    return jnp.concatenate(parts, axis=-1)[..., :count]


def sample_lags(series: np.ndarray, times: np.ndarray, order: int) -> np.ndarray:
    """Correlations at lags 1 to `order` of series with one variance; a stationary process has them.

    Args:
        series: (block, time, mode), of mean zero; the modes are pooled if several share a row.
        times: steps at which they stand, whole numbers, ascending; pairs across a gap that is not
            the lag do not count.
        order: p.

    Returns:
        (block, mode, order).
    """
    power = np.mean(np.abs(series) ** 2, axis=1)
    raw = np.zeros((*power.shape, order), series.dtype)
    position = {int(t): i for i, t in enumerate(times)}
    for lag in range(1, order + 1):
        pairs = [(i, position[int(t) + lag]) for t, i in position.items() if t + lag in position]
        if len(pairs) > 1:
            first, later = np.array(pairs).T
            product = np.mean(series[:, later] * series[:, first].conj(), axis=1)
            raw[..., lag - 1] = product / np.maximum(power, np.finfo(np.float64).tiny)
    return stationary(raw)


def stationary(raw: np.ndarray) -> np.ndarray:
    """Correlations (..., lag) of a stationary process: the partial ones of `raw`, bounded."""
    known = [raw[..., i] for i in range(raw.shape[-1])]
    bound = lambda partial: partial * np.minimum(1, PERSISTENCE / np.maximum(np.abs(partial), 1e-9))
    return np.stack(_levinson(known, bound)[1], axis=-1) if known else raw


def _levinson(lags: list, bound: Callable = lambda partial: partial) -> tuple[list, list]:
    """The weights of the autoregressive process that has correlations c_1, ..., and these again.

    The recursion of Levinson (1947, J. Math. Phys. 25) and Durbin, for NumPy's arrays and JAX's.
    `bound` is applied to the partial autocorrelations.
    """
    weights, found, error = [], [], 1.0
    for lag in lags:
        predicted = sum((w * c for w, c in zip(weights, found[::-1], strict=True)), start=0 * lag)
        partial = bound((lag - predicted) / error)
        found.append(predicted + partial * error)
        weights = [w - partial * v.conj() for w, v in zip(weights, weights[::-1], strict=True)]
        weights.append(partial)
        error = error * (1.0 - (partial * partial.conj()).real).astype(lag.dtype)
    return weights, found
