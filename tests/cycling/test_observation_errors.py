"""Errors of observations that a cycle estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import etkf
from slams_jax.cycling import Observed, estimate_errors
from slams_jax.errors import InputError, RunError
from support.linear_model import ERROR, forecast, operator, twin

CYCLES = 420


def observations():
    """Those of a twin, a fifth of them missing."""
    missing = np.random.default_rng(1).random((CYCLES, 2)) < 0.2
    return np.where(missing, np.nan, twin(CYCLES)[1]).astype(np.float32)


def estimated(guess, values=None, **options):
    return estimate_errors(
        forecast,
        lambda error: jax.jit(etkf(operator, error)),
        jax.random.normal(jax.random.key(7), (100, 3)),
        observations() if values is None else values,
        jax.random.key(1),
        observed=Observed(operator, jnp.asarray(guess, jnp.float32)),
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_a_wrong_guess_settles_at_the_truth(factor):
    """Within four standard errors: of a variance, sqrt(2 / n), somewhat more as states persist."""
    found = estimated(factor * ERROR[::-1], groups=np.array([0, 1]))
    assert found.settled
    assert found.error.dtype == np.float32
    first, *_, last = found.ratios
    assert np.abs(np.log(first)).max() > 0.5
    assert np.abs(last - 1.0).max() < 0.05
    spread = 0.5 * np.sqrt(2.0 / (0.8 * CYCLES))
    np.testing.assert_array_less(np.abs(found.error / ERROR - 1.0), 4.0 * spread)


@pytest.mark.slow
def test_one_group_keeps_the_proportions_of_the_guess():
    found = estimated(2.0 * ERROR, rounds=2)
    np.testing.assert_allclose(found.error[1] / found.error[0], 2.0, rtol=1e-5)
    assert found.ratios.shape == (2, 1)
    assert not found.settled


@pytest.mark.slow
def test_what_diverges_is_told():
    broken = observations()
    broken[30] = 1e30
    with pytest.raises(RunError, match=r"error variance of the groups is .* in round 1"):
        estimated(ERROR, broken, spin_up=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rounds=0), "rounds and tolerance must be positive, got 0 and 0.05"),
        (dict(tolerance=0.0), "rounds and tolerance must be positive"),
        (dict(groups=np.array([0, 2])), "groups must give each of 2 observations a number"),
        (dict(groups=np.array([0])), "groups must give each of 2 observations a number"),
        (dict(spin_up=CYCLES), r"groups \[0\] are never observed after a spin-up of 420 cycles"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        estimated(ERROR, **options)
