import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.observe import Diagonal, Separable, fit_separable

LAT, LON, CHANNEL = 3, 4, 2
POINT = LAT * LON
NONE = jnp.zeros(())


def orthonormal(rng, size, count):
    return np.linalg.qr(rng.standard_normal((size, count)))[0]


def separable(nugget=0.2, std=None):
    rng = np.random.default_rng(0)
    arrays = (
        rng.uniform(0.5, 3.0, (LAT, LON, CHANNEL)) if std is None else np.full((LAT, LON, 2), std),
        orthonormal(rng, POINT, 5),
        np.array([4.0, 2.0, 1.5, 1.0, 0.5]),
        0.3,
        orthonormal(rng, CHANNEL, CHANNEL),
        np.array([0.4, 1.6]),
        nugget,
    )
    return Separable(*(jnp.asarray(a, jnp.float32) for a in arrays))


def matrix_of(covariance):
    """R as the class documents it, by Kronecker products."""
    s, q, lam, f, u, k, n = (np.asarray(a, np.float64) for a in jax.tree.leaves(covariance))
    horizontal = q @ np.diag(lam) @ q.T + f * (np.eye(len(q)) - q @ q.T)
    correlation = np.kron(horizontal, u @ np.diag(k) @ u.T) + n * np.eye(s.size)
    return s.reshape(-1, 1) * correlation * s.reshape(1, -1)


def dense(function):
    """The matrix of a linear function of one frame."""
    column = lambda e: function(e.reshape(1, LAT, LON, CHANNEL)).reshape(-1)
    eye = jnp.eye(POINT * CHANNEL)
    return np.asarray(jax.jit(jax.vmap(column, out_axes=1))(eye), np.float64)


@pytest.mark.parametrize("nugget", [0.0, 0.2])
def test_separable_root_and_whitening_are_those_of_its_matrix(nugget):
    covariance = separable(nugget)
    expected = matrix_of(covariance)
    root = dense(covariance.sample_root)
    np.testing.assert_allclose(root @ root.T, expected, atol=2e-5)
    whiten = dense(lambda r: covariance.whiten(r, NONE))
    np.testing.assert_allclose(whiten.T @ whiten @ expected, np.eye(24), atol=2e-5)


@pytest.mark.parametrize("variance", ["scalar", "channel", "each"])
def test_diagonal_root_and_whitening_are_those_of_its_matrix(variance):
    shape = {"scalar": (), "channel": (CHANNEL,), "each": (1, LAT, LON, CHANNEL)}[variance]
    values = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2.0, shape), jnp.float32)
    covariance = Diagonal(values)
    expected = np.diag(np.broadcast_to(values, (1, LAT, LON, CHANNEL)).reshape(-1))
    root = dense(covariance.sample_root)
    np.testing.assert_allclose(root @ root.T, expected, atol=1e-6)
    extra = jnp.asarray([0.5, 2.0], jnp.float32)
    whiten = dense(lambda r: covariance.whiten(r, extra))
    total = expected + np.diag(np.tile([0.5, 2.0], POINT))
    np.testing.assert_allclose(whiten.T @ whiten @ total, np.eye(24), atol=1e-5)


@pytest.mark.slow
def test_whitened_square_is_the_quadratic_form_of_every_frame():
    covariance = separable()
    residual = np.random.default_rng(1).standard_normal((3, LAT, LON, CHANNEL))
    whitened = covariance.whiten(jnp.asarray(residual, jnp.float32), NONE)
    inverse = np.linalg.inv(matrix_of(covariance))
    flat = residual.reshape(3, -1)
    expected = np.einsum("ti,ij,tj->t", flat, inverse, flat)
    np.testing.assert_allclose(jnp.sum(whitened**2, axis=(1, 2, 3)), expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (CHANNEL,), (LAT, LON, CHANNEL)])
def test_extra_variance_is_exact_where_it_is_a_multiple_of_the_variance(shape):
    """extra = 0.7 S^2 adds 0.7 S^2 I; with even S a plain number is such a multiple."""
    covariance = separable(std=1.5)
    extra = jnp.full(shape, 0.7 * 1.5**2)
    whiten = dense(lambda r: covariance.whiten(r, extra))
    total = matrix_of(covariance) + 0.7 * 1.5**2 * np.eye(24)
    np.testing.assert_allclose(whiten.T @ whiten @ total, np.eye(24), atol=2e-5)
    uneven = separable()
    whiten = dense(lambda r: uneven.whiten(r, 0.7 * uneven.std**2))
    total = matrix_of(uneven) + 0.7 * np.diag(np.asarray(uneven.std).reshape(-1) ** 2)
    np.testing.assert_allclose(whiten.T @ whiten @ total, np.eye(24), atol=2e-5)


# A known covariance: correlated over two grid points, and by 0.7 between two channels.
ROWS = np.stack(np.meshgrid(np.arange(5), np.arange(6), indexing="ij"), -1).reshape(-1, 2)
DISTANCE2 = ((ROWS[:, None] - ROWS[None]) ** 2).sum(-1)
HORIZONTAL = 0.8 * np.exp(-DISTANCE2 / 8.0) + 0.2 * np.eye(30)
BETWEEN = np.array([[1.0, 0.7], [0.7, 1.0]])
STD = np.random.default_rng(2).uniform(0.5, 2.0, (5, 6, 2))


def sample_errors(count, seed=0):
    white = np.random.default_rng(seed).standard_normal((count, 30, 2))
    roots = np.linalg.cholesky(HORIZONTAL), np.linalg.cholesky(BETWEEN)
    errors = np.einsum("pq,tqd,cd->tpc", roots[0], white, roots[1]).reshape(count, 5, 6, 2)
    return (3.0 + STD * errors).astype(np.float32)


def covariance_of(fitted):
    eye = jnp.eye(60).reshape(60, 5, 6, 2)
    root = np.asarray(fitted.sample_root(eye), np.float64).reshape(60, 60)
    return root.T @ root


@pytest.mark.parametrize("rank", [30, 12])
def test_fit_recovers_a_separable_covariance(rank):
    count = 2000
    fitted, bias = fit_separable(sample_errors(count), rank=rank)
    # 5 standard errors of a mean, of a standard deviation, of a correlation.
    assert np.abs((bias - 3.0) / STD).max() < 5 / np.sqrt(count)
    assert np.abs(fitted.std / STD - 1).max() < 5 / np.sqrt(2 * count)
    scale = STD.reshape(-1)
    correlation = covariance_of(fitted) / np.outer(scale, scale)
    # Rank 12 of 30 leaves out a part of the pattern that the floor cannot hold.
    cut = 0.0 if rank == 30 else 0.06
    assert np.abs(correlation - np.kron(HORIZONTAL, BETWEEN)).max() < 5 / np.sqrt(count) + cut


@pytest.mark.parametrize("count", [12, 40, 400])
def test_fit_to_few_fields_is_not_overconfident(count):
    """Fresh errors have the squared length that the estimated covariance gives them."""
    fitted, bias = fit_separable(sample_errors(count), rank=200)
    fresh = sample_errors(200, seed=1) - bias
    whitened = np.asarray(fitted.whiten(jnp.asarray(fresh), NONE))
    assert 0.7 < (whitened**2).mean() < 1.4


def test_fit_by_either_gram_matrix():
    """Fewer frames times channels than points, or more, is only a matter of cost."""
    errors = sample_errors(14)
    small, _ = fit_separable(errors)
    assert small.patterns.shape[1] < 30
    shown = covariance_of(small)
    centred = errors - errors.mean(axis=0)
    doubled, _ = fit_separable(np.concatenate([centred, -centred]))
    assert doubled.patterns.shape[1] == 30
    # Twice the frames halve the shrinkage, which is all that differs.
    scale = np.sqrt(np.diag(shown))
    assert np.abs((covariance_of(doubled) - shown) / np.outer(scale, scale)).max() < 0.25


def test_fit_leaves_out_frames_with_missing_values_and_adds_the_nugget():
    errors = sample_errors(50)
    holed = np.concatenate([errors, errors[:3]])
    holed[-3:, 0, 0, 0] = np.nan
    expected, _ = fit_separable(errors, nugget=0.5)
    fitted, bias = fit_separable(holed, nugget=0.5)
    assert np.isfinite(bias).all()
    np.testing.assert_array_equal(covariance_of(fitted), covariance_of(expected))
    without, _ = fit_separable(errors)
    np.testing.assert_allclose(
        covariance_of(fitted) - covariance_of(without),
        0.5 * np.diag(np.asarray(fitted.std).reshape(-1) ** 2),
        atol=1e-4,
    )


def test_fit_refuses_what_has_no_covariance():
    errors = sample_errors(12)
    with pytest.raises(InputError, match="at least 10 complete frames, got 9"):
        fit_separable(errors[:9])
    holed = errors.copy()
    holed[:5, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="at least 10 complete frames, got 7"):
        fit_separable(holed)
    errors[:, 2, 3, 1] = 4.0
    with pytest.raises(InputError, match="vary at every point and channel"):
        fit_separable(errors)
