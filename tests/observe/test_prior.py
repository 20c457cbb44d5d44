import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import CosineSchedule, guide
from slams_jax.errors import InputError
from slams_jax.observe import fit_prior
from support.gaussian import exact_denoiser, exact_posterior, make_problem

SCHEDULE = CosineSchedule()
SHAPE = (3, 2, 4, 2)  # time, lat, lon, channel


def smooth_frames(count=400, seed=0):
    """Frames correlated in time (0.8 at lag one), space and channel, of unit variance."""
    rng = np.random.default_rng(seed)
    place = np.arange(8)
    horizontal = np.exp(-np.abs(place[:, None] - place[None]) / 3.0)
    channel = np.array([[1.0, 0.6], [0.6, 1.0]])
    root = np.kron(np.linalg.cholesky(horizontal), np.linalg.cholesky(channel))
    noise = rng.standard_normal((count, 16)) @ root.T
    frames = [noise[0]]
    for e in noise[1:]:
        frames.append(0.8 * frames[-1] + 0.6 * e)
    return np.stack(frames).reshape(count, 2, 4, 2).astype(np.float32)


@pytest.fixture(scope="module")
def prior():
    return fit_prior(smooth_frames(), rank=5, lags=10)


def dense(prior, ratio):
    size = int(np.prod(SHAPE))
    columns = jax.vmap(lambda x: prior.posterior(x, jnp.float32(ratio)))(
        jnp.eye(size).reshape(size, *SHAPE)
    )
    return np.asarray(columns, np.float64).reshape(size, size)


def test_posterior_covariance_follows_from_the_prior_and_the_noise(prior):
    p = dense(prior, 1e9)  # with endless noise nothing is learnt: P itself
    np.testing.assert_allclose(p, p.T, atol=1e-5)
    for ratio in (0.01, 0.5, 20.0):
        expected = np.linalg.inv(np.linalg.inv(p) + np.eye(len(p)) / ratio)
        np.testing.assert_allclose(dense(prior, ratio), expected, rtol=1e-2, atol=1e-3 * ratio)


def test_prior_is_estimated_from_frames():
    frames = smooth_frames(4000)
    prior = fit_prior(frames, rank=8, lags=10)
    p = dense(prior, 1e9).reshape(3, 16, 3, 16)
    sample = frames.reshape(len(frames), 16)
    covariance = sample.T @ sample / len(sample)
    # About 4000 (1 - 0.64) / (1 + 0.64) independent frames: a standard error of 0.034.
    np.testing.assert_allclose(p[0, :, 0], covariance, atol=5 * 0.034)
    # Lag one is tapered by 1 - 1/10.
    assert abs(p[0, :, 1].trace() / p[0, :, 0].trace() - 0.9 * 0.8) < 5 * 0.034


def test_guidance_with_the_true_covariance_is_exact():
    covariance, operator, variance, y = make_problem()
    denoiser = exact_denoiser(covariance, SCHEDULE)
    h, r, values = (jnp.asarray(a, jnp.float32) for a in (operator, variance, y))
    innovations = lambda x, extra: (values - h @ x) / jnp.sqrt(r + extra)
    inverse = np.linalg.inv(covariance)
    product = lambda v, ratio: jnp.linalg.solve(
        jnp.asarray(inverse, jnp.float32) + jnp.eye(12) / ratio, v
    )
    guided = guide(
        denoiser, innovations, SCHEDULE, rule="gaussian", iterations=5, covariance=product
    )
    x_t = jax.random.normal(jax.random.key(3), (12,))
    for t in (0.1, 0.4, 0.7, 0.95):
        alpha, sigma = float(SCHEDULE.alpha(jnp.float32(t))), float(SCHEDULE.sigma(jnp.float32(t)))
        # x_t is one more observation of x_0, with operator alpha and variance sigma^2.
        mean, _ = exact_posterior(
            covariance,
            np.concatenate([operator, alpha * np.eye(12)]),
            np.concatenate([variance, np.full(12, sigma**2)]),
            np.concatenate([y, np.asarray(x_t)]),
        )
        np.testing.assert_allclose(guided(x_t, jnp.float32(t)), mean, atol=2e-3)


def test_guidance_is_bounded_where_the_jacobian_is_no_covariance():
    t = jnp.float32(0.6)
    scale = SCHEDULE.sigma(t) ** 2 / SCHEDULE.alpha(t)
    # I + A V A^T = 0 with A = 3 I: the Jacobian of a network can be negative, a covariance cannot.
    denoiser = lambda x, t: -x / (9.0 * scale)
    innovations = lambda x, extra: 3.0 * (jnp.ones(2) - x)
    guided = guide(denoiser, innovations, SCHEDULE, rule="mmps", iterations=1)
    x_t = jnp.array([0.1, 0.2])
    x_0 = denoiser(x_t, t)
    # One step, no longer than the residual: |V A^T r| = |r| / 3.
    bound = jnp.linalg.norm(innovations(x_0, 0.0)) / 3.0
    assert jnp.linalg.norm(guided(x_t, t) - x_0) < 1.001 * bound


def test_bad_input_is_told():
    with pytest.raises(InputError, match="needs the covariance of the prior"):
        guide(lambda x, t: x, lambda x, e: x, SCHEDULE, rule="gaussian")
    with pytest.raises(InputError, match="at least 20 frames, got 5"):
        fit_prior(smooth_frames(5))
