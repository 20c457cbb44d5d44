import numpy as np
import pandas as pd
import pytest

from slams_jax.data import grid_points
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers import open_dataset, read_stations
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
        ({"wide": replaced(WIDE, "20010104", "20011350")}, "is no date"),
        ({"wide": replaced(WIDE, "1.5", "warm")}, "is no number"),
        ({"wide": replaced(WIDE, "1.5", "-999")}, r"outside \[100, 400\] K"),
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
