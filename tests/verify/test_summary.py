import json

import jax
import numpy as np
import pytest

from slams_jax.baselines import climatological_ensemble
from slams_jax.errors import InputError
from slams_jax.verify import metrics, summary


def problem(members=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((6, 3, 4, 2)).astype(np.float32)
    ensemble = rng.standard_normal((members, 6, 3, 4, 2)).astype(np.float32)
    weights = np.repeat(np.array([0.5, 1.0, 1.5], np.float32)[:, None], 4, axis=1)
    return truth, ensemble, weights


def average(values, weights):
    return (values * weights[None, :, :, None]).mean(axis=(0, 1, 2)) / weights.mean()


def test_field_scores_of_an_ensemble_and_of_one_field():
    truth, ensemble, weights = problem()
    systems = {"analysis": ensemble, "background": ensemble[:1]}
    scores = summary.field_scores(truth, systems, weights)
    for name, members in systems.items():
        error = members.mean(axis=0) - truth
        np.testing.assert_allclose(
            scores[name]["rmse"], np.sqrt(average(error**2, weights)), rtol=1e-5
        )
        np.testing.assert_allclose(scores[name]["bias"], average(error, weights), atol=1e-6)
    one = average(np.abs(ensemble[0] - truth), weights)
    np.testing.assert_allclose(scores["background"]["crps"], one, rtol=1e-5)
    # The fair CRPS from its definition, pair by pair.
    pairs = np.abs(ensemble[:, None] - ensemble[None]).sum(axis=(0, 1)) / (4 * 3)
    fair = average(np.abs(ensemble - truth).mean(axis=0) - 0.5 * pairs, weights)
    np.testing.assert_allclose(scores["analysis"]["crps"], fair, rtol=1e-5)


@pytest.mark.slow
def test_ensemble_scores():
    truth, ensemble, weights = problem()
    std = np.array([1.0, 2.0], np.float32)
    climate = np.full_like(truth, 0.5)
    scores = summary.ensemble_scores(jax.random.key(0), truth, ensemble, weights, std, climate)
    field = summary.field_scores(truth, {"": ensemble}, weights, std)[""]
    spread = np.sqrt(average(ensemble.var(axis=0, ddof=1), weights))
    np.testing.assert_allclose(field["spread"], spread, rtol=1e-5)
    mean_error = np.mean(np.array(field["rmse"]) / std)
    assert summary.in_climatological_std(field["rmse"], std) == pytest.approx(mean_error)
    counts = np.array(scores["rank_histogram"])
    assert counts.shape == (2, 5)
    np.testing.assert_array_equal(counts.sum(axis=1), truth[..., 0].size)
    below = (ensemble < truth).sum(axis=0)
    for channel in range(2):
        expected = np.bincount(below[..., channel].ravel(), minlength=5)
        np.testing.assert_array_equal(counts[channel], expected)
    # W1 is of standardised values: of a channel twice as wide it is half as much.
    plain = summary.ensemble_scores(
        jax.random.key(0), truth, ensemble, weights, np.ones(2, np.float32), climate
    )
    wide = summary.field_scores(truth, {"": ensemble}, weights, np.ones(2, np.float32))[""]
    np.testing.assert_allclose(field["w1"], np.array(wide["w1"]) / std, rtol=1e-4)
    # The climate moves members and truth alike: only what is held against it sees it.
    parts = metrics.crps_decomposition(ensemble - climate, truth - climate, weights)
    for name, values in parts._asdict().items():
        np.testing.assert_allclose(scores["crps_parts"][name], values, rtol=1e-5, atol=1e-6)
    alone = metrics.crps_decomposition(ensemble, truth, weights)
    np.testing.assert_allclose(scores["crps_parts"]["uncertainty"], alone.uncertainty, rtol=1e-4)
    assert scores["energy_distance"] == metrics.energy_distance(
        (ensemble - climate) / std, (truth - climate) / std
    )
    assert scores["energy_score"] < plain["energy_score"]  # a channel counts for half
    bins = np.array(scores["spread_skill_bins"]["spread"])
    assert bins.shape == (2, 10)
    assert np.all(np.diff(bins, axis=1) > 0)


def test_regions_are_scored_with_their_own_area():
    truth, ensemble, weights = problem()
    systems = {"analysis": ensemble, "background": ensemble[:1]}
    south = np.zeros((3, 4), bool)
    south[0] = True
    scores = summary.regional_scores(
        truth, systems, weights, {"all": np.ones((3, 4), bool), "south": south}
    )
    whole = summary.field_scores(truth, systems, weights)
    assert scores["all"]["background"] == whole["background"]
    error = ensemble.mean(axis=0)[:, 0] - truth[:, 0]
    found = scores["south"]["analysis"]
    np.testing.assert_allclose(found["rmse"], np.sqrt((error**2).mean(axis=(0, 1))), rtol=1e-5)
    spread = np.sqrt(ensemble[:, :, 0].var(axis=0, ddof=1).mean(axis=(0, 1)))
    np.testing.assert_allclose(found["spread"], spread, rtol=1e-5)
    np.testing.assert_allclose(
        found["spread_skill"], np.sqrt(5 / 4) * spread / found["rmse"], rtol=1e-5
    )
    assert set(scores["south"]["background"]) == {"rmse", "bias", "crps"}


def test_spectra_sum_to_the_scores():
    truth, ensemble, weights = problem()
    systems = {"analysis": ensemble, "background": ensemble[:1]}
    climate = np.zeros_like(truth)
    scores = summary.spectral_scores(truth, systems, weights, climate, periodic=True)
    assert scores["wavenumber"] == [0, 1, 2]
    fields = summary.field_scores(truth, systems, weights)
    for name in systems:
        total = np.array(scores[name]["error"]).sum(axis=1)
        np.testing.assert_allclose(np.sqrt(total), fields[name]["rmse"], rtol=1e-5)
    spread = np.array(scores["analysis"]["spread"]).sum(axis=1)
    np.testing.assert_allclose(
        np.sqrt(spread * 4 / 5), metrics.spread(ensemble, truth, weights), rtol=1e-5
    )
    assert "spread" not in scores["background"]
    power = np.array(scores["truth"]["power"]).sum(axis=1)
    np.testing.assert_allclose(power, average(truth**2, weights), rtol=1e-5)


@pytest.mark.slow
def test_significance_of_a_better_and_of_the_same_system():
    truth, _, weights = problem()
    truth = np.concatenate([truth] * 4)  # 24 times
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((3, *truth.shape)).astype(np.float32)
    systems = {"worse": truth + noise, "same": truth + 0.3 * noise, "analysis": truth + 0.3 * noise}
    found = summary.significance(truth, systems, weights)
    assert list(found["against"]) == ["worse", "same"]
    fields = summary.field_scores(truth, systems, weights)
    for score in ("rmse", "crps"):
        worse, same = (found["against"][n][score] for n in ("worse", "same"))
        np.testing.assert_allclose(
            worse["difference"],
            np.subtract(fields["analysis"][score], fields["worse"][score]),
            rtol=1e-4,
        )
        assert max(worse["high"]) < 0
        assert max(worse["p_value"]) < 0.01
        assert same["p_value"] == [1.0, 1.0]
        assert 1 < min(worse["independent"]) <= max(worse["independent"]) <= 24
    few = {name: members[:, :11] for name, members in systems.items()}
    assert summary.significance(truth[:11], few, weights)["against"] == {}


def test_a_missing_time_is_left_out_of_significance():
    truth, ensemble, weights = problem()
    truth, ensemble = np.concatenate([truth] * 3), np.concatenate([ensemble] * 3, axis=1)
    truth[2] = np.nan
    systems = {"other": ensemble[::-1] + 1.0, "analysis": ensemble}
    found = summary.significance(truth, systems, weights)["against"]["other"]["rmse"]
    assert np.isfinite(found["difference"]).all()


def test_events_of_ensembles():
    truth, ensemble, weights = problem()
    systems = {"analysis": ensemble, "background": ensemble[:1]}
    found = summary.event_reliability(truth, systems, weights, np.zeros_like(truth))
    assert list(found) == ["analysis"]
    assert found["analysis"]["probability"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(np.sum(found["analysis"]["share"], axis=1), 1.0, rtol=1e-5)


def test_json_has_no_nan():
    nested = {"a": [1.0, float("nan"), [float("inf"), 2]], "b": "x", "c": None, "d": True}
    assert summary.without_nan(nested) == {
        "a": [1.0, None, [None, 2]],
        "b": "x",
        "c": None,
        "d": True,
    }


@pytest.mark.slow
def test_scores_are_plain_numbers():
    truth, ensemble, weights = problem()
    scores = summary.field_scores(truth, {"a": ensemble}, weights)["a"]
    more = summary.ensemble_scores(
        jax.random.key(0), truth, ensemble, weights, np.ones(2, np.float32), np.zeros_like(truth)
    )
    stations = summary.station_scores(truth[:, 0, :, 0], {"a": ensemble[0, :, 0, :, 0]})["a"]
    for name, value in {**scores, **more, **stations}.items():
        flat = json.loads(json.dumps(value, allow_nan=False))
        assert flat == value, name


def test_station_scores_leave_out_what_is_missing():
    values = np.array([[1.0, 2.0], [np.nan, 4.0], [3.0, np.nan]], np.float32)
    forecast = np.array([[2.0, 0.0], [9.0, 4.0], [3.0, 9.0]], np.float32)
    scores = summary.station_scores(values, {"oi": forecast, "truth": np.nan_to_num(values)})
    assert scores["oi"]["count"] == 4
    assert scores["oi"]["station_count"] == [2, 2]
    # Over all values, not the mean of the stations' own.
    np.testing.assert_allclose(scores["oi"]["rmse"], np.sqrt((1 + 0 + 4 + 0) / 4))
    np.testing.assert_allclose(scores["oi"]["station_rmse"], [np.sqrt(0.5), np.sqrt(2.0)])
    assert scores["truth"]["rmse"] == 0.0


# --- climatology as an ensemble ----------------------------------------------------------------


def test_climatological_ensemble_is_days_of_the_past_about_the_climate():
    rng = np.random.default_rng(1)
    anomalies = rng.standard_normal((7, 2, 3, 1)).astype(np.float32)
    climate = 100.0 * np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((1, 2, 3, 1))
    climate = climate.astype(np.float32)
    ensemble = climatological_ensemble(anomalies, climate, members=7, seed=3)
    assert ensemble.shape == (7, 4, 2, 3, 1)
    for time in range(4):
        drawn = ensemble[:, time] - climate[time]
        # Each day once: the same set of fields, in an order of its own.
        order = [int(np.abs(anomalies - d).sum(axis=(1, 2, 3)).argmin()) for d in drawn]
        assert sorted(order) == list(range(7))
        np.testing.assert_allclose(drawn, anomalies[order], atol=1e-4)
    again = climatological_ensemble(anomalies, climate, members=7, seed=3)
    np.testing.assert_array_equal(ensemble, again)
    other = climatological_ensemble(anomalies, climate, members=7, seed=4)
    assert not np.array_equal(ensemble, other)
    few = climatological_ensemble(anomalies, climate, members=2, seed=3)
    assert few.shape == (2, 4, 2, 3, 1)


def test_climatology_has_no_more_days_than_there_were():
    anomalies, climate = np.zeros((3, 1, 1, 1), np.float32), np.zeros((2, 1, 1, 1), np.float32)
    with pytest.raises(InputError, match="4 members needs as many training days, got 3"):
        climatological_ensemble(anomalies, climate, members=4)
