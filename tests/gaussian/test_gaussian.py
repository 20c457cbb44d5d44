"""Priors and regressions in modes: against dense algebra, and on samples whose truth is known."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.gaussian import (
    HybridCovariance,
    absorbed,
    chi_squared,
    condition,
    fit_prior,
    fit_regression,
    forecast_likelihood,
)
from slams_jax.gaussian.modes import scaled
from slams_jax.gaussian.prior import warn_of_misfit
from slams_jax.gaussian.spectrum import Spectrum, stationary

SHAPE = (2, 6, 2)  # lat, lon, channel
FRAMES = 4


def waves(count: int, seed: int = 0) -> np.ndarray:
    """Frames of small waves, and of large ones that are stronger, slower and travel."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count + 50, *SHAPE))
    kernel = np.fft.rfft(np.eye(SHAPE[1])[0])
    wave = np.arange(len(kernel))
    persistence = 0.9 * np.exp(-0.5 * wave) * np.exp(0.6j * (wave == 1))
    size = 2.0 * np.exp(-0.7 * wave)
    state = np.zeros((SHAPE[0], len(kernel), SHAPE[2]), complex)
    frames = []
    for white in noise:
        drive = np.fft.rfft(white, axis=1, norm="ortho")
        root = np.sqrt(1.0 - np.abs(persistence) ** 2)[None, :, None]
        state = persistence[None, :, None] * state + root * drive
        frames.append(np.fft.irfft(size[None, :, None] * state, SHAPE[1], axis=1, norm="ortho"))
    frames = np.stack(frames[50:])
    frames[..., 1] = 0.8 * frames[..., 0] + 0.6 * frames[..., 1]
    return frames.astype(np.float32)


@pytest.fixture(scope="module", params=[(True, 4), (False, 24), (False, 9)])
def prior(request):
    periodic, rank = request.param
    return fit_prior(waves(400), periodic=periodic, rank=rank)


def dense(function, frames=FRAMES) -> np.ndarray:
    """The matrix of a linear map of trajectories."""
    size = frames * int(np.prod(SHAPE))
    basis = jnp.eye(size).reshape(size, frames, *SHAPE)
    return np.asarray(jax.lax.map(function, basis)).reshape(size, size).T.astype(np.float64)


@pytest.mark.slow
def test_products_are_those_of_one_covariance(prior):
    """(P^-1 + 1 / ratio)^-1 for one noise level and for one of each frame; P^(1/2) squared is P."""
    root = dense(prior.sample_root)
    covariance = root @ root.T
    for ratio in (jnp.float32(0.3), jnp.array([0.01, 0.3, 5.0, 1e6])):
        found = dense(lambda x, ratio=ratio: prior.posterior(x, ratio))
        noise = np.repeat(np.broadcast_to(ratio, FRAMES), np.prod(SHAPE))
        expected = np.linalg.inv(np.linalg.inv(covariance) + np.diag(1.0 / noise))
        np.testing.assert_allclose(found, expected, atol=2e-4)
        variance = np.diag(expected).reshape(FRAMES, -1).mean(axis=1)
        np.testing.assert_allclose(prior.over(FRAMES).variance(ratio), variance, atol=2e-4)


def test_the_denoiser_is_the_regression_on_noisy_frames(prior):
    covariance = dense(prior.sample_root)
    covariance = covariance @ covariance.T
    alpha, sigma = jnp.array([0.9, 0.6, 0.3, 1e-3]), jnp.array([0.3, 0.8, 0.9, 1.0])
    each = lambda a: np.repeat(np.asarray(a, np.float64), np.prod(SHAPE))
    noisy = np.outer(each(alpha), each(alpha)) * covariance + np.diag(each(sigma) ** 2)
    gain = covariance * each(alpha) @ np.linalg.inv(noisy)
    np.testing.assert_allclose(dense(lambda x: prior.denoise(x, alpha, sigma)), gain, atol=2e-4)


@pytest.mark.slow
def test_a_prior_has_the_covariance_of_its_data_amplitude_included():
    """Scale by scale and lag by lag, which no separable covariance has."""
    frames = 2.0 * waves(12_000)
    prior = fit_prior(frames, periodic=True)
    root = dense(prior.sample_root, 3)
    covariance = (root @ root.T).reshape(3, -1, 3, int(np.prod(SHAPE)))
    spun = np.concatenate([np.roll(frames, i, axis=2) for i in range(SHAPE[1])])
    flat = spun.reshape(SHAPE[1], len(frames), -1)
    for lag in range(3):
        pairs = flat[:, lag:], flat[:, : flat.shape[1] - lag]
        sample = np.einsum("ktp,ktq->pq", *pairs) / (SHAPE[1] * pairs[0].shape[1])
        np.testing.assert_allclose(covariance[lag, :, 0], sample, atol=0.12)
    found = chi_squared(prior, 2.0 * waves(2000, seed=1))
    for value in (found.all, *found.channel, *found.longitude, *found.block, found.innovation):
        assert 0.85 < value < 1.15
    assert chi_squared(prior, 4.0 * waves(200, seed=1)).all > 3.0


@pytest.mark.slow
def test_a_misfit_is_told_by_channel_longitude_and_scale(caplog):
    train = waves(600)
    prior = fit_prior(train, periodic=True)
    one_sided = waves(400, seed=1)
    one_sided[:, :, 0] *= 3.0
    with caplog.at_level("INFO"):
        warn_of_misfit(chi_squared(prior, waves(400, seed=1)), "the prior")
        warn_of_misfit(chi_squared(prior, one_sided), "the prior")
    right, wrong = caplog.records
    assert (right.levelname, wrong.levelname) == ("INFO", "WARNING")
    highest = lambda record: float(re.search(r"by longitude \S+ to (\S+),", record.message)[1])
    assert highest(right) < 1.2
    assert highest(wrong) > 2.0


def test_a_small_sample_is_shrunk():
    """Chi-squared of unseen frames: near one, where the sample covariance has several."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((24, 24)) / np.sqrt(24)
    draw = lambda n: (rng.standard_normal((n, 24)) @ mix).reshape(n, *SHAPE)
    train, other = draw(40), draw(400)
    found = chi_squared(fit_prior(train, order=0), other).all
    sample = np.einsum("tp,tq->pq", *(train.reshape(40, -1),) * 2) / 40
    flat = other.reshape(400, -1)
    unshrunk = np.mean(flat * np.linalg.solve(sample, flat.T).T)
    assert unshrunk > 2.2
    assert found < 0.75 * unshrunk


def test_a_small_sample_tells_variance_and_memory_of_all_scales():
    """In EOFs of their own, the frames leave the last third a correlation of 0.5 for 0.8."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((24, 24)) / np.sqrt(24)

    def red(count: int) -> np.ndarray:
        states = [rng.standard_normal(24)]
        for white in rng.standard_normal((count - 1, 24)):
            states.append(0.8 * states[-1] + 0.6 * white)
        return (np.stack(states) @ mix.T).reshape(count, *SHAPE).astype(np.float32)

    prior = fit_prior(red(160))
    found = chi_squared(prior, red(3000))
    assert 0.93 < found.all < 1.07
    assert 0.93 < found.innovation < 1.07
    lags = np.asarray(prior.spectra[0].lags)[0, :, 0]
    for third in np.split(lags, 3):
        assert abs(third.mean() - 0.8) < 0.08
    assert np.all(np.diff(prior.spectra[0].variance[0]) <= 0)


def test_gaps_are_not_taken_for_steps():
    frames = waves(1200)
    kept = np.flatnonzero(np.arange(1200) % 5 != 0)
    whole, holed = (
        fit_prior(frames[k], k, periodic=True).spectra[0].lags for k in (np.arange(1200), kept)
    )
    np.testing.assert_allclose(holed, whole, atol=0.12)
    spliced = fit_prior(frames[kept], periodic=True).spectra[0].lags
    assert np.abs(spliced[:2, 0] - whole[:2, 0]).max() > 0.04


def test_lags_beyond_the_order_follow_the_process():
    """An AR(2) process: its own autocorrelations, to any lag, positive definite."""
    phi = (0.5 + 0.3j, 0.2)
    lags = np.zeros(12, complex)
    lags[0], lags[1] = 1.0, 0.0
    for _ in range(200):  # Yule-Walker: c_1 = phi_1 + phi_2 c_1^*
        lags[1] = phi[0] + phi[1] * lags[1].conj()
    for i in range(2, 12):
        lags[i] = phi[0] * lags[i - 1] + phi[1] * lags[i - 2]
    known = stationary(lags[None, None, 1:3])
    matrix = Spectrum(jnp.ones((1, 1)), jnp.asarray(known, jnp.complex64)).correlation(12)
    np.testing.assert_allclose(matrix[0, 0, :, 0], lags, atol=1e-5)
    assert np.linalg.eigvalsh(matrix[0, 0]).min() > 0
    assert np.abs(stationary(np.array([[[1.5, -2.0]]]))).max() < 1.0


def seen_through(frames: np.ndarray, slope: float, rho: float, seed: int = 5) -> np.ndarray:
    """slope x + 1 + e, e with standard deviation 0.5 and correlation rho from time to time."""
    rng = np.random.default_rng(seed)
    error = np.zeros_like(frames)
    last = rng.standard_normal(frames.shape[1:])
    for t in range(len(frames)):
        last = rho * last + np.sqrt(1 - rho**2) * rng.standard_normal(frames.shape[1:])
        error[t] = 0.5 * last
    return slope * frames + 1.0 + error


def posterior_of(prior, regression, values, patterns, columns=None):
    operator, covariance, offset = regression.at(patterns)
    if columns is not None:
        covariance = HybridCovariance.of(covariance, columns)
    entered = absorbed(operator, covariance, jnp.asarray(values, jnp.float32) - offset)
    return condition(prior.modes, prior.spectra, len(values), [entered])


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 5])
def test_absorbing_is_bayes_rule(prior, count):
    """Errors of the climate alone, and with those that `count` columns say."""
    frames = waves(400)
    regression = fit_regression([seen_through(frames, 0.4, 0.8)], frames, prior.modes)
    patterns = np.array([0, -1, 0, 0])
    values = np.random.default_rng(1).standard_normal((FRAMES, *SHAPE))
    columns = np.random.default_rng(2).standard_normal((count, FRAMES, *SHAPE))
    posterior = posterior_of(prior, regression, values, patterns, columns if count else None)
    operator, covariance, offset = regression.at(patterns)
    root = dense(prior.sample_root)
    errors = dense(covariance.sample_root)
    seen = np.repeat(patterns >= 0, np.prod(SHAPE))
    slope = dense(operator)[seen]
    shared = columns.reshape(count, seen.size)[:, seen]
    noise = (errors @ errors.T)[np.ix_(seen, seen)] + shared.T @ shared
    precision = np.linalg.inv(root @ root.T) + slope.T @ np.linalg.solve(noise, slope)
    gap = np.asarray(values - offset, np.float64).reshape(-1)[seen]
    mean = np.linalg.solve(precision, slope.T @ np.linalg.solve(noise, gap))
    found = dense(lambda x: posterior.solve(x, jnp.float32(0.5)))
    expected = np.linalg.inv(precision + 2.0 * np.eye(len(root)))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    half = dense(lambda x: posterior.sample_root(x, jnp.float32(0.5)))
    np.testing.assert_allclose(half @ half.T, expected, atol=1e-3)
    whole = posterior.solve(posterior.pull, jnp.float32(1e6))
    np.testing.assert_allclose(np.asarray(whole).reshape(-1), mean, atol=3e-3)
    # Through the denoiser of the prior, at any noise level.
    x_t, alpha, sigma = jnp.asarray(values, jnp.float32), jnp.float32(0.6), jnp.float32(0.8)
    absorbing = posterior.absorb(prior.denoise(x_t, alpha, sigma), (sigma / alpha) ** 2)
    np.testing.assert_allclose(absorbing, posterior.denoise(x_t, alpha, sigma), atol=2e-3)


def test_errors_of_the_day_are_whitened_with_those_of_the_climate():
    frames = waves(400)
    prior = fit_prior(frames, periodic=True)
    regression = fit_regression([seen_through(frames, 0.4, 0.8)], frames, prior.modes)
    _, static, _ = regression.at(np.zeros(FRAMES, int))
    columns = 0.5 * np.random.default_rng(2).standard_normal((3, FRAMES, *SHAPE))
    covariance = HybridCovariance.of(static, columns)
    root, shared = dense(static.sample_root), columns.reshape(3, -1)
    expected = root @ root.T + shared.T @ shared
    half = dense(covariance.sample_root)
    np.testing.assert_allclose(half @ half.T, expected, atol=1e-4)
    white = dense(lambda x: covariance.whiten(x, jnp.zeros(())))
    np.testing.assert_allclose(white @ expected @ white.T, np.eye(len(white)), atol=1e-4)
    twice = dense(covariance.inflated(jnp.float32(2.0)).sample_root)
    np.testing.assert_allclose(twice @ twice.T, 2.0 * expected, atol=2e-4)
    # Of the frames that are left, as if the others had never been.
    mask = np.broadcast_to(
        np.array([True, False, True, True])[:, None, None, None], frames[:4].shape
    )
    left = dense(covariance.observed(mask, "background").sample_root)
    kept = np.ix_(mask.ravel(), mask.ravel())
    np.testing.assert_allclose((left @ left.T)[kept], expected[kept], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 5])
def test_given_nothing_else_the_posterior_is_the_forecast(prior, count):
    """N(m, B) of frames that are known; those of others follow from the prior."""
    rng = np.random.default_rng(3)
    known = np.array([True, False, True, True])
    share = tuple(0.2 + 0.3 * s.variance / s.variance.max() for s in prior.spectra)
    mean = np.where(known[:, None, None, None], rng.standard_normal((FRAMES, *SHAPE)), 0.0)
    mean = mean.astype(np.float32)
    white = jnp.asarray(rng.standard_normal((count, FRAMES, *SHAPE)), jnp.float32)
    columns = 0.05 * np.asarray(jax.vmap(prior.sample_root)(white))
    values, *likelihood = forecast_likelihood(
        prior, share, jnp.asarray(mean), columns if count else None, known
    )
    told = absorbed(*likelihood, values)
    posterior = condition(prior.modes, prior.spectra, FRAMES, [told])
    root = dense(prior.sample_root)
    covariance = root @ root.T
    scaled_by = tuple(jnp.sqrt(s)[..., None] for s in share)
    smaller = lambda x: prior.modes.field(scaled(prior.modes.coefficients(x), scaled_by))
    less = dense(smaller) @ root
    seen = np.repeat(known, np.prod(SHAPE))
    shared = columns.reshape(count, seen.size)[:, seen]
    error = (less @ less.T)[np.ix_(seen, seen)] + shared.T @ shared
    gain = covariance[:, seen] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    expected = covariance + gain @ (error - covariance[np.ix_(seen, seen)]) @ gain.T
    found = dense(lambda x: posterior.solve(x, jnp.float32(1e6)))
    np.testing.assert_allclose(found, expected, atol=2e-3)
    whole = np.asarray(posterior.solve(posterior.pull, jnp.float32(1e6))).reshape(-1)
    np.testing.assert_allclose(whole, gain @ mean.reshape(-1)[seen], atol=5e-3)


@pytest.mark.slow
def test_forecasts_less_certain_than_the_climate_tell_nothing(prior):
    """Along a column that exceeds the prior, its variance is left."""
    rng = np.random.default_rng(4)
    share = tuple(jnp.full_like(s.variance, 0.2) for s in prior.spectra)
    column = np.asarray(
        prior.sample_root(jnp.asarray(rng.standard_normal((FRAMES, *SHAPE)), jnp.float32))
    )
    mean = np.asarray(
        prior.sample_root(jnp.asarray(rng.standard_normal((FRAMES, *SHAPE)), jnp.float32))
    )
    values, *likelihood = forecast_likelihood(
        prior, share, jnp.asarray(mean), 5.0 * column[None], np.ones(FRAMES, bool)
    )
    posterior = condition(prior.modes, prior.spectra, FRAMES, [absorbed(*likelihood, values)])
    root = dense(prior.sample_root)
    along = np.linalg.solve(root @ root.T, column.ravel())
    variance = along @ dense(lambda x: posterior.solve(x, jnp.float32(1e6))) @ along
    assert variance == pytest.approx(along @ column.ravel(), rel=0.05)
    found = posterior.solve(posterior.pull, jnp.float32(1e6))
    np.testing.assert_allclose(found, mean, atol=0.02)


@pytest.mark.parametrize("count", [6, 12], ids=["all solved for", "by Lanczos iterations"])
def test_patterns_that_stand_out_most_are_kept(count):
    frames = waves(400)
    prior = fit_prior(frames, periodic=True)
    regression = fit_regression([seen_through(frames, 0.4, 0.8)], frames, prior.modes)
    _, static, _ = regression.at(np.zeros(FRAMES, int))
    columns = np.random.default_rng(2).standard_normal((count, FRAMES, *SHAPE))
    columns -= columns.mean(axis=0)  # as departures of members are
    whole, few = HybridCovariance.of(static, columns), HybridCovariance.of(static, columns, rank=2)
    assert whole.excess.shape == (count - 1,)
    assert np.all(np.diff(whole.excess) < 0)
    along = np.einsum("ptxyc,ptxyc->p", few.patterns, whole.patterns[:2])
    np.testing.assert_allclose(np.abs(along), 1.0, atol=1e-5)
    # Along them nothing changes, and what the others had is spread over all directions.
    size = float(FRAMES * np.prod(SHAPE))
    more = 1.0 + np.sum(whole.excess[2:]) / size
    np.testing.assert_allclose(few.scale, more * whole.scale, rtol=1e-4)
    np.testing.assert_allclose(more * (1.0 + few.excess), 1.0 + whole.excess[:2], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "rho"), [(1.0, 0.0), (0.4, 0.0), (0.4, 0.9)])
def test_the_posterior_of_a_regression_is_as_wide_as_its_error(slope, rho):
    """Spread over skill near one, which M = 1 or independent errors would miss."""
    frames = waves(4000)
    prior = fit_prior(frames, periodic=True)
    regression = fit_regression([seen_through(frames, slope, rho)], frames, prior.modes)
    length = 8
    truth = waves(8 * 60, seed=7)
    values = seen_through(truth, slope, rho, seed=8)

    @jax.jit
    def squares(values, regression):
        operator, covariance, offset = regression.at(np.zeros(length, int))
        entered = absorbed(operator, covariance, values - offset)
        posterior = condition(prior.modes, prior.spectra, length, [entered])
        mean = posterior.solve(posterior.pull, jnp.float32(1e6))
        # Each wavenumber but the first and last counts twice among real values.
        count = jnp.array([1.0, 2.0, 2.0, 1.0])[:, None, None]
        variance = jnp.sum(count / posterior.values[0]) / mean.size
        return mean, variance

    def spread_over_skill(regression):
        found = []
        for x, y in zip(np.split(truth, 60), np.split(values, 60), strict=True):
            mean, variance = squares(jnp.asarray(y, jnp.float32), regression)
            found.append((variance, np.mean((np.asarray(mean) - x) ** 2)))
        spread, error = np.sqrt(np.mean(found, axis=0))
        return spread / error

    assert 0.93 < spread_over_skill(regression) < 1.07
    unbiased = dataclasses.replace(
        regression, slope=tuple(jnp.ones_like(s) for s in regression.slope)
    )
    if slope < 1.0:
        assert spread_over_skill(unbiased) < 0.9
    if rho > 0.0:
        alone = dataclasses.replace(regression, lags=tuple(c[..., :0] for c in regression.lags))
        assert spread_over_skill(alone) < 0.9


@pytest.mark.slow
def test_an_input_that_sees_nothing_changes_nothing():
    frames = waves(400)
    prior = fit_prior(frames, periodic=True, rank=4)
    nothing = np.random.default_rng(3).standard_normal(frames.shape)
    regression = fit_regression([nothing], frames, prior.modes)
    posterior = posterior_of(prior, regression, nothing[:FRAMES], np.zeros(FRAMES, int))
    free = prior.over(FRAMES)
    x = jnp.asarray(frames[:FRAMES])
    np.testing.assert_allclose(posterior.pull, 0.0, atol=1e-6)
    args = (x, jnp.float32(0.5), jnp.float32(0.8))
    np.testing.assert_allclose(posterior.denoise(*args), free.denoise(*args), atol=1e-4)


def test_slow_modes_that_are_seen_clearly_count_in_a_short_sample():
    """Though there are but a handful of independent pairs of them."""
    rng = np.random.default_rng(5)
    frames = rng.standard_normal((365, *SHAPE))
    slow = 0.99
    for day in range(1, len(frames)):
        frames[day] = slow * frames[day - 1] + np.sqrt(1.0 - slow**2) * frames[day]
    seen = frames + 0.1 * rng.standard_normal(frames.shape)
    prior = fit_prior(frames, periodic=True)
    regression = fit_regression([seen], frames, prior.modes)
    np.testing.assert_allclose(np.abs(regression.slope[0]), 1.0, atol=0.15)


@pytest.mark.parametrize("slope", [0.1, 0.0])
def test_what_is_told_of_many_modes_counts_though_no_mode_alone_is_significant(slope):
    rng, count = np.random.default_rng(6), 300
    frames, noise = rng.standard_normal((2, count, 8, 8, 4))
    prior = fit_prior(frames, periodic=True)
    regression = fit_regression([slope * frames + noise], frames, prior.modes)
    found = np.asarray(regression.slope[0])
    if slope == 0.0:
        assert not np.any(found)
        return
    # Signal is slope^2 of what was seen, noise 1 / count: the mean slope is shrunk by their ratio.
    expected = slope * slope**2 / (slope**2 + 1.0 / count)
    np.testing.assert_allclose(found.real.mean(), expected, rtol=0.2)
    # Applied to other frames, it tells of the truth what slopes that were not shrunk overstate.
    truth, noise = rng.standard_normal((2, 200, 8, 8, 4))
    operator, covariance, _ = regression.at(np.zeros(200, int))
    residual = slope * truth + noise - np.asarray(operator(jnp.asarray(truth, jnp.float32)))
    expected = sum(float(np.sum(v)) for v in covariance.variance) / covariance.variance[0].size
    np.testing.assert_allclose(np.mean(residual**2), expected, rtol=0.05)


def test_each_pattern_of_availability_has_its_own_statistics():
    frames = waves(500)
    prior = fit_prior(frames, periodic=True)
    sharp, blurred = (seen_through(frames, slope, 0.5) for slope in (1.0, 0.2))
    regression = fit_regression([sharp, blurred], frames, prior.modes)
    operator, _, _ = regression.at(np.array([1, 0, -1, 0]))
    slope = np.abs(operator.slope[0][0, 0])
    np.testing.assert_allclose(slope[[0, 1, 3]], [0.2, 1.0, 1.0], atol=0.1)


def test_input_that_cannot_be_fitted_is_refused():
    with pytest.raises(InputError, match="at least 20 frames, got 5"):
        fit_prior(waves(5))
    with pytest.raises(InputError, match="need"):
        fit_prior(np.zeros((30, *SHAPE)))
    prior = fit_prior(waves(40), periodic=True)
    with pytest.raises(InputError, match="at least 10 complete frames, got 0"):
        fit_regression([np.full((40, *SHAPE), np.nan)], waves(40), prior.modes)


def test_modes_that_never_vary_tell_no_more_than_rounding_allows(state_model):
    """As they do beyond the truncation of a spectral model, where background and truth agree."""
    given = state_model.background
    least = jax.tree.map(lambda v: jnp.full_like(v, 1e-12), given.variance)
    exact = dataclasses.replace(given, variance=least)
    operator, covariance, _ = exact.at(np.array([0, 0]))
    for slope, variance in zip(operator.slope, covariance.variance, strict=True):
        np.testing.assert_allclose(np.abs(slope) ** 2 / variance, 1e5, rtol=1e-5)
    _, covariance, _ = given.at(np.array([0, 0]))
    for variance, before in zip(covariance.variance, given.variance, strict=True):
        np.testing.assert_array_equal(variance[..., 0], before[0])
