"""The ablation: which model wins where, in the released and the corrected protocol."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from configs import ablation as shipped
from configs import ablation_moist as moist
from configs import base
from experiments.ablation import compare as ablation
from experiments.ablation import gains as ablation_gains
from experiments.ablation import protocols as ablation_protocols
from experiments.ablation import report as ablation_report
from experiments.ablation.variants import read_ablation, variant_settings
from experiments.configuration import analysis, inputs
from experiments.configuration.build import plain
from experiments.configuration.models import open_model
from slams_jax.errors import InputError
from slams_jax.models.model import encode
from slams_jax.verify import metrics
from support.small_world import small_config

pytestmark = pytest.mark.slow

NAMES = ("pixel", "latent + both")
SETTINGS = ("coarsening 2", "noise 1")  # of the same shapes, which compile once


def configuration(world: Path, folder: Path) -> dict:
    raw = plain(small_config(world, folder))
    raw["ablation"] = {
        "models": {
            "pixel": {"autoencoder": False},
            "latent + both": {"modalities": ("stations", "olr")},
            "other sampler": {
                "modalities": ("stations", "olr"),
                "trained": "latent + both",
                "changes": {"sampler": {"steps": 3}},
                "protocols": ("released",),
                "settings": ("noise 1",),
            },
        },
        "streams": {
            "stations": plain(base.stream("points", path="stations.nc", error=0.5)),
            "olr": plain(base.stream("olr", path="olr.nc", variable="outgoing_longwave_radiation")),
        },
        "coarsening": (2,),
        "noise": (1.0,),
        "stride": (),
        "every": 2,
        "windows": 2,
        "frames": 3,
        "members": 2,
    }
    return raw


@pytest.fixture(scope="module")
def found(world, tmp_path_factory):
    """The rows of a whole run, its configuration and its folder."""
    folder = tmp_path_factory.mktemp("out")
    raw = configuration(world, folder)
    protocols = list(ablation.PROTOCOLS)
    return ablation.compare(raw, folder, protocols=protocols, models=[]), raw, folder


def test_windows_are_spread_over_the_whole_period(found):
    one = subject(found, "pixel")
    frames = one.data.frames("test")
    first, last = one.windows
    np.testing.assert_array_equal(first, frames[:3])
    np.testing.assert_array_equal(last, frames[-3:])
    with pytest.raises(InputError, match=r"windows is 99, but \d+ windows of 3 times fit"):
        ablation_protocols.windows_of(one.settings, one.data, 99)


def test_a_model_can_take_the_networks_of_another(found):
    rows, _, folder = found
    assert not (folder / "models" / "othersampler").exists()
    costs = {
        r["model"]: r["evaluations"]
        for r in rows
        if (r["protocol"], r["name"]) == ("released", "noise 1")
    }
    assert costs["other sampler"] < costs["latent + both"]


def test_a_seed_is_that_of_the_training_alone(found, monkeypatch):
    _, raw, folder = found
    models = {"again": {**raw["ablation"]["models"]["latent + both"], "seed": 7}}
    raw = {**raw, "ablation": {**raw["ablation"], "models": models, "streams": {}}}
    seeds = []
    monkeypatch.setattr(ablation, "train", lambda settings: seeds.append(settings.seed))

    def opened(settings, *_):
        seeds.append(settings.seed)
        raise InputError("seen")

    monkeypatch.setattr(ablation, "open_model", opened)
    with pytest.raises(InputError, match="seen"):
        ablation.compare(raw, folder, protocols=["released"], models=[])
    assert seeds == [7, raw["seed"]]


@pytest.mark.parametrize("module", [shipped, moist], ids=["ablation", "ablation_moist"])
def test_the_configuration_is_valid_for_every_model(module):
    raw = plain(module.get_config())
    chosen = read_ablation(raw["ablation"])
    for name, variant in chosen.models.items():
        settings = variant_settings(name, raw, chosen, Path("runs/ablation"))
        trained = (variant.trained or name).replace(" ", "")
        assert settings.workdir == f"runs/ablation/models/{trained}"
        assert (settings.autoencoder is None) == (name == "pixel")
        assert settings.assimilation.latent_inputs == tuple(settings.data.modalities)


def test_every_model_meets_every_setting_in_both_protocols(found):
    rows, _, folder = found
    settings = SETTINGS
    seen = {(r["protocol"], r["model"], r["name"]) for r in rows}
    wanted = {(p, m, s) for p in ablation.PROTOCOLS for m in NAMES for s in settings}
    wanted.add(("released", "other sampler", "noise 1"))
    classical = ("background", "OI", "smoother", "OI + stations + olr", "smoother + stations + olr")
    wanted |= {("corrected", m, s) for m in classical for s in settings}
    assert seen == wanted
    assert len(rows) == len(wanted)
    assert json.loads((folder / "ablation.json").read_text()) == rows
    for name in ("ablation.md", "released.png", "corrected.png"):
        assert (folder / name).stat().st_size > 500


def test_a_second_run_repeats_nothing_and_gives_the_same(found, monkeypatch):
    rows, raw, folder = found
    unused = lambda *_, **__: pytest.fail("analysed again")
    monkeypatch.setattr(analysis, "assimilate", unused)
    monkeypatch.setattr(ablation, "baseline_row", unused)
    again = ablation.compare(raw, folder, protocols=list(ablation.PROTOCOLS), models=["pixel"])
    assert again == [r for r in rows if r["model"] in ("pixel", "background", "OI", "smoother")]
    ablation._publish(rows, folder)  # as it was, for the other tests


def test_another_configuration_is_analysed_anew(found, monkeypatch):
    _, raw, folder = found
    calls = []

    def analyse(*_, **__):
        calls.append(1)
        raise InputError("as expected")

    monkeypatch.setattr(analysis, "assimilate", analyse)
    other = {**raw, "seed": raw["seed"], "sampler": {**raw["sampler"], "steps": 5}}
    with pytest.raises(InputError, match="as expected"):
        ablation.compare(other, folder, protocols=["released"], models=["pixel"])
    assert calls


def subject(found, name: str) -> ablation_protocols.Subject:
    _, raw, folder = found
    settings = variant_settings(name, raw, read_ablation(raw["ablation"]), folder)
    data = inputs.load(settings)
    windows = ablation_protocols.windows_of(settings, data, 2)
    return ablation_protocols.Subject(settings, data, open_model(settings, data), windows, 2)


def test_the_released_target_is_the_true_state_of_the_pixel_model(found, monkeypatch):
    pixel = subject(found, "pixel")
    streams = []

    def analyse(model, background, observations, **_):
        assert background is None
        streams.extend(observations)
        raise InputError("seen")

    monkeypatch.setattr(analysis, "assimilate", analyse)
    setting = ablation_protocols.Setting("coarsening 2", "coarse", 2, 1e-6, 2)
    with pytest.raises(InputError, match="seen"):
        ablation_protocols.released(pixel, setting)
    (stream,) = streams
    frames = pixel.windows[0]
    arrays = pixel.model.arrays  # what is diffused has unit variance at every point
    truth = pixel.data.standardised("state", frames)
    truth = (truth - np.asarray(arrays.latent_mean)) / np.asarray(arrays.latent_std)
    means = truth.reshape(3, truth.shape[1] // 2, 2, truth.shape[2] // 2, 2, -1).mean(axis=(2, 4))
    np.testing.assert_allclose(stream.values[::2], means[::2], atol=1e-4)
    assert not np.asarray(stream.mask[1::2]).any()
    assert stream.space == "latent"


def test_released_targets_of_latents_hold_the_modalities(found):
    frames = np.arange(6)
    both = subject(found, "latent + both")
    assert both.model.latent_inputs == ("stations", "olr")
    target = ablation_protocols._true_latents(both, frames)
    assert target.shape == (6, *both.model.networks.frame_shape)
    # Without the modalities the code of the same model is another one.
    states = jnp.asarray(both.data.standardised("state", frames))
    only = encode(both.model.networks, both.model.arrays, {"state": states})
    assert np.abs(np.asarray(only) - target).max() > 1e-3


def test_the_corrected_observations_are_physical_and_the_same_for_all_models(found):
    setting = ablation_protocols.Setting("stride 4", "stride", 4, 0.1, 1)
    first, second = (
        ablation_protocols._observations(s, setting, s.windows[1])
        for s in (subject(found, "pixel"), subject(found, "latent + both"))
    )
    np.testing.assert_array_equal(first.data["temperature"], second.data["temperature"])
    values = np.asarray(first.data["temperature"])
    assert 150.0 < values.min() < values.max() < 350.0
    std = subject(found, "pixel").data.statistics["state"].std
    np.testing.assert_allclose(first.error, 0.1 * std, rtol=1e-6)


def test_scores_are_those_of_the_metrics(found):
    rows, _, _ = found
    row = next(r for r in rows if r["model"] == "background" and r["name"] == "noise 1")
    one = subject(found, "pixel")
    frames = np.concatenate(one.windows)
    background = np.asarray(one.data.archive.fields["background"].array[frames])
    truth = np.asarray(one.data.archive.fields["state"].array[frames])
    weights = one.data.archive.grid.area_weights()
    np.testing.assert_allclose(row["rmse"], metrics.rmse(background, truth, weights), rtol=1e-6)
    std = one.data.statistics["state"].std
    of_cases = np.asarray(row["scaled_mse_of_cases"])
    assert of_cases.shape == (2, len(std))  # windows, levels
    expected = np.asarray(row["rmse"]) ** 2 / std**2
    np.testing.assert_allclose(of_cases.mean(axis=0), expected, rtol=1e-5)
    crps = np.mean(row["scaled_crps_of_cases"])
    np.testing.assert_allclose(crps, row["scaled_crps"], rtol=1e-5)


def test_classical_methods_observe_what_the_encoder_sees(found):
    _, raw, folder = found
    for name, streams in (("pixel", []), ("latent + both", ["stations", "olr"])):
        chosen = read_ablation(raw["ablation"])
        settings = variant_settings(name, raw, chosen, folder, classical=True)
        one = dataclasses.replace(
            subject(found, name), settings=settings, data=inputs.load(settings)
        )
        setting = ablation_protocols.Setting("noise 1", "coarse", 2, 1.0, 2)
        seen = ablation_protocols._all_observations(one, setting, one.windows[0])
        assert sorted(o.name for o in seen) == sorted(["target", *streams])


def test_the_best_of_each_setting_is_marked():
    row = lambda model, w1: {
        "protocol": "released",
        "model": model,
        "name": "noise 1",
        "w1": [w1],
        "levels": [500.0],
    }
    text = ablation_report.tables([row("pixel", 0.2), row("latent", 0.1)])
    assert "| latent | **0.100** |" in text
    assert "| pixel | 0.200 |" in text


def test_differences_from_optimal_interpolation_are_paired():
    hard = 1.0 + np.random.default_rng(0).random(20)  # times that are hard for every model
    times = [str(np.datetime64("2004-01-01") + 18 * i) for i in range(20)]

    def row(model, values):
        mean_squares = [[value] for value in values]
        return {
            "protocol": "corrected",
            "model": model,
            "name": "noise 1",
            "levels": [500.0],
            "scaled_rmse": 1.0,
            "scaled_crps": 1.0,
            "times_of_cases": times,
            "scaled_mse_of_cases": mean_squares,
            "scaled_crps_of_cases": mean_squares,
        }

    season = 1.0 + np.cos(2.0 * np.pi * np.arange(20) * 18 / 365.25)  # better, and more in winter
    text = ablation_report.tables(
        [
            row("OI", hard),
            row("latent", 0.81 * hard),
            row("same", hard),
            row("seasonal", hard - 0.2 * season),
        ]
    )
    expected = -0.1 * np.sqrt(hard.mean())
    assert f"| latent | **{expected:+.3f}" in text
    assert f"| latent | **{-0.19 * hard.mean():+.3f}" in text
    assert text.count("| same | +0.000 ± 0.000 |") == 2
    assert text.count("| seasonal | **-") == 2


def gain_rows(cases=12):
    """OI, a better smoother, and a model that is better only at the second of two levels."""
    rng = np.random.default_rng(1)
    hard = 1.0 + rng.random((cases, 1)) * np.ones(2)

    def row(model, name, factor, **costs):
        return {
            "protocol": "corrected",
            "model": model,
            "name": name,
            "levels": [500.0, 850.0],
            "times_of_cases": [str(np.datetime64("2004-01-01") + 30 * i) for i in range(cases)],
            "scaled_crps_of_cases": (factor * hard * (1 + 0.01 * rng.random(hard.shape))).tolist(),
            **costs,
        }

    model = np.array([1.0, 0.9])
    return [
        row("OI", "noise 1", 1.2),
        row("OI", "noise 2", 1.2),
        row("smoother", "noise 1", 1.0),
        row("smoother", "noise 2", 2.0),  # the model is not tried there
        row("latent", "noise 1", model, evaluations=64),
    ]


def test_gains_are_over_the_best_classical_method_on_common_settings(tmp_path):
    found = ablation_gains.gains(gain_rows())
    assert (found.best, found.settings, list(found.of)) == ("smoother", ["noise 1"], ["latent"])
    gain = found.of["latent"]
    np.testing.assert_allclose(gain.value, [0.0, 10.0], atol=0.7)
    assert gain.low[1] > 9.0
    assert gain.low[0] < 0.7
    assert "| latent | " in (text := ablation_gains.table(found))
    assert f"**{gain.value[1]:+.1f} ± {gain.high[1] - gain.value[1]:.1f}**" in text
    assert ablation_gains.draw(found, tmp_path / "gains.png").stat().st_size > 1000


@pytest.mark.parametrize("left_out", ["latent", "classical", "setting", "cases"])
def test_without_two_sides_or_enough_cases_there_are_no_gains(left_out):
    rows = gain_rows(cases=11 if left_out == "cases" else 12)
    keep = {
        "latent": lambda r: r["model"] != "latent",
        "classical": lambda r: r["model"] == "latent",
        "setting": lambda r: r["model"] == "latent" or r["name"] == "noise 2",
        "cases": lambda r: True,
    }[left_out]
    assert ablation_gains.gains([r for r in rows if keep(r)]) is None


def test_modalities_without_an_operator_are_gridded_fields_of_the_smoother(found, monkeypatch):
    """Optimal interpolation has no use for them."""
    _, raw, folder = found
    streams = {"olr": raw["ablation"]["streams"]["olr"]}
    raw = {**raw, "ablation": {**raw["ablation"], "streams": streams}}
    chosen = read_ablation(raw["ablation"])
    made = {}

    def recorded(run, settings, protocol, model, setting, make):
        made[model] = (sorted(settings.assimilation.streams), sorted(settings.data.modalities))
        if model.startswith("smoother"):
            made[model] += (sorted(ablation.linear_of(run.subject(settings)).model.inputs),)
        return {}

    monkeypatch.setattr(ablation._Run, "kept", recorded)
    some = ablation_protocols.settings_of((2,), (), (), 0.1, 2)
    list(ablation._Run(raw, chosen, some, folder).of_baselines(list(chosen.models)))
    both = ["olr", "stations"]
    assert made == {
        "background": ([], []),
        "OI": ([], []),
        "smoother": ([], [], ["background"]),
        "OI + olr": (["olr"], both),
        "smoother + stations + olr": (["olr"], both, ["background", "stations"]),
    }


def test_factors_that_the_latents_cannot_have_are_left_out(found):
    latent = subject(found, "latent + both")
    fits = lambda f: latent.fits(
        "released", ablation_protocols.Setting("coarsening", "coarse", f, 0.1, 1)
    )
    assert fits(2)
    assert not fits(1)
    assert not fits(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "models": {"x": {"modalities": ("radar",)}},
                "streams": {"radar": {"kind": "coarse", "error": 1.0}},
            },
            "'radar', which the data do not have",
        ),
        (
            {"streams": {"radar": {"kind": "coarse", "error": 1.0}}},
            "streams has 'radar', which no model sees",
        ),
        ({"models": {"x": {"autoencoder": False, "modalities": ("olr",)}}}, "through an encoder"),
        ({"models": {}}, "models is empty"),
        ({"models": {"x": {"trained": "y"}}}, r"models\.x\.trained is 'y': name a model"),
        ({"models": {"x": {"trained": "x"}}}, r"models\.x\.trained is 'x': name a model"),
        (
            {"models": {"x": {}, "y": {"trained": "x", "seed": 1}}},
            "a seed is that of a training",
        ),
        ({"models": {"x": {"changes": {"net": {}}}}, "streams": {}}, "'net', which is no group"),
        (
            {"models": {"x": {"settings": ("noise 9",)}}, "streams": {}},
            r"x\.settings has 'noise 9': choose from",
        ),
        (
            {"models": {"x": {"protocols": ("new",)}}, "streams": {}},
            r"x\.protocols has 'new': choose from",
        ),
        ({"coarsening": (0,)}, "coarsening must be positive"),
        ({"coarsening": ()}, "give coarsening factors"),
        ({"members": 1}, "members must be at least 2"),
        ({"factor": 3}, "no field 'factor'"),
    ],
)
def test_bad_configurations_are_refused_in_one_line(world, tmp_path, change, message):
    raw = configuration(world, tmp_path)
    raw["ablation"] |= change
    with pytest.raises(InputError, match=message) as error:
        ablation.compare(raw, tmp_path / "out", protocols=["released"], models=[])
    assert "\n" not in str(error.value)
