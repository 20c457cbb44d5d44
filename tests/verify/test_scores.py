"""Reliability, distances, spectra, regions and significance, against closed forms and packages."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.verify import metrics, summary

GLOBE = Grid.of(np.linspace(-75, 75, 6).tolist(), np.arange(0.0, 360.0, 40.0).tolist())
REGION = Grid.of(np.linspace(32.5, 45.0, 6).tolist(), np.linspace(-12.5, 7.5, 9).tolist())
DIMS = ("time", "lat", "lon", "channel")


def problem(members=6, missing=0.2, seed=0):
    """Skewed truth, members of different errors, some truth missing."""
    rng = np.random.default_rng(seed)
    shape = (4, *GLOBE.shape, 2)
    truth = 250 + 5 * rng.standard_normal(shape) + rng.gamma(1.0, 2.0, shape)
    ensemble = truth + rng.standard_normal((members, *shape)) * np.array([1.0, 4.0]) + 0.5
    truth[rng.random(shape) < missing] = np.nan
    return ensemble.astype(np.float32), truth.astype(np.float32)


def as_xarray(array, dims=DIMS):
    return xr.DataArray(np.asarray(array, np.float64), dims=dims)


def area():
    return xr.DataArray(GLOBE.area_weights().astype(np.float64), dims=("lat", "lon"))


# --- CRPS and its parts ------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 2, 6])
def test_the_crps_that_is_decomposed_is_that_of_two_packages(members):
    import scores.probability
    import xskillscore

    ensemble, truth = problem(members)
    x, y = as_xarray(ensemble, ("member", *DIMS)), as_xarray(truth)
    found = metrics.crps_decomposition(ensemble, truth, GLOBE.area_weights()).crps
    one = scores.probability.crps_for_ensemble(x, y, "member", method="ecdf", preserve_dims="all")
    np.testing.assert_allclose(found, one.weighted(area()).mean(DIMS[:3]), rtol=2e-5)
    other = xskillscore.crps_ensemble(y, x, member_dim="member", dim=[])
    np.testing.assert_allclose(found, other.weighted(area()).mean(DIMS[:3]), rtol=2e-5)


def hersbach(ensemble, truth, weight):
    """Reliability and potential CRPS of points (point,), from the definitions one by one."""
    size, total = len(ensemble), weight.sum()
    alpha, beta = np.zeros(size + 1), np.zeros(size + 1)
    below_first = below_last = 0.0
    for y, x, w in zip(truth, np.sort(ensemble, axis=0).T, weight / total, strict=True):
        edges = np.concatenate([[min(x[0], y)], x, [max(x[-1], y)]])
        for i in range(size + 1):
            low, high = edges[i], edges[i + 1]
            alpha[i] += w * (min(max(y, low), high) - low)
            beta[i] += w * (high - min(max(y, low), high))
        below_first += w * (y < x[0])
        below_last += w * (y < x[-1])
    g, o = alpha + beta, beta / np.where(alpha + beta > 0, alpha + beta, 1.0)
    # Outside the ensemble the frequencies are counted, and the widths follow from them (eq. 33).
    o[0], o[-1] = below_first, below_last
    g[0] = beta[0] / below_first if below_first else 0.0
    g[-1] = alpha[-1] / (1 - below_last) if below_last < 1 else 0.0
    p = np.arange(size + 1) / size
    return (g * (o - p) ** 2).sum(), (g * o * (1 - o)).sum()


def test_the_parts_are_those_of_the_definition_and_sum_exactly():
    ensemble, truth = problem()
    weights = GLOBE.area_weights()
    parts = metrics.crps_decomposition(ensemble, truth, weights)
    for c in range(2):
        present = np.isfinite(truth[..., c])
        weight = np.broadcast_to(weights, truth.shape[:-1])[present].astype(np.float64)
        x, y = ensemble[..., c][:, present].astype(float), truth[..., c][present].astype(float)
        reliability, potential = hersbach(x, y, weight)
        np.testing.assert_allclose(parts.reliability[c], reliability, rtol=2e-3)
        np.testing.assert_allclose(parts.crps[c], reliability + potential, rtol=1e-4)
        # The climate's CRPS is half the mean distance of two of its days.
        pairs = np.abs(y[:, None] - y[None]) * weight[:, None] * weight[None]
        np.testing.assert_allclose(
            parts.uncertainty[c], pairs.sum() / weight.sum() ** 2 / 2, rtol=1e-4
        )
    np.testing.assert_allclose(
        parts.reliability - parts.resolution + parts.uncertainty, parts.crps, rtol=1e-5
    )


@pytest.mark.slow
def test_reliability_is_small_for_a_calibrated_ensemble_alone():
    rng = np.random.default_rng(2)
    centre = rng.standard_normal((20000, 1))
    draws = (centre + rng.gamma(0.5, size=(41, 20000, 1))).astype(np.float32)
    good = metrics.crps_decomposition(draws[1:], draws[0])
    few = metrics.crps_decomposition(draws[1:11], draws[0])
    # What is left is the price of few members, differences of probabilities of 1/M squared.
    assert 0 <= float(good.reliability[0]) < 0.01 * float(good.crps[0])
    assert 8 < float(few.reliability[0]) / float(good.reliability[0]) < 16
    assert 0 < float(good.resolution[0]) < float(good.uncertainty[0])
    mean = draws[1:].mean(axis=0)
    narrow = metrics.crps_decomposition(mean + 0.3 * (draws[1:] - mean), draws[0])
    assert float(narrow.reliability[0]) > 0.05 * float(narrow.crps[0])
    # The climate as a forecast resolves nothing, and has nothing to be corrected.
    days = np.sort(centre, axis=0)[50::100].astype(np.float32)
    climate = metrics.crps_decomposition(
        np.broadcast_to(days[:, None], (200, 20000, 1)), centre.astype(np.float32)
    )
    assert abs(float(climate.resolution[0])) < 0.01 * float(climate.uncertainty[0])
    assert float(climate.reliability[0]) < 0.001 * float(climate.uncertainty[0])


def test_a_missing_member_makes_the_parts_missing():
    ensemble, truth = problem(missing=0.0)
    ensemble[1, 2, 2, 2, 0] = np.nan
    for part in metrics.crps_decomposition(ensemble, truth):
        assert np.isfinite(part[1])
    assert np.isnan(metrics.crps_decomposition(ensemble, truth).reliability[0])


def test_reliability_curve_equals_that_of_another_package():
    import xskillscore

    members = 4
    ensemble, truth = problem(members, missing=0.0)
    threshold = np.full_like(truth, 254.0)
    got = metrics.reliability_curve(ensemble, truth, threshold)
    probability = as_xarray((ensemble > 254.0).mean(axis=0))
    edges = np.linspace(-0.5, members + 0.5, members + 2) / members
    want = xskillscore.reliability(
        as_xarray(truth > 254.0) > 0, probability, dim=list(DIMS[:3]), probability_bin_edges=edges
    )
    np.testing.assert_array_equal(got.probability, np.arange(5) / 4)
    np.testing.assert_allclose(got.frequency, want.transpose(..., "channel"), rtol=1e-5)
    np.testing.assert_allclose(
        got.share * 4 * 54, want.samples.transpose(..., "channel"), rtol=1e-5
    )
    weighted = metrics.reliability_curve(ensemble, truth, threshold, GLOBE.area_weights())
    np.testing.assert_allclose(weighted.share.sum(axis=0), 1.0, rtol=1e-5)
    # Over all forecasts the event came as often as it did.
    came = (as_xarray(truth > 254.0)).weighted(area()).mean(DIMS[:3])
    np.testing.assert_allclose(
        jnp.nansum(weighted.share * weighted.frequency, axis=0), came, rtol=1e-5
    )


# --- distances and vectors ---------------------------------------------------------------------


def test_energy_distance_of_numbers_equals_that_of_scipy():
    rng = np.random.default_rng(3)
    first, second = rng.gamma(1.0, 2.0, (300, 1)), rng.standard_normal((4, 50, 1))
    want = scipy.stats.energy_distance(first[:, 0], second.ravel())
    assert metrics.energy_distance(first, second) == pytest.approx(want, rel=1e-6)
    gaps = np.where(np.arange(300)[:, None] < 50, np.nan, first)
    want = scipy.stats.energy_distance(first[50:, 0], second.ravel())
    assert metrics.energy_distance(gaps, second) == pytest.approx(want, rel=1e-6)
    assert np.isnan(metrics.energy_distance(np.full((3, 1), np.nan), second))


@pytest.mark.slow
def test_energy_distance_sees_correlations():
    rng = np.random.default_rng(4)
    white, other = rng.standard_normal((2, 3000, 2))
    tied = rng.standard_normal((3000, 2)) @ np.linalg.cholesky([[1.0, 0.9], [0.9, 1.0]]).T
    chance = metrics.energy_distance(white, other)
    assert metrics.energy_distance(white, tied) > 4 * chance
    assert np.all(np.asarray(metrics.wasserstein(white, tied)) < 0.1)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert metrics.energy_distance(white @ turn, tied @ turn) == pytest.approx(
        metrics.energy_distance(white, tied)
    )
    assert metrics.energy_distance(white, white) == 0.0


def test_energy_score_is_the_crps_of_vectors():
    ensemble, truth = problem()
    one = metrics.energy_score(ensemble[..., :1], truth[..., :1], GLOBE.area_weights())
    crps = metrics.crps(ensemble[..., :1], truth[..., :1], GLOBE.area_weights())
    assert float(one) == pytest.approx(float(crps[0]), rel=1e-5)
    x, y = ensemble.astype(float), truth.astype(float)
    distance = np.linalg.norm(x - y, axis=-1).mean(axis=0)
    pairs = np.linalg.norm(x[:, None] - x[None], axis=-1).sum(axis=(0, 1)) / (2 * 6 * 5)
    want = np.nanmean(distance - pairs)
    assert float(metrics.energy_score(ensemble, truth)) == pytest.approx(want, rel=1e-5)
    alone = float(metrics.energy_score(ensemble[:1], truth))
    assert alone == pytest.approx(np.nanmean(np.linalg.norm(x[0] - y, axis=-1)), rel=1e-5)


# --- spectra and regions -----------------------------------------------------------------------


@pytest.mark.parametrize("columns", [8, 9])
@pytest.mark.parametrize("periodic", [True, False])
def test_a_spectrum_sums_to_the_mean_square(columns, periodic):
    rng = np.random.default_rng(5)
    error = rng.standard_normal((3, 2, 6, columns, 2)) * np.array([1.0, 5.0])
    weights = np.broadcast_to(GLOBE.area_weights()[:, :1], (6, columns))
    power = metrics.zonal_spectrum(error, weights, periodic=periodic)
    assert len(power) == (columns // 2 + 1 if periodic else columns)
    rmse = metrics.rmse(error.astype(np.float32), np.zeros(error.shape, np.float32), weights)
    np.testing.assert_allclose(power.sum(axis=0), np.asarray(rmse) ** 2, rtol=1e-5)


def test_a_wave_has_its_wavenumber():
    longitude = np.deg2rad(np.arange(0.0, 360.0, 10.0))
    rows = np.stack([3.0 + 2.0 * np.cos(4 * longitude + 1.0), 8.0 * np.sin(18 * longitude + 0.5)])
    weights = np.repeat([[3.0], [1.0]], 36, axis=1)
    power = metrics.zonal_spectrum(rows[..., None], weights)[:, 0]
    expected = np.zeros(19)
    expected[0], expected[4] = 0.75 * 9.0, 0.75 * 2.0
    expected[18] = 0.25 * 64.0 * np.sin(0.5) ** 2  # the shortest wave has no phase
    np.testing.assert_allclose(power, expected, atol=1e-10)
    # A half wave along a region, without the jump from one edge to the other.
    along = np.cos(np.pi * 3 * (np.arange(36) + 0.5) / 36)
    region = metrics.zonal_spectrum(along[None, :, None], np.ones((1, 36)), periodic=False)[:, 0]
    np.testing.assert_allclose(region, 0.5 * (np.arange(36) == 3), atol=1e-12)
    with pytest.raises(InputError, match="weights have shape"):
        metrics.zonal_spectrum(rows[..., None], np.ones((2, 5)))


def test_regions_of_a_globe_and_of_a_domain():
    globe = metrics.regions_of(GLOBE)
    assert list(globe) == ["globe", "northern extratropics", "tropics", "southern extratropics"]
    parts = np.stack([globe[n] for n in list(globe)[1:]])
    np.testing.assert_array_equal(parts.sum(axis=0), 1)
    rows = np.asarray(GLOBE.latitude)
    np.testing.assert_array_equal(rows[globe["tropics"][:, 0]], [-15.0, 15.0])
    np.testing.assert_array_equal(rows[globe["southern extratropics"][:, 0]], [-75.0, -45.0])
    assert list(metrics.regions_of(REGION)) == ["domain"]
    belt = Grid.of([-10.0, 10.0], GLOBE.longitude)
    assert list(metrics.regions_of(belt)) == ["globe", "tropics"]


def test_binned_spread_and_error_lie_on_the_diagonal_when_they_should():
    rng = np.random.default_rng(6)
    points, members, bins = 60000, 8, 6
    scale = rng.uniform(0.5, 3.0, (points, 1))
    draws = scale * rng.standard_normal((members + 1, points, 1))
    draws[0, :5] = np.nan
    spread, error = metrics.binned_spread_skill(draws[1:], draws[0], bins=bins)
    assert spread.shape == error.shape == (bins, 1)
    assert np.all(np.diff(spread[:, 0]) > 0)
    # All bins together hold all points.
    total = np.sqrt(np.nanmean((draws[1:].mean(axis=0) - draws[0]) ** 2))
    np.testing.assert_allclose(np.sqrt((error**2).mean()), total, rtol=1e-3)
    # Bins of one true scale: a mean square of n values has the standard error √(2/n).
    known = np.repeat([1.0, 30.0, 900.0], points // 3)[:, None]
    draws = known * rng.standard_normal((members + 1, points, 1))
    spread, error = metrics.binned_spread_skill(draws[1:], draws[0], bins=3)
    np.testing.assert_allclose(error**2 / spread**2, 1.0, atol=4 * np.sqrt(2 / (points / 3)) + 0.02)
    flat = metrics.binned_spread_skill(
        draws[1:] / known, draws[0] / known, np.full(points, 1.0), bins=3
    )
    assert np.ptp(flat[1]) < 0.2 * flat[1].mean()  # the error does not follow the spread
    with pytest.raises(InputError, match="at least 2 members, got 1"):
        metrics.binned_spread_skill(draws[:1], draws[0])


def test_bins_are_of_equal_area():
    draws = np.array([[1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0]])[..., None]
    truth = np.array([10.0, 20.0, 30.0, 40.0])[:, None]
    _, error = metrics.binned_spread_skill(draws, truth, np.array([1.0, 1.0, 1.0, 3.0]), bins=2)
    np.testing.assert_allclose(error[:, 0], [np.sqrt(1400 / 3), 40.0])


# --- significance ------------------------------------------------------------------------------


def autoregressive(rng, number, memory, series):
    noise = rng.standard_normal((number, series))
    noise[0] /= np.sqrt(1 - memory**2)
    for t in range(1, number):
        noise[t] += memory * noise[t - 1]
    return noise


@pytest.mark.slow
@pytest.mark.parametrize("number", [12, 16, 30, 60, 90])
@pytest.mark.parametrize("memory", [0.0, 0.4, 0.8])
def test_intervals_hold_the_true_difference_as_often_as_they_say(number, memory):
    """90 to 97 %, within three standard errors of 2,000 series."""
    rng = np.random.default_rng(7)
    series = autoregressive(rng, number, memory, 2000)
    hard = 20 * autoregressive(rng, number, 0.8, 1)  # weather hard for both systems
    found = metrics.paired_difference(series + hard, np.repeat(hard, 2000, axis=1))
    covered = float(np.mean((found.low < 0) & (found.high > 0)))
    error = 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert 0.90 - error < covered < 0.97 + error
    np.testing.assert_array_equal(found.p_value > 0.05, (found.low < 0) & (found.high > 0))
    assert np.median(found.independent) < number / (1 + 4 * memory) + 0.2 * number


@pytest.mark.parametrize(("number", "memory"), [(12, 0.0), (12, 0.4), (60, 0.6)])
def test_an_annual_cycle_is_not_taken_for_chance(number, memory):
    """Three times as large as the noise, it neither widens intervals nor spoils their coverage."""
    start = np.datetime64("2003-01-15", "s")
    times = start + np.arange(number) * np.timedelta64(365 * 86400 // number, "s")
    phase = 2.0 * np.pi * np.arange(number)[:, None] / number
    noise = autoregressive(np.random.default_rng(13), number, memory, 2000)
    cycle = 3.0 * np.cos(phase + 1.0)
    found, calm = (
        metrics.paired_difference(noise + c, 0 * noise, times=times) for c in (cycle, 0 * cycle)
    )
    covered = float(np.mean((found.low < 0) & (found.high > 0)))
    error = 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert 0.95 - error < covered < 0.99 + error
    np.testing.assert_allclose(found.high - found.value, calm.high - calm.value, rtol=0.05)
    without = metrics.paired_difference(noise + cycle, 0 * noise)
    assert np.median((without.high - without.low) / (found.high - found.low)) > 2.0
    season = metrics.paired_difference(noise, 0 * noise, times=times[: number // 4].repeat(4))
    np.testing.assert_array_equal(season.low, metrics.paired_difference(noise, 0 * noise).low)


def test_times_that_are_not_those_of_the_scores_are_refused():
    times = np.arange(11).astype("datetime64[D]")
    with pytest.raises(InputError, match=r"12 scores need as many times, got \(11,\)"):
        metrics.paired_difference(np.ones((12, 1)), np.ones((12, 1)), times=times)


def test_long_series_without_correlation_have_the_interval_of_student():
    series = np.random.default_rng(9).standard_normal((200, 50))
    found = metrics.paired_difference(series, 0 * series)
    student = scipy.stats.t.ppf(0.975, 199) * series.std(axis=0, ddof=1) / np.sqrt(200)
    np.testing.assert_allclose(np.mean((found.high - found.value) / student), 1.0, atol=0.03)


def test_a_true_difference_is_found_and_has_its_sign():
    rng = np.random.default_rng(11)
    hard = np.exp(rng.standard_normal((60, 1)))
    first = hard * (1.0 + 0.02 * rng.standard_normal((60, 2))) * np.array([0.8, 1.0])
    found = metrics.paired_difference(first, np.repeat(hard, 2, axis=1), root=True)
    np.testing.assert_allclose(
        found.value, np.sqrt(first.mean(axis=0)) - np.sqrt(hard.mean()), rtol=1e-12
    )
    assert found.high[0] < 0
    assert found.p_value[0] < 0.001 < 0.05 < found.p_value[1]
    assert found.low[1] < 0 < found.high[1]
    np.testing.assert_allclose(found.value - found.low, found.high - found.value)
    again = metrics.paired_difference(first, np.repeat(hard, 2, axis=1), root=True)
    np.testing.assert_array_equal(found.low, again.low)
    same = metrics.paired_difference(first, first, root=True)
    np.testing.assert_allclose([*same.value, *same.low], 0.0, atol=1e-100)
    np.testing.assert_allclose(same.p_value, 1.0)


def test_few_times_have_no_interval():
    with pytest.raises(InputError, match="at least 12 times"):
        metrics.paired_difference(np.ones((11, 1)), np.ones((11, 1)))


def test_the_error_of_a_mean_is_corrected_for_the_number_of_members():
    """Draws about a mean whose error is known; a single member is left as it is."""
    rng = np.random.default_rng(12)
    truth = rng.standard_normal((4000, 1))
    mean = truth + 0.5 * rng.standard_normal(truth.shape)
    members = mean + 2.0 * rng.standard_normal((4, *truth.shape))
    assert metrics.rmse(members.mean(axis=0), truth)[0] > 1.0
    np.testing.assert_allclose(metrics.asymptotic_rmse(members, truth), 0.5, atol=0.05)
    one = members[:1]
    np.testing.assert_allclose(
        metrics.asymptotic_rmse(one, truth), metrics.rmse(one[0], truth), rtol=1e-6
    )


def test_the_brier_score_is_fair():
    """Its expectation is that of the probability itself, whatever the number of members."""
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(40_000, 1))
    y = (rng.uniform(size=p.shape) < p).astype(np.float32)
    level = np.full(p.shape, 0.5, np.float32)
    for size in (2, 8):
        members = (rng.uniform(size=(size, *p.shape)) < p).astype(np.float32)
        np.testing.assert_allclose(metrics.brier(members, y, level), 1 / 6, atol=0.007)
    one = metrics.brier(members[:1], y, level)
    np.testing.assert_allclose(one, np.mean((members[0] - y) ** 2), rtol=1e-5)
    y[0] = np.nan
    assert np.isfinite(metrics.brier(members, y, level)).all()
    members[0, 1] = np.nan
    assert np.isnan(metrics.brier(members, y, level)).all()


def test_occurrence_is_counted_over_area():
    truth = np.array([[[0.0, 2.0], [np.nan, 5.0]]], np.float32)
    members = np.array([[[[0.0, 2.0], [0.0, 0.0]]], [[[1.0, 2.0], [0.0, 6.0]]]], np.float32)
    weights = np.array([[1.0, 1.0], [2.0, 2.0]])
    found = summary.occurrence_scores(truth, {"analysis": members}, weights, [0.5, 3.0])
    assert found["truth"]["frequency"] == pytest.approx([3 / 4, 2 / 4])
    assert found["analysis"]["frequency"] == pytest.approx([(0.5 + 1 + 1) / 4, 1 / 4])
    # k / M is 1/2 twice where one member is right: (1/2)² - 1/4 = 0.
    assert found["analysis"]["brier"] == pytest.approx([0.0, 0.0], abs=1e-6)
