"""Trajectories of a Kolmogorov flow analysed by every system, in small."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from experiments.compare import __main__ as compare
from experiments.compare import flow, flow_run
from experiments.compare.flow import PROBLEMS, SYSTEMS, FlowSettings, Problem
from slams_jax.diffusion import SamplerConfig
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError
from slams_jax.observe import Coarsen
from support.small_world import run_command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.optimised,
    pytest.mark.skipif(
        importlib.util.find_spec("exponax") is None,
        reason="exponax is not installed: pip install 'slams-jax[kolmogorov]'",
    ),
]

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs a command on a short run of a small flow."""
    folder = tmp_path_factory.mktemp("flow")

    def run(main, config, *arguments):
        return run_command(
            main,
            f"--config={CONFIGS / config}.py",
            f"--config.workdir={folder / 'run'}",
            f"--config.nature.cache={folder}",
            f"--config.data.cache={folder}",
            "--config.nature.days=150",
            "--config.nature.spin_up=20",
            "--config.nature.points=16",
            "--config.nature.model.points=32",
            "--config.nature.model.viscosity=0.01",
            "--config.nature.model.substeps=8",
            "--config.data.periods.train=('2000-01-01','2000-04-09')",
            "--config.data.periods.validation=('2000-04-12','2000-04-21')",
            "--config.data.periods.test=('2000-04-24','2000-05-25')",
            "--config.score.window=3",
            "--config.score.widths=(8,)",
            "--config.score.blocks=1",
            "--config.score_training.steps=2",
            "--config.score_training.warmup_steps=0",
            "--config.sampler.steps=8",
            *arguments,
        )

    assert run(train.main, "kolmogorov") == 0
    with pytest.MonkeyPatch.context() as patch:
        small = (SamplerConfig("pc", 4, grid="uniform", corrections=1), GuidanceConfig("sda"))
        patch.setattr(flow, "SDA", small)
        # As much of so coarse a grid as the whole one has of its own.
        patch.setitem(PROBLEMS, "coarse", Problem(Coarsen(4), 2, 0.1))
        patch.setattr(flow_run, "FEWEST", 2)
        patch.setattr(flow_run.metrics, "paired_difference", two_trajectories)
        yield lambda *arguments: run(
            compare.main,
            "compare_kolmogorov",
            "--config.flow.problems=('coarse','saturating')",
            "--config.flow.trajectories=2",
            "--config.flow.every=10",
            "--config.flow.frames=5",
            "--config.flow.draws=4",
            "--config.flow.sda_draws=2",
            "--config.flow.members=8",
            "--config.flow.outer=2",
            "--config.flow.iterations=8",
            *arguments,
        )


def two_trajectories(ours, theirs):
    """Differences without the count that their intervals need."""
    value = (ours - theirs).mean(axis=0)
    return flow_run.metrics.Difference(value, value - 1.0, value + 1.0, value, value)


@pytest.fixture(scope="module")
def done(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    assert command(f"--output={folder}") == 0
    return folder


def test_every_system_is_scored_on_the_same_observations(done):
    scores = json.loads((done / "flow.json").read_text())
    assert list(scores["problems"]) == ["coarse", "saturating"]
    for systems in scores["problems"].values():
        assert list(systems) == list(SYSTEMS)
        assert [of["members"] for of in systems.values()] == [8, 1, 4, 4, 2]
        for of in systems.values():
            assert np.isfinite([of["rmse"], of["crps"], of["last_rmse"], of["misfit"]]).all()
            assert of["true_spectrum"] == systems["letkf"]["true_spectrum"]
    # More than the climate knows, whose RMSE is about one; eight members are too few for a filter.
    of = scores["problems"]["coarse"]
    assert max(of[s]["rmse"] for s in ("4dvar", "gaussian", "score")) < 0.85
    # What the flow's own equations tell of so few states is worth most.
    assert of["4dvar"]["rmse"] < of["gaussian"]["rmse"]
    assert (done / "flow.png").stat().st_size > 10_000
    assert "| score |" in (done / "flow.md").read_text()


def test_costs_are_counted(done):
    systems = json.loads((done / "flow.json").read_text())["problems"]["coarse"]
    counts = {
        name: (of["evaluations"], of["derivatives"], of["forecasts"])
        for name, of in systems.items()
    }
    assert counts["score"] == counts["gaussian"] == (8, 0, 0)
    assert counts["sda"] == (8, 8, 0)  # a prediction and a correction each
    assert counts["letkf"] == (0, 0, 8 * 4)
    assert counts["4dvar"] == (0, 0, ((2 + 2) * (2 * 8 + 7) + 1) * 4)


def test_differences_are_those_of_the_trained_model(done):
    scores = json.loads((done / "flow.json").read_text())["problems"]["coarse"]
    for name, of in scores.items():
        if name != "score":
            expected = [scores["score"][k] - of[k] for k in ("crps", "last_crps")]
            np.testing.assert_allclose(of["score_less_this"]["difference"], expected, atol=1e-6)


def test_a_run_goes_on_where_it_was_killed(done, command, monkeypatch):
    files = sorted((done / "trajectories").glob("*.json"))
    assert len(files) == 2 * 2 * len(SYSTEMS)
    text = (done / "flow.md").read_text()
    lost = done / "trajectories" / "coarse-letkf-1.json"
    before = json.loads(lost.read_text())["record"]
    lost.unlink()
    again = []
    system_of = flow.system_of
    monkeypatch.setattr(
        flow, "system_of", lambda w, name, p: again.append(name) or system_of(w, name, p)
    )
    assert command(f"--output={done}") == 0
    assert again == ["letkf"]
    after = json.loads(lost.read_text())["record"]
    assert {**after, "seconds": 0.0} == {**before, "seconds": 0.0}
    assert text.split("### Cost")[0] == (done / "flow.md").read_text().split("### Cost")[0]


def test_what_a_record_is_of_is_made_again_when_it_changes(done, command, monkeypatch):
    again = []
    monkeypatch.setattr(flow_run, "_analysed", lambda *a: again.append(a[-1][:2]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(f"--output={done}", "--config.flow.radius=12.0")
    assert again == [("coarse", "letkf")]


def test_observations_are_of_some_states_alone():
    truth = np.asarray(jax.random.normal(jax.random.key(0), (9, 16, 16, 2)))
    for problem in PROBLEMS.values():
        values = flow.observed(problem, truth, jax.random.key(1))
        seen = np.isfinite(values).all(axis=(1, 2, 3))
        assert seen.tolist() == [t % problem.every == 0 for t in range(9)]
        assert np.isnan(values[~seen]).all()
        error = values[seen] - np.asarray(problem.operator(jnp.asarray(truth)))[seen]
        np.testing.assert_allclose(error.std(), problem.error, rtol=4 / np.sqrt(2 * error.size))


def test_saturated_vorticity():
    y, x = np.meshgrid(*[2 * np.pi * np.arange(16) / 16] * 2, indexing="ij")
    field = np.stack([np.cos(y), 3.0 * np.sin(2 * x)], axis=-1)[None]
    found = np.asarray(flow.SaturatedVorticity()(jnp.asarray(field, jnp.float32)))[0, ..., 0]
    w = 6.0 * np.cos(2 * x) + np.sin(y)
    np.testing.assert_allclose(found, w / (1 + np.abs(w)), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problems": ("dense",)}, "problems must be some of"),
        ({"systems": ()}, "systems must be some of"),
        ({"frames": 1}, "frames must be at least 2"),
        ({"radius": 0.0}, "radius must be"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        FlowSettings(**change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.flow.trajectories=40",), "need 395 states, the period 'test' has 32"),
        (("--config.flow.period=then",), "period 'then' is unknown"),
    ],
)
def test_bad_commands_end_with_one_line(arguments, message, command, tmp_path, capsys):
    assert command(f"--output={tmp_path}", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
