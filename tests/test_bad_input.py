"""Bad input, as a person gives it: one line, a status, and nothing left behind."""

import concurrent.futures
import os
import re
import subprocess
import sys
from pathlib import Path

import error_table
import numpy as np
import pytest
import xarray as xr
from small_world import (
    LATITUDE,
    LONGITUDE,
    run_command,
    small_config,
    station_data,
    tree,
    untrained,
    world_arrays,
    write_config,
    write_world,
)

from experiments import assimilate, evaluate, train
from experiments.settings import plain

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a world, a configuration for it, a model, and files that are wrong."""
    folder = tmp_path_factory.mktemp("bad")
    root = write_world(folder / "world")
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


STATION = "--config.assimilation.streams.stations"
LONGWAVE = "--config.assimilation.streams.olr"
# command, arguments with {place}, what the one line must say (a regular expression)
TRAIN = {
    "missing file": ("--config.data.state=absent.nc", r"absent\.nc: no such file.*check the path"),
    "missing folder": ("--config.data.root={place}/none", "none is not a folder"),
    "torn file": ("--config.data.state=torn.nc", r"torn\.nc: cannot be read.*damaged"),
    "no data at all": ("--config.data.state=text.nc", r"text\.nc: neither NetCDF nor Zarr"),
    "missing modality": (
        "--config.data.modalities.olr.path=gone.nc", r"gone\.nc: no such file"
    ),
    "missing stations": (
        "--config.data.modalities.stations.path=gone.nc", r"gone\.nc: no such file"
    ),
    "wrong variable": ("--config.data.variables=('wind',)", "no variable 'wind'.*temperature"),
    "wrong variable of a modality": (
        "--config.data.modalities.olr.variable=ozone", "olr.nc.*'ozone'"
    ),
    "unknown units": ("--config.data.state=furlongs.nc", "furlongs.nc.*'furlong'.*'K'"),
    "Celsius called Kelvin": ("--config.data.state=celsius.nc", r"celsius\.nc.*K, outside"),
    "levels in metres": ("--config.data.state=metres.nc", "metres.nc.*level.*'m'.*no pressure"),
    "missing level": ("--config.data.levels=(20.0,777.0)", "no level 777 hPa: it has 20, 300"),
    "impossible level": ("--config.data.levels=(-5.0,)", r"levels.*\(-5.0,\)"),
    "overlapping periods": (
        "--config.data.periods.validation=('2001-02-01','2001-03-04')",
        "periods 'train' .*2001-02-19.* and 'validation' .*2001-02-01.* overlap",
    ),
    "period without data": (
        "--config.data.periods.test=('2011-02-01','2011-03-04')", "'test' 2011-02-01 .*none"
    ),
    "no date": ("--config.data.periods.test=('soon','later')", "'test'.*soon.*two dates"),
    "station outside the domain": (
        "--config.data.state=region.nc --config.data.background=region.nc",
        "station S.* lies outside the domain",
    ),
    "station off the globe": (
        "--config.data.modalities.stations.path=off_the_globe.nc", "S00 has latitude 95"
    ),
    "modality of other times": (
        "--config.data.modalities.stations.path=late.nc", "2010-12-30.*share no time with"
    ),
    "background on another grid": (
        "--config.data.background=region.nc", "'background' lies on another grid"
    ),
    "checkpoint of another autoencoder": (
        "--config.autoencoder.width=9", "autoencoder is of another run.*width.*choose another"
    ),
    "checkpoint of another seed": ("--config.seed=9", "autoencoder is of another run.*seed"),
    "unknown field": ("--config.workdri=x", "workdri"),
    "unknown field below": ("--config.autoencoder.wdith=3", "wdith.*[Dd]id you mean.*width"),
    "unknown field in the file": ("--config={place}/typo.py", "no field 'workdri'.*'workdir'"),
    "a word for a number": ("--config.score_training.steps=many", "many"),
    "a value out of range": (
        "--config.score.window=4", "score window must be odd and positive, got 4"
    ),
    "a width of nothing": (
        "--config.autoencoder.width=0", r"autoencoder width.* must be .*got \(0, 1\)"
    ),
    "a field that the file leaves out": (
        "--config.autoencoder.kernel=5", "has no field 'kernel'.*write it in the file"
    ),
    "no such configuration": ("--config={place}/absent.py", r"absent\.py"),
    "broken configuration": ("--config={place}/broken.py", "configuration cannot be read"),
    "unknown flag": ("--output=x.nc --confog=3", "confog"),
    "loose word": ("loose", "unexpected argument 'loose'"),
    "folder that cannot be made": (
        "--config.workdir={place}/afile/run", "cannot write to .*afile/run"
    ),
    "cache that cannot be made": ("--config.data.cache={place}/afile/c", "afile/c.*cannot be writ"),
    "unknown latent input": (
        "--config.assimilation.latent_inputs=('sonde',)", "latent_inputs names 'sonde'.*choose"
    ),
}  # fmt: skip
OUTPUT = "--output={place}/out/analysis.nc"
ASSIMILATE = {
    "no output": ("", "--output is missing: give the .nc or .zarr"),
    "unknown format": ("--output={place}/out/analysis.csv", r"must end in \.nc or \.zarr"),
    "output under a file": ("--output={place}/afile/out/a.nc", "cannot be written: .*afile"),
    "no model": (f"{OUTPUT} --config.workdir={{place}}/empty", "no trained model in .*empty"),
    "model of other networks": (
        f"{OUTPUT} --config.score.embedding=9",
        r"model in .*run is of another configuration: it has another score\.embedding \(8, not 9\)",
    ),
    "model of another autoencoder": (
        f"{OUTPUT} --config.autoencoder.width=9", r"has another autoencoder\.width \(8, not 9\)"
    ),
    "model of other levels": (
        f"{OUTPUT} --config.data.levels=(20.0,300.0)", "another configuration.* another channels"
    ),
    "missing observations": (f"{OUTPUT} {STATION}.path=gone.nc", r"gone\.nc: no such file"),
    "missing satellite": (f"{OUTPUT} {LONGWAVE}.path=gone.nc", r"gone\.nc: no such file"),
    "observation outside the levels": (
        f"{OUTPUT} {STATION}.path=high.nc",
        "observation 0 at 5 hPa lies outside the levels 20 to 1000 hPa: remove it",
    ),
    "observation off the globe": (
        f"{OUTPUT} {STATION}.path=off_the_globe.nc", "station S00 has latitude 95"
    ),
    "observations of other times": (
        f"{OUTPUT} {STATION}.path=late.nc",
        "stream 'stations' has times 2010-12-30T00:00 to .*none of which is among the analysis",
    ),
    "negative error": (
        f"{OUTPUT} {STATION}.error=-0.5", r"streams\.stations.* must be positive, got -0\.5"
    ),
    "negative error in the file": (
        f"{OUTPUT} {STATION}.path=negative.nc {STATION}.error=0.0", r"negative\.nc: an error is neg"
    ),
    "error zero in the file": (
        f"{OUTPUT} {LONGWAVE}.path=exact.nc", "stream 'olr' has error 0.0: standard deviations"
    ),
    "no error anywhere": (
        f"{OUTPUT} {LONGWAVE}.path=unknown.nc", r"stream 'olr' has no errors: unknown\.nc has none"
    ),
    "no error of stations": (
        f"{OUTPUT} {STATION}.error=0.0", "stream 'stations' has no errors: set its error, or esti"
    ),
    "error zero of a simulation": (
        f"{OUTPUT} {LONGWAVE}.path= {LONGWAVE}.kind=coarse", "olr.* must be positive, got 0.0"
    ),
    "stations without a file": (
        f"{OUTPUT} {STATION}.path=", "stream 'stations' of kind 'points' .*give it a path"
    ),
    "unknown kind": (f"{OUTPUT} {LONGWAVE}.kind=lidar", "kind 'lidar' is unknown: choose"),
    "unknown station": (
        f"{OUTPUT} {STATION}.withhold=1.5", r"must be a share in \[0, 1\), got 1\.5"
    ),
    "unknown period": (
        f"{OUTPUT} --config.assimilation.period=tset", "assimilation.period 'tset' is unknown"
    ),
    "more times than there are": (
        f"{OUTPUT} --config.assimilation.frames=99", "frames is 99, but the period 'test' has 17"
    ),
    "fewer times than a window": (
        f"{OUTPUT} --config.assimilation.frames=2", "2 times is shorter than the model's window"
    ),
    "no background": (
        f"{OUTPUT} --config.data.background=", "another autoencoder.inputs|has no background"
    ),
    "unknown preset": (f"{OUTPUT} --preset=slow", "preset=slow: value should be one of <fast|"),
    "no inflation": (
        f"{OUTPUT} --config.assimilation.inflation=-1.0", "inflation must be positive, got -1.0"
    ),
    "no members": (f"{OUTPUT} --config.assimilation.members=0", "members must be at least 1"),
    "an encoder without these errors": (
        f"{OUTPUT} --config.assimilation.latent_inputs=('olr',)", "no latent observations"
    ),
}  # fmt: skip
EVALUATE = {
    "no analysis": ("", "--analysis is missing: give the file"),
    "missing analysis": ("--analysis={place}/gone.nc", r"cannot read the analysis .*gone\.nc"),
    "missing store": ("--analysis={place}/gone.zarr", r"cannot read the analysis .*gone\.zarr"),
    "torn analysis": ("--analysis={place}/world/torn.nc", r"cannot read the analysis .*torn\.nc"),
    "a report that is no page": (
        "--analysis={place}/gone.nc --report={place}/report.pdf",
        r"report\.pdf must end in \.html",
    ),
    "a report where a folder is": (
        "--analysis={place}/gone.nc --report={place}/folder.html",
        r"folder\.html is a folder",
    ),
    "a report below a file": (
        "--analysis={place}/gone.nc --report={place}/config.py/report.html",
        r"is in a folder that cannot be written: .*config\.py",
    ),
    "no analysis at all": (
        "--analysis={place}/world/background.nc",
        "background.nc is no analysis, it lacks 'member'",
    ),
}
COMMANDS = {"train": TRAIN, "assimilate": ASSIMILATE, "evaluate": EVALUATE}
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
    alone, other = other, xr.concat([other, other.assign_coords(member=[1])], "member")
    cases = {
        "alone.nc": (alone, "has 1 members, the scores of an ensemble need 2 at least"),
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
        ("train", "--config.data.state=absent.nc", "absent.nc"),
        ("assimilate", f"{OUTPUT} --config.typo=1", "typo"),
        ("evaluate", "--analysis={place}/gone.nc", "gone.nc"),
        ("train", "--config.sampler.solver=rk4", "sampler solver 'rk4' is unknown: choose from"),
    ]

    def run(case):
        name, arguments, _ = case
        return subprocess.run(
            [sys.executable, "-m", f"experiments.{name}", *arguments_of(place, arguments)],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=500, check=False,
            env=dict(os.environ),
        )  # fmt: skip

    before = tree(place)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, cases))
    for done, (_, _, expected) in zip(results, cases, strict=True):
        check(done.returncode, done.stderr, expected)
        assert done.stderr.rstrip().splitlines()[-1].startswith("error: ")
        assert done.stdout == ""
    assert tree(place) == before
