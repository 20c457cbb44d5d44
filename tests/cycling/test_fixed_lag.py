"""Smoothing by cycling an ensemble with its past."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import etkf, gaspari_cohn, letkf, stochastic_enkf
from slams_jax.cycling import cycle, fixed_lag, with_past
from slams_jax.errors import InputError

LAG, CYCLES, NOISE, ERROR = 3, 6, 0.4, 0.5
TURN = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]], np.float32) * 0.95
Y = np.random.default_rng(0).standard_normal((CYCLES, 1)).astype(np.float32)


def newest(x):
    return x[0, :1]


def forecast(noise):
    return lambda x, key: x @ TURN.T + noise * jax.random.normal(key, x.shape)


def exact(noise):
    """Means and covariances (1 + lag, ...) of the last states given all Y, the newest first."""
    size = 2 * (CYCLES + 1)
    # The trajectory from the start on is linear in the start and in the noise of each step.
    root = np.zeros((size, size))
    root[:2, :2] = np.eye(2)
    for k in range(1, CYCLES + 1):
        now, before = slice(2 * k, 2 * k + 2), slice(2 * k - 2, 2 * k)
        root[now] = TURN.astype(float) @ root[before]
        root[now, now] += noise * np.eye(2)
    prior = root @ root.T
    h = np.zeros((CYCLES, size))
    h[np.arange(CYCLES), 2 * np.arange(1, CYCLES + 1)] = 1.0
    gain = prior @ h.T @ np.linalg.inv(h @ prior @ h.T + ERROR**2 * np.eye(CYCLES))
    mean, cov = gain @ Y[:, 0], prior - gain @ h @ prior
    at = [slice(2 * k, 2 * k + 2) for k in range(CYCLES, CYCLES - LAG - 1, -1)]
    return np.stack([mean[i] for i in at]), np.stack([cov[i, i] for i in at])


def white(members):
    """Members whose sample mean is zero and whose sample covariance is the identity."""
    x = np.random.default_rng(1).standard_normal((members, 2))
    q, _ = np.linalg.qr(x - x.mean(axis=0))
    return jnp.asarray(q * np.sqrt(members - 1), jnp.float32)


def last(forecast, analyse, start):
    *_, done = cycle(forecast, analyse, start, list(jnp.asarray(Y)), jax.random.key(3))
    return np.asarray(done.analysis, np.float64)


def test_without_model_error_the_smoother_is_exact():
    analyse = jax.jit(etkf(newest, jnp.full(1, ERROR), rotate=False))
    found = last(fixed_lag(forecast(0.0), LAG), analyse, with_past(white(5), LAG))
    mean, cov = exact(0.0)
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=2e-5)
    for part, expected in zip(np.moveaxis(found, 1, 0), cov, strict=True):
        np.testing.assert_allclose(np.cov(part.T), expected, atol=2e-5)


@pytest.mark.parametrize("make", [etkf, stochastic_enkf])
def test_with_model_error_many_members_are_those_of_the_smoother(make):
    members = 800
    analyse = jax.jit(make(newest, jnp.full(1, ERROR)))
    found = last(fixed_lag(forecast(NOISE), LAG), analyse, with_past(white(members), LAG))
    mean, cov = exact(NOISE)
    for part, m, c in zip(np.moveaxis(found, 1, 0), mean, cov, strict=True):
        # Five standard errors of a mean and of a variance.
        mean_error, error = 5.0 / np.sqrt(members), 5.0 * np.sqrt(2.0 / members)
        np.testing.assert_allclose(part.mean(axis=0), m, atol=mean_error * np.sqrt(np.max(c)))
        np.testing.assert_allclose(np.cov(part.T), c, atol=error * np.max(c))
    filtered = exact(NOISE)[1][0]
    assert np.trace(cov[1]) < 0.8 * np.trace(filtered)  # later observations do tell something


def test_without_a_lag_it_is_the_filter():
    error, start = jnp.full(1, ERROR), white(8)
    smoothed = last(fixed_lag(forecast(NOISE), 0), etkf(newest, error), with_past(start, 0))
    filtered = last(forecast(NOISE), etkf(lambda x: x[:1], error), start)
    np.testing.assert_allclose(smoothed[:, 0], filtered, atol=1e-5)


def test_the_past_moves_down_and_only_the_newest_is_inflated():
    state = jnp.asarray(np.random.default_rng(2).standard_normal((4, 1 + LAG, 2)), jnp.float32)
    key = jax.random.key(0)
    found = fixed_lag(forecast(NOISE), LAG, inflation=1.5)(state, key)
    np.testing.assert_array_equal(found[:, 1:], state[:, :-1])
    plain = forecast(NOISE)(state[:, 0], key)
    np.testing.assert_allclose(found[:, 0].mean(axis=0), plain.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[:, 0].std(axis=0), 1.5 * plain.std(axis=0), rtol=1e-5)


def test_local_filters_smooth_where_they_are():
    """Observations change the past of what is near them, and of nothing else."""
    near = jnp.tile(gaspari_cohn(np.abs(np.arange(6.0) - 1.0)[:, None], 3.0), (1 + LAG, 1))
    analyse = letkf(lambda x: x[0, 1:2], jnp.full(1, ERROR), near, rotate=False)
    drawn = np.random.default_rng(3).standard_normal((5, 1 + LAG, 6))
    background = jnp.asarray(drawn, jnp.float32)
    change = np.abs(analyse(background, jnp.ones(1), jax.random.key(0)) - background).max(axis=0)
    assert np.all(change[:, 0] > 1e-3)
    assert np.all(change[:, 1] > 1e-3)
    np.testing.assert_allclose(change[:, 5], 0.0, atol=1e-6)


def test_options_and_states_that_do_not_fit_are_refused():
    for make in (lambda: fixed_lag(forecast(0.0), -1), lambda: with_past(white(5), -1)):
        with pytest.raises(InputError, match="lag must be at least 0, got -1"):
            make()
    with pytest.raises(InputError, match=r"inflation must be positive, got 0\.0"):
        fixed_lag(forecast(0.0), 1, inflation=0.0)
    with pytest.raises(InputError, match=r"needs an ensemble \(member, 3, \.\.\.\), got \(5, 2\)"):
        fixed_lag(forecast(0.0), 2)(white(5), jax.random.key(0))
