"""Noise-denoise Metropolis moves, against posteriors that are known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import (
    CosineSchedule,
    RefinementConfig,
    SamplerConfig,
    guide,
    refine,
    sample,
    sample_ensemble,
)
from slams_jax.errors import InputError
from slams_jax.reference_problems import Problem
from slams_jax.reference_problems.mixtures import ridge, three_modes

DRAWS = 1024
MOVES = RefinementConfig(moves=32, lowest=0.3)


likelihood = Problem.log_likelihood


@functools.cache
def guided(case_of):
    """A case, and draws from it with the best rule that needs no derivative."""
    case = case_of()
    p = case.problem
    posterior = guide(
        p.denoiser,
        p.innovations,
        p.schedule,
        rule="gaussian",
        iterations=10,
        covariance=p.covariance.solve,
    )
    draw = lambda key: sample(key, posterior, p.shape, p.schedule, SamplerConfig())
    return case, jax.jit(lambda key: sample_ensemble(key, draw, DRAWS))(jax.random.key(0))


def refined(case, draws, config=MOVES, of=likelihood):
    p = case.problem
    one = lambda key, x: refine(key, x, p.denoiser, functools.partial(of, p), p.schedule, config)
    keys = jax.random.split(jax.random.key(1), len(draws))
    return jax.jit(jax.vmap(one))(keys, draws)


@pytest.mark.slow
@pytest.mark.parametrize("case_of", [three_modes, ridge])
def test_moves_bring_draws_to_the_posterior(case_of):
    case, draws = guided(case_of)
    found = refined(case, draws)
    before, after = (case.score(np.asarray(x, np.float64)) for x in (draws, found.x_0))
    assert after.w1 < 0.5 * before.w1
    assert 0.1 < float(found.accepted.mean()) < 0.9
    np.testing.assert_allclose(
        found.log_likelihood[:20],
        [likelihood(case.problem, x) for x in found.x_0[:20]],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["always", "inverted"])
def test_a_wrong_acceptance_ratio_is_found_out(wrong):
    """Moves that are always accepted draw from the prior; inverted ones flee the observations."""
    case, draws = guided(three_modes)
    broken = {
        "always": lambda p, x: jnp.zeros(()) * likelihood(p, x),
        "inverted": lambda p, x: -likelihood(p, x),
    }
    right, found = refined(case, draws), refined(case, draws, of=broken[wrong])
    score = lambda x: case.score(np.asarray(x, np.float64)).w1
    assert score(found.x_0) > 3.0 * score(right.x_0)


@pytest.mark.slow
def test_without_observations_the_prior_stays():
    """Every move is accepted; draws from the prior stay draws from it."""
    case, _ = guided(three_modes)
    p = case.problem
    draw = lambda key: sample(key, p.denoiser, p.shape, p.schedule, SamplerConfig(steps=64))
    prior = jax.jit(lambda key: sample_ensemble(key, draw, DRAWS))(jax.random.key(2))
    config = RefinementConfig(moves=8, lowest=0.3, sampler=SamplerConfig(steps=32))
    found = refined(case, prior, config, of=lambda p, x: jnp.zeros(()))
    assert bool(found.accepted.all())
    for moment in (1, 2):
        # Of two samples of equal size, one started from the other.
        one, two = (
            np.asarray(x, np.float64).reshape(DRAWS, -1) ** moment for x in (prior, found.x_0)
        )
        error = np.hypot(one.std(axis=0), two.std(axis=0)) / np.sqrt(DRAWS)
        assert (np.abs(one.mean(axis=0) - two.mean(axis=0)) < 4.0 * error).all()


@pytest.mark.slow
def test_proposals_without_a_likelihood_are_rejected():
    case, draws = guided(three_modes)
    nowhere = lambda p, x: jnp.where(jnp.sum(x) > 0.0, likelihood(p, x), jnp.nan)
    positive = draws[np.asarray(draws).reshape(DRAWS, -1).sum(axis=1) > 0.0][:64]
    found = refined(case, positive, RefinementConfig(moves=4), of=nowhere)
    assert (np.asarray(found.x_0).reshape(64, -1).sum(axis=1) > 0.0).all()
    assert np.isfinite(np.asarray(found.log_likelihood)).all()


def test_levels_are_spread_and_mixed():
    levels = RefinementConfig(moves=10, lowest=0.25, highest=0.75).levels
    np.testing.assert_allclose(np.sort(levels), 0.25 + 0.05 * (np.arange(10) + 0.5))
    assert (np.diff(levels) > 0).any()
    assert (np.diff(levels) < 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moves": 0}, "moves must be at least 1, got 0"),
        ({"lowest": 0.9, "highest": 0.5}, "0 < lowest <= highest <= 1, got 0.9 and 0.5"),
        ({"sampler": SamplerConfig("dpmpp_3m_ode")}, "needs a solver of the reverse SDE, got 'dpm"),
        ({"sampler": SamplerConfig("ddim")}, "or 'ddim' with eta = 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        RefinementConfig(**options)


@pytest.mark.slow
def test_a_move_starts_from_its_level():
    """One move at a tiny level hardly changes the state."""
    case, draws = guided(three_modes)
    small = RefinementConfig(moves=1, lowest=0.02, highest=0.02)
    free = lambda p, x: jnp.zeros(())
    found = refined(case, draws[:128], small, of=free)
    moved = np.asarray(found.x_0 - draws[:128])
    sigma = float(CosineSchedule().sigma(jnp.float32(0.02)))
    assert 0.1 * sigma < moved.std() < 2.0 * sigma
