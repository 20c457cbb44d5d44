"""The commands one after the other, on a tiny world."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from experiments import assimilate, evaluate, train
from experiments.configuration import inputs, observations
from experiments.configuration.settings import read
from slams_jax.assimilation.members import MemberStore
from slams_jax.diffusion.presets import preset
from slams_jax.models import train as models_train
from slams_jax.models.saved import load_model, save_model
from slams_jax.storage import locked
from slams_jax.training import loop, read_metrics, restore_model
from slams_jax.verify import significance, summary
from support.pages import check_page
from support.small_world import (
    LATITUDE,
    LEVELS,
    LONGITUDE,
    run_command,
    small_config,
    times,
    tree,
    world_arrays,
    write_config,
)

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SYSTEMS = ("background", "persistence", "climatology", "oi", "oi_analysis", "analysis")


@pytest.fixture(scope="module")
def config(world, tmp_path_factory):
    """A configuration whose work directory holds a trained model."""
    folder = tmp_path_factory.mktemp("experiments")
    root = shutil.copytree(world, folder / "world")
    config = small_config(root, folder / "run")
    write_config(config, folder / "config.py")
    assert run_command(train.main, f"--config={folder / 'config.py'}") == 0
    return config


@pytest.fixture(scope="module")
def file(config):
    return Path(config.workdir).parent / "config.py"


@pytest.fixture(scope="module")
def analysis(config, file):
    path = file.parent / "analyses" / "analysis.nc"
    assert run_command(assimilate.main, f"--config={file}", f"--output={path}") == 0
    return path


@pytest.fixture(scope="module")
def report(file):
    return file.parent / "reports" / "report.html"


@pytest.fixture(scope="module")
def scores(config, file, analysis, report):
    """Of an evaluation that draws coastlines and writes a report too."""
    arguments = (f"--config={file}", f"--analysis={analysis}", f"--report={report}")
    with pytest.MonkeyPatch.context() as patch:
        for module in (significance, summary):
            patch.setattr(module, "FEWEST", 5)  # as many times as the tiny world's analysis has
        assert run_command(evaluate.main, *arguments) == 0
    return json.loads((Path(config.workdir) / "metrics.json").read_text())


def numbers(value):
    """All the numbers in nested lists and dictionaries."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [n for part in parts for n in numbers(part)]
    return [value] if isinstance(value, int | float) else []


class Killed(BaseException):
    pass


# --- train -------------------------------------------------------------------------------------


def test_training_leaves_both_stages_and_their_records(config):
    for stage in ("autoencoder", "score"):
        folder = Path(config.workdir) / stage
        records = read_metrics(folder / "metrics.jsonl")
        assert [r["step"] for r in records] == [3, 6]
        assert all(math.isfinite(r["loss"]) for r in records)
        assert "validation/loss" in records[-1]
        assert list((folder / "tensorboard").iterdir())
        assert (folder / "checkpoint" / "last" / "6").is_dir()


def test_training_again_does_nothing(config, file, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in Path(config.workdir, "score").rglob("*")}
    monkeypatch.setattr(loop, "make_step", lambda *args, **kw: pytest.fail("trained again"))
    assert run_command(train.main, f"--config={file}") == 0
    assert before == {p: p.stat().st_mtime_ns for p in Path(config.workdir, "score").rglob("*")}


def press_keys():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("interrupt", "status", "said"),
    [
        (press_keys, 130, "error: interrupted"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "stopped: at step "),
    ],
)
def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    config, file, tmp_path, monkeypatch, capsys, interrupt, status, said
):
    workdir = tmp_path / "run"
    shutil.copytree(Path(config.workdir) / "autoencoder", workdir / "autoencoder")
    original = models_train.window_loader

    class Interrupted:
        """A loader in which somebody interrupts when it is asked for a sixth batch."""

        def __init__(self, batches):
            self.batches, self.drawn = batches, 0

        def __iter__(self):
            return self

        def __next__(self):
            self.drawn += 1
            if self.drawn > 5:
                interrupt()
            return next(self.batches)

        def __getattr__(self, name):
            return getattr(self.batches, name)

    def loader(arrays, *, length, shuffle=True, **options):
        batches = original(arrays, length=length, shuffle=shuffle, **options)
        return Interrupted(batches) if shuffle and length > 1 else batches

    monkeypatch.setattr(models_train, "window_loader", loader)
    arguments = (f"--config={file}", f"--config.workdir={workdir}")
    assert run_command(train.main, *arguments) == status
    assert said in capsys.readouterr().err
    assert [r["step"] for r in read_metrics(workdir / "score" / "metrics.jsonl")] == [3]
    monkeypatch.undo()
    assert run_command(train.main, *arguments) == 0
    ours, theirs = (restore_model(Path(d) / "score", "last") for d in (workdir, config.workdir))
    for a, b in zip(jax.tree.leaves(ours[:3]), jax.tree.leaves(theirs[:3]), strict=True):
        np.testing.assert_array_equal(a, b)
    records = [read_metrics(Path(d) / "score" / "metrics.jsonl") for d in (workdir, config.workdir)]
    assert [r["loss"] for r in records[0]] == [r["loss"] for r in records[1]]


def test_two_trainings_do_not_share_a_work_directory(config, file, capsys):
    with locked(config.workdir):
        assert run_command(train.main, f"--config={file}") == 2
    message = capsys.readouterr().err
    assert f"{config.workdir} is in use by another run (process {os.getpid()} on" in message


# --- assimilate --------------------------------------------------------------------------------


def test_the_analysis_is_a_file_and_nothing_else(config, analysis):
    assert tree(analysis.parent) == ["analysis.nc"]
    with xr.open_dataset(analysis, engine="h5netcdf") as dataset:
        field = dataset["temperature"]
        assert field.dims == ("member", "time", "level", "latitude", "longitude")
        assert field.shape == (3, 5, 3, len(LATITUDE), len(LONGITUDE))
        np.testing.assert_array_equal(dataset["level"], LEVELS)
        first = np.datetime64(config.data.periods.test[0])
        np.testing.assert_array_equal(dataset["time"], first + np.arange(5))
        assert np.isfinite(field.values).all()
        assert field.attrs["units"] == "K"
        assert dataset.attrs["streams"] == "olr, sounder, stations, background"
        assert dataset.attrs["evaluations"] == 4
        assert json.loads(dataset.attrs["configuration"])["assimilation"]["members"] == 3


def test_what_an_analysis_says_of_its_streams(analysis):
    with xr.open_dataset(analysis, engine="h5netcdf") as dataset:
        found = {d["name"]: d for d in json.loads(dataset.attrs["diagnostics"])}
    assert set(found) == {"olr", "sounder", "stations"}
    # Background errors of 2.4 K at the lowest level, those of few days alike.
    assert 1.0 < found["stations"]["innovation_rms"] < 6.0
    assert all(d["chi_squared"] > 0 and d["degrees_of_freedom"] > 0 for d in found.values())


def test_forecasts_of_a_file_replace_the_background(config, file, analysis, tmp_path, capsys):
    own, several, output = (tmp_path / f"{n}.nc" for n in ("own", "several", "analysis"))
    with xr.open_dataset(Path(config.data.root) / "background.nc", engine="h5netcdf") as dataset:
        background = dataset.sel(time=slice(*config.data.periods.test)).load()
    background.to_netcdf(own, engine="h5netcdf")
    draw = lambda forecasts, *more: run_command(
        assimilate.main,
        f"--config={file}",
        f"--background={forecasts}",
        f"--output={output}",
        *more,
    )
    assert draw(own) == 0
    with (
        xr.open_dataset(analysis, engine="h5netcdf") as one,
        xr.open_dataset(output, engine="h5netcdf") as other,
    ):
        np.testing.assert_allclose(other["temperature"], one["temperature"], atol=1e-3)

    # Members far from one another, and hardly.
    shift = xr.DataArray([-9.0, 0.0, 9.0], dims="number")
    (background + shift).to_netcdf(several, engine="h5netcdf")
    spreads = []
    for more in ((), ("--config.ensemble.inflation=0.01",)):
        assert draw(several, "--config.ensemble.radius=0", *more) == 0
        with xr.open_dataset(output, engine="h5netcdf") as dataset:
            spreads.append(float(dataset["temperature"].std("member").mean()))
    assert spreads[0] > 1.05 * spreads[1]  # with observations, and what the decoder misses

    capsys.readouterr()
    background.assign_coords(time=background.time + np.timedelta64(999, "D")).to_netcdf(
        own, engine="h5netcdf"
    )
    assert draw(own) == 2
    assert "shares no time with the analysis" in capsys.readouterr().err
    assert draw(several, "--fit_inflation") == 2
    assert "leave one of the two out" in capsys.readouterr().err


def test_a_preset_and_a_fitted_inflation(config, file, tmp_path):
    """Both replace what the configuration says, and the file tells."""
    output = tmp_path / "analysis.nc"
    status = run_command(
        assimilate.main,
        f"--config={file}",
        "--preset=fast",
        "--fit_inflation",
        "--config.assimilation.members=2",
        f"--output={output}",
    )
    assert status == 0
    with xr.open_dataset(output, engine="h5netcdf") as dataset:
        assert dataset.attrs["evaluations"] == 16
        used = json.loads(dataset.attrs["configuration"])
    assert used["sampler"]["steps"] == 16
    assert used["guidance"]["rule"] == "gaussian"
    assert 0.25 <= used["assimilation"]["inflation"] <= 16.0
    assert used["assimilation"]["inflation"] != 1.0


def test_the_exact_preset_tells_how_far_it_came(file, tmp_path, caplog):
    """With thousands of observations it changes nothing, and says so."""
    output = tmp_path / "analysis.nc"
    status = run_command(
        assimilate.main, f"--config={file}", "--preset=exact", f"--output={output}"
    )
    assert status == 0
    with xr.open_dataset(output, engine="h5netcdf") as dataset:
        told, used = dataset.attrs, json.loads(dataset.attrs["configuration"])
    assert told["evaluations"] == 2 * 64 + 12 * 32
    assert told["derivative_evaluations"] == 0
    settings, chosen = read(used), preset("exact")
    assert settings.assimilation.paths == chosen.paths == 2
    for name in ("sampler", "guidance", "refinement"):
        assert getattr(settings, name) == getattr(chosen, name)
    assert told["effective_paths"] < 2.0
    assert told["acceptance"] < 0.05
    for line in (
        "divergence of the paths from the posterior",
        "paths, so that the members are copies of one",
        "of the moves accepted",
        "of its 12 moves of 32, so that the members are as guidance left them",
    ):
        assert line in caplog.text


def test_a_saved_model_takes_the_place_of_that_in_the_work_directory(
    config, file, analysis, scores, tmp_path
):
    model = save_model(load_model(config.workdir), tmp_path / "saved.safetensors")
    given = (f"--config={file}", f"--config.workdir={tmp_path / 'empty'}", f"--model={model}")
    again = tmp_path / "analysis.nc"
    assert run_command(assimilate.main, *given, f"--output={again}") == 0
    with (
        xr.open_dataset(analysis, engine="h5netcdf") as one,
        xr.open_dataset(again, engine="h5netcdf") as other,
    ):
        np.testing.assert_array_equal(one["temperature"], other["temperature"])
    assert run_command(evaluate.main, *given, f"--analysis={again}") == 0
    found = json.loads((tmp_path / "empty" / "metrics.json").read_text())
    assert found["analysis"]["rmse"] == scores["analysis"]["rmse"]


def test_the_commands_work_from_a_shell(config, file, analysis, tmp_path, monkeypatch):
    """With another seed, into a Zarr store, going on where another process was killed."""
    output = tmp_path / "deep" / "analysis.zarr"
    # No device is left to draw another member meanwhile.
    flags = (
        f"--config={file}",
        "--config.seed=5",
        "--config.assimilation.member_batch=1",
        f"--config.assimilation.window_devices={jax.device_count()}",
        f"--output={output}",
    )
    original = MemberStore.put

    def killed(self, first, states, about):
        if first == 1:
            raise Killed
        original(self, first, states, about)

    monkeypatch.setattr(MemberStore, "put", killed)
    with pytest.raises(Killed):
        run_command(assimilate.main, *flags)
    assert [p.name for p in output.parent.iterdir()] == [".analysis.zarr.members"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.assimilate", *flags],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
    )
    assert done.returncode == 0, done.stderr
    assert "Unable to initialize" not in done.stderr
    assert "3 members, 5 times in" in done.stderr
    drawn = [f"{n} of 3 members drawn" in done.stderr for n in (1, 2, 3)]
    assert drawn == [False, True, True]
    assert [p.name for p in output.parent.iterdir()] == ["analysis.zarr"]
    data = inputs.load(read(config))
    at = data.archive.times[data.frames("test")[:5]]
    grid, channels = data.archive.grid, data.archive.fields[inputs.STATE].channels
    other = evaluate.open_analysis(output, at, grid, channels, 3)["temperature"].values
    with xr.open_dataset(analysis, engine="h5netcdf") as first:
        assert other.shape == first["temperature"].shape
        assert np.abs(other - first["temperature"].values).mean() > 1e-3


# --- evaluate ----------------------------------------------------------------------------------


def test_scores_are_complete(scores):
    assert scores["levels"] == list(LEVELS)
    for system in SYSTEMS:
        for name in ("rmse", "bias", "crps"):
            assert len(scores[system][name]) == len(LEVELS), (system, name)
    for name in ("spread_skill", "rank_histogram", "w1"):
        assert len(scores["analysis"][name]) == len(LEVELS)
    assert len(scores["reconstruction_rmse"]) == len(LEVELS)
    errors = scores["denoising"]
    for name in ("network", "Gaussian prior"):
        assert len(errors[name]) == len(errors["log_snr"]) == 7
        assert errors[name][0] < errors[name][-1]  # more noise, more error
    histogram = np.array(scores["analysis"]["rank_histogram"])
    assert histogram.shape == (len(LEVELS), 4)  # members + 1
    np.testing.assert_array_equal(histogram.sum(axis=1), 5 * len(LATITUDE) * len(LONGITUDE))
    assert set(scores["stations"]) == set(SYSTEMS)
    counts = {scores["stations"][s]["count"] for s in SYSTEMS}
    assert len(counts) == 1
    assert 15 < counts.pop() <= 7 * 5  # three in ten of 24 stations, a tenth missing
    assert scores["evaluations"] == 4
    assert scores["derivative_evaluations"] == 0
    assert scores["seconds"] > 0
    assert scores["peak_memory_bytes"] > 1e8
    assert all(math.isfinite(n) for n in numbers(scores))


def test_scores_of_reliability_scale_region_and_significance(scores):
    for system in ("oi", "analysis"):
        found = scores[system]
        parts = {name: np.array(values) for name, values in found["crps_parts"].items()}
        np.testing.assert_allclose(
            parts["reliability"] - parts["resolution"] + parts["uncertainty"],
            parts["crps"],
            rtol=1e-4,
        )
        assert found["energy_score"] > 0
        assert 0 < found["energy_distance"] < 2
        assert np.shape(found["spread_skill_bins"]["rmse"]) == (len(LEVELS), 10)
        total = np.sqrt(np.sum(scores["spectra"][system]["error"], axis=1))
        np.testing.assert_allclose(total, found["rmse"], rtol=1e-4)
        assert np.shape(scores["events"][system]["frequency"]) == (len(LEVELS), 4)
    assert scores["spectra"]["wavenumber"] == list(range(len(LONGITUDE) // 2 + 1))
    assert list(scores["regions"]) == [
        "globe",
        "northern extratropics",
        "tropics",
        "southern extratropics",
    ]
    assert scores["regions"]["globe"]["oi"]["rmse"] == scores["oi"]["rmse"]
    against = scores["significance"]["against"]
    assert list(against) == list(SYSTEMS[:-1])
    for name, of in against.items():
        difference = np.subtract(scores["analysis"]["crps"], scores[name]["crps"])
        np.testing.assert_allclose(of["crps"]["difference"], difference, rtol=1e-3, atol=1e-5)
    assert [s["name"] for s in scores["streams"]] == ["olr", "sounder", "stations"]


def test_the_report_holds_everything(config, file, analysis, report, scores):
    assert [p.name for p in report.parent.iterdir()] == ["report.html"]
    page = check_page(report.read_text(encoding="utf-8"))
    pictures = [p for p in Path(config.workdir).iterdir() if p.suffix == ".png"]
    assert len(page.named("img")) == len(pictures) >= 19
    shown = " ".join(page.text)
    for part in (
        "Analysis of temperature, 2001-03-05 to 2001-03-09",
        "olr, sounder and stations",
        f"{scores['oi']['rmse'][0]:.3f}",
        "tropics",
        "for correlated times",
        f"--analysis={analysis}",
        '"workdir"',
        "diffrax",
    ):
        assert part in shown, part
    rows = len(page.named("tr"))
    assert rows > 6 * len(LEVELS)


def test_weatherbench_can_read_an_analysis(analysis):
    """The names, dimensions and units of WeatherBench 2, and what its reader does with them.

    WeatherBench-X is in no package index: these are the steps of its `PredictionsFromXarray` with
    `rename_dimensions={"time": "init_time", "member": "number"}`, and of `TargetsFromXarray`.
    """
    dataset = xr.open_dataset(analysis)  # no engine given, as there
    with dataset:
        forecast = dataset.rename({"time": "init_time", "member": "number"})
        chunk = forecast[["temperature"]].sel(init_time=dataset["time"].values[1:3], level=[300])
        assert chunk["temperature"].dims == (
            "number",
            "init_time",
            "level",
            "latitude",
            "longitude",
        )
        assert chunk["temperature"].shape == (3, 2, 1, len(LATITUDE), len(LONGITUDE))
        valid = dataset.rename({"time": "valid_time"}).sel(valid_time=dataset["time"].values[:2])
        assert valid.sizes["valid_time"] == 2
        assert "prediction_timedelta" not in dataset.coords  # which would make it a forecast
        assert dataset["time"].dtype.kind == "M"
        assert dataset["temperature"].attrs["units"] == "K"
        assert dataset["level"].attrs["units"] == "hPa"
        longitude = dataset["longitude"].values
        assert longitude.min() >= 0
        assert longitude.max() < 360


def test_scores_of_the_background_are_those_of_the_files(scores):
    truth, background = (field[63:68] for field in world_arrays())
    assert str(times()[63])[:10] == "2001-03-05"
    weights = np.diff(np.sin(np.deg2rad(np.r_[-90, (LATITUDE[1:] + LATITUDE[:-1]) / 2, 90])))
    square = ((background - truth) ** 2).mean(axis=(0, 2))
    rmse = np.sqrt((square * weights[:, None]).sum(axis=0) / weights.sum())
    np.testing.assert_allclose(scores["background"]["rmse"], rmse, rtol=1e-4)
    mean = (background - truth).mean(axis=(0, 2))
    bias = (mean * weights[:, None]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(scores["background"]["bias"], bias, atol=1e-3)
    assert all(
        crps < rmse
        for crps, rmse in zip(
            scores["background"]["crps"], scores["background"]["rmse"], strict=True
        )
    )


def test_optimal_interpolation_is_no_straw_man(scores):
    """Its covariances are those of the world: it beats background and climatology everywhere."""
    for name in ("background", "climatology"):
        assert np.all(np.array(scores["oi"]["rmse"]) < 0.6 * np.array(scores[name]["rmse"]))
    stations = scores["stations"]
    assert stations["oi"]["rmse"] < 0.6 * stations["background"]["rmse"]


def test_pictures_and_table_are_there(config, scores):
    found = {p.name for p in Path(config.workdir).iterdir()}
    expected = {
        "autoencoder_training.png",
        "score_training.png",
        "profiles.png",
        "spread_skill.png",
        "rank_histogram.png",
        "stations.png",
        "maps_1000hPa.png",
        "maps_300hPa.png",
        "maps_20hPa.png",
        "errors_1000hPa.png",
        "zonal_rmse.png",
        "zonal_bias.png",
        "differences.png",
        "spread_regions.png",
        "spread_bins.png",
        "reliability.png",
        "spectra.png",
        "metrics.json",
        "table.md",
    }
    assert expected <= found
    assert not [name for name in found if ".part" in name]
    for name in expected:
        if name.endswith(".png"):
            head = (Path(config.workdir) / name).read_bytes()
            assert head.startswith(b"\x89PNG"), name
            assert len(head) > 5000, name
    table = (Path(config.workdir) / "table.md").read_text()
    assert f"{scores['oi']['rmse'][0]:.3f}" in table


# --- observations of a configuration -----------------------------------------------------------


def streams_of(config, **streams):
    config = config.copy_and_resolve_references()
    config.unlock()
    config.assimilation.streams = streams
    settings = read(config)
    data = inputs.load(settings)
    frames = observations.frames_of(settings, data)
    return data, frames, *observations.open_streams(settings, data, frames)


def test_withheld_stations_are_not_used(config):
    stations = {"kind": "points", "path": "stations.nc", "error": 0.5}
    data, frames, (used,), (kept,) = streams_of(
        config, stations={**stations, "withhold": ("S03", "S10")}
    )
    assert kept.names == ["S03", "S10"]
    assert not set(kept.names) & set(np.asarray(used.data["station"]).tolist())
    assert used.data.sizes["station"] == 22
    # Stations stand on grid points at the lowest level: their values are the truth and an error.
    truth = jnp.asarray(data.archive.fields["state"].array[frames])
    departure = kept.values - np.asarray(kept.operator(truth))
    assert 0.2 < np.nanstd(departure) < 1.0
    _, _, (used,), withheld = streams_of(config, stations={**stations, "withhold": 0.25})
    assert (used.data.sizes["station"], len(withheld[0].names)) == (18, 6)
    _, _, _, withheld = streams_of(config, stations=stations)
    assert withheld == []


def test_estimated_station_errors(config):
    _, _, (used,), _ = streams_of(
        config, stations={"kind": "points", "path": "stations.nc", "estimate": True}
    )
    assert used.error.shape == used.bias.shape == (24,)
    np.testing.assert_allclose(used.error.mean(), 0.5, atol=0.1)
    assert np.abs(used.bias).max() < 5 * 0.5 / np.sqrt(40)


def test_a_tidy_table_brings_its_own_errors(config):
    lines = ["time,station,latitude,longitude,altitude,variable,value,error"]
    for day, error in (("2001-03-05", 0.3), ("2001-03-06", 0.9)):
        lines.append(f"{day},a,11.25,22.5,110.88,temperature,10.0,{error}")
        lines.append(f"{day},b,33.75,45.0,110.88,temperature,12.0,{error}")
    (Path(config.data.root) / "tidy.csv").write_text("\n".join(lines) + "\n")
    stream = {"kind": "points", "path": "tidy.csv", "units": "degC", "withhold": ("b",)}
    _, _, (used,), (kept,) = streams_of(config, tidy=stream)
    assert used.error is None
    np.testing.assert_allclose(used.data["error"].values[:, 0], [0.3, 0.9], rtol=1e-6)
    np.testing.assert_allclose(kept.values[:2, 0], 285.15, rtol=1e-6)
    assert np.isnan(kept.values[2:]).all()


def test_files_say_the_errors_of_gridded_observations(config):
    sounder = {"kind": "sounder", "path": "sounder.nc", "variable": "brightness_temperature"}
    _, _, (stream,), _ = streams_of(config, sounder=sounder)
    np.testing.assert_allclose(stream.error, 0.5)
    _, _, (stream,), _ = streams_of(config, sounder={**sounder, "error": 2.0})
    assert stream.error == 2.0


def test_simulated_samplings_are_of_the_truth(config):
    data, frames, (coarse, sparse), _ = streams_of(
        config,
        coarse={"kind": "coarse", "factor": 4, "error": 0.5},
        sparse={"kind": "stride", "factor": 4, "error": 0.5, "every": 2},
    )
    truth = np.asarray(data.archive.fields["state"].array[frames])
    means = truth.reshape(5, 2, 4, 4, 4, 3).mean(axis=(2, 4))
    seen = coarse.data["temperature"].transpose("time", "latitude", "longitude", "level").values
    np.testing.assert_allclose((seen - means).std(), 0.5, rtol=0.3)
    np.testing.assert_allclose(coarse.data["latitude"], LATITUDE.reshape(2, 4).mean(axis=1))
    points = sparse.data["temperature"].transpose("time", "latitude", "longitude", "level")
    some = truth[:, 2::4, 2::4]
    np.testing.assert_allclose((points.values - some)[::2].std(), 0.5, rtol=0.3)
    assert np.isnan(points.values[1::2]).all()
    np.testing.assert_allclose(sparse.data["longitude"], LONGITUDE[2::4])
