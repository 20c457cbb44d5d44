"""The rain problem, and the Gibbs sampling of its posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import SamplerConfig
from slams_jax.reference_problems import Guidance, Method, rain_case, run_case
from slams_jax.reference_problems.rain import THRESHOLD, Bent, convergence, detect, gauge, gibbs

COVARIANCE = np.array([[1.0, 0.5, 0.2], [0.5, 1.5, 0.4], [0.2, 0.4, 0.8]])


@pytest.mark.slow
def test_gibbs_sampling_of_a_gaussian():
    """With a quadratic misfit the target is Gaussian."""
    y, error = np.array([0.5, -1.0, 2.0]), 0.6
    misfit = lambda i, h: 0.5 * ((h - jnp.asarray(y, jnp.float32)[i]) / error) ** 2
    draws = gibbs(jax.random.key(0), COVARIANCE, misfit, 64, 400)[20:]
    exact = np.linalg.inv(np.linalg.inv(COVARIANCE) + np.eye(3) / error**2)
    assert np.all(convergence(draws) < 1.01)
    flat = draws.reshape(-1, 3)
    np.testing.assert_allclose(flat.mean(axis=0), exact @ y / error**2, atol=0.02)
    np.testing.assert_allclose(np.cov(flat.T), exact, atol=0.02)


@pytest.mark.slow
def test_gibbs_sampling_of_a_truncated_normal():
    """A variable that is known to be dry: a half of a normal distribution."""
    dry = lambda i, h: jnp.where((i == 0) & (h > 0.0), 1e3, 0.0)
    draws = gibbs(jax.random.key(0), np.eye(3), dry, 64, 200)[5:].reshape(-1, 3)
    assert draws[:, 0].max() < 0.14  # a node of the table
    np.testing.assert_allclose(draws.mean(axis=0), [-np.sqrt(2 / np.pi), 0.0, 0.0], atol=0.04)


def test_operators_are_flat_where_it_is_dry():
    same = lambda x: x
    state = jnp.array([THRESHOLD - 1.0, THRESHOLD, THRESHOLD + 1.0]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(np.ravel(Bent(same, gauge)(state)), [0.0, 0.0, np.log(2.0)])
    np.testing.assert_allclose(np.ravel(Bent(same, detect)(state)), [0.0, 0.0, 1.0])
    for operator in (Bent(same, gauge), Bent(same, detect)):
        gradient = np.ravel(jax.grad(lambda x, h=operator: jnp.sum(h(x)))(state))
        assert np.all(np.isfinite(gradient))
        assert gradient[0] == 0.0


@pytest.mark.slow
def test_split_gibbs_is_right_where_guidance_is_not():
    """Few harmonics and observations, for speed."""
    case = rain_case(degree=4, gauges=12, detected=16, chains=32, sweeps=60)
    rule = Guidance("gaussian", (("iterations", 10),), covariance=True)
    guided, drawn = (
        run_case(case, Method(rule, sampler), 32, jax.random.key(0)).score
        for sampler in (SamplerConfig(steps=16), SamplerConfig("split_gibbs", 2, slices=8))
    )
    assert guided is not None
    assert drawn is not None
    assert drawn.w1 < 1.25 * drawn.w1_exact
    assert guided.w1 > 1.5 * guided.w1_exact
    assert guided.mean_error > 0.3 > drawn.mean_error
