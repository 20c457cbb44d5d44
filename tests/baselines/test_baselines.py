"""Baselines of one time, and what they see."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import (
    Background,
    Climatology,
    OptimalInterpolation,
    Persistence,
    Window,
    tuned,
)
from slams_jax.observe import Diagonal, Identity, fit_separable, make_stream

SHAPE = (4, 6, 2)
TIMES, BIAS, STD = 6, 0.5, np.array([2.0, 3.0], np.float32)
BACKGROUND_ERROR, ERROR = 0.6, 0.3  # standard deviations


@pytest.fixture(scope="module")
def covariance():
    errors = np.random.default_rng(0).standard_normal((400, *SHAPE))
    return fit_separable((BIAS + BACKGROUND_ERROR * STD * errors).astype(np.float32), rank=4)[0]


def problem(seed: int = 1) -> tuple[Window, np.ndarray]:
    """A window and its truth."""
    rng = np.random.default_rng(seed)
    white = lambda: rng.standard_normal((TIMES, *SHAPE)).astype(np.float32)
    climate = np.full((TIMES, *SHAPE), 280.0, np.float32) + np.arange(TIMES)[:, None, None, None]
    z = white()
    truth = (climate + STD * z).astype(np.float32)
    error = Diagonal(jnp.asarray((ERROR * STD) ** 2)[None, None, None])
    values = truth + ERROR * STD * white()
    stream = make_stream("obs", values, Identity(), error)
    background = z + BIAS / STD + BACKGROUND_ERROR * white()
    return Window(climate, STD, (stream,), {"background": background}), truth


def changed_from(window: Window, time: int) -> Window:
    """Other observations, and another background, from a time on."""
    stream = window.streams[0]
    values = stream.values.at[time:].add(5.0)
    background = window.fields["background"].copy()
    background[time:] += 3.0
    streams = (dataclasses.replace(stream, values=values),)
    return dataclasses.replace(window, streams=streams, fields={"background": background})


def all_baselines(covariance):
    bias = np.full(SHAPE, BIAS, np.float32)
    anomalies = np.random.default_rng(3).standard_normal((20, *SHAPE)).astype(np.float32)
    return {
        "background": Background(),
        "persistence": Persistence(bias),
        "climatology": Climatology(anomalies),
        "oi": OptimalInterpolation(covariance, bias),
        "ensemble": OptimalInterpolation(covariance, bias, ensemble=True),
    }


@pytest.mark.slow
def test_what_sees_the_past_never_sees_the_future(covariance):
    window, _ = problem()
    other = changed_from(window, 3)
    for name, baseline in all_baselines(covariance).items():
        assert baseline.sees == "past"
        one, two = (np.asarray(baseline(jax.random.key(0), w, members=4)) for w in (window, other))
        np.testing.assert_allclose(one[:, :3], two[:, :3], rtol=1e-6, err_msg=name)
        uses_later = name not in ("persistence", "climatology")
        assert (np.abs(one[:, 3:] - two[:, 3:]).max() > 0.1) == uses_later, name
        assert len(one) == (4 if name in ("climatology", "ensemble") else 1)


def test_persistence_keeps_the_departure_of_the_first_background(covariance):
    window, _ = problem()
    (found,) = all_baselines(covariance)["persistence"](jax.random.key(0), window, members=1)
    first = window.background[0] - BIAS
    expected = first + np.arange(TIMES)[:, None, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_deterministic_interpolation_is_the_exact_one_and_better_than_a_mean(covariance):
    window, truth = problem()
    baselines = all_baselines(covariance)
    key = jax.random.key(1)
    (analysis,) = baselines["oi"](key, window, members=3)
    # White errors of background and observations: the weights are known.
    weight = BACKGROUND_ERROR**2 / (BACKGROUND_ERROR**2 + ERROR**2)
    background = window.background - BIAS
    expected = background + weight * (np.asarray(window.streams[0].values) - background)
    np.testing.assert_allclose(analysis, expected, atol=0.5)
    mean = baselines["ensemble"](key, window, members=3).mean(axis=0)
    rms = lambda x: np.sqrt(np.mean(((x - truth) / STD) ** 2))
    assert rms(analysis) < rms(mean)


def test_tuning_finds_the_variance_of_the_background(covariance):
    window, truth = problem(4)
    wrong = OptimalInterpolation(
        covariance.inflated(jnp.float32(0.25)), np.full(SHAPE, BIAS, np.float32)
    )
    found = tuned(wrong, window, truth, np.ones(SHAPE[:2]), factors=(0.25, 1.0, 4.0, 16.0))
    np.testing.assert_allclose(found.covariance.std, covariance.std, rtol=1e-4)
