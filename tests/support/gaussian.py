"""A Gaussian prior with exact denoiser and posterior: the reference of statistical tests."""

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.diffusion import sample, sample_ensemble


def make_problem(dim=12, seed=0):
    """A smooth prior covariance on `dim` points, a linear operator, noise and observations."""
    rng = np.random.default_rng(seed)
    x = np.arange(dim)
    prior = np.exp(-0.5 * (x[:, None] - x[None]) ** 2 / 4.0) + 0.05 * np.eye(dim)
    operator = np.zeros((5, dim))
    operator[0, 1] = operator[1, 4] = operator[2, 9] = 1.0
    operator[3, :6] = 1 / 6
    operator[4, 6:] = 1 / 6
    variance = np.array([0.3, 0.1, 0.5, 0.05, 0.1])
    truth = np.linalg.cholesky(prior) @ rng.standard_normal(dim)
    y = operator @ truth + np.sqrt(variance) * rng.standard_normal(5)
    return prior, operator, variance, y


def exact_posterior(prior, operator, variance, y):
    """Mean and covariance of the state given y."""
    innovation_covariance = operator @ prior @ operator.T + np.diag(variance)
    gain = np.linalg.solve(innovation_covariance, operator @ prior).T
    return gain @ y, prior - gain @ operator @ prior


def exact_denoiser(prior, schedule):
    """E[x_0 | x_t] = alpha P (alpha^2 P + sigma^2)^-1 x_t."""
    values, vectors = np.linalg.eigh(prior)
    values = jnp.asarray(values, jnp.float32)
    vectors = jnp.asarray(vectors, jnp.float32)

    def denoiser(x, t):
        a, s = schedule.alpha(t), schedule.sigma(t)
        return vectors @ ((a * values / (a**2 * values + s**2)) * (vectors.T @ x))

    return denoiser


def independent_denoiser(variances, schedule):
    """E[x_0 | x_t] for independent values (sample, value) of the given variances."""
    values = jnp.asarray(variances, jnp.float32)

    def denoiser(x, t):
        a, s = schedule.alpha(t), schedule.sigma(t)
        return (a * values / (a**2 * values + s**2))[None] * x

    return denoiser


def draws(denoiser, dim, schedule, config, count, seed=0):
    draw = lambda key: sample(key, denoiser, (dim,), schedule, config)
    return np.asarray(
        jax.jit(lambda key: sample_ensemble(key, draw, count))(jax.random.key(seed)), np.float64
    )
