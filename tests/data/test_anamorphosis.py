"""Rain as a censored normal variable: there and back, and what dry values are taken for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from slams_jax.data import Censored
from slams_jax.data.anamorphosis import (
    Anamorphosis,
    Root,
    fit_anamorphosis,
    physical,
    transforms_of,
)
from slams_jax.errors import InputError
from slams_jax.schema import Channel

RAIN = Censored(power=2.5, scale=1e-3, trace=1e-4)
TRANSFORMS = (None, RAIN)
SHAPE, DAYS = (3, 4), 3000
DAYS_OF = np.datetime64("2001-01-01") + np.arange(DAYS)
WEIGHTS = np.ones(SHAPE)


@pytest.fixture(scope="module")
def known():
    """Normal variables with between 7 and 93 % of dry days."""
    centre = RAIN.threshold + np.linspace(-1.5, 1.5, 12).reshape(SHAPE)
    mean = np.stack([np.zeros(SHAPE), centre], axis=-1).astype(np.float32)
    return Anamorphosis(TRANSFORMS, mean, np.ones_like(mean))


@pytest.fixture(scope="module")
def latent(known):
    rng = np.random.default_rng(0)
    z = known.mean + rng.standard_normal((DAYS, *SHAPE, 2))
    return z.astype(np.float32)


@pytest.fixture(scope="module")
def amounts(latent):
    """Temperature and rain; the rain of some places is unknown."""
    x = physical(TRANSFORMS, latent)
    x[:7, 0, 0, 1] = np.nan
    return x


def test_amounts_are_those_of_the_formula(latent, amounts):
    z = latent[7:, ..., 1]
    wet = z > 0.1**0.4
    np.testing.assert_allclose(amounts[7:, ..., 1][wet], 1e-3 * z[wet] ** 2.5, rtol=1e-6)
    assert np.all(amounts[7:, ..., 1][~wet] == 0.0)
    assert amounts[7:, ..., 1][wet].min() > 0.999e-4
    np.testing.assert_array_equal(amounts[..., 0], latent[..., 0])


def test_there_and_back(known, amounts):
    x = amounts.copy()
    x[20, 1, 1, 1], x[20, 1, 2, 1] = 0.9e-4, -1e-6  # below the trace, and rounded below zero
    z = known.gaussian(x, DAYS_OF)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(z), np.isnan(x))
    expected = np.where(x[..., 1] <= RAIN.trace, 0.0, x[..., 1])
    for back in (physical(TRANSFORMS, z), physical(TRANSFORMS, jnp.asarray(z))):
        np.testing.assert_array_equal(back[..., 0], x[..., 0])
        np.testing.assert_allclose(back[..., 1], expected, rtol=1e-5)
    np.testing.assert_array_equal(physical((), x), x)


def test_dry_values_depend_on_time_and_place_alone(known, amounts):
    whole = known.gaussian(amounts, DAYS_OF)
    np.testing.assert_array_equal(known.gaussian(amounts[40:50], DAYS_OF[40:50]), whole[40:50])
    windows = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(
        known.gaussian(amounts[windows], DAYS_OF[windows]), whole[windows]
    )
    dry = amounts[..., 1] == 0.0
    assert np.unique(whole[..., 1][dry]).size > 0.99 * dry.sum()


def test_dry_values_make_the_variable_normal_again(known, amounts):
    """Mean, variance and lag-1 correlation of what is drawn, in standard errors."""
    z = (known.gaussian(amounts, DAYS_OF) - known.mean)[7:, ..., 1]
    n = len(z)
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(n)
    assert np.abs(z.var(axis=0) - 1.0).max() < 4 * np.sqrt(2 / n)
    assert np.abs((z[1:] * z[:-1]).mean(axis=0)).max() < 4 / np.sqrt(n)
    assert np.abs((z[:, :, 1:] * z[:, :, :-1]).mean(axis=0)).max() < 4 / np.sqrt(n)
    below = np.sort(z, axis=0)[n // 20]  # the 5 % quantile, dry nearly everywhere
    np.testing.assert_allclose(below, norm.ppf(0.05), atol=4 * np.sqrt(0.05 * 0.95 / n) / 0.103)


def test_dry_values_of_a_background_are_the_mean_of_those_drawn(known):
    dry = np.zeros((DAYS, *SHAPE, 2), np.float32)
    drawn = known.gaussian(dry, DAYS_OF)[..., 1]
    mean = known.gaussian(dry[0], None)[..., 1]
    error = drawn.std(axis=0) / np.sqrt(DAYS)
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 4 * error)


def test_the_fit_finds_the_normal_variables(known, amounts):
    found = fit_anamorphosis(amounts, TRANSFORMS, WEIGHTS)
    np.testing.assert_array_equal(found.mean[..., 0], 0.0)
    np.testing.assert_array_equal(found.std[..., 0], 1.0)
    share = ndtr((RAIN.threshold - found.mean) / found.std)[..., 1]
    true = ndtr(RAIN.threshold - known.mean)[..., 1]
    assert np.all(np.abs(share - true) < 4 * np.sqrt(true * (1 - true) / DAYS))
    np.testing.assert_allclose(found.std[..., 1], 1.0, atol=0.1)


def test_points_that_are_never_wet_take_the_scale_of_the_others(amounts):
    x = amounts.copy()
    x[:, 0, 1, 1], x[:, 2, 2, 1] = 0.0, 5e-3
    found = fit_anamorphosis(x, TRANSFORMS, WEIGHTS)
    assert found.std[0, 1, 1] == pytest.approx(1.0, abs=0.2)
    assert found.mean[0, 1, 1] < RAIN.threshold - 3.0
    assert found.mean[2, 2, 1] > RAIN.threshold + 1.0
    assert np.isfinite(found.gaussian(x[7:], DAYS_OF[7:])).all()


def test_moments_of_amounts(known):
    mean, std = known.moments(known.mean, np.array([3.0, 0.8], np.float32))
    z = known.mean + 0.8 * np.random.default_rng(1).standard_normal((100_000, *SHAPE, 2))
    x = physical(TRANSFORMS, z)[..., 1]
    np.testing.assert_allclose(mean[..., 1], x.mean(axis=0), rtol=0.05, atol=1e-5)
    np.testing.assert_allclose(std[1], np.sqrt(x.var(axis=0).mean()), rtol=0.05)
    assert std[0] == 3.0
    np.testing.assert_array_equal(mean[..., 0], known.mean[..., 0])


def test_the_derivative_of_amounts_is_finite():
    z = jnp.array([-1.0, 0.0, RAIN.threshold, 1.0])[:, None] * jnp.ones((1, 2))
    slope = jax.grad(lambda z: jnp.sum(physical(TRANSFORMS, z)[:, 1]))(z)
    np.testing.assert_allclose(slope[:, 1], [0.0, 0.0, 0.0, 2.5e-3], rtol=1e-5)


def test_the_root_is_linear_in_what_lies_behind_the_rain():
    z = np.array([-1.0, 0.3, 0.5, 2.0, np.nan], np.float32)
    amount = physical((RAIN,), jnp.asarray(z)[:, None])[:, 0]
    np.testing.assert_allclose(Root(RAIN)(amount), np.maximum(z, RAIN.threshold), rtol=1e-5)
    slope = jax.grad(lambda z: jnp.nansum(Root(RAIN)(physical((RAIN,), z))))(z[:4, None])
    np.testing.assert_allclose(slope[:, 0], [0.0, 0.0, 1.0, 1.0], rtol=1e-5)
    no_trace = Root(Censored(trace=0.0))
    assert jax.grad(lambda x: no_trace(x))(0.0) == 0.0
    error = Root(RAIN).errors(np.array([4e-3, 0.0, np.nan]), np.array([1e-5, 1e-3, 1e-3]))
    np.testing.assert_allclose(error, [0.4 * 4.0**-0.6 * 1e-2, 0.5, 0.5], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"power": 0.5}, "power of a censored variable must be >= 1, got 0.5"),
        ({"scale": 0.0}, "scale of a censored variable must be > 0, got 0"),
        ({"trace": -1e-4}, "trace of a censored variable must be >= 0, got -0.0001"),
    ],
)
def test_a_transform_out_of_range_is_refused(options, told):
    with pytest.raises(InputError, match=told):
        Censored(**options)


def test_what_cannot_be_censored_is_refused(known, amounts):
    channels = (Channel("temperature", 500.0), Channel("total_precipitation"))
    assert transforms_of(channels, {"total_precipitation": RAIN}) == TRANSFORMS
    assert transforms_of(channels, {}) == ()
    with pytest.raises(InputError, match="name 'rain', which is no variable of the state"):
        transforms_of(channels, {"rain": RAIN})
    negative = amounts.copy()
    negative[3, 1, 1, 1] = -1e-3
    with pytest.raises(InputError, match=r"an amount of -0\.001 is negative"):
        known.gaussian(negative, DAYS_OF)
    with pytest.raises(InputError, match="is negative"):
        fit_anamorphosis(negative, TRANSFORMS, WEIGHTS)
    with pytest.raises(InputError, match="channel 1 of the state is never above its trace"):
        fit_anamorphosis(0.0 * amounts, TRANSFORMS, WEIGHTS)
