"""The comparison with classical methods, on a tiny world."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.compare import __main__ as command
from experiments.compare import run as compare_run
from experiments.compare import systems as systems_module
from experiments.compare.run import analysis_times, compare
from experiments.compare.systems import opened, systems_of
from experiments.configuration import inputs
from experiments.configuration.models import open_model
from experiments.configuration.settings import FieldSettings, read
from slams_jax.errors import InputError
from slams_jax.verify import metrics
from support.small_world import run_command, small_config, untrained, write_config

pytestmark = pytest.mark.slow

SYSTEMS = {
    "climatology": "filter",
    "background": "filter",
    "persistence": "filter",
    "oi": "filter",
    "oi ensemble": "filter",
    "regression": "filter",
    "linear filter": "filter",
    "linear smoother": "smoother",
    "surrogate filter": "filter",
    "surrogate smoother": "smoother",
    "network filter": "filter",
    "network smoother": "smoother",
}


class Killed(BaseException):
    """As a signal, it is caught nowhere."""


@pytest.fixture(scope="module")
def config(world, tmp_path_factory):
    config = small_config(world, tmp_path_factory.mktemp("compare") / "run")
    config.compare.update(windows=2, every=4, before=1, after=1, members=2, rank=8)
    untrained(config)
    return config


@pytest.fixture(scope="module")
def done(config):
    """The folder of a whole run of the command."""
    folder = Path(config.workdir).parent
    file = write_config(config, folder / "config.py")
    assert run_command(command.main, f"--config={file}", f"--output={folder / 'out'}") == 0
    return folder / "out"


def records(folder: Path) -> dict[str, dict]:
    return {p.name: json.loads(p.read_text()) for p in (folder / "windows").iterdir()}


def test_every_system_is_scored_on_every_window(config, done):
    found = json.loads((done / "compare.json").read_text())
    assert found["times"] == ["2001-03-06T00:00", "2001-03-10T00:00"]
    assert {n: of["sees"] for n, of in found["systems"].items()} == SYSTEMS
    for name, of in found["systems"].items():
        assert next(iter(of["regions"])) == "globe"
        assert np.isfinite(of["regions"]["globe"]["rmse"]).all(), name
        assert of["stations"]["count"] > 5
    assert len(records(done)) == 2 * len(SYSTEMS)
    pairs = {(d["system"], d["from"]) for d in found["differences"]}
    assert {d["system"] for d in found["differences"]} == {"network filter", "network smoother"}
    assert ("network filter", "surrogate filter") in pairs
    assert all(SYSTEMS[b] == "filter" for a, b in pairs if a == "network filter")
    text = (done / "compare.md").read_text()
    for part in ("| linear smoother | smoother |", "Fewer than 12 analyses", "withheld"):
        assert part.lower() in text.lower(), part


def test_scores_are_those_of_the_metrics(config, done):
    found = json.loads((done / "compare.json").read_text())
    data = inputs.load(read(config))
    days = analysis_times(read(config), data)
    fields = (np.asarray(data.archive.fields[n].array[days]) for n in ("background", "state"))
    expected = metrics.rmse(*fields, data.archive.grid.area_weights())
    np.testing.assert_allclose(
        found["systems"]["background"]["regions"]["globe"]["rmse"], expected, rtol=1e-5
    )


def test_an_interrupted_run_resumes_with_the_same_records(config, done, tmp_path, monkeypatch):
    few = config.copy_and_resolve_references()
    few.compare.systems = ("background", "regression", "linear filter", "network filter")
    settings, original, count = read(few), compare_run._record, []

    def killed(*arguments):
        count.append(1)
        if len(count) == 6:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(compare_run, "_record", killed)
    with pytest.raises(Killed):
        compare(settings, tmp_path / "out")
    assert len(records(tmp_path / "out")) == 5
    text = compare(settings, tmp_path / "out")
    assert len(count) == 6 + 4 * 2 - 5
    whole = records(done)
    found = records(tmp_path / "out")
    assert found == {name: whole[name] for name in found}
    monkeypatch.setattr(compare_run, "_record", lambda *_: pytest.fail("analysed again"))
    assert compare(settings, tmp_path / "out") == text


def test_filters_never_see_the_future_and_smoothers_do(config, done, monkeypatch):
    """The windows that systems are given, with other data after the analysis."""
    settings = read(config)
    data = inputs.load(settings)
    study = opened(settings, data, open_model(settings, data))
    day = int(analysis_times(settings, data)[0])
    future = slice(day + 1, None)
    other = inputs.load(settings)
    for field in other.archive.fields.values():
        values = np.array(field.array)
        values[future] += 2.0
        object.__setattr__(field, "array", values)
    changed = opened(settings, other, study.model)
    later = data.archive.times[day]
    for o in changed.observations:
        values = o.data[o.variable]
        o.data[o.variable] = values.where(values["time"] <= later, values + 2.0)
    for name in ("linear filter", "linear smoother", "network filter", "surrogate smoother"):
        system = systems_of(study)[name]
        frames = np.arange(day - 1, day + 1 + (system.sees == "smoother"))
        one, two = (systems_of(s)[name].make()(frames, 1) for s in (study, changed))
        same = np.allclose(one, two, atol=1e-3)
        assert same == (system.sees == "filter"), name


def test_no_smoother_sees_the_truth_in_the_next_background(config):
    settings = read(config)
    data = inputs.load(settings)
    previous = dataclasses.replace(settings.data, background=FieldSettings("previous"))
    study = opened(settings, data, open_model(settings, data))
    study = dataclasses.replace(study, settings=dataclasses.replace(settings, data=previous))
    assert {s.sees for s in systems_of(study).values()} == {"filter"}


def test_what_inputs_add_is_compared(config, tmp_path, monkeypatch):
    """Systems for each set of inputs, which see these and no more; and a picture."""
    analyse, seen = systems_module.analyse, []

    def recorded(settings, *arguments, **options):
        seen.append((settings.assimilation.score, settings.assimilation.latent_inputs))
        return analyse(settings, *arguments, **options)

    monkeypatch.setattr(systems_module, "analyse", recorded)
    changed = config.copy_and_resolve_references()
    changed.workdir = str(tmp_path / "run")
    changed.assimilation.update(latent_inputs=("stations", "olr"))
    with changed.unlocked():
        changed.assimilation.streams = {}
    changed.compare.update(
        inputs=((), ("olr",), ("olr", "stations")),
        systems=("background", "linear filter", "surrogate filter", "network filter"),
    )
    untrained(changed)
    settings = read(changed)
    compare(settings, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    each = ("linear filter", "surrogate filter", "network filter")
    given = ("", " + olr", " + olr + stations")
    assert set(found["systems"]) == {"background", *(e + g for e in each for g in given)}
    opponents = {(d["system"], d["opponent"], d["from"]) for d in found["differences"]}
    both, one = "network filter + olr + stations", "network filter + olr"
    assert (both, "itself without stations", one) in opponents
    assert (both, "itself without olr and stations", "network filter") in opponents
    assert (one, "its Gaussian surrogate", "surrogate filter + olr") in opponents
    for system, opponent, other in opponents:
        if opponent == "the best classical method":
            assert set(other.split(" + ")[1:]) <= set(system.split(" + ")[1:])
    globe = lambda name: found["systems"][name]["regions"]["globe"]["crps"]
    assert globe("linear filter") != globe("linear filter + olr")
    sets = ((), ("olr",), ("olr", "stations"))
    assert set(seen) == {(score, s) for score in ("gaussian", "network") for s in sets}
    assert (tmp_path / "out" / "compare.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": (("rain",),)}, "inputs names 'rain', which is not among assimilation.latent"),
        ({"inputs": ("olr",)}, "must be a tuple of tuples of names"),
        ({"systems": ("best",)}, "names 'best', which is unknown"),
        ({"systems": ("linear smoother",), "after": 0}, "names 'linear smoother'"),
        ({"before": 40}, "the test period has 17 times, fewer than the 42 of a window"),
    ],
)
def test_bad_configurations_are_refused_in_one_line(config, tmp_path, change, message):
    changed = config.copy_and_resolve_references()
    changed.compare.update(change)
    with pytest.raises(InputError, match=message) as error:
        compare(read(changed), tmp_path / "out")
    assert "\n" not in str(error.value)
