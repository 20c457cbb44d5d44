"""Weights of guided paths, against evidences and posteriors that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import (
    CosineSchedule,
    SamplerConfig,
    certify,
    guide,
    resample,
    sample_ensemble,
    sample_with_info,
)
from slams_jax.errors import InputError

SCHEDULE = CosineSchedule()
PRIOR, ERROR, OBSERVED = 1.5, 0.4, 1.1  # variances of the state and of its observation, and y
SHAPE = (1, 1, 1, 2)  # the first value is observed, the second is not


def denoiser(x_t, t):
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return alpha * PRIOR / (alpha**2 * PRIOR + sigma**2) * x_t


def covariance(x, ratio):
    return PRIOR * ratio / (PRIOR + ratio) * x


def innovations(x, extra, error=ERROR):
    return (OBSERVED - x[..., :1]) / jnp.sqrt(error + extra)


def log_likelihood(x):
    return -0.5 * jnp.sum(innovations(x, 0.0) ** 2)


def paths(config=SamplerConfig(), *, members=4096, rule="gaussian", error=ERROR, sign=1.0):
    """x_0 and log weights of guided paths; of the prior's own without a rule."""
    posterior = denoiser
    if rule is not None:
        misled = lambda x, extra: innovations(x, extra, error)
        posterior = guide(
            denoiser, misled, SCHEDULE, rule=rule, iterations=5, covariance=covariance
        )

    def one(key):
        x, info = sample_with_info(key, posterior, SHAPE, SCHEDULE, config)
        ratio = info.log_ratio if rule is not None else 0.0
        return x, sign * ratio + log_likelihood(x)

    run = jax.jit(lambda key: sample_ensemble(key, one, members))
    x, weights = run(jax.random.key(0))
    return np.asarray(x, float).reshape(members, -1), np.asarray(weights, float)


def evidence(log_weights):
    """Mean weight, and its standard error."""
    w = np.exp(log_weights)
    return w.mean(), w.std() / np.sqrt(len(w))


SOLVERS = [SamplerConfig(), SamplerConfig("ddim", eta=1.0), SamplerConfig("ddim", eta=0.5)]


@pytest.mark.slow
@pytest.mark.parametrize("config", SOLVERS, ids=["two-step", "one-step", "less noise"])
@pytest.mark.parametrize("rule", ["gaussian", "mmps"])
def test_weights_average_to_the_evidence(config, rule):
    """E[w] under guidance is E[p(y | x_0)] of the prior, as the same solver draws it."""
    found, error = evidence(paths(config, rule=rule)[1])
    expected, spread = evidence(paths(config, rule=None, members=16384)[1])
    assert abs(found - expected) < 4.0 * np.hypot(error, spread)
    # Small enough to tell a weight from a wrong one; with less noise, shifts weigh more.
    assert error < (0.03 if config.eta != 0.5 else 0.2) * found


@pytest.mark.slow
def test_a_wrong_sign_is_found_out():
    found, error = evidence(paths(sign=-1.0)[1])
    expected, _ = evidence(paths(rule=None, members=16384)[1])
    assert found - expected > max(5.0 * error, 2.0 * expected)


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.5 * ERROR, ERROR, 3.0 * ERROR])
def test_weights_correct_draws_that_were_guided_wrongly(error):
    """Guidance that takes observations for better or worse than they are."""
    x, log_weights = paths(error=error, members=16384)
    w = np.exp(log_weights - log_weights.max())
    w /= w.sum()
    variance = 1.0 / (1.0 / PRIOR + 1.0 / ERROR)
    exact = np.array([variance / ERROR * OBSERVED, 0.0]), np.array([variance, PRIOR])
    mean = w @ x
    spread = w @ (x - mean) ** 2
    effective = 1.0 / np.sum(w**2)
    # Besides the sampling error there is that of 32 steps: 5 % of the variance.
    limit = 4.0 * np.sqrt(exact[1] / effective)
    np.testing.assert_array_less(np.abs(mean - exact[0]), limit)
    np.testing.assert_allclose(spread, exact[1], rtol=0.05 + 4.0 * np.sqrt(2.0 / effective))
    if error != ERROR:
        assert abs(x.mean(axis=0)[0] - exact[0][0]) > limit[0]


@pytest.mark.slow
def test_the_divergence_is_that_of_wrong_guidance():
    """It vanishes with the steps where guidance is exact, and stays where it is not."""
    divergence = lambda steps, error: (
        certify(paths(SamplerConfig(steps=steps), error=error)[1], 1).divergence
    )
    right = [divergence(steps, ERROR) for steps in (16, 64, 256)]
    assert right[0] > 2.0 * right[1] > 4.0 * right[2]
    assert right[2] < 0.02
    assert divergence(256, 0.3 * ERROR) > 10.0 * right[2]


@pytest.mark.slow
def test_the_divergence_is_that_of_the_paths():
    """KL(Q | posterior) = log E[w] - E[log w], from many members."""
    log_weights = paths(SamplerConfig(steps=128), error=0.6 * ERROR, members=16384)[1]
    expected = np.log(np.exp(log_weights).mean()) - log_weights.mean()
    found = certify(log_weights, 3)
    assert abs(found.divergence / expected - 1.0) < 0.2  # to second order
    assert found.divergence_per_observation == found.divergence / 3
    assert found.divergence_error < 0.02 * found.divergence
    assert 0.4 < found.effective < 1.0


@pytest.mark.parametrize("config", [SamplerConfig("dpmpp_3m_ode"), SamplerConfig("pc")])
def test_without_fresh_noise_there_is_no_weight(config):
    assert np.all(np.isinf(paths(config, members=2)[1]))


def test_a_denoiser_that_does_not_tell_its_prior_has_no_weight():
    assert np.all(np.isinf(paths(rule="sda", members=2)[1]))


def test_resampling_takes_paths_as_often_as_they_weigh():
    weights = np.array([0.5, 0.25, 0.125, 0.125, 0.0])
    log_weights = jnp.log(jnp.asarray(weights, jnp.float32)) + 100.0
    index = jax.jit(lambda k: resample(k, log_weights, 8))(jax.random.key(0))
    np.testing.assert_array_equal(np.bincount(index, minlength=5), 8 * weights)
    keys = jax.random.split(jax.random.key(1), 2000)
    several = jax.vmap(lambda k: resample(k, log_weights, 3))(keys)
    share = np.bincount(np.ravel(several), minlength=5) / several.size
    np.testing.assert_allclose(share, weights, atol=4.0 * np.sqrt(0.25 / several.size))


@pytest.mark.parametrize(
    ("weights", "observations"), [([0.0], 1), ([0.0, np.inf], 1), ([0.0, 1.0], 0)]
)
def test_a_certificate_needs_finite_weights_and_observations(weights, observations):
    with pytest.raises(InputError, match="a certificate needs the finite weights"):
        certify(np.array(weights), observations)
