"""The commands with rain in the state, on a tiny world."""

import json

import numpy as np
import pytest
import xarray as xr

from configs import base
from experiments import assimilate, evaluate
from slams_jax.models import load_model
from support.small_world import (
    LATITUDE,
    LONGITUDE,
    gridded,
    run_command,
    small_config,
    smooth_noise,
    station_data,
    untrained,
    world_arrays,
    write_config,
)

RAIN = "total_precipitation"
AXES = {"latitude": LATITUDE, "longitude": LONGITUDE}


def rain_of(z):
    """mm, dry on a third of the world."""
    return np.where(z > -0.4, (z + 0.5).clip(min=0.0) ** 2.5, 0.0).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Files of temperature and rain."""
    folder = tmp_path_factory.mktemp("rain")
    truth, background = world_arrays()
    rng = np.random.default_rng(5)
    z = smooth_noise(rng, len(truth))[..., 0]
    before = 0.9 * z + 0.4 * smooth_noise(rng, len(truth))[..., 0]
    before = before + 0.1 * rng.standard_normal(before.shape)
    for name, field, latent in (("state", truth, z), ("background", background, before)):
        rain = gridded(rain_of(latent), RAIN, "mm")
        gridded(field).merge(rain).to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    stations = station_data(truth)
    stations.to_netcdf(folder / "stations.nc", engine="h5netcdf")
    cells = (np.searchsorted(axis, stations[n]) for n, axis in AXES.items())
    at = ("time", "station"), rain_of(z)[:, *cells], {"units": "mm"}
    gauges = stations.drop_vars("temperature").assign({RAIN: at})
    gauges.to_netcdf(folder / "gauges.nc", engine="h5netcdf")
    return folder


def configuration(root, folder, *, latent):
    config = small_config(root, folder / "run")
    config.data.variables = ("temperature", RAIN)
    config.data.transforms = {RAIN: base.censored()}
    with config.unlocked():
        config.data.modalities = {}
        config.assimilation.streams = {
            "stations": base.stream("points", path="stations.nc", error=0.5, withhold=0.3),
            "gauges": base.stream("points", path="gauges.nc", variable=RAIN, error=2e-3),
        }
    config.assimilation.latent_inputs = ()
    config.sampler.steps = 8
    if not latent:
        config.autoencoder = config.autoencoder_training = None
    return config


def rain_of_an_analysis(config, folder):
    """Of an untrained network, which is its Gaussian prior."""
    file, path = write_config(config, folder / "config.py"), folder / "analysis.nc"
    untrained(config)
    assert load_model(config.workdir).units[RAIN] == "m"
    assert run_command(assimilate.main, f"--config={file}", f"--output={path}") == 0
    with xr.open_dataset(path, engine="h5netcdf") as analysis:
        rain = analysis[RAIN].values
    assert 0.05 < (rain == 0.0).mean() < 0.8
    assert rain[rain > 0.0].min() >= 0.999e-4
    assert rain.max() < 0.2  # m
    return rain


@pytest.mark.slow
def test_rain_is_analysed_in_a_latent(root, tmp_path):
    rain_of_an_analysis(configuration(root, tmp_path, latent=True), tmp_path)


@pytest.mark.slow
def test_rain_is_analysed_and_scored(root, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.pictures, "draw", lambda *_: [])  # as for any other state
    rain = rain_of_an_analysis(configuration(root, tmp_path, latent=False), tmp_path)
    report = tmp_path / "report.html"
    file, path = tmp_path / "config.py", tmp_path / "analysis.nc"
    arguments = (f"--config={file}", f"--analysis={path}", f"--report={report}")
    assert run_command(evaluate.main, *arguments) == 0
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
    found = scores["occurrence"][RAIN]
    assert found["thresholds"] == [1e-4, 1e-3, 1e-2]
    assert found["analysis"]["frequency"][0] == pytest.approx((rain > 1e-4).mean(), abs=0.1)
    assert found["truth"]["frequency"][0] > found["truth"]["frequency"][1] > 0.0
    for system in ("background", "persistence", "climatology", "oi", "oi_analysis", "analysis"):
        assert len(found[system]["brier"]) == 3
        assert 0.0 < found[system]["brier"][0] < 0.5
    assert scores["variables"][-1] == RAIN
    assert scores["climatological_std"][-1] < 0.1  # m
    assert "Occurrence of total_precipitation" in report.read_text()
    assert f"{RAIN} |" in (tmp_path / "run" / "table.md").read_text()
