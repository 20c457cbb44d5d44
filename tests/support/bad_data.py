"""A corpus of bad data: how each input is made, and which error message it must give.

Each entry makes its files in a folder of its own and returns the call that fails with an
InputError of one line. `tests/test_errors.py` runs them all and keeps docs/errors.md true.
"""

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from slams_jax.assimilation import Observations, assimilate, fit_inflation
from slams_jax.assimilation.observations import to_stream
from slams_jax.data import build_archive, fit_statistics, grid_points, unstack_channels
from slams_jax.data.transforms import transform
from slams_jax.grid import Grid
from slams_jax.observe import Points
from slams_jax.readers import open_dataset, read_stations, split_periods
from slams_jax.schema import Channel, channels_of
from support import data_samples, small_model

Attempt = Callable[[], object]


class Bad(NamedTuple):
    """One input: its group, what is wrong, how it is made, a pattern that the message matches."""

    group: str
    what: str
    make: Callable[[Path], Attempt]
    says: str


CORPUS: list[Bad] = []


def bad(group: str, what: str, says: str):
    """Add the decorated maker to the corpus."""

    def add(make: Callable[[Path], Attempt]):
        CORPUS.append(Bad(group, what, make, says))
        return make

    return add


def add(group: str, *rows: tuple[str, Callable[[Path], Attempt], str]) -> None:
    """Add rows of (what, make, says) to the corpus."""
    CORPUS.extend(Bad(group, *row) for row in rows)


def state(**options) -> xr.Dataset:
    return data_samples.gridded(**options)


def opening(dataset: xr.Dataset, folder: Path, name: str = "state.nc", **options) -> Attempt:
    """Open the dataset from a file and read all of it."""
    path = data_samples.write(dataset, folder / name)
    return lambda: open_dataset(path, **options).load()


# --- files --------------------------------------------------------------------------------------
FILES = "Files"


@bad(FILES, "a path that does not exist", "no such file")
def _(folder):
    return lambda: open_dataset(folder / "gone.nc")


@bad(FILES, "a pattern that matches nothing", "matches no file")
def _(folder):
    return lambda: open_dataset(str(folder / "era5_*.nc"))


@bad(FILES, "an empty list of files", "no file given")
def _(folder):
    return lambda: open_dataset([])


@bad(FILES, "a link to a file that is gone", "no such file")
def _(folder):
    (folder / "link.nc").symlink_to(folder / "gone.nc")
    return lambda: open_dataset(folder / "link.nc")


def _of_bytes(name: str, content: bytes):
    def make(folder):
        (folder / name).write_bytes(content)
        return lambda: open_dataset(folder / name)

    return make


add(
    FILES,
    ("an empty file", _of_bytes("empty.nc", b""), "neither NetCDF nor Zarr"),
    ("a web page in the place of a file", _of_bytes("page.nc", b"<!DOCTYPE html>"), "neither"),
    ("a text file", _of_bytes("text.nc", b"temperature 273 K"), "neither NetCDF nor Zarr"),
    ("NetCDF of 64-bit data (CDF5)", _of_bytes("state.nc", b"CDF\x05" + bytes(64)), "nccopy"),
    ("a Parquet table where a grid is expected", _of_bytes("a.nc", b"PAR1" + bytes(64)), "Parquet"),
    ("a gzipped file", _of_bytes("state.nc.gz", b"\x1f\x8b" + bytes(64)), "unpack it"),
    ("a classic NetCDF file that ends at once", _of_bytes("a.nc", b"CDF\x01" + b"00"), "damaged"),
    ("a classic NetCDF file of noise", _of_bytes("a.nc", b"CDF\x02" + b"\xff" * 60), "damaged"),
    ("a NetCDF 4 file of noise", _of_bytes("a.nc", b"\x89HDF\r\n\x1a\n" + b"\xff" * 90), "damaged"),
)


@bad(FILES, "a zip archive", "unpack it")
def _(folder):
    with zipfile.ZipFile(folder / "state.zip", "w") as archive:
        archive.writestr("state.nc", "x")
    return lambda: open_dataset(folder / "state.zip")


def _cut(share: float, **options):
    def make(folder):
        path = data_samples.write(state(), folder / "state.nc", **options)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        return lambda: open_dataset(path).load()

    return make


add(
    FILES,
    ("a NetCDF 4 file cut at 5%", _cut(0.05), "damaged|cannot be read"),
    ("a NetCDF 4 file cut at 50%", _cut(0.5), "damaged|cannot be read"),
    ("a NetCDF 4 file cut at 95%", _cut(0.95), "damaged|cannot be read"),
    ("a classic NetCDF file cut at 50%", _cut(0.5, engine="scipy"), "damaged|cannot be read"),
)


@bad(FILES, "a NetCDF 4 file with a flipped byte in its data", "cannot be read")
def _(folder):
    encoding = {"temperature": {"fletcher32": True, "chunksizes": (5, 3, 4, 6)}}
    path = data_samples.write(state(), folder / "state.nc", encoding=encoding)
    content = bytearray(path.read_bytes())
    raw = state()["temperature"].values.tobytes()[:64]
    content[content.index(raw) + 7] ^= 0x55
    path.write_bytes(content)
    return lambda: open_dataset(path).load()


@bad(FILES, "a folder that is no Zarr store", "not a Zarr store")
def _(folder):
    (folder / "era5").mkdir()
    return lambda: open_dataset(folder / "era5")


def _zarr(folder: Path) -> Path:
    state().to_zarr(folder / "state.zarr", consolidated=False, zarr_format=3)
    return folder / "state.zarr"


@bad(FILES, "a Zarr store with damaged metadata", "damaged|cannot be read")
def _(folder):
    path = _zarr(folder)
    (path / "temperature" / "zarr.json").write_text("{")
    return lambda: open_dataset(path).load()


@bad(FILES, "a Zarr store with a chunk cut short", "cannot be read")
def _(folder):
    path = _zarr(folder)
    chunk = next(p for p in (path / "temperature" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:9])
    return lambda: open_dataset(path).load()


@bad(FILES, "a file without variables", "holds no variable")
def _(folder):
    return opening(state().drop_vars("temperature"), folder)


@bad(FILES, "a GRIB file of noise", "GRIB|damaged|cannot be read")
def _(folder):
    (folder / "era5.grib").write_bytes(b"GRIB" + bytes(range(200)))
    return lambda: open_dataset(folder / "era5.grib").load()


@bad(FILES, "a GRIB file that ends at once", "GRIB|damaged|cannot be read")
def _(folder):
    (folder / "era5.grib").write_bytes(b"GRIB\x00\x00\x10\x01")
    return lambda: open_dataset(folder / "era5.grib").load()


@bad(FILES, "a URL of an unknown scheme", "cannot be opened as")
def _(folder):
    return lambda: open_dataset("telepathy://era5.zarr")


@bad(FILES, "a URL where nothing is", "no such|cannot be read|check the URL")
def _(folder):
    return lambda: open_dataset("memory://nothing/era5.nc")


@bad(FILES, "a store at a URL where nothing is", "no such|cannot be read|check|damaged")
def _(folder):
    return lambda: open_dataset("memory://nothing/era5.zarr")


@bad(FILES, "a pattern at a URL that matches nothing", "matches no file")
def _(folder):
    return lambda: open_dataset("memory://nothing/*.nc")


# --- variables and levels -----------------------------------------------------------------------
VARIABLES = "Variables and levels"


@bad(VARIABLES, "a variable that is not there", "no variable 'wind'")
def _(folder):
    return opening(state(), folder, variables=["wind"])


@bad(VARIABLES, "a name in the file that is not there", "no variable 'T850'")
def _(folder):
    return opening(state(), folder, variables={"temperature": "T850"})


@bad(VARIABLES, "an empty list of variables", "variables is empty")
def _(folder):
    return opening(state(), folder, variables=[])


@bad(VARIABLES, "two variables that both could be meant", "could be any of")
def _(folder):
    attrs = {"units": "K", "standard_name": "air_temperature"}
    both = state().rename(temperature="first")
    both["second"] = both["first"].copy()
    for name in ("first", "second"):
        both[name].attrs = attrs
    return opening(both, folder, variables=["temperature"])


@bad(VARIABLES, "a level that is not there", "no level 300 hPa")
def _(folder):
    return opening(state(), folder, levels=[300])


@bad(VARIABLES, "levels asked for in Pa", r"levels must be pressures in hPa")
def _(folder):
    return opening(state(), folder, levels=[85000.0])


@bad(VARIABLES, "a level below zero", r"levels must be pressures in hPa")
def _(folder):
    return opening(state(), folder, levels=[-500.0])


@bad(VARIABLES, "levels of a variable that has none", "has no vertical dimension")
def _(folder):
    return opening(state().isel(level=0, drop=True), folder, levels=[500.0])


@bad(VARIABLES, "a level that appears twice", "a level appears twice")
def _(folder):
    return opening(state(levels=(500.0, 850.0, 850.0)), folder)


def _levels(values, units):
    def make(folder):
        return opening(state().assign_coords(level=("level", values, {"units": units})), folder)

    return make


add(
    VARIABLES,
    ("levels in metres", _levels([10.0, 500.0, 9000.0], "m"), "is not a pressure"),
    ("numbers of model levels", _levels([1.0, 2.0, 3.0], "level"), "is not a pressure"),
    ("sigma levels", _levels([0.5, 0.8, 1.0], "sigma"), "is not a pressure"),
    ("levels in degrees", _levels([500.0, 850.0, 1000.0], "degC"), "is not a pressure"),
)


def _hybrid(folder):
    attributes = {"units": "hPa", "long_name": "hybrid level at midpoints (1000*(A+B))"}
    return opening(
        state().assign_coords(level=("level", [500.0, 850.0, 1000.0], attributes)), folder
    )


def _numbered(folder):
    return opening(state().assign_coords(level=("level", [135.0, 136.0, 137.0])), folder)


def _versions(folder):
    preliminary = state(seed=1)
    both = xr.concat([state(), preliminary], xr.Variable("expver", [1, 5]))
    return opening(both, folder)


def _quantiles(folder):
    return opening(state().expand_dims(quantile=3), folder)


add(
    VARIABLES,
    ("hybrid levels in hPa", _hybrid, "is not a pressure"),
    ("numbers of model levels without units", _numbered, "is not a pressure"),
    ("ERA5 and ERA5T that differ", _versions, "both versions have values"),
    ("a dimension that is no part of a field", _quantiles, "its dimension quantile is not"),
)


# --- dimensions and coordinates -----------------------------------------------------------------
GRIDS = "Grids"


@bad(GRIDS, "stations where a grid is expected", "latitude|grid")
def _(folder):
    return opening(data_samples.records(), folder)


@bad(GRIDS, "a curvilinear grid", "rectangular latitude-longitude")
def _(folder):
    dataset = state().drop_vars(("latitude", "longitude"))
    dataset = dataset.rename(latitude="y", longitude="x")
    lat, lon = np.meshgrid(np.linspace(30, 60, 4), np.linspace(0, 20, 6), indexing="ij")
    return opening(dataset.assign_coords(lat=(("y", "x"), lat), lon=(("y", "x"), lon)), folder)


@bad(GRIDS, "a projected grid in metres", "not in degrees")
def _(folder):
    dataset = state().assign_coords(
        latitude=("latitude", np.arange(4) * 1e5, {"units": "m"}),
        longitude=("longitude", np.arange(6) * 1e5, {"units": "m"}),
    )
    return opening(dataset, folder)


@bad(GRIDS, "coordinates in radians", "not in degrees")
def _(folder):
    latitude = ("latitude", np.linspace(-1.5, 1.5, 4), {"units": "radians"})
    return opening(state().assign_coords(latitude=latitude), folder)


@bad(GRIDS, "latitude and longitude swapped", "not in degrees")
def _(folder):
    dataset = state().rename(latitude="longitude", longitude="latitude")
    return opening(dataset, folder)


@bad(GRIDS, "a latitude that appears twice", "a latitude appears twice")
def _(folder):
    return opening(state(latitude=(-60.0, 20.0, 20.0, 60.0)), folder)


@bad(GRIDS, "a latitude that is not a number", "not in degrees")
def _(folder):
    return opening(state(latitude=(-60.0, np.nan, 20.0, 60.0)), folder)


@bad(GRIDS, "latitudes beyond the poles", "not in degrees")
def _(folder):
    return opening(state(latitude=(-95.0, -20.0, 20.0, 60.0)), folder)


@bad(GRIDS, "two dimensions that mean the same", "mean the same")
def _(folder):
    return opening(state().rename(level="lat"), folder)


@bad(GRIDS, "files of different grids", "differs from that in")
def _(folder):
    data_samples.write(state(), folder / "a.nc")
    other = state(start="2001-01-06", latitude=(-50.0, -20.0, 20.0, 60.0))
    data_samples.write(other, folder / "b.nc")
    return lambda: open_dataset(str(folder / "*.nc"))


@bad(GRIDS, "files of different dimensions", "dimensions .* differ")
def _(folder):
    data_samples.write(state(), folder / "a.nc")
    data_samples.write(state(start="2001-01-06").isel(level=0, drop=True), folder / "b.nc")
    return lambda: open_dataset(str(folder / "*.nc"))


@bad(GRIDS, "variables on different grids", "differs from")
def _(folder):
    data_samples.write(state(), folder / "a.nc")
    other = state(longitude=(5.0, 65.0, 125.0, 185.0, 245.0, 305.0))
    data_samples.write(other.rename(temperature="z").drop_attrs(), folder / "b.nc")
    return lambda: open_dataset(str(folder / "*.nc"))


@bad(GRIDS, "longitudes that go around twice", "full circle|must")
def _(folder):
    return lambda: Grid.of([-45.0, 45.0], np.arange(0.0, 540.0, 90.0))


@bad(GRIDS, "a grid whose latitudes descend", "must ascend")
def _(folder):
    return lambda: Grid.of([45.0, -45.0], [0.0, 90.0, 180.0, 270.0])


@bad(GRIDS, "a grid without longitudes", "must be a non-empty")
def _(folder):
    return lambda: Grid.of([45.0], [])


# --- times --------------------------------------------------------------------------------------
TIMES = "Times"


def _times(*order):
    return lambda folder: opening(state().isel(time=list(order)), folder)


def _period(*period):
    return lambda folder: opening(state(), folder, period=period)


add(
    TIMES,
    ("times out of order", _times(0, 2, 1, 3, 4), "must ascend"),
    ("a time that appears twice", _times(0, 1, 1, 2, 3), "must ascend .* twice"),
    ("times that descend", _times(4, 3, 2, 1, 0), "must ascend"),
    ("a period without times", _period("1990", "1991"), "none of"),
    ("a period that ends before it starts", _period("2001-01-03", "2001-01-01"), "before it"),
    ("a period that is no dates", _period("a", "b"), "two dates"),
    ("a period from now on", _period("now", "2300"), "two dates"),
    ("a period in decimal years", _period(2001.5, 2002), "two dates"),
    ("a period of one date", _period("2001"), "must be"),
)


DAYS, SINCE = np.arange(5.0), "days since 2001-01-01"


def _numbers(values, units: str, calendar: str = "standard"):
    def make(folder):
        attributes = {"units": units, "calendar": calendar}
        dataset = state().assign_coords(time=("time", np.asarray(values, np.float64), attributes))
        return opening(dataset, folder)

    return make


add(
    TIMES,
    ("times without a reference date", _numbers(DAYS, "days"), "are no dates|30 days"),
    (
        "a reference date that is none",
        _numbers(DAYS, "days since the flood"),
        "are no dates|30 days",
    ),
    ("steps of a model", _numbers(DAYS, "1"), "are no dates|30 days"),
    ("an unknown calendar", _numbers(DAYS, SINCE, "lunar"), "are no dates|30 days"),
    (
        "a day that the calendar lacks",
        _numbers(DAYS + 58, SINCE, "360_day"),
        "are no dates|30 days",
    ),
    (
        "years before 1690",
        _numbers(DAYS, "days since 0001-01-01"),
        "are no dates|30 days",
    ),
    ("times beyond 2250", _numbers(DAYS + 1e6, SINCE), "are no dates|30 days"),
    (
        "a time that is missing",
        _numbers([0, 1, np.nan, 3, 4], SINCE),
        "missing entries|are no dates",
    ),
)


def _dated(**coordinates):
    return lambda folder: opening(state().assign_coords(coordinates), folder)


STARTS = ("time", data_samples.times(5), {"standard_name": "forecast_reference_time"})
VALID = ("time", STARTS[1], {"standard_name": "time"})
ENDS = ("time", STARTS[1] + np.timedelta64(6, "h"), {"standard_name": "time"})
SINGLE = np.float32(73000 + np.arange(5) / 96), {"units": "days since 1800-01-01"}
LEAD_TIMES = np.arange(2) * np.timedelta64(6, "h")
ONE_LEAD = _dated(step=np.timedelta64(24, "h"))


def _several_starts(folder):
    return opening(state().expand_dims(step=LEAD_TIMES), folder)


add(
    TIMES,
    ("forecasts of several starts and lead times", _several_starts, "forecasts along"),
    ("a time that may be the start of a forecast or its validity", ONE_LEAD, "may be the start"),
    ("the start of a forecast alone", _dated(time=STARTS), "lead time is not given"),
    ("two times that differ", _dated(time=VALID, end=ENDS), "both say when"),
    (
        "quarters of an hour as days in single precision",
        _dated(time=("time", *SINGLE)),
        "single precision",
    ),
)


@bad(TIMES, "no time at all", "neither a time dimension nor a time")
def _(folder):
    return opening(state().isel(time=0, drop=True), folder)


@bad(TIMES, "a time dimension without times", "has no times")
def _(folder):
    return opening(state().drop_vars("time"), folder)


@bad(TIMES, "files that overlap in time", "must ascend")
def _(folder):
    data_samples.write(state(), folder / "a.nc")
    data_samples.write(state(start="2001-01-03"), folder / "b.nc")
    return lambda: open_dataset(str(folder / "*.nc"))


@bad(TIMES, "periods that share a day", "overlap")
def _(folder):
    periods = {"train": ("2001-01-01", "2001-01-03"), "test": ("2001-01-03", "2001-01-05")}
    return lambda: split_periods(data_samples.times(5), periods)


# --- units and values ---------------------------------------------------------------------------
VALUES = "Units and values"


def _units(units: str, scale: float = 1.0, offset: float = 0.0, name: str = "temperature"):
    def make(folder):
        dataset = state().rename(temperature=name)
        dataset[name] = (dataset[name] * scale + offset).astype(np.float32)
        dataset[name].attrs["units"] = units
        return opening(dataset, folder)

    return make


add(
    VALUES,
    ("an unknown unit", _units("furlong"), "not 'K' or what converts"),
    ("a temperature in W m-2", _units("W m-2"), "not 'K' or what converts"),
    ("Celsius called Kelvin", _units("K", offset=-273.15), "outside"),
    ("Kelvin called Celsius", _units("degC"), "outside"),
    ("degrees Rankine", _units("degR"), "not 'K' or what converts"),
    ("hPa called Pa", _units("Pa", scale=4.0, name="mean_sea_level_pressure"), "outside"),
    ("missing values written as -999", _units("K", scale=0.0, offset=-999.0), "outside"),
)


def _archive(change: Callable[[xr.Dataset], xr.Dataset], **modalities):
    def make(folder):
        def attempt():
            fields = {"state": change(state())}
            fields |= {name: make_field() for name, make_field in modalities.items()}
            archive = build_archive(folder / "cache", {}, fields)
            for field in archive.fields.values():
                fit_statistics(field.array, archive.times)

        return attempt

    return make


def _filled(value: float, level: int | None = None):
    def change(dataset: xr.Dataset) -> xr.Dataset:
        where = slice(None) if level is None else level
        dataset["temperature"].values[:, where] = value
        return dataset

    return change


add(
    VALUES,
    ("a field without any value", _archive(_filled(np.nan)), "no data"),
    ("a level without any value", _archive(_filled(np.nan, 1)), "no data"),
    ("a field that is constant", _archive(_filled(280.0)), "never varies"),
    ("a level that is constant", _archive(_filled(280.0, 2)), "never varies"),
)


def _one_day(value: float):
    """A value that only one later day has: found when all is read."""

    def change(dataset: xr.Dataset) -> xr.Dataset:
        dataset["temperature"].values[3, 1, 2, 2] = value
        return dataset

    return change


def _precipitation(value: float) -> xr.Dataset:
    dataset = state().isel(level=0, drop=True).rename(temperature="total_precipitation")
    dataset["total_precipitation"].values[:] = value
    dataset["total_precipitation"].attrs["units"] = "m"
    return dataset


def _dry_days_missing(folder):
    dry = _precipitation(0.0)
    dry["total_precipitation"].values[:, 0] = 0.001
    path = folder / "rain.nc"
    data_samples.write(dry, path, encoding={"total_precipitation": {"_FillValue": 0.0}})
    return lambda: open_dataset(path)


def _low(value: float):
    dataset = state().rename(temperature="geopotential") * 100.0
    dataset["geopotential"].attrs["units"] = "m2 s-2"
    dataset["geopotential"].values[2, 1] = value
    return lambda folder: opening(dataset, folder)


add(
    VALUES,
    (
        "negative errors",
        lambda f: opening(state().assign(error=-1.0), f, variables=["temperature", "error"]),
        "negative",
    ),
    ("dry days declared as missing", _dry_days_missing, "declares as missing"),
    ("a geopotential of -9999", _low(-9999.0), "outside"),
    ("a geopotential of -999", _low(-999.0), "write for missing values"),
    ("one value that cannot be", _archive(_one_day(3.0)), "data from .* outside"),
    ("infinite values", lambda f: opening(_one_day(np.inf)(state()), f), "infinite values"),
    ("negative precipitation", lambda f: opening(_precipitation(-0.01), f), "signs are wrong"),
    ("precipitation in mm called m", lambda f: opening(_precipitation(25.0), f), "mm for m"),
)


# --- training sets ------------------------------------------------------------------------------
SETS = "Training sets"
shifted = lambda: state(start="2011-01-01")
add(
    SETS,
    (
        "a modality that shares no time with the state",
        _archive(lambda d: d, olr=shifted),
        "shares no time with the state",
    ),
    (
        "a modality on another grid",
        _archive(lambda d: d, olr=lambda: state(latitude=(-50.0, -20.0, 20.0, 60.0))),
        "is on a different grid",
    ),
    (
        "a field with two extra dimensions",
        _archive(lambda d: d, olr=lambda: state().expand_dims(channel=2)),
        "time, latitude, longitude and at most one more",
    ),
    (
        "a field with an ensemble of unknown meaning",
        _archive(lambda d: d, olr=lambda: state().rename(level="realization")),
        "unknown dimension 'realization'",
    ),
    (
        "members in the place of channels",
        _archive(lambda d: d, olr=lambda: state().isel(level=0, drop=True).expand_dims(member=2)),
        "unknown dimension 'member'",
    ),
    (
        "a single level left by a selection",
        _archive(lambda d: d.sel(level=850.0)),
        "has a single level .850 hPa. but no dimension for it",
    ),
    ("a field without times", _archive(lambda d: d.isel(time=0, drop=True)), "dimension"),
    (
        "a field whose name is no identifier",
        _archive(lambda d: d, **{"olr 2": state}),
        "may have letters, digits and underscores",
    ),
)


@bad(SETS, "a logarithm of negative precipitation", "log1p needs values from 0 up")
def _(folder):
    return lambda: transform(_precipitation(-5e-5), "log1p", 1e-3, name="cpc").load()


@bad(SETS, "a transform that is unknown", "unknown transform")
def _(folder):
    return lambda: transform(_precipitation(1.0), "sqrt", name="cpc")


@bad(SETS, "a transform of scale zero", "must be a positive number")
def _(folder):
    return lambda: transform(_precipitation(1.0), "log1p", 0.0, name="cpc")


@bad(SETS, "no state", "needs the field 'state'")
def _(folder):
    return lambda: build_archive(folder / "cache", {}, {"olr": state()})


@bad(SETS, "levels that the state does not have", "choose among these")
def _(folder):
    channels = {"state": channels_of(["temperature"], [300.0])}
    return lambda: build_archive(folder / "cache", {}, {"state": state()}, channels)


@bad(SETS, "a cache where nothing can be written", "cannot be written")
def _(folder):
    (folder / "file").write_text("")
    return lambda: build_archive(folder / "file" / "cache", {}, {"state": state()})


# --- stations -----------------------------------------------------------------------------------
STATIONS = "Stations"
WIDE = "YYYYMMDD,a,b\n20010101,10.5,11.0\n20010102,,12.0\n"
PLACES = "station_id,longitude,latitude,altitude\na,-10,40,12\nb,65,45,300\n"
TIDY = (
    "time,latitude,longitude,level,variable,value\n"
    "2001-01-01,40,-10,850,temperature,5.0\n2001-01-02,40,-10,850,temperature,6.0\n"
)


def _wide(table: str = WIDE, places: str | None = PLACES, **options):
    def make(folder):
        (folder / "tmean.csv").write_text(table)
        if places is not None:
            (folder / "stations.csv").write_text(places)
            options["stations"] = folder / "stations.csv"
        return lambda: read_stations(folder / "tmean.csv", **options)

    return make


def _tidy(table: str, **options):
    def make(folder):
        (folder / "obs.csv").write_text(table)
        return lambda: read_stations(folder / "obs.csv", **options)

    return make


add(
    STATIONS,
    ("a table that is not there", lambda f: lambda: read_stations(f / "x.csv"), "no "),
    ("an empty table", _wide(""), "not a readable CSV"),
    ("a table without rows", _wide("YYYYMMDD,a,b\n"), "holds no rows"),
    ("a table of another form", _wide("name,a,b\nx,1,2\n"), "neither form"),
    ("rows of unequal length", _wide(WIDE + "20010103,1,2,3,4\n"), "not a readable"),
    ("no positions of the stations", _wide(places=None), "needs their positions"),
    ("a station without a position", _wide(WIDE.replace(",b", ",c")), "no row for"),
    ("a station with two positions", _wide(places=PLACES + "a,1,2,3\n"), "twice"),
    ("a column that appears twice", _wide(WIDE.replace(",b", ",a")), "twice|no row"),
    ("a cell that is no number", _wide(WIDE.replace("10.5", "warm")), "not a number"),
    ("a date that is none", _wide(WIDE.replace("20010102", "20011332")), "not a date"),
    ("a date that appears twice", _wide(WIDE.replace("0102", "0101")), "twice"),
    ("an unknown unit", _wide(units="furlong"), "not 'K'"),
    ("Celsius called Kelvin", _wide(units="K"), "outside"),
    ("a latitude off the globe", _wide(places=PLACES.replace(",40,", ",400,")), "out"),
    ("a longitude off the globe", _wide(places=PLACES.replace("-10", "-999")), "outs"),
    ("an altitude in space", _wide(places=PLACES.replace(",300", ",300000")), "outsi"),
    ("a position that is missing", _wide(places=PLACES.replace(",40,", ",,")), "outs"),
    (
        "no column of latitudes",
        _wide(places=PLACES.replace("latitude", "where")),
        "no column 'latitude'",
    ),
    ("a period without records", _wide(period=("1980", "1981")), "none of the times"),
    ("a variable without rows", _tidy(TIDY, variable="geopotential"), "no row of"),
    ("neither altitude nor level", _tidy(TIDY.replace("level", "floor")), "exactly"),
    ("an observation that appears twice", _tidy(TIDY.replace("01-02", "01-01")), "appears twice"),
    ("an observation without a position", _tidy(TIDY.replace("40,", ",", 1)), "no position"),
    ("a level in Pa called hPa", _tidy(TIDY.replace("850", "85000")), "outside"),
)


def _station_file(change: Callable[[xr.Dataset], xr.Dataset]):
    def make(folder):
        path = data_samples.write(change(data_samples.records()), folder / "stations.nc")
        return lambda: read_stations(path)

    return make


def _with_units(units: str):
    return _tidy(TIDY.replace("value\n", "value,units\n").replace(".0\n", f".0,{units}\n"))


def _in_units(name: str, units: str, scale: float = 1.0):
    coordinate = lambda d: (d[name] * scale).assign_attrs(units=units)
    return _station_file(lambda d: d.assign_coords({name: coordinate(d)}))


OZONE = TIDY.replace("temperature", "ozone")
add(
    STATIONS,
    ("units of a row that are no temperature", _with_units("mm"), "has units 'mm'"),
    ("a row without units", _with_units(""), "is empty in line 2"),
    ("a station without a name", _wide(places=PLACES.replace("b,", ",")), "line 3"),
    ("the word now for a date", _wide(WIDE.replace("20010102", "now")), "not a date"),
    ("a year and a half for a date", _tidy(TIDY.replace("2001-01-02", "2001.5")), "no"),
    ("missing values written as -99", _wide(WIDE.replace("10.5", "-99")), "outside"),
    ("a variable without a plausible range", _tidy(OZONE, variable="ozone"), "plausible="),
    ("an altitude in an unknown unit", _in_units("altitude", "mile"), "not m, km or ft"),
    ("latitudes in radians", _in_units("latitude", "radian", np.pi / 180), "not degrees"),
    (
        "a negative error for all stations",
        _station_file(lambda d: d.assign(error=-1.0)),
        "needs one > 0",
    ),
    ("a sensor too many", _station_file(lambda d: d.expand_dims(sensor=2)), "expected .time, stat"),
)


def _with_errors(value: str):
    lines = TIDY.splitlines()
    return "\n".join([lines[0] + ",error", *(line + f",{value}" for line in lines[1:])]) + "\n"


add(
    STATIONS,
    ("an error of zero", _tidy(_with_errors("0")), "needs one > 0"),
    ("a negative error", _tidy(_with_errors("-1")), "needs one > 0"),
    ("a missing error", _tidy(_with_errors("")), "needs one > 0"),
)


@bad(STATIONS, "a table in another encoding", "not a readable CSV")
def _(folder):
    (folder / "tmean.csv").write_bytes("YYYYMMDD,Zürich\n20010101,1\n".encode("utf-16"))
    return lambda: read_stations(folder / "tmean.csv", stations=folder / "tmean.csv")


def _records(change: Callable[[xr.Dataset], xr.Dataset], **options):
    def make(folder):
        path = data_samples.write(change(data_samples.records()), folder / "stations.nc")
        return lambda: read_stations(path, **options)

    return make


add(
    STATIONS,
    ("a NetCDF file without the variable", _records(lambda d: d, variable="q"), "no variable"),
    (
        "a NetCDF file without latitudes",
        _records(lambda d: d.drop_vars("latitude")),
        "no coordinate 'latitude'",
    ),
    (
        "a NetCDF file of a grid",
        lambda f: functools.partial(read_stations, data_samples.write(state(), f / "state.nc")),
        "expected \\(time, station\\)",
    ),
)


# --- observations -------------------------------------------------------------------------------
OBSERVATIONS = "Observations"
CHANNELS = channels_of(["temperature"], data_samples.LEVELS)


def _stream(dataset: Callable[[], xr.Dataset], kind: str = "points", **options):
    def make(folder):
        def attempt():
            grid = Grid.of(state()["latitude"].values, state()["longitude"].values)
            observations = Observations("obs", dataset(), kind, **{"error": 1.0} | options)
            climate = np.full((*grid.shape, 3), 270.0, np.float32)
            std = np.full(3, 10.0, np.float32)
            to_stream(observations, grid, CHANNELS, data_samples.times(5), climate=climate, std=std)

        return attempt

    return make


records = lambda: data_samples.records()
add(
    OBSERVATIONS,
    ("an unknown variable", _stream(records, variable="wind"), "no variable"),
    ("an error of zero", _stream(records, error=0.0), "must be > 0"),
    ("an error that is not a number", _stream(records, error=np.nan), "> 0"),
    ("errors for other stations", _stream(records, error=np.ones(7)), "give one"),
    ("no error anywhere", _stream(records, error=None), "error"),
    ("biases for other stations", _stream(records, bias=np.ones(7)), "give one"),
    (
        "observations of other times",
        _stream(lambda: records().assign_coords(time=data_samples.times(4, "2031-01-01"))),
        "none of which",
    ),
    ("observations that are all missing", _stream(lambda: records() * np.nan), "no finite value"),
    (
        "stations without longitudes",
        _stream(lambda: records().drop_vars("longitude")),
        "no coordinate 'longitude'",
    ),
    (
        "a grid on levels that the state lacks",
        _stream(lambda: state(levels=(300.0, 850.0)), "grid"),
        "which the state does not have",
    ),
    (
        "a grid of another size",
        _stream(lambda: state(latitude=(-60.0, 20.0, 60.0)), "grid"),
        "values of shape|another grid",
    ),
    (
        "block means that do not divide the grid",
        _stream(lambda: state(latitude=(-30.0, 0.0, 30.0)), "coarse"),
        "coarse|block|divide",
    ),
    (
        "samples that are no points of the grid",
        _stream(lambda: state(latitude=(-59.0, 21.0)), "stride"),
        "stride|points|grid",
    ),
)


turned = lambda data: data.assign_coords(longitude=data["longitude"].values + 15.0)
with_units = lambda data, units: data.assign(temperature=data.temperature.assign_attrs(units=units))
CORPUS += [
    Bad(
        OBSERVATIONS,
        "a grid of the same size elsewhere",
        _stream(lambda: turned(state()), "grid"),
        "is on another grid .* than the model's",
    ),
    Bad(
        OBSERVATIONS,
        "means over other blocks",
        _stream(lambda: turned(state().isel(latitude=[0, 2], longitude=[0, 2, 4])), "coarse"),
        "than the block means of the model's",
    ),
    Bad(
        OBSERVATIONS,
        "align=False without an own operator",
        _stream(lambda: turned(state()), "grid", align=False),
        "without an own operator",
    ),
    Bad(OBSERVATIONS, "an error that is too large", _stream(records, error=1e30), "below 1e"),
    Bad(
        OBSERVATIONS,
        "a negative error in the data",
        _stream(lambda: records().assign(error=-1.0), error=None),
        "an error is negative",
    ),
    Bad(
        OBSERVATIONS,
        "errors along another dimension",
        _stream(lambda: records().assign(error=("channel", [1.0, 2.0])), error=None),
        "error has dimensions",
    ),
    Bad(
        OBSERVATIONS,
        "stations without times",
        _stream(lambda: records().drop_vars("time")),
        "has no times|no coordinate 'time'",
    ),
    Bad(
        OBSERVATIONS,
        "a time that appears twice",
        _stream(lambda: records().isel(time=[0, 1, 1])),
        "without duplicates",
    ),
    Bad(
        OBSERVATIONS,
        "a time that is missing",
        _stream(
            lambda: records().assign_coords(time=[np.datetime64("NaT"), *data_samples.times(3)])
        ),
        "missing entries",
    ),
    Bad(
        OBSERVATIONS,
        "a field whose time appears twice",
        _stream(lambda: state().isel(time=[0, 0, 1]), "grid"),
        "without duplicates",
    ),
    Bad(
        OBSERVATIONS,
        "Celsius without units",
        _stream(lambda: state() - 273.15, "grid"),
        "reaches .* K, outside",
    ),
    Bad(
        OBSERVATIONS,
        "unknown units in memory",
        _stream(lambda: with_units(records(), "furlong")),
        "has units 'furlong'",
    ),
    Bad(
        OBSERVATIONS,
        "altitudes in unknown units",
        _stream(
            lambda: records().assign_coords(
                altitude=records()["altitude"].assign_attrs(units="fathom")
            )
        ),
        "altitude has units 'fathom'",
    ),
    Bad(
        OBSERVATIONS,
        "a dimension too many",
        _stream(lambda: state().expand_dims(run=[0, 1]), "grid"),
        "dimension run",
    ),
]


# --- analyses -----------------------------------------------------------------------------------
ANALYSES = "Analyses"


def _analysis(background: Callable[[xr.Dataset], Any] = lambda data: data, **options):
    """An analysis of five days from a background on the small model's grid."""

    def make(folder):
        model = small_model.tiny_model(latent=False)
        at = small_model.times()
        states = np.full((1, len(at), *model.grid.shape, len(model.channels)), 270.0, np.float32)
        grid = model.grid
        data = unstack_channels(states, model.channels, at, grid.latitude, grid.longitude)
        arguments = {"members": 1, "key": jax.random.key(0), "observations": []} | options
        observations = arguments.pop("observations")
        return lambda: assimilate(model, background(data.isel(member=0)), observations, **arguments)

    return make


BACKGROUND_AGAIN = Observations("background", data_samples.records(), "points", error=1.0)
CORPUS += [
    Bad(ANALYSES, "no times and no background", _analysis(lambda _: None), "give the times"),
    Bad(
        ANALYSES,
        "a background on another grid of the same size",
        _analysis(turned),
        "the background is on another grid",
    ),
    Bad(
        ANALYSES,
        "a background in Celsius that does not say so",
        _analysis(lambda data: data - 273.15),
        "reaches .* K, outside",
    ),
    Bad(
        ANALYSES,
        "a background without times",
        _analysis(lambda data: data.drop_vars("time")),
        "has no times",
    ),
    Bad(
        ANALYSES,
        "a background with a gap",
        _analysis(lambda data: data.isel(time=[0, 1, 3, 4])),
        "have a gap between",
    ),
    Bad(
        ANALYSES,
        "a background with one time twice",
        _analysis(lambda data: data.isel(time=[0, 1, 1, 2])),
        "without duplicates",
    ),
    Bad(
        ANALYSES,
        "a background of members that are all the same",
        _analysis(lambda data: data.expand_dims(member=[0, 1])),
        "give one of them alone",
    ),
    Bad(
        ANALYSES,
        "an array of numbers as background",
        _analysis(lambda data: data.temperature.values),
        "give an xarray Dataset",
    ),
    Bad(
        ANALYSES,
        "other times than the background's",
        _analysis(times=small_model.times(start="2001-07-02")),
        "are not those of the background",
    ),
    Bad(
        ANALYSES,
        "the background as a stream too",
        _analysis(observations=[BACKGROUND_AGAIN]),
        "enters twice",
    ),
    Bad(ANALYSES, "a seed in place of a key", _analysis(key=0), "give jax.random.key"),
    Bad(ANALYSES, "an infinite inflation", _analysis(inflation=np.inf), "positive and finite"),
    Bad(
        ANALYSES,
        "an inflation of members without spread",
        lambda folder: (
            lambda: fit_inflation(
                lambda _: np.zeros((3, 4, 1), np.float32), np.ones((4, 1), np.float32)
            )
        ),
        "members that differ",
    ),
]


@bad(OBSERVATIONS, "a station outside a regional domain", "outside the domain")
def _(folder):
    region = Grid.of([35.0, 40.0, 45.0], [-15.0, -10.0, -5.0, 0.0])
    return lambda: grid_points(data_samples.records(), region, data_samples.times(4), "temperature")


@bad(OBSERVATIONS, "an observation above the levels of the state", "outside the levels")
def _(folder):
    grid = Grid.of([-45.0, 45.0], [0.0, 90.0, 180.0, 270.0])
    at = [np.array([v]) for v in (0.0, 10.0, 5.0)]
    return lambda: Points.at(grid, CHANNELS, *at, variable="temperature")


@bad(OBSERVATIONS, "stations without records at the times of the grid", "share no time")
def _(folder):
    grid = Grid.of(state()["latitude"].values, state()["longitude"].values)
    times = data_samples.times(4, "2031-01-01")
    return lambda: grid_points(data_samples.records(), grid, times, "temperature")


@bad(OBSERVATIONS, "channels that are no channels", "levels must ascend")
def _(folder):
    assert Channel("temperature", 500.0) in CHANNELS
    return lambda: channels_of(["temperature"], [850.0, 500.0])
