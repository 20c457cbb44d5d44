"""A run resumes bit for bit, says how healthy it is, and stops where it diverges."""

import datetime
import functools
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from slams_jax.baselines import etkf, regularised_filter
from slams_jax.cycling import (
    Observed,
    WeightedEnsemble,
    cycle,
    files,
    observation_series,
    run_cycle,
    summary,
)
from slams_jax.errors import Diverged, InputError, RunError
from slams_jax.storage import locked, read_records
from support.linear_model import ERROR, NOISE, TURN, forecast, operator, twin

MEMBERS = 8
OBSERVED = Observed(operator, ERROR)
analyse = jax.jit(etkf(operator, ERROR, inflation=1.02))


def start_of(members=MEMBERS):
    return jax.random.normal(jax.random.key(7), (members, 3))


def pairs(count=10, interval=0.5):
    return [(interval * (k + 1), y) for k, y in enumerate(twin(count)[1])]


def run(directory, observations, **options):
    options = {"observed": OBSERVED, "begin": 0.0, "interval": 0.5, "every": 3} | options
    given = {"forecast": forecast, "analyse": analyse, "start": start_of()}
    given = {name: options.pop(name, value) for name, value in given.items()}
    key = options.pop("key", jax.random.key(1))
    return run_cycle(
        given["forecast"],
        given["analyse"],
        given["start"],
        observations,
        key,
        directory=directory,
        **options,
    )


def contents(directory):
    """Records without their seconds, the analyses, and the arrays of the checkpoint."""
    records = read_records(directory / "cycle.jsonl")
    with xr.open_zarr(directory / "analyses.zarr", consolidated=False, chunks=None) as analyses:
        analyses = analyses.load()
    with np.load(directory / "checkpoint.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records], analyses, arrays


def assert_same(one, other):
    (records, analyses, arrays), (others, more, beside) = contents(one), contents(other)
    assert records == others
    xr.testing.assert_identical(analyses, more)
    assert arrays.keys() == beside.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, beside[name])


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3, 8])
def test_a_killed_run_resumes_bit_for_bit(at, tmp_path):
    straight = run(tmp_path / "straight", pairs())

    def copied():
        """As the directory is when the process is killed in the cycle after the `at` first."""
        for k, pair in enumerate(pairs()):
            if k == at:
                shutil.copytree(tmp_path / "first", tmp_path / "killed")
            yield pair

    run(tmp_path / "first", copied())
    done = len(read_records(tmp_path / "killed" / "cycle.jsonl"))
    assert done == at
    (tmp_path / "killed" / ".lock").touch()
    calls = []

    def counted(members, key):
        calls.append(1)
        return forecast(members, key)

    resumed = run(tmp_path / "killed", pairs(), forecast=counted)
    assert len(calls) == 10 - 3 * (at // 3)
    np.testing.assert_array_equal(resumed, straight)
    assert_same(tmp_path / "straight", tmp_path / "killed")


def test_a_kill_between_the_analyses_and_their_checkpoint(tmp_path, monkeypatch):
    write, calls = files._write, []

    def copied(*arguments):
        calls.append(1)
        if len(calls) == 3:  # the first is that of the start
            shutil.copytree(tmp_path / "straight", tmp_path / "killed")
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_write", copied)
        run(tmp_path / "straight", pairs())
    assert contents(tmp_path / "killed")[1].sizes["time"] == 6  # three ahead of the checkpoint
    run(tmp_path / "killed", pairs())
    assert_same(tmp_path / "straight", tmp_path / "killed")


def test_it_is_the_cycle(tmp_path):
    last = run(tmp_path, pairs(4))
    observations = [jnp.asarray(y, jnp.float32) for _, y in pairs(4)]
    *_, done = cycle(forecast, analyse, start_of(), observations, jax.random.key(1))
    np.testing.assert_array_equal(last, done.analysis)


@pytest.mark.slow
def test_a_source_that_fails_loses_nothing_and_more_observations_extend_the_run(tmp_path):
    run(tmp_path / "straight", pairs())

    def broken():
        yield from pairs()[:7]
        raise ConnectionError("the server does not answer")

    with pytest.raises(ConnectionError):
        run(tmp_path / "run", broken())
    assert len(contents(tmp_path / "run")[0]) == contents(tmp_path / "run")[1].sizes["time"] == 7
    run(tmp_path / "run", pairs()[:8])
    asked = []

    def since(time):
        asked.append(time)
        return [(t, y) for t, y in pairs() if t > time]

    run(tmp_path / "run", since)
    assert asked == [4.0]
    assert_same(tmp_path / "straight", tmp_path / "run")
    run(tmp_path / "run", pairs())  # nothing is left to do
    assert_same(tmp_path / "straight", tmp_path / "run")


def test_observations_of_a_file_are_read_from_where_the_run_is(tmp_path):
    days = np.datetime64("2000-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
    data = xr.DataArray(twin(6)[1].astype("float32"), {"time": days}, ("time", "station"))
    options = {
        "begin": np.datetime64("1999-12-31T18:00"),
        "interval": datetime.timedelta(hours=6),
    }
    run(tmp_path, observation_series(data[:4]), **options)
    records = read_records(tmp_path / "cycle.jsonl")
    assert [r["time"] for r in records[:2]] == ["2000-01-01T00:00:00", "2000-01-01T06:00:00"]
    state = run(tmp_path, observation_series(data), **options)
    analyses = contents(tmp_path)[1]
    np.testing.assert_array_equal(analyses["time"], days)
    np.testing.assert_array_equal(analyses["mean"][-1], jnp.mean(state, axis=0))
    with pytest.raises(InputError, match="dimension 'time'"):
        observation_series(data.rename(time="date"))


def test_a_time_without_observations_is_a_forecast_only(tmp_path):
    values = pairs(5)
    given = [values[0], (1.0, []), (1.5, [np.nan, np.nan]), values[4]]  # nothing of 2.0
    run(tmp_path, given, analyse=lambda x, y, key: analyse(x, y, key))
    records = read_records(tmp_path / "cycle.jsonl")
    assert [r["analysed"] for r in records] == [True, False, False, False, True]
    assert [r["observations"] for r in records] == [2, 0, 0, 0, 2]
    assert records[3]["time"] == 2.0
    assert records[3]["chi_squared"] is None
    assert records[3]["spread"] == records[3]["analysis_spread"] > records[0]["analysis_spread"]


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        ([(0.5, [0, 0]), (1.5, [0, 0]), (1.0, [0, 0])], "of 1 follow those of 1.5"),
        ([(0.5, [0, 0]), (0.5, [0, 0])], "of 0.5 follow those of 0.5"),
        ([(0.0, [0, 0])], "of 0 come too late: the state is already that of 0"),
        ([(0.7, [0, 0])], "of 0.7 are of no cycle: these are 0.5 apart, from 0"),
        ([(0.5, [0, 0, 0])], r"of 0.5 have the shape \(3,\), not \(2,\)"),
        ([(np.nan, [0, 0])], "a time must be a finite number or a date, got nan"),
        ([(np.datetime64("2000-01-01"), [0, 0])], "the cycle began at 0"),
    ],
)
def test_times_and_values_that_do_not_fit(observations, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run(tmp_path, observations)


def test_observations_earlier_than_the_state_are_late(tmp_path):
    run(tmp_path, pairs(2))
    with pytest.raises(InputError, match=r"of 0.5 come too late: the state is already that of 1"):
        run(tmp_path, lambda time: pairs(3))


def test_bad_options(tmp_path):
    for options, message in (
        ({"every": 0}, "every, patience and limit must be positive, got 0, 5 and 10.0"),
        ({"interval": 0.0}, "an interval must be a positive number or timedelta, got 0.0"),
        ({"begin": "2000-01-01"}, "do not go together"),
        ({"about": {"x": jnp.zeros(1)}}, "about must hold what JSON can"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path / "run", pairs(1), **options)
    with pytest.raises(InputError, match="must be positive standard deviations"):
        Observed(operator, jnp.array([0.5, 0.0]))
    assert not (tmp_path / "run").exists()


def test_a_directory_of_another_run_is_refused(tmp_path):
    run(tmp_path, pairs(2), about={"inflation": 1.02})
    for options, message in (
        ({"key": jax.random.key(2)}, r"key is \[0, 1\] there and \[0, 2\] here"),
        ({"about": {"inflation": 1.1}}, "about.inflation is 1.02 there and 1.1 here"),
        ({"start": start_of(9)}, r"shape.state is '\(8, 3\)' there and '\(9, 3\)' here"),
        ({"start": start_of() + 1.0}, "start is"),
        ({"interval": 0.25}, "interval is '0.5' there and '0.25' here"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            run(tmp_path, pairs(2), **{"about": {"inflation": 1.02}} | options)
        assert "\n" not in str(caught.value)
    with locked(tmp_path), pytest.raises(InputError, match="in use by another run"):
        run(tmp_path, pairs(2))


def test_a_damaged_directory_is_told(tmp_path):
    run(tmp_path, pairs(4))
    shutil.copytree(tmp_path, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "analyses.zarr")
    with pytest.raises(InputError, match="lacks some of its first 4 times"):
        run(tmp_path / "other", pairs(5))
    checkpoint = tmp_path / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"checkpoint.npz is damaged \(.*start over"):
        run(tmp_path, pairs(5))


def test_a_forecast_that_is_not_finite_ends_the_run(tmp_path):
    calls = []

    def breaks(members, key):
        calls.append(1)
        return members.at[2:5, 0].set(jnp.nan) if len(calls) == 5 else forecast(members, key)

    with pytest.raises(
        Diverged, match=r"the forecast to 2.5 is not finite in 3 of 8 members; 4 cy"
    ):
        run(tmp_path, pairs(), forecast=breaks)
    assert len(contents(tmp_path)[0]) == contents(tmp_path)[1].sizes["time"] == 4

    def broken(background, observations, key):
        return jnp.full_like(background, jnp.inf)

    with pytest.raises(Diverged, match=r"the analysis of 0.5 is not finite in 8 of 8 members; 0"):
        run(tmp_path / "other", pairs(), analyse=broken)


def test_a_diverged_filter_ends_the_run(tmp_path):
    # It trusts its forecasts, and the truth is far away.
    certain = lambda members, key: 1e-3 * forecast(members, key)
    far = [(time, y + 10.0) for time, y in pairs()]
    far[2] = (1.5, [])
    with pytest.raises(Diverged) as caught:
        run(tmp_path, far, forecast=certain, patience=4)
    assert "\n" not in str(caught.value)
    assert "up to 2.5, chi-squared per observation was above 10 in 4 analyses" in str(caught.value)
    records, analyses, _ = contents(tmp_path)
    assert len(records) == analyses.sizes["time"] == 5
    # Never twice in a row: it goes on.
    good = [(time, y if k % 2 else y + 10.0) for k, (time, y) in enumerate(pairs())]
    run(tmp_path / "other", good, forecast=certain, patience=2)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (jnp.zeros((8, 4)), r"the forecast to 0.5 is no state like .* state is '\(8, 4\)' there"),
        (jnp.zeros((7, 3)), r"state is '\(7, 3\)' there and '\(8, 3\)' here"),
        ({"x": jnp.zeros((8, 3))}, "a dict, not a"),
    ],
)
def test_a_forecast_of_another_shape(result, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        run(tmp_path, pairs(), forecast=lambda members, key: result)
    assert "\n" not in str(caught.value)


def test_a_model_outside_jax_and_a_state_of_several_arrays(tmp_path):
    """NumPy in 64 bits stays so in a run that resumes."""

    def step(state, key):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return {name: 0.9 * x + rng.standard_normal(x.shape) for name, x in state.items()}

    def nudge(state, observations, key):
        wind = state["wind"] + 0.5 * (np.asarray(observations, float) - state["wind"])
        return {**state, "wind": wind}

    start = {"temperature": np.zeros((4, 3, 2)), "wind": np.ones((4, 2))}
    options = {
        "forecast": step,
        "analyse": nudge,
        "start": start,
        "observed": Observed(lambda state: state["wind"], ERROR),
        "keep": functools.partial(summary, members=True),
    }
    straight = run(tmp_path / "straight", pairs(6), **options)
    run(tmp_path / "run", pairs(6)[:4], **options)
    resumed = run(tmp_path / "run", pairs(6), **options)
    assert resumed["wind"].dtype == np.float64
    np.testing.assert_array_equal(resumed["temperature"], straight["temperature"])
    assert_same(tmp_path / "straight", tmp_path / "run")
    analyses = contents(tmp_path / "run")[1]
    assert analyses["temperature_members"].dims == (
        "time",
        "member",
        "temperature_0",
        "temperature_1",
    )
    np.testing.assert_array_equal(analyses["wind_members"][-1], resumed["wind"])
    spread = resumed["wind"].std(axis=0, ddof=1)
    np.testing.assert_allclose(analyses["wind_spread"][-1], spread, rtol=1e-5)


def kalman_twin(count):
    """Mean and covariance of the exact filter, after each analysis."""
    turn, h = np.asarray(TURN, float), np.eye(3)[:2]
    mean, covariance, means = np.zeros(3), np.eye(3), []
    for y in twin(count)[1]:
        mean, covariance = turn @ mean, turn @ covariance @ turn.T + NOISE**2 * np.eye(3)
        gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + np.diag(ERROR**2))
        mean, covariance = mean + gain @ (y - h @ mean), covariance - gain @ h @ covariance
        means.append(mean)
    return np.array(means), covariance


@pytest.mark.slow
def test_many_members_are_the_kalman_filter_and_chi_squared_is_one(tmp_path):
    count, members = 400, 150
    run(
        tmp_path,
        pairs(count),
        start=start_of(members),
        analyse=jax.jit(etkf(operator, ERROR)),
        every=200,
    )
    records, analyses, _ = contents(tmp_path)
    means, covariance = kalman_twin(count)
    # Sampling errors of the mean, which the noise of the model makes and analyses damp.
    misfit = (analyses["mean"].values - means)[50:] / np.sqrt(np.diag(covariance))
    assert np.sqrt(np.mean(misfit**2)) < 4 / np.sqrt(members)
    spread = np.sqrt(np.mean(analyses["spread"].values[50:] ** 2, axis=0))
    np.testing.assert_allclose(spread, np.sqrt(np.diag(covariance)), rtol=0.02)
    mean = lambda name: np.mean([r[name] for r in records])
    tolerance = 4 * np.sqrt(2 / (2 * count))
    assert abs(mean("chi_squared") - 1.0) < tolerance
    assert abs(records[-1]["error_ratio"] - 1.0) < 4 * np.sqrt(2 / 200)
    truth = twin(count)[0]
    error = np.sqrt(np.mean((analyses["mean"].values - truth)[:, :2] ** 2))
    assert abs(mean("analysis_spread") / error - 1.0) < 0.1


@pytest.mark.slow
def test_wrong_errors_show(tmp_path):
    def ratios(factor, directory):
        error = factor * ERROR
        run(
            directory,
            pairs(100),
            start=start_of(200),
            analyse=jax.jit(etkf(operator, error)),
            observed=Observed(operator, error),
            every=100,
        )
        records = read_records(directory / "cycle.jsonl")
        return np.mean([r["chi_squared"] for r in records[20:]]), records[-1]["error_ratio"]

    chi, ratio = ratios(3.0, tmp_path / "large")
    assert chi < 0.5
    assert ratio < 0.5
    chi, ratio = ratios(0.3, tmp_path / "small")
    assert chi > 1.5
    assert ratio > 1.5


@pytest.mark.slow
def test_particles_and_single_states(tmp_path):
    def log_likelihood(states, y):
        misfit = (y[None] - states[:, :2]) / ERROR[None]
        return -0.5 * jnp.sum(jnp.where(jnp.isfinite(misfit), misfit, 0.0) ** 2, axis=1)

    particles = WeightedEnsemble.of(start_of(50))
    moved = lambda state, key: state._replace(states=forecast(state.states, key))
    filtered = jax.jit(regularised_filter(log_likelihood))
    last = run(
        tmp_path / "particles",
        pairs(6),
        start=particles,
        forecast=moved,
        analyse=filtered,
        keep=functools.partial(summary, members=True),
    )
    records, analyses, _ = contents(tmp_path / "particles")
    assert all(1.0 <= r["effective"] <= 50.0 for r in records)
    # Weighted by the first observations alone.
    first = forecast(
        particles.states, jax.random.split(jax.random.fold_in(jax.random.key(1), 0))[0]
    )
    weights = jax.nn.softmax(log_likelihood(first, jnp.asarray(pairs(6)[0][1], jnp.float32)))
    np.testing.assert_allclose(records[0]["effective"], 1 / jnp.sum(weights**2), rtol=1e-4)
    np.testing.assert_allclose(analyses["mean"][-1], last.mean(), rtol=1e-5)
    np.testing.assert_allclose(analyses["weights"].sum("member"), 1.0, rtol=1e-5)

    def nudge(x, y, key):
        return x.at[:2].add(0.5 * jnp.where(jnp.isfinite(y), y - x[:2], 0.0))

    state = jnp.zeros(3)
    options = {
        "start": state,
        "forecast": lambda x, key: 0.9 * x,
        "analyse": nudge,
    }
    for directory, error in (("single", None), ("known", jnp.ones(2))):
        observed = Observed(operator, ERROR, ensemble=False, background_error=error)
        last = run(tmp_path / directory, pairs(4), observed=observed, **options)
    single, known = (contents(tmp_path / name) for name in ("single", "known"))
    np.testing.assert_array_equal(known[1]["state"][-1], last)
    assert known[0][0]["spread"] == 1.0
    assert single[0][0]["spread"] is None
    square = np.asarray(pairs(4)[0][1]) ** 2  # the first background is zero
    for (records, *_), total in ((single, ERROR**2), (known, 1.0 + ERROR**2)):
        np.testing.assert_allclose(records[0]["chi_squared"], np.mean(square / total), rtol=1e-5)
    with pytest.raises(Diverged, match=r"the forecast to 0.5 is not finite; 0 cycles"):
        run(
            tmp_path / "bad",
            pairs(1),
            observed=Observed(operator, ERROR, ensemble=False),
            **options | {"forecast": lambda x, key: jnp.nan * x},
        )


def test_what_is_verified_and_reported(tmp_path):
    told = []

    def verify(time, done):
        return {"moved": float(jnp.abs(done.analysis - done.background).max()), "at": time}

    run(tmp_path, pairs(3), verify=verify, report=told.append)
    assert told == read_records(tmp_path / "cycle.jsonl")
    assert [r["at"] for r in told] == [0.5, 1.0, 1.5]
    assert min(r["moved"] for r in told) > 0.0
    assert not os.path.exists(tmp_path / ".lock")
