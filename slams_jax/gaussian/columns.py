"""Errors of columns: Gaussian, correlated over the channels, independent from column to column."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Trajectory
from slams_jax.products import product

SMALLEST = 1e-6  # variance of a mode, relative to the mean of all
MEMBERS = 30  # columns that the diagonal counts for beside those of the sample


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Columns:
    """N(0, Q) with a covariance Q of the channels for each latitude.

    Attributes:
        values: eigenvalues of Q.
        vectors: its eigenvectors, in the columns.
    """

    values: Float[Array, "#lat channel"]
    vectors: Float[Array, "#lat channel channel"]

    def solve(self, x: Trajectory, ratio: Float[Array, ""]) -> Trajectory:
        """(Q^-1 + 1 / ratio)^-1 x, for a noise variance `ratio`."""
        return self._scaled(x, self.values * ratio / (self.values + ratio))

    def sample_root(self, white: Trajectory, ratio: Float[Array, ""]) -> Trajectory:
        """The symmetric root of `solve`, applied to white noise."""
        return self._scaled(white, jnp.sqrt(self.values * ratio / (self.values + ratio)))

    def denoise(self, x_t: Trajectory, alpha: Array, sigma: Array) -> Trajectory:
        """E[x_0 | x_t] for x_t = alpha x_0 + sigma eps."""
        return self._scaled(x_t, alpha * self.values / (alpha**2 * self.values + sigma**2))

    def _scaled(self, x: Trajectory, factors: Float[Array, "#lat channel"]) -> Trajectory:
        vectors = jnp.broadcast_to(self.vectors, (x.shape[1], *self.vectors.shape[1:]))
        modes = product("icm,tijc->tijm", vectors, x)
        return product("icm,tijm->tijc", vectors, modes * factors[None, :, None, :])


def fit_columns(sample: Float[np.ndarray, "sample lat lon channel"]) -> Columns:
    """The covariance of each latitude from a sample of errors, with means as part of them.

    It is shrunk to its diagonal as if that had been seen in `MEMBERS` further columns.
    """
    count = sample.shape[0] * sample.shape[2]
    moment = np.einsum("sijc,sijd->icd", sample.astype(np.float64), sample) / count
    diagonal = np.einsum("icc->ic", moment)[..., None] * np.eye(sample.shape[3])
    moment = (count * moment + MEMBERS * diagonal) / (count + MEMBERS)
    values, vectors = np.linalg.eigh(moment)
    floor = SMALLEST * np.mean(values)
    return Columns(
        jnp.asarray(np.maximum(values, floor), jnp.float32), jnp.asarray(vectors, jnp.float32)
    )
