"""Every configuration is read, and most are run for a step, with their own networks."""

import ast
import dataclasses
import importlib
import itertools
import json
import re
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

from configs import base, demo
from experiments import assimilate, evaluate, train
from experiments.ablation.variants import Ablation
from experiments.compare.flow import FlowSettings
from experiments.configuration import inputs, observations
from experiments.configuration.build import plain
from experiments.configuration.inputs import Inputs
from experiments.configuration.models import network_settings
from experiments.configuration.settings import (
    AssimilationSettings,
    CompareSettings,
    DataSettings,
    FieldSettings,
    Settings,
    StreamSettings,
    read,
)
from experiments.cycle.moist import MoistCycleSettings
from experiments.cycle.twin import CycleSettings
from experiments.process import cli
from slams_jax.data.anamorphosis import Censored
from slams_jax.data.archive import Archive
from slams_jax.data.statistics import Statistics
from slams_jax.data.store import Field
from slams_jax.diffusion import CosineSchedule, SamplerConfig
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.dynamics import (
    Convection,
    Forcing,
    ForecastConfig,
    GaugesConfig,
    HeldSuarezConfig,
    HeldSuarezRun,
    ImperfectConvection,
    ImperfectForcing,
    ImperfectLorenz63,
    Kolmogorov,
    KolmogorovRun,
    Lorenz63,
    Lorenz63Forecast,
    Lorenz63Run,
    MoistConfig,
    MoistForecastConfig,
    MoistRun,
    RadiosondesConfig,
    SounderConfig,
    StationsConfig,
    nature_run,
)
from slams_jax.grid import Grid
from slams_jax.models import StageConfig, autoencoder, score
from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.saved import demo_model, load_model
from slams_jax.models.score import ScoreConfig
from slams_jax.schema import Channel, channels_of
from slams_jax.storage import write_dataset
from slams_jax.training import OptimiserConfig, read_metrics
from support.small_world import LEVELS, PERIODS

CONFIGS = Path(__file__).parents[2] / "configs"
RUNS = (
    *("demo", "held_suarez", "iberia", "kolmogorov", "latent", "lorenz63", "modalities"),
    *("moist_rain", "pixel", "prepare_era5", "sda_lorenz63", "slams_reference"),
)
NATURE = ("nature_lorenz63",)
ABLATIONS = ("ablation", "ablation_moist")
CYCLES = ("cycle_lorenz63", "cycle_lorenz96", "cycle_moist", "benchmark_lorenz")
COMPARISONS = ("compare_kolmogorov",)


def configuration(name: str) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config()


def one_step(name: str, workdir: Path) -> ConfigDict:
    """Its networks and optimiser; one step of each stage with a batch of one."""
    config = configuration(name)
    config.workdir = str(workdir / "run")
    config.data.cache = str(workdir / "cache")
    for stage in ("autoencoder_training", "score_training"):
        if config[stage] is not None:
            config[stage].update(
                steps=1, batch_size=1, warmup_steps=0, log_every=1, checkpoint_every=1
            )
    return config


def on_the_small_world(config: ConfigDict, world: Path) -> ConfigDict:
    config.nature = None
    config.data.root = str(world)
    config.data.levels = LEVELS
    config.data.periods = dict(PERIODS)
    config.assimilation.rank = 20
    if config.autoencoder is not None:
        config.autoencoder.latent_channels = 8  # of the 12 numbers in a patch of three levels
    return config


def losses(config: ConfigDict, stage: str) -> list[float]:
    return [r["loss"] for r in read_metrics(Path(config.workdir) / stage / "metrics.jsonl")]


def test_these_are_all():
    files = {p.stem for p in CONFIGS.glob("*.py")} - {"__init__", "base"}
    assert files == {*RUNS, *NATURE, *CYCLES, *ABLATIONS, *COMPARISONS}


@pytest.mark.parametrize("name", [*RUNS, *NATURE, *CYCLES, *ABLATIONS, *COMPARISONS])
def test_a_configuration_imports_nothing_and_says_how_to_run_it(name):
    text = (CONFIGS / f"{name}.py").read_text()
    syntax = ast.parse(text)
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(syntax)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - {"typing"} == {"ml_collections", "configs"}
    assert f"--config=configs/{name}.py" in (ast.get_docstring(syntax) or "")


def names_of(*classes, without=()):
    """Fields of dataclasses, with their defaults where they have one."""
    fields = [f for cls in classes for f in dataclasses.fields(cls) if f.name not in without]
    factory = lambda f: None if f.default_factory is dataclasses.MISSING else f.default_factory()
    return {f.name: factory(f) if f.default is dataclasses.MISSING else f.default for f in fields}


BASE = {
    "field": (base.field(""), names_of(FieldSettings)),
    "censored": (base.censored(), names_of(Censored)),
    "stream": (base.stream(""), names_of(StreamSettings)),
    "data": (base.data(), names_of(DataSettings)),
    "schedule": (base.get_config().schedule, names_of(CosineSchedule)),
    "autoencoder": (
        base.autoencoder(1),
        names_of(AutoencoderConfig, without=("state_channels", "inputs")),
    ),
    "score": (base.score(), names_of(ScoreConfig, without=("channels",))),
    "training": (base.training(), names_of(StageConfig, OptimiserConfig, without=("optimiser",))),
    "sampler": (base.sampler(), names_of(SamplerConfig)),
    "guidance": (base.guidance(), names_of(GuidanceConfig)),
    "assimilation": (base.assimilation(), names_of(AssimilationSettings)),
    "compare": (base.compare(), names_of(CompareSettings)),
    "run": (base.get_config(), names_of(Settings, without=("raw",))),
    "cycle": (base.cycle(), names_of(CycleSettings)),
    "moist_cycle": (base.moist_cycle(), names_of(MoistCycleSettings)),
    "held_suarez": (base.held_suarez(), names_of(HeldSuarezRun) | {"system": "held_suarez"}),
    "model": (base.held_suarez().model, names_of(HeldSuarezConfig)),
    "forcing": (base.held_suarez().model.forcing, names_of(Forcing)),
    "forecast": (base.held_suarez().forecast, names_of(ForecastConfig)),
    "imperfect": (base.held_suarez().forecast.forcing, names_of(ImperfectForcing)),
    "stations": (base.held_suarez().stations, names_of(StationsConfig)),
    "sounder": (base.held_suarez().sounder, names_of(SounderConfig)),
    "flow": (base.flow(), names_of(FlowSettings)),
    "kolmogorov": (base.kolmogorov(), names_of(KolmogorovRun) | {"system": "kolmogorov"}),
    "kolmogorov_model": (base.kolmogorov().model, names_of(Kolmogorov)),
    "lorenz63": (base.lorenz63(), names_of(Lorenz63Run) | {"system": "lorenz63"}),
    "lorenz": (base.lorenz63().model, names_of(Lorenz63)),
    "lorenz_forecast": (base.lorenz63().forecast, names_of(Lorenz63Forecast)),
    "imperfect_lorenz": (base.lorenz63().forecast.model, names_of(ImperfectLorenz63)),
    "moist": (base.moist(), names_of(MoistRun) | {"system": "moist"}),
    "moist_model": (base.moist().model, names_of(MoistConfig)),
    "convection": (base.moist().model.convection, names_of(Convection)),
    "moist_forecast": (base.moist().forecast, names_of(MoistForecastConfig)),
    "imperfect_convection": (base.moist().forecast.convection, names_of(ImperfectConvection)),
    "gauges": (base.moist().gauges, names_of(GaugesConfig)),
    "radiosondes": (base.moist().radiosondes, names_of(RadiosondesConfig)),
    "ablation": (configuration("ablation").ablation, dict.fromkeys(names_of(Ablation))),
}


@pytest.mark.parametrize("group", BASE)
def test_the_base_holds_every_field_and_its_default(group):
    values, fields = plain(BASE[group][0]), BASE[group][1]
    assert set(values) == set(fields)
    for name, default in fields.items():
        if name == "padding":
            assert values[name] == ""  # that of the grid, which is not known here
        elif default is not None and not dataclasses.is_dataclass(default):
            assert values[name] == default, name


def test_the_base_explains_every_field():
    lines = (CONFIGS / "base.py").read_text().splitlines()
    fields = [i for i, line in enumerate(lines) if re.match(r' +"\w+": (?![{]$|\w+\(\),$)', line)]
    assert len(fields) > 100
    unexplained = [lines[i] for i in fields if not lines[i - 1].strip().startswith("# ")]
    assert {line.split(":")[0].strip() for line in unexplained} == {'"system"'}


def leaves(values, prefix="config"):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


@pytest.mark.parametrize("name", [*RUNS, *ABLATIONS])
def test_every_field_of_a_run_can_be_overridden(name, monkeypatch):
    config = plain(configuration(name))
    stages = ("autoencoder_training", "score_training")
    for group, known in (
        ("data", [plain(base.data())]),
        ("assimilation", [base.assimilation()]),
        ("sampler", [base.sampler()]),
        ("guidance", [base.guidance()]),
        ("score", [base.score()]),
        *((stage, [base.training()]) for stage in stages if config[stage] is not None),
    ):
        assert set(config[group]) == set(known[0])
    # Groups of the ablation's models are changes of the run, named by whoever writes them.
    given = {k: v for k, v in leaves(config) if v is not None and ".models." not in k}
    assert len(given) > 80
    words = [
        f"--{path}={value if isinstance(value, str) else repr(value)}"
        for path, value in given.items()
    ]
    monkeypatch.setattr(sys, "argv", ["command", f"--config={CONFIGS / name}.py", *words])
    values = flags.FlagValues()
    flag = cli.config_flag(values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        values(sys.argv)
    assert plain(flag.value) == config


def test_a_field_of_any_type_takes_other_types_too(monkeypatch):
    words = ("data.grid=1.5", "score_training.clip_norm=None", "score_training.loss_limit=3.0")
    words += ("assimilation.streams.stations.withhold=('S1','S2')", "data.state.path=('a','b')")
    argv = ["command", f"--config={CONFIGS / 'held_suarez.py'}", *(f"--config.{w}" for w in words)]
    monkeypatch.setattr(sys, "argv", argv)
    values = flags.FlagValues()
    flag = cli.config_flag(values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        values(argv)
    settings = read(flag.value)
    assert settings.data.grid == 1.5
    assert settings.data.state.path == ("a", "b")
    assert settings.score_training.optimiser.clip_norm is None
    assert settings.score_training.loss_limit == 3.0
    assert settings.assimilation.streams["stations"].withhold == ("S1", "S2")


@pytest.mark.parametrize("name", RUNS)
def test_a_configuration_is_valid_and_plain(name):
    config = configuration(name)
    settings = read(config)
    json.dumps(plain(config))  # metadata of checkpoints
    assert settings.workdir == f"runs/{name}"
    periods = [settings.data.periods[p] for p in ("train", "validation", "test")]
    dates = [np.datetime64(date) for period in periods for date in period]
    assert dates == sorted(set(dates))
    last = settings.assimilation.frames or 10**6
    assert settings.score["window"] <= last
    if settings.nature is not None:
        length = np.datetime64("2000-01-01") + np.timedelta64(settings.nature.days, "D")
        assert dates[-1] < length


@pytest.mark.slow
def test_the_demo_configuration_takes_a_step(world, tmp_path):
    """And sees amounts of rain, and whether there was any, beside background and radiation."""
    config = on_the_small_world(one_step("demo", tmp_path), world)
    train.train(read(config))
    for stage in ("autoencoder", "score"):
        assert len(losses(config, stage)) == 1
        assert np.isfinite(losses(config, stage)).all()
    model = load_model(config.workdir)
    inputs_of = dict(model.networks.autoencoder.inputs)
    assert inputs_of == {"state": 3, "background": 3, "gauges": 2, "olr": 1}
    c = config.autoencoder.compression
    assert model.networks.frame_shape == (8 // c, 16 // c, config.autoencoder.latent_channels)
    assert model.networks.score.widths == config.score.widths
    assert model.background_error is not None


@pytest.mark.slow
def test_the_model_in_the_library_is_that_of_the_demo():
    """So that `--model` accepts it with `configs/demo.py`."""
    settings, model = read(demo.get_config()), demo_model()
    assert model.time_step == np.timedelta64(24, "h")
    assert {c.level for c in model.channels} == set(settings.data.levels)
    assert model.networks.schedule == settings.schedule
    for name in ("autoencoder", "score"):
        wanted = {n: v for n, v in getattr(settings, name).items() if (n, v) != ("padding", "")}
        saved = dataclasses.asdict(getattr(model.networks, name))
        assert {n: saved[n] for n in wanted} == wanted


@pytest.mark.slow
def test_the_pixel_configuration_takes_a_step(world, tmp_path):
    config = on_the_small_world(one_step("pixel", tmp_path), world)
    config.score.update(widths=(8, 16), blocks=1)  # its own take half a minute to compile
    train.train(read(config))
    assert np.isfinite(losses(config, "score")).all()
    model = load_model(config.workdir)
    assert model.networks.autoencoder is None
    assert model.networks.frame_shape == (8, 16, 3)
    assert not (Path(config.workdir) / "autoencoder").exists()


@pytest.mark.slow
def test_the_lorenz_configuration_runs_from_end_to_end(tmp_path):
    """On a short run of its own system; without space, levels and background."""
    config = one_step("lorenz63", tmp_path)
    config.nature.update(days=160, cache=str(tmp_path / "nature"))
    config.data.periods = {
        "train": ("2000-01-01", "2000-03-31"),
        "validation": ("2000-04-02", "2000-04-20"),
        "test": ("2000-04-22", "2000-06-08"),
    }
    config.sampler.steps = 4
    config.assimilation.update(frames=20, members=4)
    settings = read(config)
    train.train(settings)
    assert np.isfinite(losses(config, "score")).all()
    analysis = assimilate.run(settings)
    assert analysis["lorenz63"].dims == ("member", "time", "latitude", "longitude", "component")
    assert analysis["lorenz63"].shape == (4, 20, 1, 1, 3)
    path = tmp_path / "analysis.nc"
    write_dataset(analysis, path)
    scores = evaluate.evaluate(settings, path)
    assert scores["levels"] == [None] * 3
    assert set(scores) >= {"climatology", "analysis"}
    assert not {"background", "oi", "stations"} & set(scores)
    run = nature_run(settings.nature)
    assert run.parent == tmp_path / "nature"


@pytest.mark.slow
def test_the_iberia_configuration_reads_its_data(real_data, tmp_path):
    config = one_step("iberia", tmp_path)
    config.data.root = str(real_data / "iberia")
    settings = read(config)
    data = inputs.load(settings)
    state = data.archive.fields["state"]
    assert data.archive.grid.shape == (6, 9)
    assert network_settings(settings, data).score.padding == "edge"
    assert [c.level for c in state.channels] == [500.0, 700.0, 850.0, 1000.0]
    # The day before is wrong by a few kelvin, on the whole by nothing (standard error 0.05 K).
    error = (data.archive.fields["background"].array - state.array)[data.spans["train"]]
    size = np.nanstd(error, axis=(0, 1, 2))
    assert np.all((size > 1.0) & (size < 6.0))
    assert np.abs(np.nanmean(error, axis=(0, 1, 2))).max() < 0.2
    frames = observations.frames_of(settings, data)
    streams, withheld = observations.open_streams(settings, data, frames)
    assert {s.name for s in streams} == set(config.assimilation.streams)
    (kept,) = withheld
    assert len(kept.names) == len(config.assimilation.streams.stations.withhold)
    used = next(s for s in streams if s.name == "stations")
    assert np.all((used.error > 0.5) & (used.error < 6.0))
    # Mountain stations and coarse orography: biases of kelvins, taken off what verifies too.
    truth = np.asarray(data.archive.fields["state"].array[frames])
    departure = kept.values - np.asarray(kept.operator(jnp.asarray(truth)))
    assert np.all(np.abs(np.nanmean(departure, axis=0)) < 1.5)


# --- SLAMS as published ------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Random data on the grid of 120 x 240 points, in memory."""
    config = one_step("slams_reference", tmp_path)
    settings = read(config)
    rng = np.random.default_rng(0)
    grid = Grid.of(np.arange(-89.25, 90.0, 1.5), np.arange(0.0, 360.0, 1.5))
    times = np.datetime64("2000-01-01", "ns") + np.arange(14) * np.timedelta64(1, "D")
    channels = {
        "state": channels_of(["temperature"], config.data.levels),
        "cpc": (Channel("total_precipitation"),),
        "olr": (Channel("outgoing_longwave_radiation"),),
    }
    fields = {
        name: Field(rng.standard_normal((14, *grid.shape, len(some)), dtype=np.float32), some)
        for name, some in channels.items()
    }
    statistics = {
        name: Statistics(np.zeros((1, 1, 1, len(some)), np.float32), np.ones(len(some), np.float32))
        for name, some in channels.items()
    }
    spans = {"train": slice(0, 8), "validation": slice(8, 13), "test": slice(13, 14)}
    archive = Archive(tmp_path, times, grid, fields)
    data = Inputs(archive, spans, statistics, root=str(tmp_path))
    monkeypatch.setattr(inputs, "load", lambda settings: data)
    return settings, data


@pytest.mark.slow
@pytest.mark.parametrize("name", ["latent", "pixel"])
def test_large_networks_fit_their_fields(name, published, tmp_path):
    """In shapes alone, since they take half a minute to compile."""
    settings = read(one_step(name, tmp_path))
    networks = network_settings(settings, published[1])
    shape = networks.frame_shape[:2]
    params = jax.eval_shape(lambda key: score.init(networks.score, key, shape), jax.random.key(0))
    assert {s[3] for s in kernels(params)} >= set(settings.score["widths"])


def kernels(params):
    """Shapes (height, width, in, out) of all convolutions."""
    return [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 4]


@pytest.mark.slow
def test_slams_as_published_has_its_networks(published):
    settings, data = published
    networks = network_settings(settings, data)
    shape = data.archive.grid.shape
    key = jax.random.key(0)
    params, model_state = jax.eval_shape(
        lambda key: autoencoder.init(networks.autoencoder, key, shape), key
    )
    # Qu et al. 2024, table 1: 12 -> 9 -> 8 -> 7 -> 6 -> 5, and back to the ten levels.
    ladder = [12, 9, 8, 7, 6, 5]
    pairs = set(itertools.pairwise(ladder))
    assert {s[2:] for s in kernels(params["encoder"])} == pairs
    assert {s[2:] for s in kernels(params["decoder"])} == {(5, 6), (6, 7), (7, 8), (8, 9), (9, 10)}
    assert {s[:2] for s in kernels(params)} == {(5, 5)}
    assert set(model_state) == {"encoder", "decoder"}
    assert networks.frame_shape == (120, 240, 5)

    params = jax.eval_shape(lambda key: score.init(networks.score, key, shape), key)
    assert networks.score.window * networks.score.channels == 25
    shapes = kernels(params)
    assert (3, 3, 25, 32) in shapes
    assert (3, 3, 32, 25) in shapes
    assert {s[3] for s in shapes} == {25, 32, 64, 128}
    assert networks.score.prediction == "eps"
    for stage in (settings.autoencoder_training, settings.score_training):
        assert stage.optimiser.learning_rate == 2e-4
