"""Bad input, as a person gives it: one line, a status, and nothing left behind."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments import assimilate, evaluate, train
from experiments.configuration.build import plain
from support import error_table
from support.bad_commands import COMMANDS, OUTPUT
from support.small_world import (
    LATITUDE,
    LONGITUDE,
    run_command,
    small_config,
    station_data,
    tree,
    untrained,
    world_arrays,
    write_config,
)

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "slams_jax" / "models" / "demo.safetensors"


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A folder with a world, a configuration for it, a model, and files that are wrong."""
    folder = tmp_path_factory.mktemp("bad")
    root = shutil.copytree(world, folder / "world")
    config = small_config(root, folder / "run")
    write_config(config, folder / "config.py")
    untrained(config)
    bad_files(root)
    values = plain(config)
    (folder / "typo.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({values | {'workdri': 'x'}!r})\n"
    )
    (folder / "broken.py").write_text("def get_config(:\n")
    (folder / "afile").write_text("x")
    shutil.copy(DEMO, folder)
    (folder / "folder.html").mkdir()
    return folder


def bad_files(root: Path) -> None:
    truth, _ = world_arrays()
    with xr.open_dataset(root / "state.nc", engine="h5netcdf") as state:
        state = state.load()
    write = lambda dataset, name: dataset.to_netcdf(root / name, engine="h5netcdf")
    whole = (root / "state.nc").read_bytes()
    (root / "torn.nc").write_bytes(whole[: len(whole) // 3])
    (root / "text.nc").write_text("not a file of data")
    furlongs = state.copy(deep=True)
    furlongs["temperature"].attrs["units"] = "furlong"
    write(furlongs, "furlongs.nc")
    celsius = state.copy(deep=True)
    celsius["temperature"] = celsius["temperature"] - 273.15
    celsius["temperature"].attrs["units"] = "K"
    write(celsius, "celsius.nc")
    write(state.isel(latitude=slice(3, 8), longitude=slice(0, 6)), "region.nc")
    twice = np.arange(2 * state.sizes["time"]) * np.timedelta64(12, "h") + state["time"].values[0]
    write(state.isel(time=np.arange(twice.size) // 2).assign_coords(time=twice), "half_days.nc")
    elsewhere = state.assign_coords(longitude=state["longitude"] + 1.0)
    elsewhere["temperature"].attrs["error"] = 1.0
    write(elsewhere, "elsewhere.nc")
    metres = state.assign_coords(level=("level", [10.0, 500.0, 9000.0], {"units": "m"}))
    write(metres, "metres.nc")
    stations = station_data(truth)
    write(stations.assign_coords(time=stations["time"] + np.timedelta64(3650, "D")), "late.nc")
    level = ("station", np.r_[5.0, np.full(23, 1000.0)], {"units": "hPa"})
    write(stations.drop_vars("altitude").assign_coords(level=level), "high.nc")
    latitude = ("station", np.r_[95.0, stations["latitude"].values[1:]])
    write(stations.assign_coords(latitude=latitude), "off_the_globe.nc")
    error = np.full((len(truth), 24), 0.5)
    error[3, 4] = -0.5
    write(stations.assign(error=(("time", "station"), error)), "negative.nc")
    with xr.open_dataset(root / "olr.nc", engine="h5netcdf") as longwave:
        longwave = longwave.load()
    longwave["outgoing_longwave_radiation"].attrs["error"] = 0.0
    write(longwave, "exact.nc")
    del longwave["outgoing_longwave_radiation"].attrs["error"]
    write(longwave, "unknown.nc")
    assert LATITUDE[3] < 0.0 < LATITUDE[4] < LONGITUDE[6]


# command, arguments with {place}, what the one line must say (a regular expression)
MAINS = {"train": train.main, "assimilate": assimilate.main, "evaluate": evaluate.main}
CASES = [
    pytest.param(name, label, *case, id=f"{name}: {label}")
    for name, cases in COMMANDS.items()
    for label, case in cases.items()
]


def check(status: int, stderr: str, expected: str) -> str:
    assert status == 2, stderr
    assert "Traceback" not in stderr
    told = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert len(told) == 1, stderr
    assert re.search(expected, told[0]), told[0]
    return told[0].removeprefix("error: ")


def arguments_of(place: Path, text: str) -> list[str]:
    given = text.format(place=place).split()
    own = [] if any(a.startswith("--config=") for a in given) else [f"--config={place}/config.py"]
    return [*own, *given]


@pytest.mark.parametrize(("name", "what", "arguments", "expected"), CASES)
def test_one_line_and_nothing_left(name, what, arguments, expected, place, capsys):
    before = tree(place)
    status = run_command(MAINS[name], *arguments_of(place, arguments))
    message = check(status, capsys.readouterr().err, expected)
    assert tree(place) == before
    error_table.keep(f"`{name}`", what, message, place)


def test_an_analysis_of_other_times_or_another_grid(place, capsys):
    with xr.open_dataset(place / "world" / "background.nc", engine="h5netcdf") as dataset:
        other = dataset.load().expand_dims(member=[0])
    other.attrs = dict.fromkeys(
        ("evaluations", "derivative_evaluations", "seconds", "peak_memory_bytes"), 1
    ) | {"diagnostics": "[]"}
    alone, other = other, xr.concat([other.assign_coords(member=[i]) for i in range(3)], "member")
    cases = {
        "alone.nc": (alone, "has 1 members, the scores of an ensemble need 2 at least"),
        "two.nc": (other.isel(member=[0, 1]), "has 2 members, the configuration asks for 3"),
        "none.nc": (alone.isel(member=[]), "has 0 members"),
        "unsaid.nc": (other.drop_attrs(), "is no analysis, it lacks 'evaluations'"),
        "other_times.nc": (other, "is an analysis of 80 times from 2001-01-01.* asks for 5"),
        "other_grid.nc": (other.isel(latitude=slice(4)), "on another grid"),
    }
    for name, (dataset, expected) in cases.items():
        dataset.to_netcdf(place / name, engine="h5netcdf")
        before = tree(place)
        status = run_command(evaluate.main, *arguments_of(place, f"--analysis={{place}}/{name}"))
        check(status, capsys.readouterr().err, expected)
        assert tree(place) == before


def test_a_disk_that_is_full(place, capsys, monkeypatch):
    """The analysis was made, and cannot be kept."""
    made = xr.Dataset({"temperature": ("member", np.zeros(2))}, attrs={"seconds": 1.0})
    monkeypatch.setattr(assimilate, "run", lambda settings, **_: made.expand_dims("time"))

    def full(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    (place / "out").mkdir()
    before = tree(place)
    status = run_command(assimilate.main, *arguments_of(place, OUTPUT))
    check(status, capsys.readouterr().err, r"cannot write .*analysis\.nc: No space left on device")
    assert tree(place) == before
    (place / "out").rmdir()


def test_from_a_shell(place):
    """The whole way once for each command: status, output, and no traceback."""
    cases = [
        ("train", "--config.data.state.path=absent.nc", "absent.nc"),
        ("assimilate", f"{OUTPUT} --config.typo=1", "typo"),
        ("evaluate", "--analysis={place}/gone.nc", "gone.nc"),
        ("train", "--config.sampler.solver=rk4", "unknown sampler solver 'rk4': choose from"),
    ]

    def run(case):
        name, arguments, _ = case
        return subprocess.run(
            [sys.executable, "-m", f"experiments.{name}", *arguments_of(place, arguments)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            env=dict(os.environ),
        )

    before = tree(place)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, cases))
    for done, (_, _, expected) in zip(results, cases, strict=True):
        check(done.returncode, done.stderr, expected)
        assert done.stderr.rstrip().splitlines()[-1].startswith("error: ")
        assert done.stdout == ""
    assert tree(place) == before
