"""Scores against closed forms and against the `scores` package, another implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.verify import metrics, points

GRID = Grid.of(np.linspace(-75, 75, 6).tolist(), np.arange(0.0, 360.0, 40.0).tolist())
DIMS = ("time", "lat", "lon", "channel")
KEY = jax.random.key(7)


def problem(members=7, missing=0.2, seed=0):
    """Temperatures near 250 K with different errors per channel, skewed, some truth missing."""
    rng = np.random.default_rng(seed)
    shape = (5, *GRID.shape, 3)
    truth = 250 + 10 * rng.standard_normal(shape) + rng.gamma(1.0, 4.0, shape)
    noise = rng.standard_normal((members, *shape)) * np.array([0.5, 1.0, 3.0])
    ensemble = truth + noise + np.array([0.3, -0.2, 0.0])
    truth[rng.random(shape) < missing] = np.nan
    return ensemble.astype(np.float32), truth.astype(np.float32)


def as_xarray(array, dims=DIMS):
    return xr.DataArray(array.astype(np.float64), dims=dims)


def area():
    return xr.DataArray(GRID.area_weights().astype(np.float64), dims=("lat", "lon"))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("rmse", "rmse"), ("mae", "mae"), ("bias", "additive_bias")]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_deterministic_scores_equal_those_of_another_package(ours, theirs, weighted):
    import scores.continuous

    ensemble, truth = problem()
    weights = GRID.area_weights() if weighted else None
    got = getattr(metrics, ours)(ensemble[0], truth, weights)
    want = getattr(scores.continuous, theirs)(
        as_xarray(ensemble[0]),
        as_xarray(truth),
        preserve_dims=["channel"],
        weights=area() if weighted else None,
    )
    assert got.shape == (3,)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("members", [2, 7, 16])
def test_crps_equals_that_of_another_package(members):
    import scores.probability

    ensemble, truth = problem(members)
    pointwise = scores.probability.crps_for_ensemble(
        as_xarray(ensemble, ("member", *DIMS)),
        as_xarray(truth),
        "member",
        method="fair",
        preserve_dims="all",
    )
    want = pointwise.weighted(area()).mean(DIMS[:3])
    got = metrics.crps(ensemble, truth, GRID.area_weights())
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_crps_of_one_member_is_the_absolute_error():
    ensemble, truth = problem(1)
    weights = GRID.area_weights()
    np.testing.assert_allclose(
        metrics.crps(ensemble, truth, weights), metrics.mae(ensemble[0], truth, weights), rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("members", [2, 5, 40])
def test_fair_crps_of_a_gaussian_does_not_depend_on_the_number_of_members(members):
    mean, std, points = 1.5, 2.0, 20000
    rng = np.random.default_rng(members)
    truth = 280 + rng.standard_normal((points, 1))
    ensemble = 280 + mean + std * rng.standard_normal((members, points, 1))
    # E|X - y| - E|X - X'|/2 with y ~ N(0, 1): the first difference is N(mean, 1 + std²).
    total = np.sqrt(1 + std**2)
    folded = total * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / 2 / total**2) + mean * (
        1 - 2 * scipy.stats.norm.cdf(-mean / total)
    )
    exact = folded - std / np.sqrt(np.pi)
    # The score of each point alone gives the standard error of their mean.
    each = metrics.crps(ensemble.reshape(members, 1, points), truth.reshape(1, points))
    error = float(jnp.std(each)) / np.sqrt(points)
    assert abs(float(metrics.crps(ensemble, truth)[0]) - exact) < 4 * error
    assert 4 * error < 0.1 * exact  # the tolerance can see a bias of a tenth


def skewed(members, points=20000):
    """Truth and members drawn from one skewed distribution about a known centre of each point."""
    rng = np.random.default_rng(members)
    centre = 260 + 10 * rng.standard_normal((points, 1))
    draws = (centre + rng.gamma(0.5, size=(members + 1, points, 1))).astype(np.float32)
    return draws[1:], draws[0]


@pytest.mark.parametrize("members", [2, 4, 16])
def test_spread_equals_skill_when_truth_and_members_are_exchangeable(members):
    ensemble, truth = skewed(members)
    assert abs(float(metrics.spread_skill(ensemble, truth)[0]) - 1) < 0.04


def test_spread_skill_tells_overconfidence():
    ensemble, truth = skewed(16)
    mean = ensemble.mean(axis=0, keepdims=True)
    ratio = metrics.spread_skill(mean + 0.5 * (ensemble - mean), truth)
    assert abs(float(ratio[0]) - 0.5) < 0.03


def test_spread_is_the_root_of_the_mean_unbiased_variance():
    ensemble, truth = problem(4)
    variance = np.var(ensemble.astype(np.float64), axis=0, ddof=1)
    weights = GRID.area_weights()
    every = (variance * weights[..., None]).sum((0, 1, 2)) / (5 * weights.sum())
    np.testing.assert_allclose(metrics.spread(ensemble, None, weights), np.sqrt(every), rtol=1e-5)
    variance[np.isnan(truth)] = np.nan
    np.testing.assert_allclose(
        metrics.spread(ensemble, truth), np.sqrt(np.nanmean(variance, (0, 1, 2))), rtol=1e-5
    )


@pytest.mark.slow
def test_rank_histogram_is_flat_for_a_calibrated_ensemble_and_not_for_others():
    members = 9
    ensemble, truth = skewed(members)
    low, high = scipy.stats.chi2.ppf([0.001, 0.999], members)
    counts = metrics.rank_histogram(KEY, ensemble, truth)
    assert counts.shape == (1, members + 1)
    assert int(counts.sum()) == truth.size
    assert low < float(metrics.flatness(counts)[0]) < high
    biased = metrics.rank_histogram(KEY, ensemble + 0.2, truth)
    assert float(metrics.flatness(biased)[0]) > 3 * high
    assert int(biased[0, 0]) > int(biased[0, -1])  # members too warm: the truth ranks low


def test_flatness_follows_the_chi_square_distribution():
    counts = np.random.default_rng(1).multinomial(3000, np.full(8, 1 / 8), size=2000)
    statistic = np.asarray(metrics.flatness(counts))
    assert scipy.stats.kstest(statistic, scipy.stats.chi2(7).cdf).pvalue > 1e-3
    np.testing.assert_allclose(statistic[0], scipy.stats.chisquare(counts[0]).statistic, rtol=1e-4)


@pytest.mark.slow
def test_rank_histogram_equals_that_of_another_package():
    import scores.probability

    ensemble, truth = problem(5)
    want = scores.probability.rank_histogram(
        as_xarray(ensemble, ("member", *DIMS)), as_xarray(truth), "member", preserve_dims="channel"
    )
    counts = metrics.rank_histogram(KEY, ensemble, truth)
    np.testing.assert_array_equal(counts.sum(1), metrics.count(truth))
    np.testing.assert_allclose(
        counts / counts.sum(1, keepdims=True), want.transpose("channel", "rank"), rtol=1e-6
    )


def test_ties_are_shared_out_evenly():
    ensemble = np.zeros((4, 50000, 1), np.float32)
    ensemble[3] = 1.0
    counts = metrics.rank_histogram(KEY, ensemble, np.zeros((50000, 1), np.float32))
    assert int(counts[0, 4]) == 0  # the truth never lies above the last member
    expected = 12500
    assert np.all(np.abs(np.asarray(counts[0, :4]) - expected) < 4 * np.sqrt(expected))


def test_rank_histogram_against_observations_needs_their_error():
    members, std = 9, 3.0
    ensemble, truth = skewed(members)
    observed = truth + std * np.random.default_rng(8).standard_normal(truth.shape)
    high = scipy.stats.chi2.ppf(0.999, members)
    without = metrics.rank_histogram(KEY, ensemble, observed)
    with_error = metrics.rank_histogram(KEY, ensemble, observed, error_std=std)
    assert float(metrics.flatness(without)[0]) > 10 * high
    assert float(metrics.flatness(with_error)[0]) < high
    each = metrics.rank_histogram(KEY, ensemble, observed, error_std=np.full((20000, 1), std))
    np.testing.assert_array_equal(each, with_error)


def test_wasserstein_equals_that_of_scipy_for_any_sizes():
    rng = np.random.default_rng(3)
    first, second = rng.gamma(1.0, 2.0, (300, 2)), rng.standard_normal((300, 2))
    longer = rng.standard_normal((4, 211, 2))
    longer[0, :9, 1] = np.nan
    for a, b in ((first, second), (first, longer), (longer, first)):
        want = [
            scipy.stats.wasserstein_distance(*(x[..., c][np.isfinite(x[..., c])] for x in (a, b)))
            for c in range(2)
        ]
        np.testing.assert_allclose(metrics.wasserstein(a, b), want, rtol=1e-5)
    assert np.isnan(metrics.wasserstein(first, np.full((3, 2), np.nan))).all()


@pytest.mark.slow
def test_climatological_std():
    rng = np.random.default_rng(4)
    climate = 280 + 20 * rng.standard_normal((1, *GRID.shape, 3))
    truth = climate + rng.standard_normal((400, *GRID.shape, 3)) * np.array([1.0, 2.0, 4.0])
    truth[rng.random(truth.shape) < 0.3] = np.nan
    weights = GRID.area_weights()
    sampled = metrics.climatological_std(truth, weights=weights)
    np.testing.assert_allclose(sampled, [1.0, 2.0, 4.0], rtol=0.02)
    given = metrics.climatological_std(truth, np.broadcast_to(climate, truth.shape), weights)
    np.testing.assert_allclose(given, [1.0, 2.0, 4.0], rtol=0.02)
    # Two times only: without n/(n - 1) the result would be smaller by a root of two.
    pairs = np.random.default_rng(5).standard_normal((2, 20000, 1))
    np.testing.assert_allclose(metrics.climatological_std(pairs), 1.0, rtol=0.02)


@pytest.mark.slow
def test_a_station_is_scored_where_it_reported_only():
    forecast = np.array([[1.0, 5.0, 1.0], [2.0, 5.0, 1.0], [3.0, 5.0, 1.0]])
    truth = np.array([[0.0, np.nan, np.nan], [2.0, 8.0, np.nan], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(metrics.count(truth), [2, 1, 0])
    np.testing.assert_allclose(metrics.rmse(forecast, truth), [np.sqrt(0.5), 3.0, np.nan])
    np.testing.assert_allclose(metrics.bias(forecast, truth), [0.5, -3.0, np.nan])
    pooled = metrics.mae(forecast[..., None], truth[..., None])
    np.testing.assert_allclose(pooled, [4 / 3], rtol=1e-6)


@pytest.mark.slow
def test_a_missing_forecast_is_no_good_forecast():
    ensemble, truth = problem(4, missing=0.0)
    ensemble[2, 1, 1, 1, 1] = np.nan
    for score in (
        metrics.rmse(ensemble[2], truth),
        metrics.crps(ensemble, truth),
        metrics.spread_skill(ensemble, truth),
    ):
        np.testing.assert_array_equal(np.isnan(score), [False, True, False])
    with pytest.raises(InputError, match="members must be finite"):
        metrics.rank_histogram(KEY, ensemble, truth)
    truth[1, 1, 1, 1] = np.nan
    assert np.isfinite(metrics.crps(ensemble, truth)).all()
    assert int(metrics.rank_histogram(KEY, ensemble, truth).sum()) == truth.size - 1


def test_scores_are_pure_and_scale_with_the_units():
    ensemble, truth = problem(5)
    weights = GRID.area_weights()
    for score in (metrics.crps, metrics.spread):
        plain = score(ensemble, truth, weights)
        np.testing.assert_allclose(jax.jit(score)(ensemble, truth, weights), plain, rtol=1e-5)
        np.testing.assert_allclose(score(4 * ensemble, 4 * truth, weights), 4 * plain, rtol=1e-5)
        np.testing.assert_allclose(score(ensemble, truth, 9 * weights), plain, rtol=1e-5)


def test_weights_are_areas():
    truth = np.zeros((1, 2, 3, 1), np.float32)
    forecast = truth.copy()
    forecast[:, 0] = 1.0
    weights = np.array([[3.0, 3, 3], [1, 1, 1]])
    np.testing.assert_allclose(metrics.bias(forecast, truth, weights), [0.75])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: metrics.rmse(x[0], y, np.ones((9, 6))), "weights have shape"),
        (lambda x, y: metrics.rmse(x[0], y, -GRID.area_weights()), "not negative, and"),
        (lambda x, y: metrics.rmse(x[0], y, 0 * GRID.area_weights()), "not all zero"),
        (lambda x, y: metrics.spread(x[:1], y), "at least 2 members, got 1"),
        (lambda x, y: metrics.rank_histogram(KEY, x, y, error_std=-1.0), "not be negative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(*problem(3))


def test_shapes_must_agree():
    # Past the type check of the tests, which would stop it first.
    with pytest.raises(InputError, match="make them equal"):
        points.error_of(np.zeros((1, 3, 2)), np.zeros((5, 3, 2)))
