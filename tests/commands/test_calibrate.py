"""The command `experiments.calibrate`: its table, its resumption, its errors."""

import json
import subprocess
import sys

import pytest

from experiments.calibrate import methods, run
from experiments.calibrate import report as calibration_report
from slams_jax.diffusion import SamplerConfig
from slams_jax.diffusion.presets import PRESETS
from slams_jax.errors import InputError
from slams_jax.reference_problems import Guidance, Method, trajectory_cases

GAUSSIAN = Guidance("gaussian", (("iterations", 15),), covariance=True)


def test_no_method_comes_twice():
    for group in "abc":
        for quick in (True, False):
            chosen = methods.methods(group, quick=quick, last=True)
            assert len(chosen) == len(set(chosen)) > 2
            assert all(m.label for m in chosen)


def test_every_preset_is_a_row_of_the_table():
    rows = [m for block in methods.PLAN for m in block.methods]
    assert {(m.label, m.sampler) for m in methods.presets(*PRESETS)} <= {
        (m.label, m.sampler) for m in rows
    }


@pytest.mark.slow
def test_the_command(monkeypatch, tmp_path):
    """Two rows of one case, one of them of draws that are not finite."""
    steps = (8, 4)
    chosen = [Method(GAUSSIAN, SamplerConfig("dpmpp_2m_ode", n)) for n in steps]
    monkeypatch.setattr(run, "methods", lambda group, *, quick, last: chosen)
    monkeypatch.setattr(run, "BUILD", {"c": lambda: trajectory_cases((1,))})
    monkeypatch.setattr(run, "QUICK_MEMBERS", {"c": 32})
    folder = tmp_path / "calibration"
    folder.mkdir()
    run.calibrate(["c"], folder, quick=True)
    rows = json.loads((folder / "calibration.json").read_text())
    assert [row["forward_evaluations"] for row in rows] == [8, 4]
    wanted = "case rule solver grid steps forward_evaluations derivative_evaluations mean_error"
    wanted += " variance_ratio w1 seconds mean_error_se variance_ratio_se w1_se"
    assert set(wanted.split()) <= set(rows[0])
    assert "trajectory k=1 | gaussian (15)" in (folder / "calibration.md").read_text()
    assert "trajectory k=1 | gaussian (15)" in calibration_report.best(rows)
    assert {path.name for path in folder.iterdir()} == {
        "calibration.json",
        "calibration.md",
        "trajectory-k1-rules.png",
    }
    rows[0] |= {"not_finite": 3, "mean_error": None}
    assert "3 draws are not finite" in calibration_report.table(rows)
    assert calibration_report.draw(rows[:1], tmp_path) == []


def test_the_target_of_noisy_lorenz_is_relative_to_exact_draws():
    row = {"group": "h", "case": "noisy lorenz low", "rule": "gaussian (30)", "solver": "dpmpp_2m"}
    row |= {"steps": 32, "forward_evaluations": 32, "derivative_evaluations": 0, "not_finite": 0}
    row |= {"mean_error": 0.1, "variance_ratio": 1.1, "seconds": 3.2, "w1_exact": 0.1}
    row |= {"mean_error_se": 0.01, "variance_ratio_se": 0.01, "w1_se": 0.01}
    written = calibration_report.over_exact([row | {"w1": 0.12}, row | {"w1": 0.13}])
    assert "| 0.120 ± 0.010 | 1.20 | met | 3 |" in written
    assert "| 0.130 ± 0.010 | 1.30 | not met | 3 |" in written
    failed = row | {"not_finite": 2, "mean_error": None}
    assert "2 draws are not finite" in calibration_report.over_exact([failed])


@pytest.mark.slow
def test_rows_that_are_there_already_are_not_repeated(monkeypatch, tmp_path):
    chosen = [Method(GAUSSIAN, SamplerConfig("dpmpp_2m_ode", 4))]
    monkeypatch.setattr(run, "methods", lambda group, *, quick, last: chosen)
    monkeypatch.setattr(run, "BUILD", {"c": lambda: trajectory_cases((1,))})
    monkeypatch.setattr(run, "MEMBERS", {"c": 32})
    first = run.calibrate(["c"], tmp_path)
    monkeypatch.setattr(run, "run_case", None)
    assert run.calibrate(["c"], tmp_path) == first
    monkeypatch.undo()
    # One that comes before it in the new plan leaves it where it is.
    chosen.insert(0, Method(GAUSSIAN, SamplerConfig("dpmpp_2m_ode", 3)))
    monkeypatch.setattr(run, "methods", lambda group, *, quick, last: chosen)
    monkeypatch.setattr(run, "BUILD", {"c": lambda: trajectory_cases((1,))})
    monkeypatch.setattr(run, "MEMBERS", {"c": 32})
    rows = run.calibrate(["c"], tmp_path)
    assert rows[1:] == first
    assert json.loads((tmp_path / "calibration.json").read_text()) == rows
    (tmp_path / "calibration.json").write_text("[{")
    with pytest.raises(InputError, match=r"calibration\.json cannot be read .*: remove it"):
        run.calibrate(["c"], tmp_path)


@pytest.mark.slow
def test_cases_that_are_unknown(tmp_path):
    command = [sys.executable, "-m", "experiments.calibrate", "--cases=a,x", f"--output={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: unknown cases ['x']: choose some of --cases=a,b,c,d,e,f,g,h,i\n"


@pytest.mark.slow
def test_the_command_without_a_model(tmp_path):
    command = [sys.executable, "-m", "experiments.calibrate", "--cases=d", f"--output={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: case d needs a trained score: train one")
    assert done.stderr.count("\n") == 1


def test_noisy_lorenz_without_a_model(tmp_path):
    with pytest.raises(InputError, match=r"case h needs .*configs/sda_lorenz63.py\) and set --sda"):
        run.calibrate(["h"], tmp_path)
