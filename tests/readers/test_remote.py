import subprocess
import sys

import fsspec
import numpy as np
import pytest
import xarray as xr

from slams_jax.errors import InputError, RunError
from slams_jax.readers import open_dataset, read_stations, remote
from support.data_samples import gridded, times, write
from support.web_server import dropped, hanging, refused, serving

LATITUDE = np.linspace(-90.0, 90.0, 13)
LONGITUDE = np.arange(0.0, 360.0, 15.0)


@pytest.fixture(autouse=True)
def hasty(monkeypatch, tmp_path):
    """Patience for tests, and a cache folder that goes with them."""
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def weatherbench(count: int = 6, *, old: bool = True) -> xr.Dataset:
    """As WeatherBench 2 has ERA5: (time, level, longitude, latitude) on 1.5 degrees with latitude
    ascending, or (time, level, latitude, longitude) on 0.25 degrees with latitude descending."""
    dataset = gridded(count, latitude=LATITUDE, longitude=LONGITUDE).assign_coords(
        time=times(count, hours=6)
    )
    dataset["2m_temperature"] = dataset.temperature.isel(level=-1, drop=True)
    if old:
        return dataset.transpose("time", "level", "longitude", "latitude")
    return dataset.isel(latitude=slice(None, None, -1))


def to_zarr(dataset: xr.Dataset, path, zarr_format: int = 2):
    chunks = {v: {"chunks": (1, *dataset[v].shape[1:])} for v in dataset.data_vars}
    encoding = {**chunks, "time": {"units": "hours since 1959-01-01", "dtype": "int64"}}
    consolidated = zarr_format == 2
    dataset.to_zarr(path, zarr_format=zarr_format, consolidated=consolidated, encoding=encoding)
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    to_zarr(weatherbench(), folder / "old.zarr")
    to_zarr(weatherbench(old=False), folder / "new.zarr")
    write(gridded(3), folder / "a_2001.nc")
    (folder / "s.csv").write_text(
        "time,latitude,longitude,altitude,variable,value\n2001-01-01,1,2,3,temperature,10\n"
    )
    return folder


@pytest.fixture
def web(site):
    with serving(site) as server:
        yield server


@pytest.mark.parametrize("name", ["old", "new"])
def test_weatherbench_over_http_reads_as_from_disk(name, web, site):
    period = ("2001-01-01T06", "2001-01-01T18")
    options = {"variables": ["temperature"], "levels": [500, 1000], "period": period}
    with (
        open_dataset(f"{web.url}/{name}.zarr", **options) as there,
        open_dataset(site / f"{name}.zarr", **options) as here,
    ):
        assert there.temperature.shape == (3, 2, 13, 24)
        xr.testing.assert_equal(there.load(), here.load())
        expected = weatherbench().temperature.transpose("time", "level", "latitude", "longitude")
        np.testing.assert_array_equal(there.temperature, expected[1:4, [0, 2]])
        assert not any("temperature/0." in r or "2m_" in r for r in web.requests)


def test_a_connection_that_drops_is_taken_up_again(web):
    with open_dataset(f"{web.url}/old.zarr", variables=["temperature"]) as there:
        web.faults.append(dropped("/temperature/3", 2))
        there.load()
    assert sum("/temperature/3" in r for r in web.requests) == 3
    expected = weatherbench().temperature.transpose("time", "level", "latitude", "longitude")
    np.testing.assert_array_equal(there.temperature, expected)


@pytest.mark.parametrize(
    ("fault", "message", "kind"),
    [
        (dropped("/temperature/3", 99), "temperature/3.* after 3 attempts.*start again", RunError),
        (refused("/temperature/3", 503), "temperature/3.* after 3 attempts.*503", RunError),
        (refused("/temperature/3", 403), "temperature/3.* access refused", InputError),
    ],
)
def test_what_persists_gives_one_line(fault, message, kind, web):
    with open_dataset(f"{web.url}/old.zarr", variables=["temperature"]) as there:
        web.faults.append(fault)
        with pytest.raises(kind, match=message) as caught:
            there.load()
    assert "\n" not in str(caught.value)
    assert web.url in str(caught.value)


@pytest.mark.slow
def test_a_server_that_hangs_runs_into_a_timeout(web, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    with open_dataset(f"{web.url}/old.zarr", variables=["temperature"]) as there:
        web.faults.append(hanging("/temperature/3", 0.6))
        with pytest.raises(RunError, match=r"temperature/3.* 2 attempts .no answer for 0\.2 s"):
            there.load()
    web.faults[:] = [hanging("", 0.6)]
    for name in ("old.zarr", "a_2001.nc"):
        with pytest.raises(RunError, match=f"{name}.*no answer for 0.2 s"):
            open_dataset(f"{web.url}/{name}")


def test_a_store_that_vanishes_is_no_missing_data(web):
    with open_dataset(f"{web.url}/old.zarr", variables=["temperature"]) as there:
        assert np.isfinite(there.temperature[0]).all()
        web.faults.append(refused("old.zarr", 404))
        with pytest.raises(RunError, match=r"old\.zarr: the store has disappeared"):
            there.load()


def test_a_chunk_that_is_absent_is_missing_data(tmp_path):
    to_zarr(weatherbench(), tmp_path / "gaps.zarr")
    (tmp_path / "gaps.zarr" / "temperature" / "2.0.0.0").unlink()
    with serving(tmp_path) as web, open_dataset(f"{web.url}/gaps.zarr") as there:
        assert np.isnan(there.temperature[2]).all()
        assert np.isfinite(there.temperature[[0, 1, 3]]).all()


def test_files_are_fetched_once_and_whole(web, tmp_path):
    url = f"{web.url}/a_2001.nc"
    web.faults.append(dropped("a_2001.nc", 1, after=1000))
    with open_dataset(url) as there:
        np.testing.assert_array_equal(there.temperature, gridded(3).temperature)
    count = len(web.requests)
    with open_dataset(url) as again:
        assert again.sizes["time"] == 3
    assert len(web.requests) == count  # but for a look whether it has changed (HEAD)
    assert read_stations(f"{web.url}/s.csv").temperature.item() == pytest.approx(283.15)
    kept = [p.name for p in (tmp_path / "user").rglob("*") if p.is_file()]
    assert sorted(kept) == ["a_2001.nc", "s.csv"]


def test_a_file_that_does_not_come_leaves_nothing(web, tmp_path):
    web.faults.append(dropped("a_2001.nc", 99, after=1000))
    with pytest.raises(RunError, match=r"a_2001\.nc: cannot be read after 3 attempts"):
        open_dataset(f"{web.url}/a_2001.nc")
    assert not [p for p in (tmp_path / "user").rglob("*") if p.is_file()]


def test_any_scheme_of_fsspec_serves():
    memory = fsspec.filesystem("memory")
    weatherbench().to_zarr("memory://bucket/era5.zarr", zarr_format=2, consolidated=True)
    try:
        with open_dataset("memory://bucket/era5.zarr", variables=["2m_temperature"]) as there:
            np.testing.assert_array_equal(
                there["2m_temperature"].transpose("time", "longitude", "latitude"),
                weatherbench()["2m_temperature"],
            )
        with open_dataset("memory://bucket/*.zarr") as there:
            assert there.sizes["time"] == 6
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("warp://bucket/store.zarr", "warp.* cannot be opened as warp://"),
        ("{web}/none.zarr", "no Zarr store that can be read|no such file or store"),
        ("{web}/none.nc", "none.nc: no such file or store: check the URL"),
        ("memory://none/*.zarr", "matches no file"),
    ],
)
def test_bad_urls_give_one_line(url, message, web):
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(url.format(web=web.url))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://example.org/a.zarr", "gs://bucket/a.zarr"])
def test_a_missing_package_names_the_extra(url, monkeypatch):
    for name in ("aiohttp", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    for scheme in ("gs", "https"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(InputError, match=r"pip install 'slams-jax\[remote\]'"):
        open_dataset(url)


@pytest.mark.slow
def test_the_library_is_imported_without_the_extras():
    script = "import sys; sys.modules.update(aiohttp=None, gcsfs=None, cfgrib=None, pyarrow=None)"
    command = [sys.executable, "-W", "error", "-c", f"{script}; import slams_jax.data"]
    assert subprocess.run(command, timeout=300).returncode == 0
