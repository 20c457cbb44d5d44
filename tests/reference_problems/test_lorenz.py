"""Lorenz-63 as a reference problem: its posteriors are calibrated, and what is not is found."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.calibrate import lorenz as calibrate_lorenz
from slams_jax.diffusion import CosineSchedule, SamplerConfig
from slams_jax.dynamics.lorenz63 import trajectory
from slams_jax.errors import InputError
from slams_jax.gaussian import fit_prior
from slams_jax.models import score
from slams_jax.reference_problems import (
    Guidance,
    Method,
    ScorePrior,
    calibrate_ranks,
    lorenz,
    lorenz_cases,
    lorenz_draws,
    noisy_lorenz,
    noisy_lorenz_cases,
    ranks_of,
    run_lorenz,
)

pytestmark = pytest.mark.slow

MEAN, STD = np.array([0.0, 0.0, 23.6]), np.array([7.9, 9.0, 8.6])
RULE = Guidance("gaussian", (("iterations", 3),), covariance=True)


@pytest.fixture(scope="module")
def trained():
    """A network that was never trained, and statistics of a short run."""
    config = score.ScoreConfig(
        9, 3, widths=(8,), blocks=1, kernel=1, coordinates="none", prediction="v"
    )
    params = score.init(config, jax.random.key(0), (1, 1))
    start = lorenz.attractor(jax.random.key(1), 1)[0]
    run = trajectory(lorenz.SYSTEM, start, dt=lorenz.DT, length=400, substeps=lorenz.SUBSTEPS)
    frames = ((np.asarray(run) - MEAN) / STD).astype(np.float32)
    prior = ScorePrior(params, config, CosineSchedule())
    return prior, fit_prior(frames[:, None, None, :]), MEAN, STD


@pytest.fixture(scope="module")
def case(trained):
    """Two truths and few particles."""
    return lorenz_cases(*trained, frames=(9,), count=2, particles=4096, draws=64)[0]


@pytest.fixture(scope="module")
def exact_pairs():
    """Truths at the last frame and draws from their posteriors, by the reference itself."""
    truths, values = lorenz.simulate(jax.random.key(2), 9, 200)
    weights, _, last = lorenz._references(lorenz.attractor(jax.random.key(3), 8192), values)
    rng = np.random.default_rng(0)
    index = np.stack([rng.choice(len(w), 63, p=w) for w in weights])
    return truths, np.asarray(last, np.float64)[index]


def test_the_references_are_calibrated(exact_pairs):
    """Truths have even ranks among the particles: simulation and likelihood belong together."""
    assert ranks_of(*exact_pairs).p_values.min() > 0.005


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_spread_is_found(exact_pairs, factor):
    truths, draws = exact_pairs
    centre = draws.mean(axis=1, keepdims=True)
    assert ranks_of(truths, centre + factor * (draws - centre)).p_values.max() < 1e-3


def test_the_references_of_noisy_trajectories_are_calibrated():
    """First and last states of 200 truths have even ranks among draws from their references."""
    interval, error = noisy_lorenz.OBSERVED["high"]
    truths = np.asarray(noisy_lorenz.simulate(jax.random.key(5), 4, 200), np.float64)
    noise = np.random.default_rng(0).standard_normal(truths.shape[:2])
    values = jnp.asarray(truths[..., 0] / noisy_lorenz.SCALE + error * noise, jnp.float32)
    draws, _ = noisy_lorenz.references(jax.random.key(6), values[:, ::interval], error, 2048, 31)
    for k in (0, -1):
        assert ranks_of(truths[:, k], draws[:, :, k]).p_values.min() > 0.005


def test_noisy_cases(trained):
    """Both observe the first variable; every state of the trajectories is compared."""
    small = {"frames": 11, "count": 2, "particles": 2048, "nodes": 128, "draws": 64}
    low, high = noisy_lorenz_cases(*trained, **small)
    assert [list(np.flatnonzero(np.isfinite(v[0]))) for v in (low.values, high.values)] == [
        [0, 8],
        list(range(11)),
    ]
    assert high.problem.log_likelihood(jnp.zeros((11, 1, 1, 3))) < 0
    for one in (low, high):
        # Few particles: the second set of draws differs by more than its own sampling error.
        assert one.score(one.others).w1 < 0.5
        assert one.score(one.others + 0.3).w1 > 1.0
        assert np.all((one.effective > 5) & (one.effective < 2048))
    row = run_lorenz(low, Method(RULE, SamplerConfig("dpmpp_2m_ode", 3)), 32, jax.random.key(0))
    assert row.score is not None
    assert row.score.w1 > row.score.w1_exact


def test_ranks_are_counted():
    draws = np.broadcast_to(np.arange(15.0)[None, :, None], (16, 15, 1))
    truths = np.arange(16.0)[:, None] - 0.5
    found = ranks_of(truths, draws)
    np.testing.assert_array_equal(found.counts, [[2] * 8])
    np.testing.assert_allclose(found.p_values, 1.0)
    assert found.left_out == 0


def test_draws_that_are_not_finite_have_no_rank():
    draws = np.zeros((16, 15, 1))
    draws[3, 2] = np.nan
    found = ranks_of(np.ones((16, 1)), draws)
    assert (found.left_out, found.counts.sum()) == (1, 15)
    nothing = ranks_of(np.ones((16, 1)), draws + np.nan)
    assert (nothing.left_out, nothing.p_values[0]) == (16, 0.0)


def test_independent_references_agree(case):
    """Draws of the second filter have the moments of the first, within their errors."""
    found = case.score(case.others)
    assert abs(found.variance_ratio - 1) < 4 * found.variance_ratio_se + 0.1
    assert found.mean_error < 0.3
    assert found.w1 == found.w1_exact
    assert np.all((case.effective > 5) & (case.effective < 4096))
    assert case.score(case.others + 1.0).w1 > 2 * found.w1


def test_rows_and_ranks(case):
    method = Method(RULE, SamplerConfig("dpmpp_2m_ode", 3))
    row = run_lorenz(case, method, 32, jax.random.key(0)).as_dict()
    assert (row["forward_evaluations"], row["derivative_evaluations"]) == (3, 0)
    assert row["not_finite"] == 0
    assert row["w1"] > row["w1_exact"] > 0
    found = calibrate_ranks(case, method, pairs=4, members=7, key=jax.random.key(0))
    np.testing.assert_array_equal(found.counts.sum(axis=1), [4, 4, 4])


def test_a_draw_is_that_of_its_own_observations(case):
    """Several truths at a time or one by one: the same numbers."""
    one = draws_given(case, case.values)
    other = draws_given(case, case.values[:1])
    np.testing.assert_allclose(one[0], other[0], atol=1e-4)
    assert np.abs(one[0] - one[1]).max() > 1e-2


def draws_given(case, values):
    method = Method(RULE, SamplerConfig("dpmpp_2m_ode", 3))
    return lorenz_draws._draw_all(case, values, method, 8, jax.random.key(0), None)[0]


def test_pictures_and_file_of_the_ranks(case, tmp_path):
    rows = calibrate_lorenz.ranks([case], [Method(RULE, SamplerConfig(steps=2))], tmp_path, pairs=8)
    assert json.loads((tmp_path / "ranks.json").read_text()) == rows
    assert len(rows[0]["p_values"]) == 3
    assert (tmp_path / "ranks.png").stat().st_size > 5000


def test_errors(case):
    plain = inspect.unwrap(lorenz_cases)
    prior = case.problem.denoiser
    with pytest.raises(InputError, match="5 frames are shorter than the model's window of 9"):
        plain(prior, case.problem.covariance, MEAN, STD, frames=(5,))
    other = ScorePrior(prior.params, score.ScoreConfig(9, 4), prior.schedule)
    with pytest.raises(InputError, match="the model has states of 4 variables"):
        plain(other, case.problem.covariance, MEAN, STD)
    with pytest.raises(InputError, match=r"model trained with configs/sda_lorenz63\.py"):
        inspect.unwrap(noisy_lorenz_cases)(other, case.problem.covariance, MEAN, STD)
    with pytest.raises(InputError, match="between 32 and 64 members, got 65"):
        inspect.unwrap(run_lorenz)(case, Method(RULE, SamplerConfig()), 65, jax.random.key(0))
    with pytest.raises(InputError, match="take 15"):
        ranks_of(np.zeros((4, 3)), np.zeros((4, 8, 3)))
