"""The score filter against the Kalman filter, and against a posterior that is not Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.assimilation import score_filter
from slams_jax.cycling import Analyse, cycle_step
from slams_jax.diffusion import CosineSchedule, SamplerConfig
from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPrior, Modes, Spectrum
from slams_jax.models import StatePrior
from slams_jax.models.score import PosteriorDenoiser

SCHEDULE = CosineSchedule()
SIZE, SEEN = 8, np.array([0, 1, 3, 4, 6])
ERROR = np.array([0.3, 0.5, 0.4, 0.3, 0.6])
OPERATOR = lambda x: x[jnp.asarray(SEEN)]


def climate_of(covariance):
    """N(0, C) of single frames."""
    values, vectors = np.linalg.eigh(covariance)
    modes = Modes(jnp.asarray(vectors[None], jnp.float32), (1, len(values), 1), False)
    lags = jnp.zeros((1, len(values), 1), jnp.float32)
    spectrum = Spectrum(jnp.asarray(values[None], jnp.float32), lags)
    return GaussianPrior(modes, (spectrum,)).over(1)


def gaussian(climate):
    return StatePrior(PosteriorDenoiser(climate, SCHEDULE), climate, SCHEDULE)


def ring():
    """A correlation that falls with the distance on a ring."""
    apart = np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE)))
    apart = np.minimum(apart, SIZE - apart)
    return 0.9 * np.exp(-apart / 2.0) + 0.1 * np.eye(SIZE)


def kalman(mean, covariance, y):
    """The analysis of the values that are not missing."""
    seen = np.isfinite(y)
    h, r = np.eye(SIZE)[SEEN][seen], np.diag(ERROR[seen] ** 2)
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + r)
    return mean + gain @ (y[seen] - h @ mean), covariance - gain @ h @ covariance


@pytest.mark.slow
def test_an_analysis_is_that_of_the_kalman_filter():
    climate = climate_of(ring())
    shift, scale = 3.0, 2.0
    analyse = jax.jit(
        score_filter(
            gaussian(climate)._replace(mean=shift, std=scale),
            OPERATOR,
            jnp.asarray(ERROR, jnp.float32),
            inflation=1.1,
        )
    )
    assert isinstance(analyse, Analyse)
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((SIZE, SIZE)) / 3.0
    background = 2.0 + rng.standard_normal((40, SIZE)) @ mixed
    y = rng.standard_normal(5)
    y[2] = np.nan
    analysis = np.asarray(
        analyse(
            jnp.asarray(background, jnp.float32), jnp.asarray(y, jnp.float32), jax.random.key(0)
        )
    )
    covariance = 1.1**2 * np.cov(background.T)
    mean, expected = kalman(background.mean(axis=0), covariance, y)
    spread = np.sqrt(np.diag(expected))
    np.testing.assert_array_less(np.abs(analysis.mean(axis=0) - mean) / spread, 0.02)
    off = (np.cov(analysis.T) - expected) / np.outer(spread, spread)
    assert np.abs(off).max() < 0.03


@pytest.mark.slow
def test_a_cycle_is_the_kalman_filter():
    """x' = 0.95 S x + q for a shift S on the ring, whose climate is C."""
    climate, covariance = climate_of(ring()), ring()
    members, cycles, damping = 200, 40, 0.95
    root = np.linalg.cholesky((1.0 - damping**2) * covariance)
    rng = np.random.default_rng(1)
    truth = np.linalg.cholesky(covariance) @ rng.standard_normal(SIZE)
    mean, model = np.zeros(SIZE), damping * np.roll(np.eye(SIZE), 1, axis=0)
    exact, observations, posterior = [], [], covariance
    for _ in range(cycles):
        truth = model @ truth + root @ rng.standard_normal(SIZE)
        y = truth[SEEN] + ERROR * rng.standard_normal(5)
        y[rng.random(5) < 0.2] = np.nan
        posterior = model @ posterior @ model.T + root @ root.T
        mean, posterior = kalman(model @ mean, posterior, y)
        exact.append((mean, np.sqrt(np.diag(posterior))))
        observations.append(y)
    noise = jnp.asarray(root, jnp.float32)

    def forecast(x, key):
        return damping * jnp.roll(x, 1, axis=1) + jax.random.normal(key, x.shape) @ noise.T

    analyse = score_filter(gaussian(climate), OPERATOR, jnp.asarray(ERROR, jnp.float32))

    def step(state, given):
        done = cycle_step(forecast, analyse, state, *given)
        return done.analysis, (jnp.mean(done.analysis, axis=0), jnp.std(done.analysis, axis=0))

    start = (
        jax.random.normal(jax.random.key(2), (members, SIZE))
        @ jnp.linalg.cholesky(jnp.asarray(covariance, jnp.float32)).T
    )
    given = (
        jnp.asarray(np.array(observations), jnp.float32),
        jax.random.split(jax.random.key(3), cycles),
    )
    _, (means, spreads) = jax.jit(lambda: jax.lax.scan(step, start, given))()
    expected, spread = (np.array(part)[5:] for part in zip(*exact, strict=True))
    off = (np.asarray(means)[5:] - expected) / spread
    # Of 200 members, which know nothing else of the truth: 1 / sqrt(200) = 0.07 each, and a little
    # of what the cycles before left.
    assert np.sqrt(np.mean(off**2)) < 0.15
    assert abs(np.mean(off)) < 0.05
    assert abs(np.mean(np.asarray(spreads)[5:] / spread) - 1.0) < 0.03


@pytest.mark.slow
def test_a_prior_of_two_modes_counts_once():
    """One value: p(x) N(x; m, B) / N(x; 0, C) p(y | x) on a grid."""
    places, width = np.array([-0.9, 0.9]), 0.436
    climate = climate_of(np.array([[1.0]]))  # places² + width² = 1

    def denoiser(x, t):
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        total = (alpha * width) ** 2 + sigma**2
        at = jnp.asarray(places, jnp.float32).reshape(1, 1, 1, 1, 2)
        off = x[..., None] - alpha * at
        each = at + alpha * width**2 / total * off
        return jnp.sum(jax.nn.softmax(-0.5 * off**2 / total, axis=-1) * each, axis=-1)

    error, y, centre, spread = 1.0, 0.5, 0.2, 0.7
    members = centre + spread * jax.scipy.stats.norm.ppf((jnp.arange(400.0) + 0.5) / 400)
    prior = StatePrior(denoiser, climate, SCHEDULE)
    analyse = score_filter(prior, lambda x: x, jnp.array([error]))
    drawn = jax.jit(analyse)(members[:, None], jnp.array([y]), jax.random.key(0))[:, 0]
    x = np.linspace(-6, 6, 4001)
    normal = lambda x, m, s: np.exp(-0.5 * ((x - m) / s) ** 2) / s

    def moments(density):
        density = density * normal(x, centre, spread) * normal(y, x, error)
        mean = np.sum(x * density) / density.sum()
        return mean, np.sqrt(np.sum((x - mean) ** 2 * density) / density.sum())

    climate = sum(normal(x, p, width) for p in places)
    mean, deviation = moments(climate / normal(x, 0.0, 1.0))
    assert abs(drawn.mean() - mean) < 0.25 * deviation
    assert abs(drawn.std() / deviation - 1.0) < 0.05
    # Neither does the climate count twice, nor the background alone.
    for other in (moments(climate), moments(1.0 + 0.0 * x)):
        assert other[1] / deviation < 0.93


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"error": jnp.zeros(5)}, "errors of the observations must be positive"),
        ({"inflation": 0.0}, "inflation must be positive, got 0.0"),
        ({"std": -1.0}, "standard deviation of the states must be positive, got -1.0"),
        ({"sampler": SamplerConfig()}, "'dpmpp_2m' with noise is not: choose 'dpmpp_3m_ode'"),
        ({"members": jnp.zeros((3, 4))}, "states of 8 values, the members have 4"),
    ],
)
def test_bad_input_is_one_line(changed, expected):
    climate = climate_of(ring())
    given = {"error": jnp.ones(5), **changed}
    members = given.pop("members", jnp.zeros((3, SIZE)))
    prior = gaussian(climate)._replace(std=given.pop("std", 1.0))

    def analyse():
        made = score_filter(prior, OPERATOR, **given)
        return made(members, jnp.zeros(5), jax.random.key(0))

    with pytest.raises(InputError, match=expected):
        analyse()
