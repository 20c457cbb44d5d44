"""The moist atmosphere cycled by every system, in small."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from experiments.cycle import __main__ as cycle
from experiments.cycle import moist, moist_run
from experiments.cycle.moist import MoistCycleSettings
from slams_jax.dynamics import moist_ensemble
from slams_jax.errors import InputError
from slams_jax.models import saved
from slams_jax.storage import read_records
from support.small_world import run_command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.optimised,
    pytest.mark.skipif(
        importlib.util.find_spec("jcm") is None,
        reason="jcm is not installed: pip install --no-deps -r requirements/moist.txt",
    ),
]

CONFIG = Path(__file__).parents[2] / "configs" / "cycle_moist.py"
MODEL = Path(saved.__file__).with_name("demo.safetensors")
CYCLES = 3


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs the command on a nature run of a few days, whose imperfect model is the true one."""
    cache = tmp_path_factory.mktemp("cache")

    def run(output, *arguments):
        return run_command(
            cycle.main,
            f"--config={CONFIG}",
            f"--output={output}",
            f"--model={MODEL}",
            f"--config.nature.cache={cache}",
            f"--config.data.cache={cache / 'archive'}",
            "--config.nature.days=12",
            "--config.nature.spin_up=2",
            "--config.nature.forecast.spin_up=1",
            "--config.nature.forecast.members=3",
            "--config.nature.forecast.convection.relaxation_hours=6.0",
            "--config.nature.forecast.convection.entrainment=0.5",
            "--config.data.periods.train=('2000-01-01','2000-01-08')",
            "--config.data.periods.validation=('2000-01-09','2000-01-10')",
            "--config.data.periods.test=('2000-01-11','2000-01-12')",
            "--config.sampler.steps=2",
            "--config.guidance.iterations=4",
            "--config.moist_cycle.first=2000-01-05",
            f"--config.moist_cycle.cycles={CYCLES}",
            "--config.moist_cycle.spin_up=1",
            "--config.moist_cycle.members=4",
            "--config.moist_cycle.draws=2",
            "--config.moist_cycle.every=2",
            *arguments,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moist_ensemble, "SETTLE", 1)
        patch.setattr(moist, "STATES", 7)
        patch.setattr(moist, "APART", 1)
        yield run


@pytest.fixture(scope="module")
def straight(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assert command(folder) == 0
    return folder


def records_of(folder, method):
    read = read_records(folder / method / "cycle.jsonl")
    return [{k: v for k, v in record.items() if k != "seconds"} for record in read]


def test_every_system_is_scored_on_the_same_days(straight):
    summary = json.loads((straight / "summary.json").read_text())
    assert list(summary["systems"]) == ["3dvar", "letkf", "score"]
    assert summary["times"] == ["2000-01-06", "2000-01-07"]
    for method, row in summary["systems"].items():
        records = records_of(straight, method)
        assert [r["time"][:10] for r in records] == [f"2000-01-0{d}" for d in (5, 6, 7)]
        crps = np.mean([r["crps"] for r in records[1:]], axis=0)
        np.testing.assert_allclose(row["crps"], crps, rtol=1e-6)
        # Of infinitely many members.
        members = {"letkf": 4, "score": 2}.get(method, 1)
        square = [np.subtract(r["square"], np.divide(r["variance"], members)) for r in records[1:]]
        np.testing.assert_allclose(row["rmse"], np.sqrt(np.mean(square, axis=0)), rtol=1e-4)
        with xr.open_zarr(straight / method / "analyses.zarr", consolidated=False) as analyses:
            assert analyses["temperature"].dims == ("time", "level", "latitude", "longitude")
            assert ("temperature_spread" in analyses) == (method != "3dvar")
            if method != "3dvar":  # of each draw once
                area = np.cos(np.deg2rad(analyses["latitude"]))
                square = (analyses["temperature_spread"] ** 2).weighted(area)
                found = square.mean(("latitude", "longitude"))
                np.testing.assert_allclose(found, [r["variance"] for r in records], rtol=0.02)
    # The trained model has the forecasts of the LETKF, and an analysis of its own.
    for of_letkf, of_model in zip(
        *(records_of(straight, m) for m in ("letkf", "score")), strict=True
    ):
        assert of_letkf["background_crps"] == of_model["background_crps"]
        assert of_letkf["crps"] != of_model["crps"]
    assert (straight / "cycle.png").stat().st_size > 10_000
    table = (straight / "summary.md").read_text()
    assert "| letkf | analyses |" in table
    assert "| score | forecasts |" not in table


def test_differences_are_those_of_the_analyses():
    rng = np.random.default_rng(0)

    def records(better):
        score = lambda: rng.uniform(1.0, 1.1, 2)
        return [
            {
                "square": (score() - better).tolist(),
                "crps": (score() - better).tolist(),
                "variance": [0.0, 0.0],
                "background_square": [9.0, 9.0],
                "background_crps": [9.0, 9.0],
                "background_variance": [0.0, 0.0],
                "chi_squared": None if cycle == 5 else 2.0,
                "seconds": 1.0,
            }
            for cycle in range(16)
        ]

    times = np.datetime64("2004-07-01", "ns") + np.arange(16) * np.timedelta64(1, "D")
    fields = {"state": SimpleNamespace(channels=["30 hPa", "100 hPa"])}
    archive = SimpleNamespace(times=times, fields=fields)
    world = SimpleNamespace(
        cycle=MoistCycleSettings(members=4, draws=2, cycles=16, spin_up=2),
        frames=np.arange(16),
        data=SimpleNamespace(archive=archive),
    )
    found = moist_run.compared(world, {"letkf": records(0.0), "score": records(0.5)})
    assert found["times"][0] == "2004-07-03"
    assert found["systems"]["letkf"]["chi_squared"] == 2.0
    (difference,) = found["differences"]
    assert (difference["system"], difference["from"]) == ("score", "letkf")
    for name, expected in (("crps", -0.5), ("rmse", 0.55**0.5 - 1.05**0.5)):
        np.testing.assert_allclose(difference[name]["difference"], expected, atol=0.05)
        assert np.all(np.array(difference[name]["high"]) < 0.0)


def test_analyses_come_nearer_to_the_truth(straight):
    for method in ("3dvar", "letkf", "score"):
        first = records_of(straight, method)[0]
        assert np.mean(first["square"]) < np.mean(first["background_square"])
        assert first["residual_rms"] < first["innovation_rms"]


def test_a_killed_run_continues_bit_for_bit(command, straight, tmp_path, monkeypatch):
    def stops(folder, after):
        """Kill the run of the trained model after some of its cycles."""
        calls = iter(range(100))
        kept = moist.kept

        def killed(world, method, members):
            if next(calls) == after:
                raise KeyboardInterrupt
            return kept(world, method, members)

        with monkeypatch.context() as patch:
            patch.setattr(moist, "kept", killed)
            return command(folder, "--config.moist_cycle.methods=('score',)")

    for climate in straight.glob("climate-*.npz"):  # the same, and long in the making
        shutil.copy(climate, tmp_path)
    assert stops(tmp_path, 2) == 130
    assert len(records_of(tmp_path, "score")) == 2
    assert command(tmp_path, "--config.moist_cycle.methods=('score',)") == 0
    assert records_of(tmp_path, "score") == records_of(straight, "score")
    finished = tree_of(tmp_path / "score")
    assert finished == tree_of(straight / "score")


def tree_of(folder):
    with xr.open_zarr(folder / "analyses.zarr", consolidated=False) as analyses:
        return {name: v.values.tobytes() for name, v in analyses.data_vars.items()}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(methods=("etkf",)), r"methods must be some of \('3dvar', 'letkf', 'score'\)"),
        (dict(methods=()), "methods must be some of"),
        (dict(members=200), "members must be at least draws, and at most"),
        (dict(draws=50), "members must be at least draws"),
        (dict(radius=0.0), "radius must be positive"),
        (dict(first="July"), "first must be a date such as 2004-07-01, got 'July'"),
        (dict(cycles=5, spin_up=5), "spin_up must be below the number of cycles"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(InputError, match=message):
        MoistCycleSettings(**{"members": 4, "draws": 2, **values})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--config.moist_cycle.first=2001-01-01",), "3 days from 2001-01-01 are not all among")],
)
def test_bad_input_is_one_line(command, tmp_path, capsys, arguments, message):
    assert command(tmp_path, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_a_model_is_for_an_atmosphere(tmp_path, capsys):
    lorenz = CONFIG.with_name("cycle_lorenz63.py")
    arguments = (f"--config={lorenz}", f"--output={tmp_path}", f"--model={MODEL}")
    assert run_command(cycle.main, *arguments) == 2
    assert "--model is for configs/cycle_moist.py" in capsys.readouterr().err
