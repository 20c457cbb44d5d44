"""Error covariances between the observations of one time: low rank plus diagonal, and dense.

The observations of a time are in the order of their flattened values. Missing observations are
removed from R exactly, not merely given a zero residual.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

from slams_jax.errors import InputError
from slams_jax.observe.covariance import require_positive
from slams_jax.products import product


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
    """R = diag(variance) + F F^T: independent errors plus a few shared ones.

    Attributes:
        variance: of the independent part, squared units; `frame` is time, or 1 for all times.
        factor: F.
    """

    variance: Float[Array, "frame observation"]
    factor: Float[Array, "frame observation rank"]

    def whiten(self, residual: Array, extra: Array) -> Array:
        """(I + G G^T)^(-1/2) S^-1 residual, S^2 the variance and `extra`, G = S^-1 F."""
        inverse_root = lambda s: -jnp.expm1(-0.5 * jnp.log1p(s))
        std, modes, spread = self._modes(residual, extra)
        white = _flat(residual) / std
        return (white - _along(modes, inverse_root(spread) / spread, white)).reshape(residual.shape)

    def sample_root(self, white: Array) -> Array:
        """S (I + G G^T)^(1/2) white."""
        std, modes, spread = self._modes(white, jnp.zeros(()))
        flat = _flat(white)
        root = flat + _along(modes, (jnp.sqrt(1.0 + spread) - 1.0) / spread, flat)
        return (std * root).reshape(white.shape)

    def inflated(self, factor: Array) -> "LowRank":
        """`factor` R."""
        return LowRank(self.variance * factor, self.factor * jnp.sqrt(factor))

    def observed(self, mask: Bool[np.ndarray, "time ..."], name: str) -> "LowRank":
        """R of the observed values; missing ones become independent of them, with variance 1."""
        observed = mask.reshape(len(mask), -1)
        variance = np.where(observed, np.asarray(self.variance), 1.0)
        require_positive(variance, name)
        factor = np.asarray(self.factor) * observed[..., None]
        return LowRank(jnp.asarray(variance, jnp.float32), jnp.asarray(factor, jnp.float32))

    def _modes(self, like: Array, extra: Array):
        """S; G rotated so that its columns are orthogonal, and their squared lengths."""
        std = jnp.sqrt(self.variance + _flat(jnp.broadcast_to(extra, like.shape)))
        scaled = self.factor / std[..., None]
        spread, vectors = jnp.linalg.eigh(product("tor,tos->trs", scaled, scaled))
        tiny = jnp.finfo(spread.dtype).eps  # a column of length zero does not contribute anyway
        return std, product("tor,trs->tos", scaled, vectors), jnp.maximum(spread, tiny)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """R = L L^T, any covariance between up to a few hundred observations; build it with `Dense.of`.

    Attributes:
        cholesky: L, lower triangular; `frame` is time, or 1 for all times.
    """

    cholesky: Float[Array, "frame observation observation"]

    @classmethod
    def of(cls, matrix: Float[np.ndarray, "frame observation observation"]) -> "Dense":
        """The covariance `matrix`, squared units.

        Raises:
            InputError: a matrix that is not symmetric and positive definite.
        """
        matrix = np.asarray(matrix, np.float64)
        if not np.allclose(matrix, np.swapaxes(matrix, -1, -2), rtol=1e-5):
            raise InputError(
                "an error covariance matrix must be symmetric: check the order of its rows"
            )
        try:
            return cls(jnp.asarray(np.linalg.cholesky(matrix), jnp.float32))
        except np.linalg.LinAlgError:
            smallest = np.linalg.eigvalsh(matrix).min()
            raise InputError(
                "an error covariance matrix must be positive definite, but its smallest eigenvalue "
                f"is {smallest:.3g}: add variance to its diagonal"
            ) from None

    def whiten(self, residual: Array, extra: Array) -> Array:
        """L^-1 residual, where L L^T = R + extra."""
        variance = _flat(jnp.broadcast_to(extra, residual.shape))
        total = self._matrix() + variance[..., None] * jnp.eye(variance.shape[-1])[None]
        root = jnp.linalg.cholesky(total)
        flat = _flat(residual)[..., None]
        return solve_triangular(root, flat, lower=True)[..., 0].reshape(residual.shape)

    def sample_root(self, white: Array) -> Array:
        """L white."""
        root = jnp.broadcast_to(self.cholesky, (len(white), *self.cholesky.shape[1:]))
        return product("top,tp->to", root, _flat(white)).reshape(white.shape)

    def inflated(self, factor: Array) -> "Dense":
        """`factor` R."""
        return Dense(self.cholesky * jnp.sqrt(factor))

    def observed(self, mask: Bool[np.ndarray, "time ..."], name: str) -> "Dense":
        """R of the observed values; missing ones become independent of them, with variance 1."""
        observed = mask.reshape(len(mask), -1)
        both = observed[:, :, None] & observed[:, None, :]
        root = np.asarray(self.cholesky, np.float64)
        matrix = np.where(both, root @ np.swapaxes(root, -1, -2), np.eye(observed.shape[1]))
        return Dense.of(matrix)

    def _matrix(self) -> Array:
        return product("...ij,...kj->...ik", self.cholesky, self.cholesky)


def _flat(values: Array) -> Array:
    return values.reshape(values.shape[0], -1)


def _along(modes: Array, weight: Array, flat: Array) -> Array:
    """M diag(weight) M^T `flat`, at each time, with the columns of M in `modes`."""
    modes = jnp.broadcast_to(modes, (len(flat), *modes.shape[1:]))
    return product("tor,tr->to", modes, weight * product("tor,to->tr", modes, flat))
