"""Priors of single states: Gaussian, and trained on top of that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.models import gaussian_state_prior, train_state_prior
from slams_jax.training import OptimiserConfig


def states(count=2000, seed=0):
    """(sample, 2, 2): one of two modes in each first row, in other units than one."""
    rng = np.random.default_rng(seed)
    side = np.where(rng.random(count) < 0.5, 1.0, -1.0)[:, None]
    first = 0.95 * side + 0.3 * rng.standard_normal((count, 2))
    return 5.0 + 3.0 * np.stack([first, rng.standard_normal((count, 2))], axis=1)


def error(prior, t, seed=1):
    """Mean square of E[x_0 | x_t] - x_0."""
    clean = jnp.asarray((states(500, seed).reshape(500, -1) - prior.mean) / prior.std, jnp.float32)
    clean = clean[:, None, None, None]
    noise = jax.random.normal(jax.random.key(seed), clean.shape)
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    found = jax.jit(jax.vmap(lambda x: prior.denoiser(x, t)))(alpha * clean + sigma * noise)
    return float(jnp.mean((found - clean) ** 2))


@pytest.mark.slow
def test_training_departs_from_the_gaussian_and_is_not_repeated(tmp_path):
    """That departures learn what is not Gaussian is a test of the score network."""
    gaussian, t = gaussian_state_prior(states()), jnp.float32(0.2)
    settings = {"width": 32, "blocks": 1}
    train = lambda rate: train_state_prior(
        tmp_path, states(), optimiser=OptimiserConfig(30, rate, 10), **settings
    )
    prior = train(2e-3)
    assert error(prior, t) != error(gaussian, t)
    assert error(prior, t) == pytest.approx(error(gaussian, t), rel=0.05)
    assert error(train(2e-3), t) == error(prior, t)
    with pytest.raises(InputError):
        train(1e-3)


def test_the_gaussian_prior_has_the_moments_of_the_states():
    prior = gaussian_state_prior(states(20_000))
    np.testing.assert_allclose(prior.mean, 5.0, atol=0.1)
    np.testing.assert_allclose(prior.std, 3.0, rtol=0.03)
    basis = jnp.eye(4).reshape(4, 1, 1, 1, 4)
    root = np.asarray(jax.vmap(prior.climate.sample_root)(basis)).reshape(4, 4)
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = 0.95**2 / (0.95**2 + 0.3**2)
    np.testing.assert_allclose(root.T @ root, expected, atol=0.05)


def test_states_that_make_no_prior_are_refused():
    broken = states()
    broken[3, 0, 1] = np.nan
    with pytest.raises(InputError, match="must be finite"):
        gaussian_state_prior(broken)
    constant = states()
    constant[:, 1, 0] = 2.0
    with pytest.raises(InputError, match="value 2 of the states never varies"):
        gaussian_state_prior(constant)
