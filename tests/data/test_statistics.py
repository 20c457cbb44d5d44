import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.data import climatology, fit_statistics, standardise, unstandardise
from slams_jax.data import statistics as module
from slams_jax.errors import InputError
from slams_jax.seasons import yearly_basis
from support.data_samples import times


def seasonal(count=1461, *, noise=1.0, seed=0):
    """Two channels with a yearly wave of their own at each of 2 x 3 points, and white noise."""
    rng = np.random.default_rng(seed)
    when = times(count)
    days = (when - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    phase = 2 * np.pi * days / 365.2425
    mean = 270 + 10 * rng.standard_normal((2, 3, 2))
    wave = 5 * rng.standard_normal((2, 2, 3, 2))
    truth = mean + np.cos(phase)[:, None, None, None] * wave[0]
    truth = truth + np.sin(phase)[:, None, None, None] * wave[1]
    spread = noise * np.array([1.0, 3.0])
    x = truth + spread * rng.standard_normal(truth.shape)
    return x.astype(np.float32), when, truth, spread


def test_recovers_the_yearly_cycle_and_the_spread():
    x, when, truth, spread = seasonal()
    stats = fit_statistics(x, when, harmonics=1)
    assert stats.coefficients.shape == (3, 2, 3, 2)
    # The standard error of three coefficients fitted to n values is std * sqrt(3 / n).
    standard_error = spread * np.sqrt(3 / when.size)
    error = np.abs(climatology(stats, when) - truth).max(axis=(0, 1, 2))
    assert np.all(error < 5 * standard_error)
    np.testing.assert_allclose(stats.std, spread, rtol=5 / np.sqrt(2 * 6 * when.size) + 1e-3)


def test_is_the_least_squares_solution_with_missing_data():
    x, when, *_ = seasonal(800)
    x[np.random.default_rng(1).random(x.shape) < 0.4] = np.nan
    stats = fit_statistics(x, when, harmonics=2)
    basis = yearly_basis(when, 2).astype(np.float64)
    residuals = []
    for i, j in np.ndindex(2, 3):
        there = np.isfinite(x[:, i, j, 1])
        fit, *_ = np.linalg.lstsq(basis[there], x[there, i, j, 1].astype(np.float64))
        np.testing.assert_allclose(stats.coefficients[:, i, j, 1], fit, rtol=1e-5, atol=1e-4)
        residuals.append(x[there, i, j, 1] - basis[there] @ fit)
    spread = np.sqrt(np.mean(np.concatenate(residuals) ** 2))
    np.testing.assert_allclose(stats.std[1], spread, rtol=1e-5)


def test_blocks_of_times_do_not_matter(monkeypatch):
    x, when, *_ = seasonal(300)
    x[:50, 0] = np.nan
    whole = fit_statistics(x, when, harmonics=1)
    monkeypatch.setattr(module, "_CHUNK", 7 * x[0].size)
    streamed = fit_statistics(x, when, harmonics=1)
    np.testing.assert_allclose(streamed.coefficients, whole.coefficients, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(streamed.std, whole.std, rtol=1e-6)


def test_one_climatology_a_channel_is_weighted_by_area():
    x, when, *_ = seasonal(400)
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]], dtype=np.float32)
    stats = fit_statistics(x, when, weights=weights, per_point=False)
    assert stats.coefficients.shape == (1, 1, 1, 2)
    mean = np.average(
        x.mean(0, dtype=np.float64), axis=(0, 1), weights=np.repeat(weights[..., None], 2, -1)
    )
    np.testing.assert_allclose(stats.coefficients[0, 0, 0], mean, rtol=1e-6)
    square = ((x - mean) ** 2).mean(0)
    expected = np.sqrt(
        np.average(square, axis=(0, 1), weights=np.repeat(weights[..., None], 2, -1))
    )
    np.testing.assert_allclose(stats.std, expected, rtol=1e-5)


def test_points_with_hardly_any_data_take_the_climatology_of_the_channel():
    x, when, *_ = seasonal(400)
    x[:, 0, 0] = np.nan  # never observed
    x[3:, 0, 1] = np.nan  # three values for three coefficients
    x[60:, 0, 2] = np.nan  # two months do not tell a year
    stats = fit_statistics(x, when, harmonics=1)
    pooled = fit_statistics(x, when, harmonics=1, per_point=False)
    for j in range(3):
        np.testing.assert_allclose(
            stats.coefficients[:, 0, j], pooled.coefficients[:, 0, 0], rtol=1e-5
        )
    assert np.all(np.isfinite(climatology(stats, when)))
    assert not np.allclose(stats.coefficients[0, 1], pooled.coefficients[0, 0])


@pytest.mark.parametrize("per_point", [True, False])
def test_standardised_has_mean_zero_and_unit_spread(per_point):
    x, when, *_ = seasonal()
    x[5, 1, 1, 0] = np.nan
    stats = fit_statistics(x, when, harmonics=1, per_point=per_point)
    z = standardise(x, stats, when)
    assert z.dtype == np.float32
    assert np.isnan(z[5, 1, 1, 0])
    assert np.isnan(z).sum() == 1
    np.testing.assert_allclose(np.nanmean(z, axis=(0, 1, 2)), 0, atol=2e-3)
    np.testing.assert_allclose(np.sqrt(np.nanmean(z**2, axis=(0, 1, 2))), 1, atol=1e-3)
    np.testing.assert_allclose(unstandardise(z, stats, when), x, atol=1e-4)


def test_batches_of_windows_and_jax_arrays():
    x, when, *_ = seasonal(60)
    stats = fit_statistics(x, when, harmonics=1)
    windows = np.stack([x[3:8], x[20:25]])
    window_times = np.stack([when[3:8], when[20:25]])
    z = standardise(windows, stats, window_times)
    np.testing.assert_allclose(z[1], standardise(x, stats, when)[20:25], atol=1e-6)
    on_device = jax.tree.map(jnp.asarray, stats)

    @jax.jit
    def physical(z, stats):
        return unstandardise(z, stats, window_times)

    np.testing.assert_allclose(physical(jnp.asarray(z), on_device), windows, atol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda x: np.full_like(x, 5.0), {}, "channel 0 never varies .* .near 5.: leave it out"),
        (lambda x: np.where([True, False], x[:1], x), {}, "channel 0 never varies"),
        (lambda x: np.where([True, False], x, np.nan), {}, "channel 1 has no data"),
        (lambda x: x[:-1], {}, "with 40 times"),
        (lambda x: x[..., 0], {}, "time, lat, lon, channel"),
        (lambda x: x, {"harmonics": -1}, "harmonics must be at least 0"),
        (lambda x: x, {"weights": np.ones((3, 2))}, "weights have shape"),
    ],
)
def test_bad_input_gives_one_line(spoil, options, message):
    x, when, *_ = seasonal(40)
    with pytest.raises(InputError, match=message) as caught:
        fit_statistics(spoil(x).astype(np.float32), when, **options)
    assert "\n" not in str(caught.value)
