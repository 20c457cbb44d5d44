"""Files as their producers lay them out: ChaosBench, SLAMS, CPC, NOAA OLR, GRIB, MADIS."""

import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import daily, open_dataset, read_stations
from support.data_samples import LEVELS, cpc_year, gridded, times, write

LATITUDE = tuple(np.linspace(90.0, -90.0, 7))
LONGITUDE = tuple(np.arange(0.0, 360.0, 30.0))

# --- one Zarr store a day ----------------------------------------------------------------------


def chaosbench(folder, count=4, *, with_time=True, start="2000-02-27"):
    """Daily stores of several variables on levels, latitude from the north, as ERA5 has it."""
    whole = gridded(count, latitude=LATITUDE, longitude=LONGITUDE, levels=LEVELS[::-1], start=start)
    whole = whole.rename(temperature="t")
    whole["z"] = whole.t.drop_attrs() * 20
    for day in range(count):
        one = whole.isel(time=day)
        name = f"era5_full_1.5deg_{str(one.time.values)[:10].replace('-', '')}.zarr"
        one = one if with_time else one.drop_vars("time")
        one.to_zarr(folder / name, zarr_format=2, consolidated=True)
    return whole.t.sortby("latitude").sortby("level")


@pytest.mark.slow
@pytest.mark.parametrize("with_time", [True, False])
def test_chaosbench_days_are_one_dataset(with_time, tmp_path):
    expected = chaosbench(tmp_path, with_time=with_time)
    with open_dataset(str(tmp_path / "*.zarr"), variables=["temperature"], levels=LEVELS) as read:
        np.testing.assert_array_equal(read.time, expected.time)
        np.testing.assert_array_equal(read.temperature, expected)
        np.testing.assert_array_equal(read.temperature[2:, 1, ::2], expected[2:, 1, ::2])
    with open_dataset(
        str(tmp_path / "*.zarr"),
        variables=["geopotential"],
        period=("2000-02-29", "2000-03"),
    ) as read:
        assert str(read.time.values[0])[:10] == "2000-02-29"
        np.testing.assert_allclose(read.geopotential, expected[2:] * 20, rtol=1e-6)


def test_days_are_opened_when_they_are_read(tmp_path, monkeypatch):
    expected = chaosbench(tmp_path, 6)
    opened = []
    monkeypatch.setattr(
        daily, "open_file", lambda p, real=daily.open_file, **o: opened.append(p) or real(p, **o)
    )
    with open_dataset(str(tmp_path / "*.zarr"), variables=["temperature"]) as read:
        assert read.sizes["time"] == 6
        assert len(opened) <= 1  # for a look at its units
        opened.clear()
        np.testing.assert_array_equal(read.temperature[3], expected[3])
    assert [p.name for p in opened] == ["era5_full_1.5deg_20000301.zarr"]


def _loaded(path):
    return xr.open_zarr(path).load().drop_encoding()


def other_day(path):
    _loaded(path).assign_coords(time=times(1)[0]).to_zarr(path, mode="w", zarr_format=2)


def other_grid(path):
    store = _loaded(path)
    store.assign_coords(longitude=store.longitude + 1).to_zarr(path, mode="w", zarr_format=2)


def other_units(path):
    store = _loaded(path)
    store["t"].attrs["units"] = "degC"
    store.to_zarr(path, mode="w", zarr_format=2)


def without_it(path):
    _loaded(path).drop_vars("t").to_zarr(path, mode="w", zarr_format=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*[Cc]onsolidated")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_day, "20000229.zarr: holds 2001-01-01.*say 2000-02-29"),
        (other_grid, "20000229.zarr: dimensions, coordinates or units of t differ"),
        (other_units, "20000229.zarr: dimensions, coordinates or units of t differ"),
        (without_it, "20000229.zarr: no variable 't'"),
    ],
)
def test_a_day_unlike_the_others_is_refused_when_it_is_read(change, message, tmp_path):
    chaosbench(tmp_path)
    change(tmp_path / "era5_full_1.5deg_20000229.zarr")
    with (
        open_dataset(str(tmp_path / "*.zarr"), variables=["temperature"]) as read,
        pytest.raises(InputError, match=message) as caught,
    ):
        read.load()
    assert "\n" not in str(caught.value)


def test_the_first_day_must_be_what_its_name_says(tmp_path):
    chaosbench(tmp_path)
    (tmp_path / "era5_full_1.5deg_20000227.zarr").rename(
        tmp_path / "era5_full_1.5deg_19991231.zarr"
    )
    with pytest.raises(InputError, match=r"holds 2000-02-27.*name says 1999-12-31"):
        open_dataset(str(tmp_path / "*.zarr"))


def test_dated_stores_of_many_times_are_joined_as_ever(tmp_path):
    whole = gridded(9)
    for part, name in ((slice(4), "20010101"), (slice(4, 9), "20010105")):
        whole.isel(time=part).to_zarr(tmp_path / f"run_{name}.zarr", zarr_format=2)
    with open_dataset(str(tmp_path / "*.zarr")) as read:
        np.testing.assert_array_equal(read.temperature, whole.temperature)


def test_the_climatology_of_chaosbench_is_no_field(tmp_path):
    statistics = xr.Dataset(
        {n: (("param", "level"), np.ones((2, 3))) for n in ("mean", "sigma")},
        {"param": ["t", "z"], "level": [10, 500, 1000]},
    )
    statistics.to_zarr(tmp_path / "climatology_era5.zarr", zarr_format=2)
    with pytest.raises(InputError, match=r"no variable lies on .* it has mean, sigma"):
        open_dataset(tmp_path / "climatology_era5.zarr")


def test_variables_of_a_store_come_in_alphabetical_order(tmp_path):
    """A store without consolidated metadata lists its arrays as its directory does."""
    whole = gridded(3)
    names = ("wind", "cloud", "moisture")
    several = xr.Dataset({n: whole.temperature.drop_attrs() for n in names})
    several.to_zarr(tmp_path / "several.zarr", zarr_format=2, consolidated=False)
    with open_dataset(tmp_path / "several.zarr") as read:
        assert list(read) == sorted(names)
        assert set(read.coords) == set(whole.coords)


def test_slams_days_of_precipitation_and_radiation(tmp_path):
    """As SLAMS made them: missing gauges are 0, a day of OLR is dated by the mean of its two."""
    for day, date in enumerate(("20000101", "20000102")):
        for name, prefix, units, hour in (
            ("precip", "cpc_precip", "mm", 0),
            ("olr", "noaa_olr", "W/m^2", 6),
        ):
            values = np.full((7, 12), 3.0 + day, np.float32)
            xr.Dataset(
                {name: (("lat", "lon"), values, {"units": units} if name == "olr" else {})},
                {
                    "lat": np.linspace(90, -90, 7),
                    "lon": np.arange(12) * 30.0,
                    "time": np.datetime64(f"2000-01-0{day + 1}T0{hour}", "ns"),
                },
            ).to_zarr(tmp_path / f"{prefix}_1.5deg_{date}.zarr", zarr_format=2)
    pattern = str(tmp_path / "cpc_precip_*.zarr")
    with open_dataset(pattern, variables=["precip"], units="mm") as rain:
        np.testing.assert_allclose(rain.total_precipitation[:, 0, 0], [0.003, 0.004])
    with open_dataset(str(tmp_path / "noaa_olr_*.zarr")) as olr:
        assert [str(t)[:13] for t in olr.time.values] == ["2000-01-01T06", "2000-01-02T06"]
        np.testing.assert_allclose(olr.outgoing_longwave_radiation[:, 3, 4], [3.0, 4.0])


# --- CMIP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "flux"),
    [("kg m-2 s-1", 1e-4), ("mm/day", 8.64), ("mm day-1", 8.64), ("mm h-1", 0.36), ("m s-1", 1e-7)],
)
def test_precipitation_of_a_climate_model(tmp_path, units, flux):
    time = np.array(["2000-01-01T12", "2000-01-02T12"], "datetime64[ns]")
    where = {"lat": np.linspace(90, -90, 7), "lon": np.arange(12) * 30.0, "time": time}
    name = "precipitation_flux"
    about = {"units": units, "standard_name": name, "cell_methods": "time: mean"}
    pr = (("time", "lat", "lon"), np.full((2, 7, 12), flux, np.float32), about)
    rlut = {"units": "W m-2", "standard_name": "toa_outgoing_longwave_flux"}
    olr = (("time", "lat", "lon"), np.full((2, 7, 12), 240.0, np.float32), rlut)
    xr.Dataset({"pr": pr, "rlut": olr}, where).to_netcdf(tmp_path / "day.nc")
    with open_dataset(tmp_path / "day.nc") as read:
        np.testing.assert_allclose(read[name], 1e-4, rtol=1e-6)
        assert read[name].attrs["units"] == "kg m-2 s-1"
        assert list(read) == [name, "outgoing_longwave_radiation"]


# --- yearly NetCDF of NOAA PSL -----------------------------------------------------------------


def test_cpc_years(tmp_path):
    for year in (2000, 2001):
        cpc_year(tmp_path / f"precip.{year}.nc", year)
    with open_dataset(str(tmp_path / "precip.*.nc"), variables=["total_precipitation"]) as read:
        rain = read.total_precipitation
        assert [str(t)[:10] for t in rain.time.values[[0, 3]]] == ["2000-01-01", "2001-01-01"]
        assert np.isnan(rain[:, :, 10:]).all()
        np.testing.assert_allclose(rain[0, -1, :10], np.arange(10) * 0.5e-3, rtol=1e-6)
        assert rain.attrs["units"] == "m"


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_olr_twice_a_day_packed(engine, tmp_path):
    """olr.2xdaily: shorts at 0.01 W/m2 offset by 327.65, 32766 where missing, half a day apart."""
    packed = np.arange(4 * 6 * 9, dtype=np.int16).reshape(4, 6, 9)
    packed[1, 2, 3] = 32766
    hours = 12.0 * np.arange(4) + (
        np.datetime64("2000-01-01") - np.datetime64("1800-01-01")
    ).astype("m8[h]").astype(float)
    dataset = xr.Dataset(
        {
            "olr": (
                ("time", "lat", "lon"),
                packed,
                {
                    "add_offset": np.float32(327.65),
                    "scale_factor": np.float32(0.01),
                    "missing_value": np.int16(32766),
                    "units": "W/m^2",
                    "long_name": "Outgoing Longwave Radiation",
                },
            )
        },
        {
            "time": ("time", hours, {"units": "hours since 1800-01-01 00:00:0.0"}),
            "lat": ("lat", np.linspace(90, -90, 6, dtype="f4"), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(9, dtype="f4") * 40, {"units": "degrees_east"}),
        },
    )
    path = write(dataset, tmp_path / "olr.2xdaily.1979-2022.nc", engine=engine)
    with open_dataset(path, variables=["olr"]) as read:
        olr = read.outgoing_longwave_radiation
        assert [str(t)[:13] for t in olr.time.values[:2]] == ["2000-01-01T00", "2000-01-01T12"]
        assert np.argwhere(np.isnan(olr.values)).tolist() == [[1, 3, 3]]
        np.testing.assert_allclose(olr[0, -1, :3], 327.65 + 0.01 * np.arange(3), atol=1e-3)
        assert olr.attrs["units"] == "W m-2"


# --- GRIB --------------------------------------------------------------------------------------


def grib(path, messages):
    """Regular grids of 30 degrees.

    Each message is (edition, shortName, level or None, day, value) and perhaps further keys.
    """
    eccodes = pytest.importorskip("eccodes")
    with path.open("wb") as file:
        for edition, short, level, day, value, *more in messages:
            sample = "regular_ll_pl_grib2" if edition == 2 else "regular_ll_pl_grib1"
            handle = eccodes.codes_grib_new_from_samples(sample)
            keys = {
                "Ni": 12,
                "Nj": 7,
                "latitudeOfFirstGridPointInDegrees": 90.0,
                "latitudeOfLastGridPointInDegrees": -90.0,
                "longitudeOfFirstGridPointInDegrees": 0.0,
                "longitudeOfLastGridPointInDegrees": 330.0,
                "iDirectionIncrementInDegrees": 30.0,
                "jDirectionIncrementInDegrees": 30.0,
                "date": 20000101 + day,
                "time": 1200,
                "typeOfLevel": "surface" if level is None else "isobaricInhPa",
                "level": level or 0,
                "shortName": short,
                **(more[0] if more else {}),
            }
            for key, wanted in keys.items():
                eccodes.codes_set(handle, key, wanted)
            rows = value + np.repeat(np.arange(7.0), 12)
            eccodes.codes_set_values(handle, rows)
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("edition", [1, 2])
def test_grib_of_several_hypercubes(edition, tmp_path):
    path = grib(
        tmp_path / "a.grib",
        [
            *(
                (edition, "t", level, day, 200.0 + 10 * day + i)
                for day in range(2)
                for i, level in enumerate((500, 850))
            ),
            *((edition, "z", 500, day, 5e4) for day in range(2)),
            *((edition, "sp", None, day, 1e5) for day in range(2)),
        ],
    )
    before = sorted(p.name for p in tmp_path.iterdir())
    with open_dataset(path, variables=["temperature", "sp"]) as read:
        assert [str(t)[:13] for t in read.time.values] == ["2000-01-01T12", "2000-01-02T12"]
        np.testing.assert_array_equal(read.level, [500.0, 850.0])
        # Latitude ascends: the southernmost row was written last.
        np.testing.assert_allclose(
            read.temperature[1, 1, :, 0], 211.0 + np.arange(7)[::-1], atol=0.01
        )
        assert read["surface_pressure"].dims == ("time", "latitude", "longitude")
    with open_dataset(path, variables=["geopotential"], levels=[500]) as read:
        np.testing.assert_allclose(read.geopotential[0, 0, -1], 5e4, atol=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == before  # no index beside it


@pytest.mark.parametrize("edition", [1, 2])
def test_two_grib_messages_for_one_time_are_refused(edition, tmp_path):
    """Forecasts of 36 h and of 12 h from a day later are valid at the same time."""
    path = grib(
        tmp_path / "twice.grib",
        [
            (edition, "t", 500, 0, 250.0, {"endStep": 36}),
            (edition, "t", 500, 1, 260.0, {"endStep": 12}),
            (edition, "t", 850, 1, 270.0, {"endStep": 12}),
        ],
    )
    with pytest.raises(InputError, match=r"t appears twice at 2000-01-03T00:00, .* steps 12, 36"):
        open_dataset(path)
    copies = grib(tmp_path / "copies.grib", [(edition, "t", 500, 0, 250.0)] * 2)
    with pytest.raises(InputError, match="t appears twice at 2000-01-01T12:00"):
        open_dataset(copies)
    ahead = [(edition, "t", 500, 0, 250.0 + step, {"endStep": step}) for step in (0, 6, 12)]
    with open_dataset(grib(tmp_path / "steps.grib", ahead)) as read:
        assert [str(t)[:13] for t in read.time.values[[0, 2]]] == ["2000-01-01T12", "2000-01-02T00"]
        np.testing.assert_allclose(read.temperature[:, 0, -1, 0], [250, 256, 262], atol=0.01)


def test_grib_of_one_model_level_is_refused(tmp_path):
    path = grib(tmp_path / "a.grib", [(2, "t", 137, 0, 250.0, {"typeOfLevel": "hybrid"})])
    with pytest.raises(InputError, match=r"vertical dimension hybrid .* is not a pressure"):
        open_dataset(path)


def test_bad_grib_gives_one_line(tmp_path, monkeypatch):
    path = grib(tmp_path / "a.grib", [(2, "t", 500, day, 250.0) for day in range(3)])
    whole = path.read_bytes()
    for name, data in {"cut": whole[:-20], "torn": whole[:60] + bytes(40) + whole[100:]}.items():
        (tmp_path / f"{name}.grib").write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.grib: ") as caught:
            open_dataset(tmp_path / f"{name}.grib").load()
        assert "\n" not in str(caught.value)
    twice = grib(tmp_path / "b.grib", [(2, "t", 500, 0, 250.0), (2, "t", None, 0, 250.0)])
    with pytest.raises(InputError, match="t is on two kinds of levels"):
        open_dataset(twice)
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(InputError, match=r"pip install 'slams-jax\[grib\]'"):
        open_dataset(path)


@pytest.mark.slow
def test_grib_of_ten_members(real_data):
    path = real_data / "samples" / "era5-levels-members.grib"
    with open_dataset(path, variables=["temperature"], levels=[500, 850]) as read:
        assert read.temperature.shape == (10, 4, 2, 61, 120)
        assert [str(t)[:13] for t in read.time.values[:2]] == ["2017-01-01T00", "2017-01-01T12"]
        mean = read.temperature[:2].mean(("member", "time", "latitude", "longitude"))
        assert 240 < mean[0] < mean[1] - 8 < 280


# --- MADIS -------------------------------------------------------------------------------------


def rawin(path, late=0.0, shift=0.0):
    """Three soundings on four mandatory levels; the first level is the surface."""
    fill = np.float32(99999.0)
    man = lambda values, units, bounds: (
        ("recNum", "manLevel"),
        np.float32(values),
        {"units": units, "valid_range": bounds},
    )
    attrs = {"units": "seconds since (1970-1-1 00:00:0.0)"}
    noon = 1.1250144e9
    dataset = xr.Dataset(
        {
            "wmoStaNum": ("recNum", np.int32([72208, 99999, 72208])),
            "staName": ("recNum", np.array([b"CHS   ", b"XYZ   ", b"CHS   "])),
            "staLat": ("recNum", np.float32([32.9, -10.0, 32.9]), {"units": "degrees_north"}),
            "staLon": ("recNum", np.float32([-80.03, 200.0, -80.03]), {"units": "degrees_east"}),
            "staElev": ("recNum", np.float32([15.0, 5.0, 15.0]), {"units": "meter"}),
            "synTime": ("recNum", np.array([noon, noon, noon]) + shift, attrs),
            "relTime": ("recNum", np.array([noon, noon + late, noon]) + shift, attrs),
            "prMan": man(
                [[1003, 1000, 850, fill], [1010, 1000, 850, 500], [1003, 1000, 850, fill]],
                "hectopascal",
                [1.0, 1500.0],
            ),
            "tpMan": man(
                [[302, 301, 290, 250], [299, 298, fill, 150], [302, 300.5, 290, fill]],
                "kelvin",
                [173.0, 373.0],
            ),
        }
    )
    fills = {v: {"_FillValue": fill} for v in ("prMan", "tpMan", "staLat", "staLon")}
    return write(dataset, path, engine="scipy", format="NETCDF3_CLASSIC", encoding=fills)


def test_radiosondes_are_points_on_levels(tmp_path):
    rawin(tmp_path / "a.nc")
    rawin(tmp_path / "b.nc", shift=43200.0)
    read = read_stations(str(tmp_path / "?.nc"))
    assert read.temperature.dims == ("time", "station")
    assert [str(t)[:13] for t in read.time.values] == ["2005-08-26T00", "2005-08-26T12"]
    series = dict(
        zip(
            zip(read.latitude.values, read.level.values, strict=True),
            read.temperature.values[0],
            strict=True,
        )
    )
    # The correction counts; fill values, 150 K and the surface level do not.
    expected = {(32.9, 1000.0): 300.5, (32.9, 850.0): 290.0, (-10.0, 1000.0): 298.0}
    assert {k: pytest.approx(v) for k, v in expected.items()} == series
    assert read.longitude.values.min() == -160.0
    assert "altitude" not in read.coords
    assert {str(s).split()[0] for s in read.station.values} == {"72208", "XYZ"}


def test_radiosondes_released_late_are_left_out(tmp_path):
    read = read_stations(rawin(tmp_path / "a.nc", late=4 * 3600.0))
    assert set(read.latitude.values) == {32.9}


def test_real_radiosondes(real_data):
    read = read_stations(real_data / "samples" / "madis_rawin_20050826T00.nc")
    assert read.sizes["time"] == 1
    assert read.sizes["station"] > 4000
    at = lambda level: read.temperature[0].values[read.level.values == level]
    assert 100 < at(500.0).size < 600
    north = read.latitude.values[read.level.values == 500.0] > 0
    assert 255 < np.median(at(500.0)[north]) < 275
    assert 200 < np.median(at(100.0)) < 215
    assert set(np.unique(read.level)) <= {
        1.0,
        2.0,
        3.0,
        5.0,
        7.0,
        10.0,
        20.0,
        30.0,
        50.0,
        70.0,
        100.0,
        150.0,
        200.0,
        250.0,
        300.0,
        400.0,
        500.0,
        700.0,
        850.0,
        925.0,
        1000.0,
    }
    heights = read_stations(
        real_data / "samples" / "madis_rawin_20050826T00.nc", variable="geopotential"
    )
    assert 5e4 < np.nanmedian(heights.geopotential[0].values[heights.level.values == 500.0]) < 6e4


def metar(path):
    hour = pd.Timestamp("2020-01-01")
    rows = [  # station, minutes from the hour, received, temperature, flag
        ("KNY0", -5, 1, 270.0, "V"),
        ("KNY0", 10, 2, 271.0, "V"),
        ("KNY0", 55, 3, 272.0, "S"),
        ("LTDA", 0, 1, 280.0, "Q"),
        ("LTDA", 12, 2, 281.0, "C"),
        ("EBCI", 0, 1, 275.0, "V"),
        ("EBCI", 0, 9, 276.0, "V"),
        ("NZCM", 0, 1, 274.0, "Z"),
    ]
    minutes = [pd.Timedelta(minutes=r[1]) for r in rows]
    pd.DataFrame(
        {
            "stationName": [r[0] for r in rows],
            "latitude": np.float32([42.98 if r[0] == "KNY0" else 36.35 for r in rows]),
            "longitude": np.float32([-74.33 if r[0] == "KNY0" else 36.28 for r in rows]),
            "elevation": np.float32(100.0),
            "timeObs": [hour + m for m in minutes],
            "timeNominal": [hour + m.round("h") for m in minutes],
            "timeReceived": [hour + pd.Timedelta(hours=r[2]) for r in rows],
            "temperature": np.float32([r[3] for r in rows]),
            "temperatureDD": [r[4] for r in rows],
        }
    ).to_parquet(path)
    return path


def test_metars_that_passed_nearest_to_the_hour(tmp_path):
    read = read_stations(metar(tmp_path / "a.parquet"))
    hours = [str(t)[11:13] for t in read.time.values]
    found = {
        (str(s), hours[i]): float(v)
        for i, row in enumerate(read.temperature.values)
        for s, v in zip(read.station.values, row, strict=True)
        if np.isfinite(v)
    }
    # Questioned (Q) and unchecked (Z) values do not count; of two at one time the later received.
    assert found == {
        ("KNY0", "00"): 270.0,
        ("KNY0", "01"): 272.0,
        ("LTDA", "00"): 281.0,
        ("EBCI", "00"): 276.0,
    }
    np.testing.assert_array_equal(read.altitude, 100.0)


def test_real_metars(real_data):
    path = real_data / "samples" / "metar_2020-01.parquet"
    read = read_stations(path)
    assert read.temperature.shape == (744, 12)
    table = pd.read_parquet(path)
    questioned = table[(table.temperatureDD == "Q")]
    assert len(questioned) > 0
    values = read.temperature.values
    assert 250 < np.nanmin(values) < np.nanmax(values) < 310
    for row in questioned.itertuples():
        same = (table.stationName == row.stationName) & (table.timeNominal == row.timeNominal)
        others = table[same & (table.temperatureDD != "Q")]
        if others.empty:
            at = list(read.station.values).index(row.stationName)
            assert np.isnan(read.temperature.sel(time=row.timeNominal).values[at])
    with pytest.raises(InputError, match="METARs are read for"):
        read_stations(path, variable="total_precipitation")


def test_bad_station_files_give_one_line(tmp_path, monkeypatch):
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(metar(tmp_path / "a.parquet").read_bytes()[:500])
    pd.DataFrame({"stationName": ["a"]}).to_parquet(tmp_path / "other.parquet")
    (tmp_path / "c.csv").write_text("time\n")
    nothing = xr.open_dataset(rawin(tmp_path / "s.nc"), engine="scipy", decode_times=False).load()
    write(nothing.drop_vars("synTime"), tmp_path / "d.nc", engine="scipy")
    for given, options, message in (
        (torn, {}, "torn.parquet: not a readable table of METARs"),
        (tmp_path / "other.parquet", {}, "other.parquet: not a readable table of METARs"),
        ([tmp_path / "a.parquet", tmp_path / "c.csv"], {}, "only radiosondes and METARs"),
        (tmp_path / "d.nc", {}, "without synTime"),
        (tmp_path / "s.nc", {"variable": "specific_humidity"}, "radiosondes are read for"),
        (tmp_path / "none.parquet", {}, "no such file"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_stations(given, **options)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'slams-jax\[parquet\]'"):
        read_stations(tmp_path / "a.parquet")
