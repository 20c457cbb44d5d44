import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import CosineSchedule, target, to_denoised, to_score
from slams_jax.errors import InputError

SCHEDULE = CosineSchedule()
TIMES = jnp.linspace(0.0, 1.0, 101)


@pytest.mark.parametrize("eta", [1e-3, 1e-2])
def test_equals_the_published_formulas(eta):
    """mu = cos^2(arccos(sqrt(eta)) t) and sigma^2 = 1 - mu^2 + eta^2, here in double precision."""
    schedule, t = CosineSchedule(eta), np.asarray(TIMES, np.float64)
    mu = np.cos(np.arccos(np.sqrt(eta)) * t) ** 2
    np.testing.assert_allclose(schedule.alpha(TIMES), mu, rtol=2e-5)
    np.testing.assert_allclose(schedule.sigma(TIMES), np.sqrt(1 - mu**2 + eta**2), rtol=1e-5)
    np.testing.assert_allclose(
        schedule.log_snr(TIMES), np.log(mu / np.sqrt(1 - mu**2 + eta**2)), atol=5e-5
    )


@pytest.mark.parametrize("eta", [1e-3, 1e-2])
def test_ends(eta):
    schedule = CosineSchedule(eta)
    assert float(schedule.alpha(jnp.float32(0))) == 1.0
    np.testing.assert_allclose(schedule.sigma(jnp.float32(0)), eta, rtol=1e-6)
    np.testing.assert_allclose(schedule.alpha(jnp.float32(1)), eta, rtol=2e-5)
    np.testing.assert_allclose(schedule.sigma(jnp.float32(1)), 1.0, rtol=1e-6)


def test_log_snr_falls_strictly():
    assert np.all(np.diff(SCHEDULE.log_snr(TIMES)) < 0)


@pytest.mark.slow
def test_time_is_the_inverse_of_the_log_snr():
    t = jnp.concatenate([TIMES, jnp.geomspace(1e-4, 0.1, 50)])
    np.testing.assert_allclose(SCHEDULE.time(SCHEDULE.log_snr(t)), t, atol=3e-6)
    ends = SCHEDULE.log_snr(jnp.array([1.0, 0.0]))
    log_snr = jnp.linspace(ends[0], ends[1], 40)
    np.testing.assert_allclose(SCHEDULE.log_snr(SCHEDULE.time(log_snr)), log_snr, atol=1e-3)
    # Beyond its ends there is no time but the ends.
    np.testing.assert_array_equal(SCHEDULE.time(jnp.array([-20.0, 20.0])), [1.0, 0.0])


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("t", [0.0, 0.03, 0.5, 0.97])
@pytest.mark.parametrize("eta", [1e-3, 5e-2])
def test_a_perfect_prediction_gives_back_the_clean_array(kind, t, eta):
    schedule, t = CosineSchedule(eta), jnp.float32(t)
    keys = jax.random.split(jax.random.key(0))
    x_0, eps = (jax.random.normal(key, (5, 3)) for key in keys)
    x_t = schedule.alpha(t) * x_0 + schedule.sigma(t) * eps
    found = to_denoised(schedule, target(schedule, kind, x_0, eps, t), kind, x_t, t)
    # Rounding of x_t by 1e-7 grows by sigma / alpha.
    np.testing.assert_allclose(found, x_0, atol=2e-6 * max(1.0, 1 / float(schedule.alpha(t))))


def test_score_of_a_gaussian():
    """For x_0 ~ N(m, s^2) the score is -(x_t - alpha m) / (alpha^2 s^2 + sigma^2)."""
    mean, variance, t = 0.7, 0.3, jnp.float32(0.4)
    a, s = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
    x_t = jnp.linspace(-2.0, 2.0, 9)
    total = a**2 * variance + s**2
    denoised = mean + a * variance / total * (x_t - a * mean)
    expected = -(x_t - a * mean) / total
    np.testing.assert_allclose(to_score(SCHEDULE, denoised, x_t, t), expected, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, -1e-3, 0.1])
def test_eta_is_checked(eta):
    with pytest.raises(InputError, match="schedule eta must lie in"):
        CosineSchedule(eta)
