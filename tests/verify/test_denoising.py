"""Denoising errors, of denoisers that are known."""

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.diffusion import CosineSchedule
from slams_jax.verify.denoising import LOG_SNR, denoising_errors, denoising_table
from slams_jax.verify.report import markdown

SCHEDULE = CosineSchedule()
T = SCHEDULE.time(jnp.array(LOG_SNR))
LEVELS = (T, SCHEDULE.alpha(T), SCHEDULE.sigma(T))


def test_the_exact_denoiser_reaches_the_posterior_variance():
    variance = 2.0
    windows = variance**0.5 * jax.random.normal(jax.random.key(1), (20, 3, 4, 8, 5))

    def exact(x_t, t):
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        return alpha * variance / (alpha**2 * variance + sigma**2) * x_t

    key = jax.random.key(0)
    errors = jax.jit(lambda w: denoising_errors(key, exact, w, *LEVELS))(windows)
    snr = np.exp(2.0 * np.array(LOG_SNR))
    np.testing.assert_allclose(errors, variance / (1.0 + variance * snr), rtol=0.06)
    worse = jax.jit(lambda w: denoising_errors(key, lambda x, t: 0.0 * x, w, *LEVELS))(windows)
    np.testing.assert_allclose(worse, jnp.mean(windows**2), rtol=1e-5)


def test_the_table_has_a_column_for_each_level():
    text = markdown(denoising_table({"network": np.arange(7) / 10, "Gaussian": np.ones(7)}))
    assert "| log-SNR | 2.5 | 1.5 | 0.7 | 0 | -0.7 | -1.5 | -2.5 |" in text
    assert "| network | 0.0000 | 0.1000 |" in text
