import importlib
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from ml_collections import ConfigDict

from experiments import generate
from experiments.configuration.build import plain
from experiments.configuration.nature import read_nature
from slams_jax.dynamics import nature, nature_run
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import Points, standard_pressure
from slams_jax.readers import open_dataset, read_stations
from slams_jax.schema import channels_of
from support.small_world import run_command

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SMALL = {
    "system": "held_suarez",
    "days": 6,
    "spin_up": 2,
    "levels": (10.0, 100.0, 300.0, 500.0, 850.0, 1000.0),
    "model": {"truncation": 10, "boundaries": (0.0, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0)},
    "stations": {"count": 20, "clusters": 0, "error": 0.5, "missing": 0.2},
    "sounder": {"peaks": (60.0, 400.0), "error": (0.4, 0.3)},
    "forecast": {"spin_up": 2, "soundings": 10, "members": 4, "forcing": {"friction_days": 2.0}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return nature_run(read_nature({**SMALL, "cache": str(tmp_path_factory.mktemp("cache"))}))


def test_files_hold_what_the_readers_expect(folder):
    state = open_dataset(folder / "state.nc", variables=("temperature",), levels=SMALL["levels"])
    background = open_dataset(folder / "background.nc")
    assert state.temperature.dims == ("time", "level", "latitude", "longitude")
    assert state.temperature.shape == background.temperature.shape == (6, 6, 16, 32)
    assert state.temperature.dtype == np.float32
    assert str(state.time.values[0])[:10] == "2000-01-01"
    assert np.isfinite(state.temperature.values).all()
    difference = (background.temperature - state.temperature).values
    assert np.all(np.std(difference, axis=(0, 2, 3)) > 0.01)
    stations = read_stations(folder / "stations.nc")
    assert stations.temperature.shape == (6, 20)
    sounder = open_dataset(folder / "sounder.nc", variables=("brightness_temperature",))
    assert set(sounder.brightness_temperature.dims) == {
        "time",
        "sounding_channel",
        "latitude",
        "longitude",
    }
    longwave = open_dataset(folder / "olr.nc").outgoing_longwave_radiation.values
    assert 0.02 < np.isnan(longwave).mean() < 0.3


def test_errors_and_gaps_are_as_they_say(folder):
    with (
        xr.open_dataset(folder / "sounder.nc") as sounder,
        xr.open_dataset(folder / "stations.nc") as stations,
        xr.open_dataset(folder / "olr.nc") as longwave,
    ):
        np.testing.assert_allclose(sounder.brightness_temperature.attrs["error"], [0.4, 0.3])
        assert stations.temperature.attrs["error"] == 0.5
        assert longwave.outgoing_longwave_radiation.attrs["error"] == 5.0
        assert stations.temperature.attrs["units"] == "K"
        # Both channels see the same swath, and never all of the globe.
        gaps = np.isnan(sounder.brightness_temperature.values)
        np.testing.assert_array_equal(gaps[:, 0], gaps[:, 1])
        assert np.all(gaps.any(axis=(1, 2, 3)))


def test_stations_measure_the_state(folder):
    state, stations = open_dataset(folder / "state.nc"), read_stations(folder / "stations.nc")
    operator = Points.at(
        Grid.of(state.latitude.values, state.longitude.values),
        channels_of(["temperature"], SMALL["levels"]),
        stations.latitude.values,
        stations.longitude.values,
        standard_pressure(stations.altitude.values),
    )
    columns = np.moveaxis(state.temperature.values, 1, -1)
    departure = stations.temperature.values - np.asarray(operator(jnp.asarray(columns)))
    departure = departure[np.isfinite(departure)]
    assert 40 < departure.size < 120
    np.testing.assert_allclose(departure.std(), 0.5, rtol=4 / np.sqrt(2 * departure.size))
    assert abs(departure.mean()) < 4 * 0.5 / np.sqrt(departure.size)


def test_a_run_is_used_again_and_others_have_their_own_folder(folder, monkeypatch):
    monkeypatch.setattr(nature, "held_suarez_data", lambda run: pytest.fail("generated again"))
    assert nature_run(read_nature({**SMALL, "cache": str(folder.parent)})) == folder
    settings = json.loads((folder / "config.json").read_text())
    assert settings["days"] == 6
    assert settings["model"]["truncation"] == 10
    # The rest of the imperfect forcing has its own defaults, not those of the truth.
    assert settings["forecast"]["forcing"]["friction_days"] == 2.0
    assert (
        settings["forecast"]["forcing"]["cooling_days"]
        != settings["model"]["forcing"]["cooling_days"]
    )
    with pytest.raises(pytest.fail.Exception):
        nature_run(read_nature({**SMALL, "seed": 1, "cache": str(folder.parent)}))


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
    def broken(run):
        raise RuntimeError("power cut")

    monkeypatch.setattr(nature, "lorenz63_data", broken)
    with pytest.raises(RuntimeError):
        nature_run(read_nature({"system": "lorenz63", "cache": str(tmp_path)}))
    assert list(tmp_path.iterdir()) == []


def test_lorenz63(tmp_path):
    folder = nature_run(read_nature({"system": "lorenz63", "days": 50, "cache": str(tmp_path)}))
    state = open_dataset(folder / "state.nc", variables=("lorenz63",))
    assert dict(state.lorenz63.sizes) == {"time": 50, "component": 3, "latitude": 1, "longitude": 1}
    background = open_dataset(folder / "background.nc").lorenz63
    assert 0.1 < float(abs(background - state.lorenz63).mean()) < 5.0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"system": "lorenz36"}, "lorenz63"),
        ({"system": "held_suarez", "dais": 3}, "did you mean 'days'"),
        ({"system": "held_suarez", "model": {"truncatoin": 3}}, "did you mean 'truncation'"),
        ({"system": "held_suarez", "model": {"truncation": 1}}, "truncation must be"),
        ({"system": "held_suarez", "days": -3}, "days must be >= 3"),
        ({"system": "held_suarez", "forecast": {"lead": 30}}, "nature.forecast: lead must be"),
        ({"system": "held_suarez", "forecast": {"forcing": 3.0}}, "forcing must be a group"),
        ({"system": "held_suarez", "spin_up": 20}, "raise it, or lower forecast.spin_up"),
        ({"system": "held_suarez", "levels": (500.0, 850.0)}, "add levels"),
        ({"system": "held_suarez", "sounder": {"error": (0.1,)}}, "as many"),
        ({"system": "held_suarez", "longwave_error": 0.0}, "error"),
        ({"system": "held_suarez", "stations": {"error": -1.0}}, "error"),
        ({"system": "lorenz63", "dt": -0.1}, "positive"),
        ({"system": "moist", "model": {"truncation": 42}}, "truncation must be 21 or 31"),
        ({"system": "moist", "gauges": {"sprad": 1.0}}, "did you mean 'spread'"),
    ],
)
def test_bad_settings_leave_nothing_behind(values, named, tmp_path):
    with pytest.raises(InputError, match=named) as caught:
        nature_run(read_nature({**values, "cache": str(tmp_path)}))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["held_suarez", "nature_lorenz63"])
def test_configurations_are_valid(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert isinstance(config, ConfigDict)
    read_nature(plain(config.nature))


@pytest.mark.parametrize("name", ["nature_lorenz63", "lorenz63"])
def test_command_takes_a_nature_run_alone_or_in_a_whole_configuration(name, tmp_path, capsys):
    config = f"--config={REPOSITORY / 'configs' / name}.py"
    more = ("--config.nature.days=20", f"--config.nature.cache={tmp_path}")
    assert run_command(generate.main, config, *more) == 0
    assert (Path(capsys.readouterr().out.strip()) / "state.nc").is_file()


HELD_SUAREZ = f"--config={REPOSITORY / 'configs' / 'held_suarez.py'}"
IBERIA = f"--config={REPOSITORY / 'configs' / 'iberia.py'}"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--config"),
        (("--config=configs/absent.py",), "configs/absent.py"),
        ((HELD_SUAREZ, "--config.nature.dayz=3"), "days"),
        ((HELD_SUAREZ, "--config.nature.days=many"), "many"),
        ((HELD_SUAREZ, "--config.nature.days", "3", "stray"), "stray"),
        ((HELD_SUAREZ, "--confog=3"), "confog"),
        ((HELD_SUAREZ, "--config.nature.days=-1"), "days"),
        ((HELD_SUAREZ, "--config.nature.cache=/proc/no"), "/proc/no"),
        ((IBERIA,), "no nature run"),
    ],
)
def test_bad_commands_say_one_line(arguments, named, capsys):
    assert run_command(generate.main, *arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    line = error.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert named in line
