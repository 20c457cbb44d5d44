import numpy as np
import pandas as pd
import pytest

from slams_jax.data import grid_points
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers import from_stations, open_dataset, read_stations
from support.data_samples import records, times, write

POSITIONS = "station_id,longitude,latitude,altitude\nA1,-2.0,43.3,251\nB2,357.0,41.5,4\n"
WIDE = '"YYYYMMDD","B2","A1"\n20010101,1.5,2.5\n20010102,,NA\n20010104,-3,NaN\n'
TIDY = (
    "time,latitude,longitude,level,variable,value,error,station\n"
    "2001-01-01T12:00,50,10,850,temperature,270.0,0.5,x\n"
    "2001-01-01T12:00,50,10,500,temperature,250.0,1.0,x\n"
    "2001-01-01T00:00,50,10,850,ta,271.5,0.5,x\n"
    "2001-01-01T12:00,50,10,850,specific_humidity,0.001,0.001,x\n"
    "2001-01-01T00:00,-20,190,850,temperature,,0.5,y\n"
)


def files(folder, *, wide=WIDE, positions=POSITIONS):
    (folder / "wide.csv").write_text(wide)
    (folder / "positions.csv").write_text(positions)
    return {"path": folder / "wide.csv", "stations": folder / "positions.csv"}


def test_wide_form(tmp_path):
    read = read_stations(**files(tmp_path))
    assert read.temperature.dims == ("time", "station")
    assert read.temperature.dtype == np.float32
    nan = np.nan
    expected = np.array([[1.5, 2.5], [nan, nan], [-3, nan]]) + 273.15
    np.testing.assert_allclose(read.temperature, expected, atol=2e-5)
    assert read.station.values.tolist() == ["B2", "A1"]
    np.testing.assert_allclose(read.longitude, [-3.0, -2.0])
    np.testing.assert_allclose(read.latitude, [41.5, 43.3])
    np.testing.assert_allclose(read.altitude, [4, 251])
    np.testing.assert_array_equal(read.time, times(4)[[0, 1, 3]])


def test_tidy_form(tmp_path):
    path = tmp_path / "tidy.csv"
    path.write_text(TIDY)
    read = read_stations(path, units="K")
    nan = np.nan
    assert read.station.values.tolist() == ["x 50,10,850", "x 50,10,500", "y"]
    np.testing.assert_allclose(read.level, [850, 500, 850])
    np.testing.assert_allclose(read.longitude, [10, 10, -170])
    np.testing.assert_allclose(read.temperature, [[271.5, nan, nan], [270, 250, nan]])
    np.testing.assert_allclose(read.error, [[0.5, nan, 0.5], [0.5, 1.0, nan]])
    np.testing.assert_array_equal(read.time, times(2, hours=12))
    wet = read_stations(path, variable="q", units="g/kg")
    np.testing.assert_allclose(wet.specific_humidity, [[1e-6]], rtol=1e-6)
    np.testing.assert_allclose(wet.error, [[1e-6]], rtol=1e-6)


def test_tidy_errors_are_differences_of_temperature(tmp_path):
    path = tmp_path / "tidy.csv"
    path.write_text(
        "date,lat,lon,elevation,variable,value,error\n20010101,5,6,700,temperature,20,0.5\n"
    )
    read = read_stations(path)
    np.testing.assert_allclose(read.temperature, [[293.15]])
    np.testing.assert_allclose(read.error, [[0.5]])
    assert read.station.values.tolist() == ["5,6,700"]
    np.testing.assert_allclose(read.altitude, [700])


def test_netcdf_form(tmp_path):
    expected = records()
    read = read_stations(write(expected, tmp_path / "stations.nc"))
    for name in ("temperature", "time", "station", "latitude", "longitude", "altitude"):
        np.testing.assert_array_equal(read[name], expected[name])
    celsius = expected.assign(temperature=(expected.temperature - 273.15).assign_attrs(units="C"))
    read = read_stations(
        write(celsius.transpose(), tmp_path / "celsius.nc"), period=("2001-01-02", "2001-01-03")
    )
    np.testing.assert_allclose(read.temperature, expected.temperature[1:3], atol=3e-5)


def replaced(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wide": replaced(WIDE, "20010102", "20010101")}, "2001-01-01T00:00 twice"),
        ({"wide": replaced(WIDE, "20010104", "19990101")}, "and then 1999"),
        ({"wide": replaced(WIDE, "20010104", "20011350")}, "is not a date"),
        ({"wide": replaced(WIDE, "1.5", "warm")}, "is not a number"),
        ({"wide": replaced(WIDE, "1.5", "-999")}, r"outside \[174\.2, 345\] K"),
        ({"wide": replaced(WIDE, "B2", "C3")}, "no row for station C3"),
        ({"wide": replaced(WIDE, '"B2"', '"A1"')}, "column name appears twice|no row for"),
        ({"wide": replaced(WIDE, "YYYYMMDD", "place")}, "neither form of station records"),
        ({"wide": ""}, "not a readable CSV"),
        ({"wide": '"YYYYMMDD","A1"\n'}, "holds no rows"),
        ({"positions": replaced(POSITIONS, "43.3", "143.3")}, "A1 has latitude 143.3"),
        ({"positions": replaced(POSITIONS, "357.0", "757.0")}, "B2 has longitude 757"),
        ({"positions": replaced(POSITIONS, "41.5", "")}, "B2 has latitude nan"),
        ({"positions": replaced(POSITIONS, "altitude", "a")}, "no column 'altitude'"),
        ({"positions": replaced(POSITIONS, "B2", "A1")}, "A1 appears twice"),
    ],
)
def test_bad_wide_files_give_one_line(change, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        read_stations(**files(tmp_path, **change))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("0.5,x\n2001-01-01T12:00,50,10,500", "-0.5,x\n2001-01-01T12:00,50,10,500", {}, "negative"),
        ("250.0,1.0", "250.0,0.0", {}, "negative, zero or missing"),
        ("250.0,1.0", "250.0,", {}, "negative, zero or missing"),
        ("10,500,", "10,850,", {}, "appears twice at 2001-01-01T12:00"),
        ("-20,190", ",190", {}, "has no position"),
        ("-20,190", "-120,190", {}, "latitude -120"),
        ("10,500,", "10,50000,", {}, "level 50000"),
        ("270.0", "27.0", {}, "Celsius for Kelvin"),
        ("270.0", "270.0", {"units": "degC"}, "its units or signs are wrong"),
        ("270.0", "270.0", {"units": "mm"}, "has units 'mm'"),
        ("270.0", "270.0", {"variable": "wind"}, "no row of variable 'wind'"),
        ("270.0", "270.0", {"period": ("1999", "2000")}, "none of the times"),
        (",level,", ",depth,", {}, "exactly one of the columns altitude"),
        ("longitude", "east", {}, "no column 'longitude'"),
    ],
)
def test_bad_tidy_files_give_one_line(old, new, options, message, tmp_path):
    path = tmp_path / "tidy.csv"
    path.write_text(replaced(TIDY, old, new))
    with pytest.raises(InputError, match=message) as caught:
        read_stations(path, **{"units": "K", **options})
    assert "\n" not in str(caught.value)


def test_other_bad_station_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_stations(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no such file"):
        read_stations(tmp_path / "none.nc")
    with pytest.raises(InputError, match="name the file with"):
        read_stations(files(tmp_path)["path"])
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match=r"binary\.csv"):
        read_stations(tmp_path / "binary.csv")
    path = write(records().rename(temperature="wind"), tmp_path / "wind.nc")
    with pytest.raises(InputError, match="no variable 'temperature'; it has wind"):
        read_stations(path)
    path = write(records().drop_vars("latitude"), tmp_path / "lost.nc")
    with pytest.raises(InputError, match="no coordinate 'latitude'"):
        read_stations(path)


# --- units, names, errors and positions of stations ----------------------------------------------


def test_units_of_every_row(tmp_path):
    path = tmp_path / "tidy.csv"
    path.write_text(
        "time,lat,lon,elevation,variable,value,units,error,station\n"
        "2001-01-01,5,6,700,temperature,50,degF,1.8,a\n"
        "2001-01-01,5,7,700,temperature,10,degC,1,b\n"
        "2001-01-01,5,8,700,temperature,283.15,K,1,c\n"
        "2001-01-01,5,9,700,tp,25,mm,1,d\n"
    )
    read = read_stations(path)
    np.testing.assert_allclose(read.temperature, [[283.15] * 3], rtol=1e-6)
    np.testing.assert_allclose(read.error, [[1.0] * 3], rtol=1e-6)
    np.testing.assert_allclose(read_stations(path, variable="tp").total_precipitation, [[0.025]])
    path.write_text(path.read_text().replace("degF", "furlong"))
    with pytest.raises(InputError, match="has units 'furlong'"):
        read_stations(path)
    path.write_text(path.read_text().replace("furlong", ""))
    with pytest.raises(InputError, match="column 'units' is empty in line 2"):
        read_stations(path)


def by_other_names(d):
    d = d.rename(time="date", latitude="lat", longitude="lon", altitude="elevation")
    return d.rename_dims(station="site").rename_vars(station="wmo_id").transpose()


def by_cf(d):
    d = d.rename(latitude="a", longitude="b", altitude="c", temperature="obs", station="d")
    for name, standard in {
        "a": "latitude",
        "b": "longitude",
        "c": "surface_altitude",
        "obs": "air_temperature",
    }.items():
        d[name].attrs["standard_name"] = standard
    d.d.attrs["cf_role"] = "timeseries_id"
    return d.assign_coords(height=((), 2.0, {"standard_name": "height", "units": "m"}))


def in_feet(d):
    altitude = ("station", d.altitude.values / 0.3048, {"units": "ft"})
    return d.assign_coords(altitude=altitude)


STATION_FORMS = {
    "own": lambda d: d,
    "other names": by_other_names,
    "CF": by_cf,
    "altitude in feet": in_feet,
    "degF": lambda d: d.assign(
        temperature=((d.temperature - 273.15) * 1.8 + 32).assign_attrs(units="degF")
    ),
    "moving, but at rest": lambda d: d.assign_coords(latitude=d.latitude.expand_dims(time=d.time)),
    "microseconds off": lambda d: d.assign_coords(time=d.time - np.timedelta64(3, "us")),
    "data variables": lambda d: d.reset_coords(["latitude", "longitude", "altitude"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", STATION_FORMS)
def test_station_datasets_read_alike_from_memory_and_files(form, tmp_path):
    expected = records()
    given = STATION_FORMS[form](expected)
    with_file = read_stations(write(given, tmp_path / "stations.nc"))
    for read in (from_stations(given), with_file):
        np.testing.assert_allclose(read.temperature, expected.temperature, rtol=1e-6)
        np.testing.assert_array_equal(read.station, expected.station)
        np.testing.assert_array_equal(read.time, expected.time)
        for name in ("latitude", "longitude", "altitude"):
            assert read[name].dims == ("station",)
            np.testing.assert_allclose(read[name], expected[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("dims", "values", "attrs", "expected"),
    [
        ((), 0.5, {}, 0.5),
        (("station",), [0.5, 1.0, 2.0], {}, [0.5, 1.0, 2.0]),
        (("time",), [0.5, 1.0, 2.0, 3.0], {}, [[0.5], [1.0], [2.0], [3.0]]),
        (("station", "time"), np.full((3, 4), 0.9), {"units": "degF"}, 0.5),
    ],
)
def test_errors_of_any_shape(dims, values, attrs, expected, tmp_path):
    given = records().assign(error=(dims, values, attrs))
    for read in (from_stations(given), read_stations(write(given, tmp_path / "a.nc"))):
        assert read.error.dims == ("time", "station")
        np.testing.assert_allclose(read.error, np.broadcast_to(expected, (4, 3)), rtol=1e-6)
    with pytest.raises(InputError, match="an error is negative, zero or missing"):
        from_stations(given.assign(error=-given.error))


def ships(count=4):
    """Three ships that sail east, one of which does not report at the second time."""
    step = np.arange(count)[:, None]
    start = records(count)
    return start.assign_coords(
        latitude=(("time", "station"), start.latitude.values + 0.1 * step),
        longitude=(("time", "station"), (start.longitude.values + 20.0 * step) % 360),
    )


def test_positions_that_change_with_time(tmp_path):
    given = ships()
    gap = given.latitude.where(given.temperature.notnull())
    for dataset in (given, given.assign_coords(latitude=gap), given.transpose()):
        for read in (from_stations(dataset), read_stations(write(dataset, tmp_path / "a.nc"))):
            assert read.latitude.dims == ("time", "station")
            known = np.isfinite(read.temperature.values)
            np.testing.assert_allclose(
                read.latitude.values[known], given.latitude.values[known], rtol=1e-12
            )
            np.testing.assert_allclose(
                np.mod(read.longitude, 360), given.longitude.values, atol=1e-9
            )
            assert read.altitude.dims == ("station",)
        (tmp_path / "a.nc").unlink()
    lost = given.assign_coords(latitude=given.latitude.where(given.longitude != 90.0))
    lost.longitude.values[2, 0] = 90.0
    lost = lost.assign_coords(latitude=given.latitude.where(lost.longitude != 90.0))
    with pytest.raises(InputError, match="station a has latitude nan"):
        from_stations(lost)


def test_one_platform_along_time_alone(tmp_path):
    one = ships().isel(station=0)
    for given in (one, one.drop_vars("station")):
        read = read_stations(write(given, tmp_path / f"{len(given.coords)}.nc"))
        assert read.temperature.dims == ("time", "station")
        np.testing.assert_array_equal(read.temperature[:, 0], given.temperature)
        np.testing.assert_allclose(read.latitude[:, 0], given.latitude)


def test_moving_platforms_fall_into_the_cells_where_they_are():
    grid = Grid((-45.0, -15.0, 15.0, 45.0), (0.0, 60.0, 120.0, 180.0, 240.0, 300.0))
    field = grid_points(from_stations(ships()), grid, times(4), "temperature").temperature.values
    found = [tuple(np.argwhere(field[t] == np.float32(280 + 3 * t))[0].tolist()) for t in range(4)]
    assert found == [(2, 0), (2, 0), (2, 0), (2, 1)]  # from 10 W by 20 degrees a time
    assert np.isfinite(field[1]).sum() == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign_coords(station=["a", " ", "c"]), "station 2 of 3 has no name"),
        (lambda d: d.expand_dims(sensor=2), r"dimensions \(.*\), expected \(time, station\)"),
        (lambda d: d.drop_vars("time"), "dimension time has no times"),
        (lambda d: d.drop_vars("longitude"), "no coordinate 'longitude'"),
        (
            lambda d: d.assign_coords(altitude=d.altitude.assign_attrs(units="furlong")),
            "altitude has units 'furlong', not m, km or ft",
        ),
        (
            lambda d: d.assign_coords(latitude=np.deg2rad(d.latitude).assign_attrs(units="radian")),
            "latitude has units 'radian', not degrees",
        ),
        (lambda d: d.assign(temperature=d.temperature.fillna(-9999.0)), "reaches -9999 K"),
        (
            lambda d: d.assign(temperature=(d.temperature * 0 - 99.9).assign_attrs(units="degC")),
            r"reaches 173.25 K, outside \[174\.2, 345\] K",
        ),
        (lambda d: d.isel(time=[1, 0, 2, 3]), "must ascend"),
        (lambda d: d.assign(ta=d.temperature), "several variables are 'temperature'"),
    ],
)
def test_bad_station_datasets_give_one_line(change, message, tmp_path):
    given = change(records())
    path = write(given, tmp_path / "stations.nc")
    for attempt in (lambda: from_stations(given), lambda: read_stations(path)):
        with pytest.raises(InputError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_an_unknown_variable_needs_a_range(tmp_path):
    wind = records().rename(temperature="wind")
    wind["wind"] = wind.wind / 20
    path = write(wind, tmp_path / "wind.nc")
    with pytest.raises(InputError, match=r"wind is not a variable .* plausible="):
        read_stations(path, variable="wind")
    assert float(read_stations(path, variable="wind", plausible=(0, 100)).wind.max()) > 14
    with pytest.raises(InputError, match=r"wind reaches 14.* outside \[0, 12\]"):
        read_stations(path, variable="wind", plausible=(0, 12))
    wind.wind.attrs |= {"valid_min": 0.0, "valid_max": 100.0}
    assert float(from_stations(wind, variable="wind").wind.max()) > 14
    wind.wind[0, 0] = -99.0
    with pytest.raises(InputError, match="wind reaches -99"):
        from_stations(wind, variable="wind")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.5,x\n2001-01-01T12:00,50,10,500", "0.5,\n2001-01-01T12:00,50,10,500", "line 2"),
        ("2001-01-01T00:00,-20", "now,-20", "'now', which is not a date"),
        ("2001-01-01T00:00,-20", "2001.5,-20", "'2001.5', which is not a date"),
        ("2001-01-01T00:00,-20", "today,-20", "'today', which is not a date"),
    ],
)
def test_blank_names_and_words_for_dates(old, new, message, tmp_path):
    path = tmp_path / "tidy.csv"
    path.write_text(replaced(TIDY, old, new))
    with pytest.raises(InputError, match=message):
        read_stations(path, units="K")


def test_blank_names_in_wide_tables(tmp_path):
    blank = replaced(POSITIONS, "B2,", ",")
    with pytest.raises(InputError, match="column 'station_id' is empty in line 3"):
        read_stations(**files(tmp_path, positions=blank))
    with pytest.raises(InputError, match="column 3 has no name"):
        read_stations(**files(tmp_path, wide=replaced(WIDE, '"A1"', '""')))


GRID = Grid((-45.0, -15.0, 15.0, 45.0), (0.0, 60.0, 120.0, 180.0, 240.0, 300.0))


def test_grid_points_gives_cell_means():
    stations = records()
    wanted = np.concatenate([times(1, "2000-12-31"), times(3)])
    field = grid_points(stations, GRID, wanted, "temperature").temperature
    expected = np.full((4, 4, 6), np.nan, dtype=np.float32)
    # (10, -10) and (15, 65) stand in two cells, (-30, 170) half-way between rows goes to the first.
    expected[1:, 2, 0] = stations.temperature[:3, 0]
    expected[1:, 2, 1] = stations.temperature[:3, 1]
    expected[1:, 0, 3] = stations.temperature[:3, 2]
    np.testing.assert_array_equal(field, expected)
    np.testing.assert_array_equal(field[2, 2], expected[2, 2])
    np.testing.assert_array_equal(field[1:, :, 3], expected[1:, :, 3])


def test_grid_points_averages_what_is_not_missing():
    stations = records().assign_coords(
        latitude=("station", [10.0, 11.0, 12.0]), longitude=("station", [1.0, 359.0, -5.0])
    )
    field = grid_points(stations, GRID, times(2), "temperature").temperature.values
    np.testing.assert_allclose(field[:, 2, 0], [281.0, 283.5])
    assert np.isfinite(field).sum() == 2


def test_grid_points_at_edges():
    region = Grid((35.0, 37.5, 40.0), (-15.0, -12.5, -10.0))

    def at(lat, lon, grid):
        s = (
            records()
            .isel(station=[0])
            .assign_coords(latitude=("station", [lat]), longitude=("station", [lon]))
        )
        values = grid_points(s, grid, times(1), "temperature").temperature.values[0]
        return tuple(np.argwhere(np.isfinite(values))[0].tolist())

    assert at(41.2, 346.0, region) == (2, 0)
    assert at(89.0, 0.0, Grid((-60.0, 0.0, 60.0), GRID.longitude)) == (2, 0)
    for lat, lon in ((41.3, -12.0), (40.0, -8.7), (40.0, 170.0)):
        with pytest.raises(InputError, match="outside the domain"):
            at(lat, lon, region)
    with pytest.raises(InputError, match="share no time"):
        grid_points(records(), GRID, times(3, hours=24, start="2001-01-01T12"), "temperature")
    with pytest.raises(InputError, match="no 'wind'"):
        grid_points(records(), GRID, times(3), "wind")


def test_iberian_stations(real_data):
    folder = real_data / "iberia"
    metadata = folder / "gsn_stations.csv"
    mean = read_stations(folder / "gsn_tmean.csv", stations=metadata)
    low = read_stations(folder / "gsn_tmin.csv", stations=metadata)
    rain = read_stations(folder / "gsn_precip.csv", stations=metadata, variable="tp", units="mm")
    assert mean.sizes == {"time": 6209, "station": 6}
    raw = pd.read_csv(folder / "gsn_tmean.csv")
    np.testing.assert_array_equal(np.isnan(mean.temperature), raw.iloc[:, 1:].isna())
    np.testing.assert_allclose(mean.temperature - 273.15, raw.iloc[:, 1:], atol=1e-4)
    assert float((mean.temperature - low.temperature).mean()) > 2
    assert 0 < float(rain.total_precipitation.mean()) < 0.01
    assert int(mean.temperature.mean("time").values.argmin()) == int(mean.altitude.values.argmax())
    with open_dataset(folder / "ncep_daily_1961_1995.nc", variables=["t2m"]) as model:
        grid = Grid.of(model.latitude.values, model.longitude.values)
        field = grid_points(mean, grid, model.time.values, "temperature").temperature
        assert int(np.isfinite(field[0]).sum()) == 0
        values, background = field[7000].values, model["2m_temperature"][7000].values
        there = np.isfinite(values)
        assert there.sum() == 5  # two of the six share a cell
        assert np.abs(values - background)[there].mean() < 6
