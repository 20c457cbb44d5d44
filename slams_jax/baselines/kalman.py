r"""The Kalman smoother: the exact posterior of a linear Gaussian state space.

    x_{k+1} = M x_k + q_k,  q_k ~ N(0, Q),      y_k = H_k x_k + e_k,  e_k ~ N(0, R),

with x_0 ~ N(m, P). The Kalman filter (1960) runs forward, the smoother of Rauch, Tung and Striebel
(1965, AIAA J. 3, 1445-1450) backward. Missing values are NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.errors import InputError


class Smoothed(NamedTuple):
    """The posterior of a trajectory given all observations.

    Attributes:
        mean: E[x_k | y].
        covariance: cov(x_k | y).
        gain: G_k, with cov(x_k, x_j | y) = G_k cov(x_{k+1}, x_j | y) for every j > k.
    """

    mean: Float[Array, "time state"]
    covariance: Float[Array, "time state state"]
    gain: Float[Array, "time_less_1 state state"]

    def joint_covariance(self) -> Float[np.ndarray, "time_state time_state"]:
        """The covariance of the full trajectory, time as the outer index; on the host."""
        times, size = self.mean.shape
        blocks = np.zeros((times, times, size, size))
        gain = np.asarray(self.gain, dtype=np.float64)
        for k in range(times - 1, -1, -1):
            blocks[k, k] = self.covariance[k]
            if k + 1 < times:
                blocks[k, k + 1 :] = gain[k] @ blocks[k + 1, k + 1 :]
                blocks[k + 1 :, k] = blocks[k, k + 1 :].transpose(0, 2, 1)
        return blocks.transpose(0, 2, 1, 3).reshape(times * size, times * size)


def kalman_smoother(
    values: Float[Array, "time obs"],
    operator: Float[Array, "time obs state"],
    error_covariance: Float[Array, "obs obs"],
    *,
    transition: Float[Array, "state state"],
    process_covariance: Float[Array, "state state"],
    mean: Float[Array, " state"],
    covariance: Float[Array, "state state"],
) -> Smoothed:
    """The exact posterior of every state given all observations. Pure; can be jitted.

    Args:
        values: y, NaN where nothing was observed.
        operator: H_k.
        error_covariance: R.
        transition: M.
        process_covariance: Q.
        mean: m, of the first state before any observation.
        covariance: P, of the first state before any observation.

    Raises:
        InputError: matrices of the wrong shape for the number of observations or states.
    """
    size, count = mean.shape[0], values.shape[1]
    for name, array, expected in (
        ("operator", operator, (values.shape[0], count, size)),
        ("error_covariance", error_covariance, (count, count)),
        ("transition", transition, (size, size)),
        ("process_covariance", process_covariance, (size, size)),
        ("covariance", covariance, (size, size)),
    ):
        if array.shape != expected:
            raise InputError(
                f"the Kalman smoother's {name} has shape {array.shape}, expected {expected} for "
                f"{count} observations and {size} states"
            )
    with jax.default_matmul_precision("highest"):
        return _smooth(
            values, operator, error_covariance, transition, process_covariance, mean, covariance
        )


def _smooth(values, operator, error, transition, process, mean, covariance) -> Smoothed:
    observed = jnp.isfinite(values)
    values = jnp.where(observed, values, 0.0)

    def forward(predicted, inputs):
        m, p = predicted
        y, h, mask = inputs
        # Missing values become observations of nothing, with unit error.
        h = jnp.where(mask[:, None], h, 0.0)
        r = jnp.where(mask[:, None] & mask[None, :], error, jnp.diag(jnp.where(mask, 0.0, 1.0)))
        gain = jnp.linalg.solve(h @ p @ h.T + r, h @ p).T
        keep = jnp.eye(m.shape[0]) - gain @ h
        m = m + gain @ (y - h @ m)
        p = keep @ p @ keep.T + gain @ r @ gain.T  # Joseph form: stays positive definite
        return (transition @ m, transition @ p @ transition.T + process), (m, p)

    _, (means, covariances) = jax.lax.scan(
        forward, (mean, covariance), (values, operator, observed)
    )

    def backward(later, filtered):
        m, p = filtered
        forecast = transition @ p @ transition.T + process
        gain = jnp.linalg.solve(forecast, transition @ p).T
        m_s = m + gain @ (later[0] - transition @ m)
        p_s = p + gain @ (later[1] - forecast) @ gain.T
        p_s = 0.5 * (p_s + p_s.T)
        return (m_s, p_s), (m_s, p_s, gain)

    last = (means[-1], covariances[-1])
    _, (smooth, spread, gains) = jax.lax.scan(
        backward, last, (means[:-1], covariances[:-1]), reverse=True
    )
    return Smoothed(
        jnp.concatenate([smooth, means[-1:]]), jnp.concatenate([spread, covariances[-1:]]), gains
    )
