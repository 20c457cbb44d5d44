"""Algebra of many small Hermitian matrices."""

from collections.abc import Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int

from slams_jax.products import product

Matrix = Inexact[Array, "... n n"]  # batches may differ


def eigh(matrices: Sequence[Matrix]) -> list[tuple[Float[Array, "... n"], Matrix]]:
    """Eigenvalues, ascending, and eigenvectors of each of some batches of matrices.

    On the host, and in double precision, unless traced. Where they are traced, one batch follows
    the other: on CPUs with few cores, batches of eigenproblems that XLA runs at once wait forever
    for the threads that they hold.
    """
    found = []
    for matrix in matrices:
        if isinstance(matrix, jax.core.Tracer):
            if found:
                matrix = after(found[-1][0], matrix)
            values, vectors = jnp.linalg.eigh(matrix)
        else:
            host = np.asarray(matrix)
            double = np.complex128 if np.iscomplexobj(host) else np.float64
            values, vectors = np.linalg.eigh(host.astype(double))
            values = jnp.asarray(values, jnp.float32)
            vectors = jnp.asarray(vectors, matrix.dtype)
        found.append((values, vectors))
    return found


def after(first: Inexact[Array, "..."], then: Inexact[Array, "*n"]) -> Inexact[Array, "*n"]:
    """`then`, NaN if the first value of `first` is not finite: XLA has to compute that before it.

    It keeps factorisations in order. A `jax.lax.optimization_barrier` leaves XLA free to run what
    it separates at once.
    """
    return jnp.where(jnp.isfinite(first.ravel()[0]), then, jnp.nan)


def spectral(vectors: Matrix, values: Float[Array, "... n"]) -> Matrix:
    """U diag(values) U^*."""
    weighted = vectors * jnp.broadcast_to(values[..., None, :], vectors.shape).astype(vectors.dtype)
    return product("...ij,...kj->...ik", weighted, vectors.conj())


def inverse(matrices: Array) -> Array:
    """Inverses of positive definite matrices (..., n, n), small and many, by the sweep operator.

    Elementwise over the batch, where LAPACK takes one matrix after the other.
    """

    def sweep(i: Int[Array, ""], a: Array) -> Array:
        at = jnp.arange(a.shape[-1]) == i
        pivot = a[..., i, i][..., None]
        column, row = a[..., :, i] / pivot, a[..., i, :] / pivot
        swept = a - column[..., :, None] * a[..., i, :][..., None, :]
        # The pivot's column makes room for the inverse's.
        swept = jnp.where(at[None, :], -column[..., :, None], swept)
        row = jnp.where(at, 1.0 / pivot, row)
        return jnp.where(at[:, None], row[..., None, :], swept)

    return jax.lax.fori_loop(0, matrices.shape[-1], sweep, matrices)
