import copy

import pytest
from ml_collections import ConfigDict

from configs import held_suarez
from experiments.configuration.build import build, plain
from experiments.configuration.settings import StreamSettings, read
from slams_jax.diffusion import RefinementConfig, SamplerConfig
from slams_jax.errors import InputError


def changed(path, value):
    """The Held-Suarez configuration with one field set, or removed where `value` is None."""
    config = plain(held_suarez.get_config())
    config = copy.deepcopy(config)
    *parents, name = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[name]
    else:
        place[name] = value
    return ConfigDict(config)


def test_a_configuration_becomes_frozen_settings():
    settings = read(held_suarez.get_config())
    assert settings.workdir == "runs/held_suarez"
    assert settings.data.levels[0] == 10.0
    assert settings.data.modalities["stations"].stations
    assert settings.data.periods["train"] == ("2000-01-01", "2000-12-31")
    assert settings.sampler == SamplerConfig(steps=settings.raw["sampler"]["steps"])
    assert settings.score_training.optimiser.steps == settings.raw["score_training"]["steps"]
    stations = settings.assimilation.streams["stations"]
    assert (stations.kind, stations.error, stations.withhold) == ("points", 0.5, 0.3)
    with pytest.raises(AttributeError):
        settings.seed = 1  # type: ignore[misc]


def test_what_is_left_out_takes_its_default():
    settings = read(changed("sampler", None))
    assert settings.sampler == SamplerConfig()


def test_a_refinement_has_moves():
    assert read(held_suarez.get_config()).refinement is None
    config = changed("refinement.moves", 3)
    config.refinement.sampler.steps = 16
    moves = read(config).refinement
    assert moves == RefinementConfig(moves=3, sampler=SamplerConfig(steps=16))


def test_a_configuration_without_autoencoder_needs_no_training_of_it():
    config = plain(held_suarez.get_config()) | {"autoencoder": None, "autoencoder_training": None}
    settings = read(ConfigDict(config))
    assert settings.autoencoder is None
    assert settings.autoencoder_training is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("workdri", "x", "the configuration has no field 'workdri': did you mean 'workdir'"),
        ("data.level", (1.0,), "data has no field 'level': did you mean 'levels'"),
        ("data.modalities.olr.pth", "x", "data.modalities.olr has no field 'pth'.*'path'"),
        ("assimilation.streams.olr.errors", 1.0, "assimilation.streams.olr has no field 'errors'"),
        ("sampler.step", 3, "sampler has no field 'step': did you mean 'steps'"),
        ("guidance.zzz", 3, r"guidance has no field 'zzz': choose from \["),
        ("schedule.beta", 3.0, "schedule has no field 'beta'"),
        ("score_training.learningrate", 1.0, "score_training has no .* 'learning_rate'"),
        ("autoencoder_training.zz", 1, "autoencoder_training has no field 'zz'"),
        ("assimilation.member", 3, "assimilation has no field 'member': did you mean 'members'"),
        ("workdir", None, "the configuration lacks 'workdir': set it"),
        ("data.periods", None, "data lacks 'periods': set it"),
        ("score_training", None, "the configuration lacks 'score_training'"),
        ("score_training.steps", None, "score_training lacks 'steps': set it"),
        ("autoencoder_training", None, "the configuration lacks 'autoencoder_training'"),
        ("data.modalities.olr.path", None, "data.modalities.olr lacks 'path'"),
        ("data.periods.test", None, r"^data.periods lacks \['test'\]"),
        ("data.harmonics", -1, "data.harmonics must be 0 or more, got -1"),
        ("sampler.steps", 0, "sampler: steps must be at least 1, got 0"),
        ("guidance.iterations", 0, "guidance: needs at least one iteration, got 0"),
        ("score_training.batch_size", 0, "score_training: batch_size must be at least 1, got 0"),
        ("score_training.log_every", 0, "log_every must be at least 1, got 0"),
        ("score_training.rollbacks", -1, "rollbacks must be at least 0, got -1"),
        ("score_training.loss_limit", 0.0, "loss_limit must be positive, or None, got 0.0"),
        ("score_training.learning_rate", -1.0, "learning_rate .* -1"),
        ("assimilation.members", 0, "^assimilation.members must be at least 1, got 0"),
        ("assimilation.frames", -1, "assimilation.frames must be at least 0, got -1"),
        ("assimilation.rank", 0, "assimilation.rank must be at least 1"),
        ("assimilation.streams.olr.kind", "lidar", "streams.olr: kind 'lidar' is unknown"),
        ("assimilation.streams.olr.error", -1.0, "streams.olr: error must be positive, got"),
        ("assimilation.streams.stations.withhold", 1.0, r"a share in \[0, 1\), got 1.0"),
        ("assimilation.members", "many", "assimilation: a value has the wrong type"),
        ("data", 3, "data must be a group of fields, got 3"),
        ("data.modalities", "olr", "data.modalities must be a group of fields, got 'olr'"),
        ("data.modalities.olr", "olr.nc", "data.modalities.olr must be a group of fields"),
        ("assimilation.streams", (), "assimilation.streams must be a group"),
        ("sampler", 32, "sampler must be a group of fields, got 32"),
        ("refinement.moves", -1, "refinement: moves must be at least 1, got -1"),
        ("refinement.move", 3, "refinement has no field 'move': did you mean 'moves'"),
        ("score_training", 100, "score_training must be a group of fields, got 100"),
    ],
)
def test_bad_fields_are_named(path, value, message):
    with pytest.raises(InputError, match=message) as caught:
        read(changed(path, value))
    assert "\n" not in str(caught.value)


ONE_FILE = {"kind": "points", "path": "./stations.nc", "error": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_inputs": ("background",)}, "'background', which assimilation.background uses"),
        ({"latent_inputs": ("olr",)}, "names 'olr', which assimilation.streams.olr observes too"),
        (
            {"latent_inputs": ("stations",), "background": False},
            "streams.stations observes too: .* stations withheld for verification included",
        ),
        (
            {"latent_inputs": ("stations",), "streams": {"gauges": ONE_FILE}},
            "names 'stations', which assimilation.streams.gauges observes too",
        ),
        (
            {
                "latent_inputs": ("stations",),
                "streams": {"gauges": ONE_FILE | {"path": ("st*.nc", "more.nc")}},
            },
            "names 'stations', which assimilation.streams.gauges observes too",
        ),
        (
            {"streams": {"a": ONE_FILE, "b": ONE_FILE | {"path": "stations.nc"}}},
            "streams.b and assimilation.streams.a are both of 'temperature' in stations.nc",
        ),
    ],
)
def test_what_would_count_double_is_refused_by_name(changes, message):
    config = plain(held_suarez.get_config())
    config["assimilation"] |= changes
    with pytest.raises(InputError, match=message) as caught:
        read(config)
    assert "\n" not in str(caught.value)


def test_different_observations_enter_together():
    config = plain(held_suarez.get_config())
    config["assimilation"] |= {"latent_inputs": ("olr",)}
    del config["assimilation"]["streams"]["olr"]
    other = ONE_FILE | {"variable": "specific_humidity"}
    config["assimilation"]["streams"]["humidity"] = other
    assert read(config).assimilation.latent_inputs == ("olr",)


def test_a_simulated_stream_needs_an_error():
    with pytest.raises(InputError, match="error must be positive, got 0"):
        StreamSettings(kind="coarse", factor=2)
    assert StreamSettings(kind="sounder", path="sounder.nc").error == 0.0


def test_build_takes_derived_fields_from_the_caller_alone():
    settings = build(SamplerConfig, {"steps": 3}, "sampler", grid="uniform")
    assert settings == SamplerConfig(steps=3, grid="uniform")
    with pytest.raises(InputError, match="sampler has no field 'grid'"):
        build(SamplerConfig, {"grid": "uniform"}, "sampler", grid="uniform")


def test_plain_gives_dictionaries_and_tuples():
    config = ConfigDict({"a": {"b": [1, 2], "c": ((1, 2), 3)}})
    assert plain(config) == {"a": {"b": (1, 2), "c": ((1, 2), 3)}}
    assert type(plain(config)["a"]) is dict
