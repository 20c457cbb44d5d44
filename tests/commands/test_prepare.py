"""The command `experiments.prepare`, on sources in their producers' layouts."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from configs import prepare_era5
from experiments import prepare, train
from experiments.configuration import inputs
from experiments.configuration.settings import read
from slams_jax.data.regrid import global_grid
from slams_jax.training import read_metrics
from support.data_samples import cpc_year
from support.small_world import run_command, tree, write_config

pytestmark = pytest.mark.slow

DAYS, LEVELS = 44, (10.0, 500.0, 1000.0)
GRID = (8, 16)
FIRST = np.datetime64("2001-01-01", "ns")
DAY = np.timedelta64(1, "D")


def era5(folder):
    """ChaosBench: a store a day, latitude from the north with the poles."""
    rng = np.random.default_rng(0)
    lat, lon = np.linspace(90.0, -90.0, 13), np.arange(24) * 15.0
    mean = np.array([1000.0, 500.0, 10.0])
    for day in range(DAYS):
        wave = np.cos(np.deg2rad(lon) + day / 4) * np.cos(np.deg2rad(lat))[:, None]
        noise = rng.standard_normal((3, 13, 24))
        values = 215 + mean[:, None, None] / 14 + 8 * wave + noise
        dims = ("level", "latitude", "longitude")
        time = FIRST + day * DAY
        xr.Dataset(
            {"t": (dims, values.astype(np.float32), {"units": "K"})},
            {"level": mean.astype(int), "latitude": lat, "longitude": lon, "time": time},
        ).to_zarr(
            folder / f"era5_full_1.5deg_{str(time)[:10].replace('-', '')}.zarr", zarr_format=2
        )


def olr(path):
    """NOAA: twice a day, packed shorts, one whole day missing."""
    lat, lon = np.linspace(90.0, -90.0, 10), np.arange(18) * 20.0
    rng = np.random.default_rng(1)
    values = 240 - 80 * np.sin(np.deg2rad(lat))[:, None] ** 2 + rng.normal(0, 9, (2 * DAYS, 10, 18))
    values[20:22] = np.nan
    dataset = xr.Dataset(
        {"olr": (("time", "lat", "lon"), values, {"units": "W/m^2"})},
        {
            "time": FIRST + np.arange(2 * DAYS) * np.timedelta64(12, "h"),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 327.65, "_FillValue": 32766}
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"olr": packing})
    return values


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for name in ("era5", "cpc", "olr"):
        (folder / name).mkdir()
    era5(folder / "era5")
    cpc_year(folder / "cpc" / "precip.2001.nc", 2001, DAYS)
    olr(folder / "olr" / "olr.2xdaily.1979-2022.nc")
    return folder


def small(sources, tmp_path):
    config = prepare_era5.get_config()
    config.workdir = str(tmp_path / "run")
    config.data.update(root=str(sources), levels=LEVELS, grid=GRID, cache=str(tmp_path / "cache"))
    config.data.period = ("2001-01-02", "2001-02-10")
    config.data.periods = {
        "train": ("2001-01-01", "2001-01-22"),
        "validation": ("2001-01-23", "2001-02-03"),
        "test": ("2001-02-04", "2001-02-10"),
    }
    config.autoencoder.update(latent_channels=4, width=8, blocks=1)
    config.score.update(widths=(8,), blocks=1)
    for stage in ("autoencoder_training", "score_training"):
        config[stage].update(steps=1, batch_size=1, warmup_steps=0, log_every=1, checkpoint_every=1)
    config.assimilation.update(rank=10, frames=5, members=2)
    return config


@pytest.fixture(scope="module")
def prepared(sources, tmp_path_factory):
    """Folder of a run of the command, the configuration, and the summary's folder."""
    folder = tmp_path_factory.mktemp("prepared")
    config = small(sources, folder)
    path = write_config(config, folder / "config.py")
    status = run_command(prepare.main, f"--config={path}", f"--output={folder / 'about'}")
    assert status == 0
    return folder, config


def test_everything_is_on_the_grid_and_days_of_the_state(prepared, sources):
    _, config = prepared
    data = inputs.load(read(config))
    archive = data.archive
    assert archive.grid == global_grid(GRID)
    assert len(archive.times) == 40
    assert str(archive.times[0])[:16] == "2001-01-02T00:00"
    shapes = {n: f.array.shape for n, f in archive.fields.items()}
    assert shapes == {
        "state": (40, 8, 16, 3),
        "background": (40, 8, 16, 3),
        "cpc": (40, 8, 16, 2),
        "olr": (40, 8, 16, 1),
    }
    state = archive.fields["state"].array
    assert np.isfinite(state).all()
    np.testing.assert_array_equal(archive.fields["background"].array[1:], state[:-1])
    assert np.isnan(archive.fields["background"].array[0]).all()
    # Precipitation: days as they are dated, log(1 + x / mm), land in half the longitudes.
    with xr.open_dataset(sources / "cpc" / "precip.2001.nc", engine="h5netcdf") as source:
        amounts = source.precip.values[1, :, :10]  # mm, the second day
    wet = archive.fields["cpc"].array[..., 1]
    assert set(np.unique(wet[np.isfinite(wet)])) == {0.0, 1.0}
    rain = archive.fields["cpc"].array[0, ..., 0]
    known = np.isfinite(rain)
    assert known[:, 1:7].all()
    assert not known[:, 10:].any()
    assert np.expm1(rain[known]).min() >= amounts.min()
    assert np.expm1(rain[known]).max() <= amounts.max()
    assert np.expm1(rain[4, 3]) == pytest.approx(amounts[::-1][6:8, 3:5].mean(), rel=0.1)
    # OLR: the mean of 12 UTC before and 00 UTC; the missing day (11 January) halves two means.
    longwave = archive.fields["olr"].array[..., 0]
    missing = np.isnan(longwave).all(axis=(1, 2))
    assert not missing.any()  # half of each is known
    area = archive.grid.area_weights()
    assert abs((longwave * area).mean() - (240 - 80 / 3)) < 2.0


def test_the_summary_and_the_picture_say_what_is_there(prepared):
    folder, config = prepared
    about = folder / "about"
    assert sorted(p.name for p in about.iterdir()) == ["overview.png", "summary.json", "summary.md"]
    summary = json.loads((about / "summary.json").read_text())
    archive = inputs.load(read(config)).archive
    assert summary["grid"] == [8, 16]
    assert summary["periods"] == {"train": 21, "validation": 12, "test": 7}
    state = archive.fields["state"].array
    area = archive.grid.area_weights()[None, ..., None]
    channels = summary["fields"]["state"]["channels"]
    assert [c["name"] for c in channels] == [f"Temperature {v:g} hPa" for v in LEVELS]
    mean = (area * state).sum((0, 1, 2), dtype=np.float64) / area.sum() / len(state)
    std = np.sqrt((area * (state - mean) ** 2).sum((0, 1, 2)) / area.sum() / len(state))
    for i, channel in enumerate(channels):
        assert channel["mean"] == pytest.approx(mean[i], rel=1e-5)
        assert channel["std"] == pytest.approx(std[i], rel=1e-3)
        assert channel["minimum"] == pytest.approx(state[..., i].min())
        assert channel["maximum"] == pytest.approx(state[..., i].max())
        assert channel["missing"] == 0.0
    rain = summary["fields"]["cpc"]
    gaps = np.isnan(archive.fields["cpc"].array).mean()
    assert rain["channels"][0]["missing"] == pytest.approx(gaps)
    assert (rain["grid_before"], rain["grid"]) == ([12, 20], [8, 16])
    assert rain["method"] == "conservative"
    assert rain["transform"] == "log(1 + x / 0.001), x > 0"
    assert summary["fields"]["olr"]["matching"] == "mean 24 h"
    text = (about / "summary.md").read_text()
    assert "| cpc | `cpc/precip.*.nc` | 12 x 20 |" in text
    assert "| olr | Outgoing longwave radiation | W m-2 | 0.0% |" in text
    assert (about / "overview.png").read_bytes()[:4] == b"\x89PNG"


def test_training_starts_from_what_is_prepared(prepared):
    folder, config = prepared
    (archive,) = (folder / "cache").iterdir()
    before = {p.name: p.stat().st_mtime_ns for p in archive.iterdir()}
    train.train(read(config))
    assert {p.name: p.stat().st_mtime_ns for p in archive.iterdir()} == before
    assert [p.name for p in (folder / "cache").iterdir()] == [archive.name]
    for stage in ("autoencoder", "score"):
        (record,) = read_metrics(Path(config.workdir) / stage / "metrics.jsonl")
        assert np.isfinite(record["loss"])


BAD = {
    "negative": ("data.modalities.cpc.path", "bad/negative.nc", "log1p needs values from 0 up"),
    "calendar": ("data.modalities.cpc.path", "bad/calendar.nc", "360_day.*months of 30 days"),
    "times": ("data.modalities.cpc.path", "bad/late.nc", "'cpc' shares no time with the state"),
    "no mean": ("data.modalities.olr.path", "bad/olr_late.nc", "olr .*no value at any time"),
    "region": ("data.state", "bad/region.nc", "'state' is on a different grid|does not cover"),
    "overlap": ("data.modalities.olr.path", "bad/olr_region.nc", "olr: its grid.*not overlap"),
    "method": ("data.modalities.cpc.method", "spline", "cpc: unknown method 'spline'"),
    "matching": ("data.modalities.olr.matching", "median", "olr: unknown time matching 'median'"),
    "transform": ("data.modalities.cpc.transform", "sqrt", "cpc: unknown transform 'sqrt'"),
    "scale": (
        "data.modalities.cpc.scale",
        0.0,
        "cpc: the scale of log1p must be a positive number",
    ),
    "of the state": (
        "data.state",
        {"path": "era5/*.zarr", "transform": "log1p"},
        "data.state: transforms and",
    ),
    "scheme": ("data.state", "warp://bucket/x.zarr", "cannot be opened as warp://"),
    "spacing": ("data.grid", 7.0, r"data\.grid: grid spacing 7\.0 must divide 180"),
    "hours": ("data.hours", (3,), r"data\.hours \(3,\) are of none of the state's times"),
    "no hour": ("data.hours", (24,), "data.hours must be hours of the day"),
    "period": ("data.period", ("1999", "1999"), "data.period 1999 to 1999 holds none of the times"),
    "share": ("data.modalities.cpc.known", 2.0, r"cpc: known is a share in \(0, 1\]"),
}


@pytest.fixture(scope="module")
def bad(sources):
    (sources / "bad").mkdir()
    with xr.open_dataset(sources / "cpc/precip.2001.nc", engine="h5netcdf") as rain:
        rain = rain.load().drop_encoding()
    with xr.open_dataset(sources / "olr/olr.2xdaily.1979-2022.nc", engine="h5netcdf") as longwave:
        longwave = longwave.load().drop_encoding()
    with xr.open_zarr(sources / "era5" / "era5_full_1.5deg_20010103.zarr", chunks=None) as state:
        region = state.load().drop_encoding().isel(latitude=slice(2, 8)).expand_dims("time")
    calendar = {"units": "days since 2001-02-26", "calendar": "360_day"}
    files = {
        "negative": rain.assign(precip=0.0 * rain.precip - 0.05),
        "calendar": rain.assign_coords(time=("time", np.arange(DAYS), calendar)),
        "late": rain.assign_coords(time=rain.time + np.timedelta64(3650, "D")),
        "olr_late": longwave.assign_coords(time=longwave.time + np.timedelta64(3650, "D")),
        "olr_region": longwave.isel(lat=slice(1, 3), lon=slice(1, 3)).assign_coords(lat=[1.0, 0.0]),
        "region": xr.concat(
            [region.assign_coords(time=region.time + d * DAY) for d in range(30)], "time"
        ),
    }
    files["grid"] = xr.Dataset(
        {"mask": (("latitude", "longitude"), np.zeros((3, 3)))},
        {"latitude": [-60.0, -50.0, -40.0], "longitude": [200.0, 210.0, 220.0], "time": FIRST},
    )
    for name, dataset in files.items():
        dataset.to_netcdf(sources / "bad" / f"{name}.nc", engine="h5netcdf")
    return sources


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_leaves_nothing(case, bad, tmp_path, capsys):
    path, value, message = BAD[case]
    config = small(bad, tmp_path)
    *parents, last = path.split(".")
    group = config
    for name in parents:
        group = group[name]
    with config.unlocked(), config.ignore_type():
        group[last] = value
        if case == "overlap":
            config.data.grid = str(bad / "bad" / "grid.nc")
    file = write_config(config, tmp_path / "config.py")
    before = tree(tmp_path)
    assert run_command(prepare.main, f"--config={file}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(message, error), error
    left = [p for p in tree(tmp_path) if p not in before]
    assert [p for p in left if not os.path.isdir(tmp_path / p)] == []
