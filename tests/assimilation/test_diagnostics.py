import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.assimilation.diagnostics import diagnose, warn_of
from slams_jax.assimilation.inflation import fit_inflation
from slams_jax.diffusion.presets import PRESETS, preset
from slams_jax.errors import InputError
from slams_jax.observe import Diagonal, Identity, LowRank, make_stream

POINTS, TIMES, MEMBERS = 60, 40, 50
B, R = 2.0, 0.5  # variances
GAIN = B / (B + R)


def single(array):
    return jnp.asarray(array, jnp.float32)


def problem(*, error=R, spread=1.0, seed=0, covariance=None):
    """Truth, background and observations of a field without correlations, and its analysis.

    Args:
        error: the variance that the analysis believes the observations to have.
        spread: factor on the standard deviation of its ensemble.
        seed: of everything.
        covariance: R of the stream; None for `error` throughout.
    """
    rng = np.random.default_rng(seed)
    shape = (TIMES, POINTS, 1, 1)
    truth = rng.standard_normal(shape)
    background = truth + np.sqrt(B) * rng.standard_normal(shape)
    values = truth + np.sqrt(R) * rng.standard_normal(shape)
    values[rng.random(shape) < 0.2] = np.nan
    gain = np.where(np.isfinite(values), B / (B + error), 0.0)
    mean = background + gain * (np.nan_to_num(values) - background)
    std = spread * np.sqrt((1 - gain) * B)
    members = mean + std * rng.standard_normal((MEMBERS, *shape))
    stream = make_stream("a", values, Identity(), covariance or Diagonal(single(error)))
    return stream, members.astype(np.float32), background.astype(np.float32)


@pytest.mark.parametrize(
    "covariance",
    [None, LowRank(single(np.full((1, POINTS), R)), jnp.zeros((1, POINTS, 1)))],
    ids=["diagonal", "low rank"],
)
def test_an_optimal_analysis_is_found_consistent(covariance, caplog):
    stream, members, background = problem(covariance=covariance)
    (found,) = diagnose([stream], members, background)
    n = int(stream.mask.sum())
    assert found.count == n
    # Standard errors of a mean of n squares: sqrt(2 / n).
    margin = 4 * np.sqrt(2 / n)
    np.testing.assert_allclose(found.degrees_of_freedom / n, GAIN, rtol=margin)
    np.testing.assert_allclose(found.chi_squared, 1 - GAIN * (1 - 1 / MEMBERS), rtol=margin)
    np.testing.assert_allclose(found.innovation_rms**2, B + R, rtol=margin)
    np.testing.assert_allclose([found.fit, found.spread], 1.0, rtol=2 * margin)
    warn_of([found])
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        (dict(error=5.0), "fit", None),
        (dict(spread=3.0), "spread", "the spread of the ensemble is 3"),
        (dict(spread=0.3), "spread", "the spread of the ensemble is 0.3"),
    ],
)
def test_what_is_not_consistent_is_told(options, name, message, caplog):
    stream, members, background = problem(**options)
    (found,) = diagnose([stream], members, background)
    assert abs(np.log(getattr(found, name))) > np.log(1.2)
    warn_of([found])
    told = [r.getMessage() for r in caplog.records]
    assert (message is None) or any(message in line for line in told)


def test_an_analysis_that_ignores_its_observations_is_told(caplog):
    stream, members, background = problem()
    far = background[None] + 0.01 * (members - members.mean(axis=0))
    (found,) = diagnose([stream], far, background)
    warn_of([found])
    assert "does not fit its" in caplog.records[0].getMessage()
    assert found.chi_squared > 3.0


def test_without_a_background_or_with_one_member_nothing_is_made_up():
    stream, members, _ = problem()
    (found,) = diagnose([stream], members[:1])
    assert found.innovation_rms is found.innovation_mean is found.spread is None
    assert found.degrees_of_freedom == 0.0
    assert (
        diagnose(
            [make_stream("z", np.zeros((1, 2)), Identity(), Diagonal(single(1.0)), space="latent")],
            members,
        )
        == []
    )


# --- inflation ---------------------------------------------------------------------------------


def analyse_with(strength):
    """Ensembles whose spread over skill is sqrt(strength x factor)."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((4000, 2))
    centre = truth + rng.standard_normal(truth.shape)
    white = rng.standard_normal((8, *truth.shape))
    # The mean of the members has some of their spread as its error: it is taken out.
    white -= white.mean(axis=0)

    def analyse(factor):
        std = np.sqrt(strength * factor / (1 + 1 / 8))
        return (centre + std * white).astype(np.float32)

    return analyse, truth.astype(np.float32)


@pytest.mark.parametrize("strength", [0.4, 1.8])
def test_inflation_is_found(strength):
    analyse, truth = analyse_with(strength)
    found = fit_inflation(analyse, truth)
    np.testing.assert_allclose(found.before, np.sqrt(strength), rtol=0.03)
    np.testing.assert_allclose(found.after, 1.0, atol=0.021)
    np.testing.assert_allclose(found.factor, 1 / strength, rtol=0.08)
    assert len(found.tried) <= 10
    assert found.tried[found.factor] == found.after


def test_a_good_spread_is_left_alone_and_bounds_are_kept():
    analyse, truth = analyse_with(1.0)
    found = fit_inflation(analyse, truth, tolerance=0.05)
    assert found.factor == 1.0
    assert len(found.tried) == 1
    analyse, truth = analyse_with(0.01)
    found = fit_inflation(analyse, truth, bounds=(0.5, 4.0))
    np.testing.assert_allclose(found.factor, 4.0)
    assert found.after < 0.5
    with pytest.raises(InputError, match=r"must be positive and hold 1, got \(2.0, 4.0\)"):
        fit_inflation(analyse, truth, bounds=(2.0, 4.0))


# --- presets -----------------------------------------------------------------------------------


def test_presets_are_ordered_by_their_cost():
    from slams_jax.diffusion import evaluations

    costs = []
    for sampler, guidance, paths, refinement in map(preset, PRESETS):
        moves = refinement.evaluations if refinement else 0
        costs.append(paths * evaluations(sampler) * (1 + guidance.derivatives) + moves)
    assert costs == sorted(costs)
    assert costs == [16, 32, 128, 512, 2048]
    with pytest.raises(InputError, match="unknown preset 'slow': choose from"):
        preset("slow")


def test_advice_fits_the_cause(caplog):
    """A misfit of one sign is a matter of units and biases, not of iterations."""
    stream, members, background = problem()
    (biased,) = diagnose([stream], members + 50.0, background + 50.0)
    (loose,) = diagnose([stream], members + 5.0 * np.sign(members), background)
    warn_of([biased, loose])
    first, second = (r.getMessage() for r in caplog.records if "does not fit" in r.getMessage())
    assert "they differ from it by -50" in first
    assert "check the units and the bias" in first
    assert "guidance iterations" in second


def test_a_stream_without_values_has_no_diagnostics():
    stream, members, background = problem()
    empty = dataclasses.replace(stream, mask=jnp.zeros_like(stream.mask))
    assert diagnose([empty], members, background) == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (np.ones((4, 3, 1)), r"spread over skill is \[0.0\] .*members that differ"),
        (np.zeros((4, 3, 1)), "members that differ from one another and from the truth"),
        (np.ones((1, 3, 1)), "needs 2 members at least for a spread, got 1"),
    ],
)
def test_an_inflation_needs_a_spread(members, message):
    with pytest.raises(InputError, match=message):
        fit_inflation(lambda _: members.astype(np.float32), np.zeros((3, 1), np.float32))
