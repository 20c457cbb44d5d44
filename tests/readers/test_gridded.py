import numpy as np
import pytest
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers import open_dataset
from slams_jax.readers.coordinates import longitude_order
from support.data_samples import LEVELS, gridded, times, write


def pascal(d):
    return d.assign_coords(level=("level", d.level.values * 100, {"units": "Pa"}))


def unitless_pascal(d):
    return d.assign_coords(level=("level", d.level.values * 100))


def celsius(d):
    return d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="degC"))


def signed_longitude(d):
    d = d.assign_coords(longitude=(d.longitude + 180) % 360 - 180).sortby("longitude")
    d.longitude.attrs["units"] = "degrees_east"
    return d


def repeated_meridian(d):
    first = d.isel(longitude=[0]).assign_coords(longitude=[360.0])
    return xr.concat([d, first], "longitude")


def attributes_only(d):
    d = d.rename(time="a", level="b", latitude="c", longitude="d", temperature="unknown")
    d.a.attrs["axis"] = "T"
    d.b.attrs["standard_name"] = "air_pressure"
    d.unknown.attrs["standard_name"] = "air_temperature"
    return d


WAYS = {
    "same": lambda d: d,
    "aliases": lambda d: d.rename(level="plev", latitude="lat", longitude="lon", temperature="T"),
    "attributes": attributes_only,
    "suffixes": lambda d: d.rename(level="level_z", latitude="lat_2", longitude="lon_2"),
    "order": lambda d: d.transpose("longitude", "level", "time", "latitude"),
    "pascal": pascal,
    "unitless pascal": unitless_pascal,
    "millibar": lambda d: d.assign_coords(level=("level", list(LEVELS), {"units": "millibar"})),
    "celsius": celsius,
    "descending": lambda d: d.isel(latitude=slice(None, None, -1), level=slice(None, None, -1)),
    "signed longitude": signed_longitude,
    "repeated meridian": repeated_meridian,
    "double": lambda d: d.astype(np.float64),
}


@pytest.mark.parametrize(
    ("way", "kind"),
    [*((way, "nc3") for way in WAYS), *(("order", k) for k in ("nc4", "zarr2", "zarr3"))],
)
def test_every_way_to_write_the_same_reads_the_same(way, kind, tmp_path):
    expected = gridded()
    expected.temperature[1, 0, 2, 3] = np.nan
    written = WAYS[way](expected)
    path = tmp_path / f"data.{kind}"
    if kind.startswith("zarr"):
        written.to_zarr(path, zarr_format=int(kind[-1]), consolidated=False)
    elif kind == "nc3":
        write(written, path, engine="scipy", format="NETCDF3_64BIT")
    else:
        write(written, path)
    with open_dataset(path, variables=["temperature"]) as read:
        assert read.temperature.dims == ("time", "level", "latitude", "longitude")
        assert read.temperature.dtype == np.float32
        for name in ("time", "level", "latitude", "longitude"):
            np.testing.assert_array_equal(read[name], expected[name])
        np.testing.assert_allclose(read.temperature, expected.temperature, atol=3e-5)
        assert read.temperature.attrs["units"] == "K"


def test_packed_integers_and_fill_values(tmp_path):
    expected = gridded()
    expected.temperature[0, 0, 0, :] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -32768}
    path = write(expected, tmp_path / "packed.nc", encoding={"temperature": packing})
    with open_dataset(path) as read:
        np.testing.assert_allclose(read.temperature, expected.temperature, atol=6e-3)


def test_undeclared_fill_values_are_missing(tmp_path):
    dataset = gridded()
    dataset.temperature[2, 1, 1, 1] = 9.96921e36
    with open_dataset(write(dataset, tmp_path / "a.nc")) as read:
        assert np.isnan(read.temperature[2, 1, 1, 1])
        assert int(np.isnan(read.temperature).sum()) == 1


def test_is_lazy_and_indexes_like_an_array(tmp_path):
    dataset = gridded(8).isel(latitude=slice(None, None, -1))
    reference = gridded(8).temperature.values
    with open_dataset(write(dataset, tmp_path / "a.nc")) as read:
        assert not read.temperature.variable._in_memory
        for key in (
            (3,),
            (slice(1, 7, 3), slice(None), 2, slice(None, None, -1)),
            (np.array([7, 0, 0]), slice(1), np.array([True, False, False, True])),
            (slice(5, 5),),
            (Ellipsis, -1),
        ):
            np.testing.assert_array_equal(
                read.temperature[key].values,
                xr.DataArray(reference, dims=read.temperature.dims)[key].values,
            )
        assert not read.temperature.variable._in_memory


def test_files_are_joined_in_time_and_variables_from_several(tmp_path):
    whole = gridded(9)
    for name, part in (("b", slice(0, 4)), ("a", slice(4, 9))):
        write(whole.isel(time=part), tmp_path / f"t_{name}.nc")
    humidity = (whole.temperature / 1e5).rename("q").assign_attrs(units="g/kg").to_dataset()
    write(humidity, tmp_path / "q.nc")
    with open_dataset(
        [str(tmp_path / "t_*.nc"), tmp_path / "q.nc"], period=("2001-01-03", "2001-01-06")
    ) as read:
        np.testing.assert_array_equal(read.time, whole.time[2:6])
        np.testing.assert_array_equal(read.temperature, whole.temperature[2:6])
        np.testing.assert_allclose(read.specific_humidity, whole.temperature[2:6] / 1e8, rtol=1e-6)


@pytest.mark.parametrize(
    ("file", "read", "order"),
    [
        ((345.0, 350.0, 355.0, 0.0, 5.0), (-15.0, -10.0, -5.0, 0.0, 5.0), (0, 1, 2, 3, 4)),
        ((-15.0, -10.0, -5.0, 0.0, 5.0), (-15.0, -10.0, -5.0, 0.0, 5.0), (0, 1, 2, 3, 4)),
        ((170.0, 175.0, -180.0, -175.0), (170.0, 175.0, 180.0, 185.0), (0, 1, 2, 3)),
        ((-180.0, -90.0, 0.0, 90.0), (0.0, 90.0, 180.0, 270.0), (2, 3, 0, 1)),
        ((-180.0, -90.0, 0.0), (-180.0, -90.0, 0.0), (0, 1, 2)),
        ((240.0, 300.0, 0.0, 60.0, 120.0, 180.0), (0.0, 60.0, 120.0, 180.0, 240.0, 300.0), None),
        (
            (260.0, 310.0, 0.0, 50.0, 100.0, 150.0, 185.0),
            (-100.0, -50.0, 0, 50, 100, 150, 185),
            None,
        ),
        ((10.0, 5.0), (5.0, 10.0), (1, 0)),
        ((0.0, 180.0, 360.0), (0.0, 180.0), (0, 1)),
    ],
)
def test_longitudes_ascend_in_one_piece(file, read, order):
    indices, longitude = longitude_order(np.array(file))
    np.testing.assert_array_equal(longitude, read)
    np.testing.assert_array_equal(np.array(file)[indices] % 360, np.array(read) % 360)
    assert order is None or tuple(indices) == order


@pytest.mark.slow
def test_folders_with_brackets_and_the_home_folder(tmp_path, monkeypatch):
    folder = tmp_path / "run[1]" / "days*"
    folder.mkdir(parents=True)
    (tmp_path / "run1").mkdir()
    whole = gridded(6)
    for part, name in ((slice(3), "a[1].nc"), (slice(3, 6), "a[2].nc")):
        write(whole.isel(time=part), folder / name)
    write(gridded(2, seed=7), tmp_path / "run1" / "a.nc")
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (
        str(folder / "*.nc"),
        "~/run[1]/days*/*.nc",
        str(tmp_path / "run[[]*" / "d*" / "a*"),
    ):
        with open_dataset(given) as read:
            np.testing.assert_array_equal(read.temperature, whole.temperature)
    with open_dataset("~/run[1]/days*/a[2].nc") as read:
        assert read.sizes["time"] == 3
    with open_dataset(str(tmp_path / "run[0-9]" / "*.nc")) as read:
        assert read.sizes["time"] == 2


@pytest.mark.parametrize("units", ["degrees K", "kelvin", 1])
def test_units_are_read_as_they_are_written(units, tmp_path):
    dataset = gridded()
    dataset.temperature.attrs["units"] = units
    path = write(dataset, tmp_path / "a.nc")
    if units == 1:
        with pytest.raises(InputError, match="temperature has units '1', not 'K'"):
            open_dataset(path)
    else:
        with open_dataset(path) as read:
            np.testing.assert_array_equal(read.temperature, dataset.temperature)


def test_pressures_in_kilopascal_and_humidity_with_units_of_one(tmp_path):
    surface = gridded().isel(level=0, drop=True)
    both = xr.Dataset(
        {
            "msl": (surface.temperature * 0.35).assign_attrs(units="kPa"),
            "q": (surface.temperature / 1e5).assign_attrs(units=np.int32(1)),
        }
    )
    with open_dataset(write(both, tmp_path / "a.nc")) as read:
        np.testing.assert_allclose(read.mean_sea_level_pressure, both.msl * 1000, rtol=1e-6)
        np.testing.assert_allclose(read.specific_humidity, both.q, rtol=1e-6)


def test_levels_and_period_are_exact(tmp_path):
    dataset = gridded()
    path = write(dataset, tmp_path / "a.nc")
    with open_dataset(path, variables="ta", levels=[1000, 500], period=("2001-01-02",) * 2) as read:
        np.testing.assert_array_equal(read.level, [500.0, 1000.0])
        np.testing.assert_array_equal(read.temperature, dataset.temperature[1:2, [0, 2]])


def test_two_vertical_dimensions(tmp_path):
    dataset = gridded()
    height = gridded(levels=(500.0, 1000.0), seed=1).rename(level="level_z", temperature="z")
    height = height.assign(z=height.z.assign_attrs(units="m2 s-2"))
    path = write(dataset.merge(height), tmp_path / "a.nc")
    with open_dataset(path, variables=["geopotential"]) as read:
        np.testing.assert_array_equal(read.level, [500.0, 1000.0])
    with open_dataset(path, levels=[500.0]) as read:
        np.testing.assert_array_equal(read.geopotential, height.z[:, :1])
        np.testing.assert_array_equal(read.temperature, dataset.temperature[:, :1])
    with pytest.raises(InputError, match="choose levels that both have"):
        open_dataset(path)


def test_surface_fields_sounders_and_members(tmp_path):
    dataset = gridded()
    surface = dataset.temperature.isel(level=0, drop=True)
    two = xr.Variable("height", [2.0], {"units": "m", "axis": "Z"})
    mixed = xr.Dataset(
        {
            "tas": surface.expand_dims(height=two),
            "tb": dataset.temperature.rename(level="sounding_channel").drop_vars(
                "sounding_channel"
            ),
            "ta": xr.concat([surface, surface + 1], "number"),
        },
    )
    with open_dataset(write(mixed, tmp_path / "a.nc")) as read:
        assert read["2m_temperature"].dims == ("time", "latitude", "longitude")
        np.testing.assert_array_equal(read["2m_temperature"], surface)
        assert read.brightness_temperature.dims == (
            "time",
            "sounding_channel",
            "latitude",
            "longitude",
        )
        np.testing.assert_array_equal(read.brightness_temperature, dataset.temperature)
        assert read.temperature.dims == ("member", "time", "latitude", "longitude")


def test_one_time_without_a_time_dimension(tmp_path):
    dataset = gridded(1).squeeze("time")
    with open_dataset(write(dataset, tmp_path / "a.nc")) as read:
        np.testing.assert_array_equal(read.time, times(1))
        np.testing.assert_array_equal(read.temperature[0], dataset.temperature)


def test_dates_of_a_calendar_without_leap_days(tmp_path):
    dataset = gridded(3).assign_coords(
        time=("time", [58, 59, 60], {"units": "days since 2004-01-01", "calendar": "noleap"})
    )
    with open_dataset(write(dataset, tmp_path / "a.nc")) as read:
        days = read.time.values.astype("datetime64[D]").astype(str).tolist()
    assert days == ["2004-02-28", "2004-03-01", "2004-03-02"]


def test_a_digest_tells_that_a_file_changed(tmp_path):
    path = write(gridded(), tmp_path / "a.nc")
    with open_dataset(path) as first, open_dataset(path) as again:
        assert first.attrs["source_digest"] == again.attrs["source_digest"]
    write(gridded(6), path)
    with open_dataset(path) as changed:
        assert first.attrs["source_digest"] != changed.attrs["source_digest"]


def spoilt(name, dataset):
    """A dataset that cannot be read, by what is wrong with it."""
    d = dataset
    unit = {"units": "days since 2001-01-01"}
    return {
        "units": d.assign(temperature=d.temperature.assign_attrs(units="furlong")),
        "celsius as K": d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="K")),
        "no dates": d.assign_coords(
            time=("time", [15.0, 45, 75, 105, 135], {"units": "days since 0"})
        ),
        "twice": d.assign_coords(time=("time", [0, 1, 1, 2, 3], unit)),
        "unsorted": d.assign_coords(time=("time", [0, 2, 1, 3, 4], unit)),
        "february 30": d.assign_coords(
            time=("time", [57, 58, 59, 60, 61], {**unit, "calendar": "360_day"})
        ),
        "sigma": d.assign_coords(level=("level", [0.5, 0.8, 1.0], {"units": "1"})),
        "model levels": gridded(levels=(1.0, 2.0, 3.0, 4.0)).assign_coords(
            level=("level", [1.0, 2.0, 3.0, 4.0])
        ),
        "metres": d.assign_coords(latitude=("latitude", [0.0, 1e5, 2e5, 3e5], {"units": "m"})),
        "curvilinear": d.drop_vars(["latitude", "longitude"]).rename(latitude="y", longitude="x"),
        "no time": d.isel(time=0, drop=True),
        "no grid": d.isel(latitude=0, drop=True),
        "level twice": d.assign_coords(level=("level", [500.0, 500.0, 850.0], {"units": "hPa"})),
        "no values": d[["time"]],
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("units", "furlong"),
        ("celsius as K", "Celsius for Kelvin"),
        ("no dates", "days since 0"),
        ("twice", "2001-01-02T00:00 twice"),
        ("unsorted", "2001-01-03T00:00 and then 2001-01-02T00:00"),
        ("february 30", "360_day"),
        ("sigma", "is not a pressure"),
        ("model levels", "is not a pressure"),
        ("metres", "not in degrees"),
        ("curvilinear", "rectangular"),
        ("no time", "neither a time dimension nor a time"),
        ("no grid", "latitude and longitude is expected|lies on a latitude-longitude grid"),
        ("level twice", "a level appears twice"),
        ("no values", "holds no variable"),
    ],
)
@pytest.mark.parametrize("variables", [None, ["temperature"]])
def test_bad_content_gives_one_line(name, message, variables, tmp_path):
    path = write(spoilt(name, gridded()), tmp_path / "bad.nc")
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(path, variables=variables)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variables": ["wind"]}, "no variable 'wind'; it has temperature"),
        ({"variables": {"temperature": "T2"}}, "no variable 'T2'; it has temperature"),
        ({"variables": []}, "variables is empty"),
        ({"levels": [500, 700]}, "no level 700 hPa: it has 500, 850, 1000 hPa"),
        ({"levels": [50000]}, r"\(0, 1100\]"),
        ({"period": ("1999", "2000")}, "none of the times, which go from 2001-01-01"),
        ({"period": ("2001-01-03", "2001-01-01")}, "before it starts"),
        ({"period": ("yesterday", "2001")}, "not two dates"),
        ({"period": "2001"}, r"must be \(start, end\)"),
    ],
)
def test_bad_selection_gives_one_line(options, message, tmp_path):
    path = write(gridded(), tmp_path / "a.nc")
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(path, **options)
    assert "\n" not in str(caught.value)


def test_levels_of_a_surface_field(tmp_path):
    path = write(gridded().isel(level=0, drop=True), tmp_path / "a.nc")
    with pytest.raises(InputError, match="no vertical dimension"):
        open_dataset(path, levels=[500])


def test_ambiguous_names_ask_which(tmp_path):
    dataset = gridded()
    path = write(dataset.rename(temperature="TEMP").assign(TA=dataset.temperature), tmp_path / "a")
    with pytest.raises(InputError, match="could be any of"):
        open_dataset(path, variables=["temperature"])
    with open_dataset(path, variables={"temperature": "TA"}) as read:
        np.testing.assert_array_equal(read.temperature, dataset.temperature)


def truncated(path, kind):
    write(gridded(40), path, **({"engine": "scipy"} if kind == "nc3" else {}))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["nc3", "nc4", "text", "empty", "grib", "folder", "none", "glob"])
def test_unreadable_files_give_one_line(kind, tmp_path):
    path = tmp_path / "data.nc"
    if kind in ("nc3", "nc4"):
        truncated(path, kind)
    elif kind == "folder":
        path.mkdir()
    elif kind == "glob":
        path = tmp_path / "*.nc"
    elif kind != "none":
        path.write_bytes({"text": b"not data\n", "empty": b"", "grib": b"GRIB\0\0\0\1"}[kind])
    message = {"none": "no such file", "glob": "matches no file", "folder": "not a Zarr store"}
    with pytest.raises(
        InputError, match=message.get(kind, "cannot be read|neither|can be read")
    ) as c:
        open_dataset(path)
    assert "\n" not in str(c.value)
    assert str(path) in str(c.value)


def test_other_damage_shows_when_it_is_read(tmp_path):
    path = tmp_path / "a.nc"
    encoding = {"temperature": {"zlib": True, "chunksizes": (1, 3, 4, 6)}}
    write(gridded(200), path, encoding=encoding)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"a\.nc"):
        open_dataset(path).load()


@pytest.mark.parametrize("change", ["grid", "dimensions", "times"])
def test_files_that_do_not_fit_together(change, tmp_path):
    write(gridded(), tmp_path / "a.nc")
    other = gridded(start="2002-01-01")
    if change == "grid":
        other = other.isel(latitude=slice(2))
    elif change == "dimensions":
        other = other.isel(level=0, drop=True)
    else:
        other = gridded(start="2001-01-03")
    write(other, tmp_path / "b.nc")
    message = {"grid": "its latitude differs", "dimensions": "dimensions", "times": "ascend"}
    with pytest.raises(InputError, match=message[change]):
        open_dataset(str(tmp_path / "?.nc"))


def test_iberia(real_data):
    path = real_data / "iberia" / "ncep_daily_1961_1995.nc"
    with open_dataset(path, variables=["T", "t2m"], period=("1961", "1995")) as read:
        assert read.temperature.shape == (12783, 4, 6, 9)
        np.testing.assert_array_equal(read.level, [500, 700, 850, 1000])
        assert (read.longitude.values[0], read.longitude.values[-1]) == (-15.0, 5.0)
        profile = read.temperature[::100].mean(("time", "latitude", "longitude")).values
        assert np.all(np.diff(profile) > 5)  # warmer below
        assert abs(float(read["2m_temperature"][::100].mean()) - profile[-1]) < 10
    with open_dataset(path, variables=["z"]) as read:
        np.testing.assert_array_equal(read.level, [500, 850, 1000])
        assert 5e4 < float(read.geopotential[0, 0].mean()) < 6e4


def test_reanalysis_samples(real_data):
    with open_dataset(real_data / "samples" / "era5_tl31_19590102T00.nc") as read:
        assert read.temperature.shape == (1, 37, 32, 64)
        assert str(read.time.values[0])[:10] == "1959-01-02"
        assert read["sea_surface_temperature"].dims == ("time", "latitude", "longitude")
        zonal = read.temperature[0, -1].mean("longitude").values
        assert zonal[14:18].min() > 295 > 270 > zonal[-1]  # equator, and the pole in January
        winds = read.u_component_of_wind.sel(level=200)[0].mean("longitude").values
        assert winds[-12:-8].max() > 15  # the northern jet
    path = real_data / "samples" / "ncep_temperature_20100709_17levels.nc"
    with open_dataset(path, variables=["air"], levels=[10, 500, 1000]) as read:
        assert read.temperature.shape == (1, 3, 73, 144)
        # July: the south pole is colder than the north pole at 10 hPa.
        assert read.temperature[0, 0, 0].mean() < read.temperature[0, 0, -1].mean()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("era40_ta_clim_3levels.nc", "days since 0"),
        ("erainterim_tas_clim_1.5deg.nc", "days since 0"),
        ("madis_rawin_20050826T00.nc", "no variable lies on a latitude-longitude grid"),
        ("metar_2020-01.parquet", "Parquet"),
        ("noaa_olr_annual_1974_2013.npz", "NumPy archive .* write NetCDF with its to_netcdf"),
    ],
)
def test_samples_without_dates_or_of_other_formats(name, message, real_data):
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(real_data / "samples" / name)
    assert "\n" not in str(caught.value)
