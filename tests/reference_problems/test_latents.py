"""What a code tells of a latent, against the posterior in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from slams_jax.diffusion import SamplerConfig
from slams_jax.reference_problems import Guidance, Method, latent_cases, latents, run_case

GAUSSIAN = Guidance("gaussian", (("iterations", 20),), covariance=True)
ODE = SamplerConfig("dpmpp_3m_ode", 32)


def scored(pairs):
    (case,) = latent_cases((pairs,))
    return run_case(case, Method(GAUSSIAN, ODE), 512, jax.random.key(0)).score


@pytest.mark.slow
def test_with_its_true_statistics_the_posterior_is_exact():
    score = scored(None)
    assert score.mean_error < 0.04
    assert abs(score.variance_ratio - 1.0) < 4 * score.variance_ratio_se + 0.005


@pytest.mark.slow
def test_statistics_of_four_hundred_pairs_suffice():
    score = scored(400)
    assert score.mean_error < 0.15
    assert 0.95 < score.variance_ratio < 1.05


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["slope", "lags"])
def test_a_code_taken_as_an_unbiased_observation_misleads(monkeypatch, broken):
    """M = 1, or errors that are new at every time: the draws are off by half their spread."""
    true = latents._true

    def naive(basis):
        prior, regression = true(basis)
        change = jnp.ones_like if broken == "slope" else jnp.zeros_like
        return prior, dataclasses.replace(
            regression, **{broken: tuple(map(change, getattr(regression, broken)))}
        )

    monkeypatch.setattr(latents, "_true", naive)
    assert scored(None).mean_error > 0.4
