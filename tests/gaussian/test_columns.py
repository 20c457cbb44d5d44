"""Errors of columns against dense algebra."""

import jax.numpy as jnp
import numpy as np

from slams_jax.gaussian import fit_columns

SHAPE = (2, 3, 4, 3)  # time, lat, lon, channel
Q = np.stack([a @ a.T for a in np.random.default_rng(0).standard_normal((3, 3, 3))])


def sample(count=4000):
    rng = np.random.default_rng(1)
    white = rng.standard_normal((count, *SHAPE[1:]))
    return np.einsum("icd,sijd->sijc", np.linalg.cholesky(Q), white)


def test_each_latitude_has_its_covariance():
    columns = fit_columns(sample())
    vectors = np.asarray(columns.vectors)
    found = (vectors * np.asarray(columns.values)[:, None]) @ vectors.swapaxes(1, 2)
    np.testing.assert_allclose(found, Q, atol=0.05 * Q.max())


def test_products_are_those_of_dense_matrices():
    columns = fit_columns(sample(50))
    vectors = np.asarray(columns.vectors, np.float64)
    q = (vectors * np.asarray(columns.values)[:, None]) @ vectors.swapaxes(1, 2)
    x = np.random.default_rng(2).standard_normal(SHAPE).astype(np.float32)
    alpha, sigma = 0.8, 0.6
    inverse = np.linalg.inv(np.linalg.inv(q) + np.eye(3) / 0.3)
    apply = lambda m: np.einsum("icd,tijd->tijc", m, x)
    np.testing.assert_allclose(
        columns.solve(jnp.asarray(x), jnp.float32(0.3)), apply(inverse), atol=1e-4
    )
    gain = alpha * q @ np.linalg.inv(alpha**2 * q + sigma**2 * np.eye(3))
    found = columns.denoise(jnp.asarray(x), jnp.float32(alpha), jnp.float32(sigma))
    np.testing.assert_allclose(found, apply(gain), atol=1e-4)


def test_a_sample_of_standard_deviations_is_diagonal_and_none_is_zero():
    """As models before this have it: one number a channel, the same everywhere."""
    columns = fit_columns(np.array([0.1, 0.2, 0.4])[None, None, None])
    vectors = np.asarray(columns.vectors[0])
    found = (vectors * np.asarray(columns.values[0])) @ vectors.T
    np.testing.assert_allclose(found.diagonal(), [0.01, 0.04, 0.16], rtol=1e-4)
    off = found / np.sqrt(np.outer(found.diagonal(), found.diagonal()))
    assert np.abs(off[~np.eye(3, dtype=bool)]).max() < 0.05
    x = jnp.ones(SHAPE)
    nothing = fit_columns(np.zeros((1, 1, 1, 3)))
    assert not np.any(nothing.solve(x, jnp.float32(0.3)))
