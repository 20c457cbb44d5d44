"""Trajectories of a Kolmogorov flow analysed by every system, in small."""

import importlib
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from experiments.compare import __main__ as compare
from experiments.compare import flow, flow_run
from experiments.compare.flow import PROBLEMS, SYSTEMS, FlowSettings, Problem
from experiments.configuration.build import build, plain
from experiments.configuration.settings import read
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
        patch.setitem(PROBLEMS, "coarse", Problem(Coarsen(4), 1.5, 2, 0.1))
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
        assert [of["members"] for of in systems.values()] == [8, 1, 4, 4, 4]
        for of in systems.values():
            assert np.isfinite([of["rmse"], of["crps"], of["last_rmse"], of["misfit"]]).all()
            assert of["diverged"] == 0
    for problem in scores["problems"]:
        records = [
            json.loads((done / "trajectories" / f"{problem}-{s}-1.json").read_text())["record"]
            for s in SYSTEMS
        ]
        assert len({r["observations"] for r in records}) == 1
    # More than the climate knows, whose RMSE is about one; eight members are too few for a filter.
    of = scores["problems"]["coarse"]
    assert max(of[s]["rmse"] for s in ("4dvar", "gaussian", "score")) < 0.85
    # What the flow's own equations tell of so few states is worth most.
    assert of["4dvar"]["rmse"] < of["gaussian"]["rmse"]
    assert all((done / f"{name}.png").stat().st_size > 10_000 for name in ("spectra", "maps"))
    assert "| score |" in (done / "flow.md").read_text()


def test_costs_are_counted(done):
    systems = json.loads((done / "flow.json").read_text())["problems"]["coarse"]
    counts = {
        name: (of["evaluations"], of["derivatives"], of["forecasts"])
        for name, of in systems.items()
    }
    assert counts["score"] == (8, 0, 0)
    assert counts["gaussian"] == (0, 0, 0)
    assert counts["sda"] == (8, 8, 0)  # a prediction and a correction each
    assert counts["letkf"] == (0, 0, 8 * 4)
    assert counts["4dvar"] == (0, 0, ((2 + 2) * (2 + 2 * 9 + 4) + 1) * 4)


def test_differences_are_those_of_the_trained_model(done):
    scores = json.loads((done / "flow.json").read_text())["problems"]["coarse"]
    for name, of in scores.items():
        if name != "score":
            expected = [scores["score"][k] - of[k] for k in ("crps", "last_crps")]
            np.testing.assert_allclose(of["score_less_this"]["difference"], expected, atol=1e-6)


def test_a_run_goes_on_where_it_was_killed(done, command, monkeypatch):
    files = sorted((done / "trajectories").glob("*.json"))
    assert len(files) == 2 * 2 * len(SYSTEMS)
    scores = lambda: json.loads((done / "flow.json").read_text())["problems"]
    first = scores()
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
    for problem, systems in scores().items():
        for system, of in systems.items():
            assert {**of, "seconds": 0} == {**first[problem][system], "seconds": 0}


ALL = frozenset(SYSTEMS)
LEARNED = frozenset(("gaussian", "score", "sda"))


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"data.periods.test": ("2038-01-01", "2040-10-15")}, ALL),
        ({"data.periods.train": ("2000-01-01", "2010-01-01")}, ALL),
        ({"nature.seed": 1}, ALL),
        ({"nature.cache": "elsewhere", "data.cache": "elsewhere", "workdir": "elsewhere"}, set()),
        ({"assimilation.member_batch": 2, "flow.trajectories": 3}, set()),
        ({"assimilation.inflation": 1.5}, {"gaussian", "score"}),
        ({"refinement.moves": 4}, {"gaussian", "score"}),
        ({"sampler.steps": 16}, {"gaussian", "score"}),
        ({"flow.draws": 8}, LEARNED),
        ({"flow.radius": 12.0}, {"letkf"}),
        ({"flow.outer": 1}, {"4dvar"}),
        ({"flow.frames": 5}, ALL),
        ({"model": "another"}, LEARNED),
        ({"operator": Coarsen(4)}, ALL),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_record_is_of(change, again, monkeypatch):
    def digests(change):
        config = importlib.import_module("configs.compare_kolmogorov").get_config()
        model = change.pop("model", "one")
        problem = PROBLEMS["coarse"]._replace(operator=change.pop("operator", Coarsen(8)))
        monkeypatch.setitem(PROBLEMS, "coarse", problem)
        config.update_from_flattened_dict(change)
        values = plain(config)
        options = build(FlowSettings, values.pop("flow"), "flow")
        world: Any = SimpleNamespace(settings=read(values), flow=options)
        return {s: flow_run.digest(world, model, "coarse", s, 0) for s in SYSTEMS}

    before, after = digests({}), digests(dict(change))
    assert {s for s in SYSTEMS if before[s] != after[s]} == again


def test_members_that_are_not_finite_are_told(done, command, tmp_path, monkeypatch, caplog):
    """And the others are compared all the same."""

    def blows_up(world, problem):
        wild = np.full((2, 5, 16, 16, 2), np.nan, np.float32)
        return lambda frames, values, key: flow.Analysed(wild)

    monkeypatch.setattr(flow, "_letkf", blows_up)
    systems = "--config.flow.systems=('letkf','gaussian','score')"
    assert command(f"--output={tmp_path}", systems, "--config.flow.problems=('coarse',)") == 0
    assert "coarse, letkf, trajectory 1: members are not finite" in caplog.text
    scores = json.loads((tmp_path / "flow.json").read_text())["problems"]["coarse"]
    assert scores["letkf"]["diverged"] == 2
    assert "rmse" not in scores["letkf"]
    others = json.loads((done / "flow.json").read_text())["problems"]["coarse"]
    assert scores["score"]["crps"] == others["score"]["crps"]
    assert "score_less_this" in scores["gaussian"]
    assert "| letkf | 2 | past | diverged on 2 |" in (tmp_path / "flow.md").read_text()


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
        (("--config.flow.members=101",), "members must be at most 100, the states that they are"),
        (("--config.nature.system=lorenz63",), "nature"),
    ],
)
def test_bad_commands_end_with_one_line(arguments, message, command, tmp_path, capsys):
    assert command(f"--output={tmp_path}", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
