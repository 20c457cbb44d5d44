"""The twin experiments of `experiments.cycle`, in small."""

import dataclasses
import importlib
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from configs import base
from experiments.configuration.build import build, plain
from experiments.cycle import __main__ as cycle
from experiments.cycle import run
from experiments.cycle.benchmark import BenchmarkSettings, benchmark
from experiments.cycle.twin import METHODS, CycleSettings, trajectory, twin
from slams_jax.errors import InputError
from slams_jax.storage import read_records
from support.small_world import run_command, tree

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ("--config.cycle.cycles=8", "--config.cycle.spin_up=2", "--config.cycle.every=3")


def command(folder, *arguments, config="cycle_lorenz63"):
    return run_command(
        cycle.main,
        f"--config={CONFIGS / config}.py",
        f"--output={folder}",
        "--draw_every=4",
        *SMALL,
        *arguments,
    )


def without_seconds(folder):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in read_records(folder)]


def test_it_writes_its_files_and_an_interrupted_run_resumes(tmp_path, capsys, monkeypatch):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert command(straight) == 0
    assert "| RMSE of the mean |" in capsys.readouterr().out
    assert set(tree(straight)) >= {
        *("cycle.jsonl", "summary.json", "summary.md", "cycle.png", "observations.nc", "truth.nc"),
        "checkpoint.npz",
    }
    summary = json.loads((straight / "summary.json").read_text())
    assert summary["cycles"] == 6
    records = read_records(straight / "cycle.jsonl")
    np.testing.assert_allclose(summary["rmse"], np.mean([r["rmse"] for r in records[2:]]))
    with (
        xr.open_zarr(straight / "analyses.zarr", consolidated=False, chunks=None) as analyses,
        xr.open_dataset(straight / "truth.nc", engine="h5netcdf") as truth,
        xr.open_dataset(straight / "observations.nc", engine="h5netcdf") as observations,
    ):
        np.testing.assert_array_equal(analyses["time"], truth["time"])
        misfit = analyses["mean"].values - truth["state"].values
        rmse = np.sqrt(np.mean(misfit**2, axis=1))
        np.testing.assert_allclose(rmse, [r["rmse"] for r in records], rtol=1e-4)
        departure = observations["state"].values - truth["state"].values
        assert 1.0 < np.std(departure) < 2.0

    call = run._Progress.__call__

    def stops(self, record):
        call(self, record)
        if record["cycle"] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run._Progress, "__call__", stops)
        assert command(killed) == 130
    assert len(read_records(killed / "cycle.jsonl")) == 5
    assert command(killed) == 0
    assert without_seconds(killed / "cycle.jsonl") == without_seconds(straight / "cycle.jsonl")
    assert (killed / "summary.json").read_text() == (straight / "summary.json").read_text()

    # More cycles extend a run; other settings are another run, and change nothing.
    assert command(killed, "--config.cycle.cycles=9") == 0
    longer = without_seconds(killed / "cycle.jsonl")
    assert longer[:8] == without_seconds(straight / "cycle.jsonl")
    assert len(longer) == 9
    before = (killed / "observations.nc").read_bytes()
    capsys.readouterr()
    assert command(killed, "--config.cycle.error=2.0") == 2
    assert "holds another run: about.error is 1.41" in capsys.readouterr().err
    assert (killed / "observations.nc").read_bytes() == before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_follows_the_truth(method, tmp_path):
    more = ("--config.cycle.cycles=40", "--config.cycle.spin_up=10", "--config.cycle.substeps=8")
    members = 100 if method == "particle filter" else 10
    given = (f"--config.cycle.method={method}", f"--config.cycle.members={members}")
    if method in ("3dvar", "hybrid"):
        more = (*more, "--config.cycle.variance=0.02")
    if method == "score":
        more = (*more, "--config.cycle.training=20")
    assert command(tmp_path, *given, *more, "--config.cycle.radius=6.0") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rmse"] < 2.0**0.5
    assert 0.3 < summary["chi_squared"] < 3.0


@pytest.mark.parametrize("method", ["etkf", "letkf"])
def test_a_lag_smooths_what_later_observations_see(method, tmp_path):
    """The filter itself is as without one; of the first cycles there is no smoothed state."""
    run_of = lambda lag: (
        tmp_path / f"{method}{lag}",
        f"--config.cycle.lag={lag}",
        f"--config.cycle.method={method}",
        "--config.cycle.members=10",
        "--config.cycle.inflation=1.0",
        "--config.cycle.cycles=60",
        "--config.cycle.spin_up=10",
    )
    for lag in (0, 3):
        assert command(*run_of(lag), config="cycle_lorenz96") == 0
    without, records = (read_records(tmp_path / f"{method}{lag}" / "cycle.jsonl") for lag in (0, 3))
    # The same numbers, until rounding has grown.
    np.testing.assert_allclose(
        [r["rmse"] for r in records[:10]], [r["rmse"] for r in without[:10]], rtol=1e-3
    )
    assert [r["smoothed_rmse"] is None for r in records[:4]] == [True] * 3 + [False]
    mean = lambda name: np.mean([r[name] for r in records[10:]])
    assert mean("smoothed_rmse") < 0.95 * mean("rmse")
    assert mean("smoothed_spread") < 0.95 * mean("state_spread")
    summary = (tmp_path / f"{method}3" / "summary.md").read_text()
    assert f"| RMSE of the mean, 3 cycles later | {mean('smoothed_rmse'):.3g} |" in summary
    with (
        xr.open_zarr(tmp_path / f"{method}3" / "analyses.zarr", consolidated=False) as analyses,
        xr.open_dataset(tmp_path / f"{method}3" / "truth.nc", engine="h5netcdf") as truth,
    ):
        found = analyses["smoothed_mean"].values[3:] - truth["state"].values[:-3]
    expected = [r["smoothed_rmse"] for r in records[3:]]
    np.testing.assert_allclose(np.sqrt(np.mean(found**2, axis=1)), expected, rtol=1e-4)


def test_a_filter_that_diverges_says_so_and_leaves_its_picture(tmp_path, capsys):
    given = (
        "--config.cycle.cycles=200",
        "--config.cycle.members=3",
        "--config.cycle.method=etkf",
    )
    status = command(tmp_path, *given, config="cycle_lorenz96")
    error = capsys.readouterr().err
    assert status == 1, error
    told = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(told) == 1
    assert "the filter diverged" in told[0]
    assert (tmp_path / "cycle.png").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["chi_squared"] > 3.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--config.cycle.method=4dvar",), "cycle: method '4dvar' is unknown: choose from"),
        (("--config.cycle.system=lorenz36",), "cycle: system 'lorenz36' is unknown"),
        (("--config.cycle.members=1",), "cycle: members must be at least 2, got 1"),
        (("--config.cycle.dt=-0.1",), "cycle: dt must be positive, got -0.1"),
        (("--config.cycle.missing=1.0",), r"missing must be a share in \[0, 1\), got 1.0"),
        (("--config.cycle.spin_up=8",), "spin_up must be below the number of cycles"),
        (("--config.cycle.inflation=0.0",), "inflation must be positive, got 0.0"),
        (("--config.cycle.lag=-1",), "cycle: lag must be at least 0, got -1"),
        (
            ("--config.cycle.lag=2", "--config.cycle.method=3dvar"),
            r"cycle: lag is for \('etkf', 'letkf', 'enkf'\), not for method '3dvar'",
        ),
        (("--config.cycle.membres=3",), "membres"),
        (("--output=/proc/no",), "cannot write to /proc/no"),
        (("--draw_every=0",), "draw_every"),
        (("--fast",), "fast"),
    ],
)
def test_bad_input_is_one_line(arguments, expected, tmp_path, capsys):
    assert command(tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    told = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(told) == 1, error
    assert re.search(expected, told[0]), told[0]
    assert not (tmp_path / "run").exists()


def test_what_is_missing_from_the_command_is_told(capsys):
    config = f"--config={CONFIGS / 'cycle_lorenz63.py'}"
    assert run_command(cycle.main, config) == 2
    assert "--output is missing" in capsys.readouterr().err
    nature = f"--config={CONFIGS / 'nature_lorenz63.py'}"
    assert run_command(cycle.main, nature, "--output=x") == 2
    assert "or 'moist_cycle' beside others, got ['nature']" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cycle_lorenz63", "cycle_lorenz96"])
def test_configurations_are_valid(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert isinstance(build(CycleSettings, plain(config.cycle), "cycle"), CycleSettings)


def test_forecasts_of_both_scales_know_the_slow_one_alone():
    settings = CycleSettings(system="two-scale", variables=6, cycles=20, spin_up=5)
    truth = twin(settings).truth
    assert truth.shape == (20, 6)
    errors = {}
    for system in ("two-scale", "lorenz96"):
        forecast = trajectory(dataclasses.replace(settings, system=system))
        ahead = np.asarray(forecast(jnp.asarray(truth[:-1]), length=1)[0])
        errors[system] = np.sqrt(np.mean((ahead - truth[1:]) ** 2))
    # Imperfect, and better than without the closure.
    assert 0.0 < errors["two-scale"] < 0.5 * errors["lorenz96"]


def test_missing_observations_are_as_many_as_asked_for():
    world = twin(CycleSettings(cycles=300, missing=0.3))
    assert abs(np.isnan(world.observations).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 12000)


def test_a_benchmark_tunes_on_other_observations_and_resumes(tmp_path):
    cycle = plain(base.cycle(system="lorenz63", dt=0.01, substeps=8, cycles=30, spin_up=10))
    filters = {
        "ETKF": ({"inflation": 1.05}, {"inflation": 3.0}),
        "iEnKS": ({"method": "iterative", "smooth": True},),
    }
    cases = {"Lorenz-63": {"cycle": {**cycle, "members": 6}, "filters": filters}}
    settings = BenchmarkSettings(tuning_seed=1, tuning_cycles=20, cases=cases)
    table = benchmark(settings, tmp_path, 100)
    assert (tmp_path / "benchmark.md").read_text() == table
    found = json.loads((tmp_path / "benchmark.json").read_text())["Lorenz-63"]
    assert found["ETKF"]["settings"] == {"inflation": 1.05}
    records = read_records(tmp_path / "lorenz-63" / "etkf" / "run" / "cycle.jsonl")
    rmse = np.array([r["rmse"] for r in records[10:]])
    np.testing.assert_allclose(found["ETKF"]["rmse"], rmse.mean())
    batches = rmse.reshape(10, 2).mean(axis=1)
    np.testing.assert_allclose(found["ETKF"]["rmse_se"], batches.std(ddof=1) / 10**0.5)
    assert found["iEnKS"]["rmse"] < 1.0
    assert benchmark(settings, tmp_path, 100) == table
    with pytest.raises(InputError, match="has the seed of the tuning, 0"):
        BenchmarkSettings(tuning_seed=0, tuning_cycles=20, cases=cases)


def test_the_configuration_of_the_benchmark_is_valid():
    config = importlib.import_module("configs.benchmark_lorenz").get_config()
    settings = build(BenchmarkSettings, plain(config.benchmark), "benchmark")
    assert len(settings.cases) == 4
