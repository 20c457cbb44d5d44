"""Tiny datasets in the library's schema, and files that say the same in other ways."""

from pathlib import Path

import numpy as np
import xarray as xr

LEVELS = (500.0, 850.0, 1000.0)


def times(count: int, start: str = "2001-01-01", hours: int = 24) -> np.ndarray:
    first = np.datetime64(start, "ns")
    return first + np.arange(count) * np.timedelta64(hours, "h").astype("timedelta64[ns]")


def gridded(
    count: int = 5,
    *,
    latitude=(-60.0, -20.0, 20.0, 60.0),
    longitude=(0.0, 60.0, 120.0, 180.0, 240.0, 300.0),
    levels=LEVELS,
    seed: int = 0,
    start: str = "2001-01-01",
) -> xr.Dataset:
    """Temperature in K (time, level, latitude, longitude), every value different."""
    rng = np.random.default_rng(seed)
    shape = (count, len(levels), len(latitude), len(longitude))
    values = (250 + 20 * rng.standard_normal(shape)).astype(np.float32)
    return xr.Dataset(
        {"temperature": (("time", "level", "latitude", "longitude"), values, {"units": "K"})},
        {
            "time": times(count, start),
            "level": ("level", np.array(levels), {"units": "hPa"}),
            "latitude": ("latitude", np.array(latitude), {"units": "degrees_north"}),
            "longitude": ("longitude", np.array(longitude), {"units": "degrees_east"}),
        },
    )


def write(dataset: xr.Dataset, path: Path, **options) -> Path:
    """As NetCDF 4, or as the options of xarray say."""
    options = {"engine": "h5netcdf", **options}
    dataset.to_netcdf(path, **options)
    return path


def records(count: int = 4) -> xr.Dataset:
    """Temperature in K at three stations, one value missing."""
    values = (280 + np.arange(count * 3).reshape(count, 3)).astype(np.float32)
    values[1, 2] = np.nan
    return xr.Dataset(
        {"temperature": (("time", "station"), values, {"units": "K"})},
        {
            "time": times(count),
            "station": ["a", "b", "c"],
            "latitude": ("station", [10.0, 15.0, -30.0]),
            "longitude": ("station", [-10.0, 65.0, 170.0]),
            "altitude": ("station", [0.0, 100.0, 20.0]),
        },
    )


def fields(count=6):
    state = gridded(count)
    return {"state": state, "background": gridded(count, seed=1).isel(time=[0, 1, 3])}


def values(dataset, name="temperature"):
    return np.moveaxis(dataset[name].values, 1, -1)


def cpc_year(path, year, count=3):
    """precip.YYYY.nc: mm, half degrees from the north, hours since 1900, -9.96921e36 over sea."""
    lat, lon = np.linspace(82.5, -82.5, 12, dtype="f4"), 9 + 18 * np.arange(20, dtype="f4")
    values = 0.5 * np.arange(count * 240, dtype=np.float32).reshape(count, 12, 20)
    values[4::5, 2:10, 1:9] = 0.0  # dry days
    values[:, :, 10:] = -9.96921e36
    first = (np.datetime64(f"{year}-01-01") - np.datetime64("1900-01-01")) / np.timedelta64(1, "h")
    since = {"units": "hours since 1900-01-01 00:00:00"}
    north, east = ({"units": f"degrees_{d}", "axis": a} for d, a in (("north", "Y"), ("east", "X")))
    dataset = xr.Dataset(
        {
            "precip": (
                ("time", "lat", "lon"),
                values,
                {
                    "missing_value": np.float32(-9.96921e36),
                    "units": "mm",
                    "statistic": "Total",
                    "var_desc": "Precipitation",
                    "valid_range": np.float32([0, 1000]),
                },
            )
        },
        {
            "time": ("time", first + 24.0 * np.arange(count), since),
            "lat": ("lat", lat, north),
            "lon": ("lon", lon, east),
        },
    )
    return write(dataset, path, encoding={"precip": {"_FillValue": None}})
