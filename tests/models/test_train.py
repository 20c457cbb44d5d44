"""Training from Python: Datasets in, a model out, repeatable."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from slams_jax.assimilation.intake import latent_field
from slams_jax.data import InputTransform, training_set
from slams_jax.errors import InputError
from slams_jax.models import StageConfig, load_model, networks_for, save_model, train_model
from slams_jax.models.model import LatentInput
from slams_jax.schema import Channel
from slams_jax.training import OptimiserConfig, read_metrics
from slams_jax.verify.denoising import LOG_SNR
from support import small_world
from support.small_model import assert_same_model
from support.small_world import gridded, world_arrays

pytestmark = pytest.mark.slow

PERIODS = {"train": ("2001-01-01", "2001-01-20"), "validation": ("2001-01-21", "2001-01-30")}
STEP = np.timedelta64(1, "D")
WET = InputTransform("log1p+wet", 1e-3)
STAGE = StageConfig(
    OptimiserConfig(steps=2, learning_rate=1e-3, warmup_steps=1), batch_size=8, checkpoint_every=2
)
NETWORKS = {
    "autoencoder": {"latent_channels": 4, "compression": 2, "width": 8, "blocks": 1},
    "score": {
        "window": 3,
        "widths": (8,),
        "blocks": 1,
        "embedding": 8,
        "prediction": "departure",
    },
}


def fields(**changed):
    truth, background = world_arrays(days=30)
    stations = small_world.station_data(truth)
    return {
        "state": gridded(truth),
        "background": gridded(background),
        "stations": stations,
        "olr": small_world.satellite_data(truth)["olr"],
        "rain": small_world.gauge_data(stations),
        **changed,
    }


def options(**changed):
    return {
        "autoencoder_training": STAGE,
        "score_training": STAGE,
        "latent_inputs": ("background", "stations", "rain"),
        "rank": 10,
        **changed,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return training_set(fields(), PERIODS, cache, input_transforms={"rain": WET})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The directory of a finished run, and what the call returned."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train_model(folder, data, networks_for(data, **NETWORKS), **options())


def test_the_model_knows_its_data(run, data):
    _, model = run
    assert model.time_step == np.timedelta64(1, "D")
    assert model.calendar == "proleptic_gregorian"
    assert model.units == {"temperature": "K"}
    assert model.grid == data.archive.grid
    assert model.latent_inputs == ("background", "stations", "rain")
    assert model.inputs["stations"] == LatentInput((Channel("temperature"),))
    rain = (Channel("total_precipitation"), Channel("total_precipitation_wet"))
    assert model.inputs["rain"] == LatentInput(rain, WET)
    assert model.background_error is not None
    assert model.background is not None
    assert model.latent is not None
    assert model.provenance["periods"]["validation"] == ["2001-01-21T00:00", "2001-01-30T00:00", 10]
    assert model.provenance["training"]["score"]["optimiser"]["steps"] == 2
    assert set(model.statistics) == {"state", "stations", "olr", "rain"}


def test_a_saved_run_is_the_model(run, tmp_path):
    folder, model = run
    path = save_model(model, tmp_path / "mine.safetensors")
    for loaded in (load_model(folder), load_model(path)):
        assert_same_model(loaded, model)
    card = path.with_suffix(".md").read_text()
    assert "| score.steps | 2 |" in card
    (record,) = read_metrics(folder / "score" / "metrics.jsonl")
    error = record[f"validation/denoising/{LOG_SNR[0]:g}"]
    assert f"| network | {error:.4f} |" in card


def test_validation_compares_the_network_with_its_gaussian_prior(run):
    folder, _ = run
    (record,) = read_metrics(folder / "score" / "metrics.jsonl")
    for level in LOG_SNR:
        network, gaussian = (
            record[f"validation/{group}/{level:g}"] for group in ("denoising", "denoising_gaussian")
        )
        assert 0.0 < gaussian < 1.5
        assert abs(network / gaussian - 1.0) < 0.1  # which it departs from, two steps ago


def test_repeating_the_call_trains_nothing_again(run, data):
    folder, model = run
    records = [folder / stage / "metrics.jsonl" for stage in ("autoencoder", "score")]
    before = [record.read_bytes() for record in records]
    again = train_model(folder, data, networks_for(data, **NETWORKS), **options())
    assert [record.read_bytes() for record in records] == before
    assert_same_model(again, model)


def test_another_configuration_does_not_resume(run, data):
    folder, _ = run
    wider = {**NETWORKS, "score": {**NETWORKS["score"], "widths": (12,)}}
    with pytest.raises(InputError, match=r"score\.widths"):
        train_model(folder, data, networks_for(data, **wider), **options())


def test_stations_lie_on_the_cells_of_the_grid(data):
    truth = world_arrays(days=30)[0]
    stations = small_world.station_data(truth)
    on_grid = data.archive.fields["stations"].array[..., 0]
    rows = np.searchsorted(small_world.LATITUDE, stations.latitude)
    columns = np.searchsorted(small_world.LONGITUDE, stations.longitude)
    np.testing.assert_allclose(on_grid[:, rows, columns], stations.temperature, rtol=1e-6)
    assert np.isnan(on_grid).mean() > 0.7


def test_latent_inputs_are_made_of_datasets_as_in_the_training_set(run, data):
    _, model = run
    frames = data.frames("validation")
    times = data.archive.times[frames]
    for name in model.latent_inputs:
        whole = fields()[name]
        backwards = whole.isel(time=np.arange(whole.sizes["time"])[:18:-1])
        one = name == "rain"  # a variable by itself
        given = backwards["total_precipitation"] if one else backwards
        made = latent_field(name, given, model, times)
        np.testing.assert_array_equal(made, data.standardised(name, frames))
        known = whole.isel(time=frames[3:])
        made = latent_field(name, known, model, times)
        assert np.isnan(made[:3]).all()
        np.testing.assert_array_equal(made[3:], data.standardised(name, frames[3:]))


def test_latent_inputs_that_do_not_fit_are_refused(run):
    _, model = run
    given, later = fields(), np.datetime64("2002-01-01", "ns") + np.arange(3) * STEP
    times = later - 365 * STEP
    background = given["background"]
    for name, dataset, at, message in (
        ("background", background, later, "shares no time with the analysis"),
        ("background", background.isel(longitude=slice(8)), times, "'background' is on another"),
        ("background", background.isel(level=[0, 1]), times, "lacks the levels"),
        ("rain", given["stations"], times, "'rain' has stations of 'temperature'"),
        ("olr", given["olr"], times, r"latent inputs are \['olr'\], but the error"),
    ):
        with pytest.raises(InputError, match=message):
            latent_field(name, dataset, model, at)
    unknown = dataclasses.replace(model, inputs={})
    with pytest.raises(InputError, match="does not say how its input 'rain' is made"):
        latent_field("rain", given["rain"], unknown, times)


def test_transforms_are_of_modalities(tmp_path):
    with pytest.raises(InputError, match="'state', which is no modality: choose from"):
        training_set(fields(), PERIODS, tmp_path, input_transforms={"state": WET})


def test_other_values_are_other_data(data):
    """Datasets in memory have no files to be told apart by."""
    cache = data.archive.path.parent
    again = training_set(fields(), PERIODS, cache, input_transforms={"rain": WET})
    assert again.archive.path == data.archive.path
    warmer = gridded(world_arrays(days=30)[0] + 1.0)
    changed = training_set(fields(state=warmer), PERIODS, cache)
    assert changed.archive.path != data.archive.path
    np.testing.assert_allclose(
        changed.archive.fields["state"].array, data.archive.fields["state"].array + 1.0, rtol=1e-6
    )


def test_units_are_converted(data, tmp_path):
    state = fields()["state"]
    celsius = (state - 273.15).assign(
        temperature=lambda d: d.temperature.assign_attrs(units="degC")
    )
    assert isinstance(celsius, xr.Dataset)
    other = training_set(fields(state=celsius), PERIODS, tmp_path)
    np.testing.assert_allclose(
        other.archive.fields["state"].array, data.archive.fields["state"].array, atol=1e-3
    )
