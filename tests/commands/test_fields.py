"""What commands make of files that mean something other than they seem to: right values."""

import numpy as np
import pytest

from configs import held_suarez
from experiments.configuration.fields import located, open_fields
from experiments.configuration.settings import DataSettings, FieldSettings, read
from slams_jax.data import build_archive
from slams_jax.errors import InputError
from slams_jax.readers import open_dataset
from support.data_samples import gridded, times, write

DAY = np.timedelta64(24, "h")
PERIODS = {
    "train": ("2001-01-01", "2001-01-03"),
    "validation": ("2001-01-04", "2001-01-04"),
    "test": ("2001-01-05", "2001-01-06"),
}


def archive(root, **fields):
    """What `experiments.prepare` reads and writes of a configuration's data."""
    settings = DataSettings(
        root=str(root),
        state=FieldSettings("state.nc"),
        background=fields.pop("background", None),
        variables=("temperature",),
        levels=(500.0, 850.0),
        modalities=fields,
        periods=PERIODS,
    )
    opened, _ = open_fields(root, settings)
    return build_archive(root / "cache", {}, opened).fields


def test_a_forecast_background_is_dated_by_its_validity(tmp_path):
    """As cfgrib writes it: `time` is the start, a day before the values are valid."""
    truth = gridded(6)
    write(truth, tmp_path / "state.nc")
    start = (
        "time",
        times(6) - DAY,
        {"standard_name": "time", "long_name": "initial time of forecast"},
    )
    valid = ("time", times(6), {"standard_name": "time", "long_name": "time"})
    step = ((), 24.0, {"standard_name": "forecast_period", "units": "hours"})
    forecast = truth.assign_coords(time=start, step=step, valid_time=valid)
    write(forecast, tmp_path / "forecast.nc")
    fields = archive(tmp_path, background=FieldSettings("forecast.nc"))
    np.testing.assert_array_equal(fields["background"].array, fields["state"].array)
    write(forecast.drop_vars(["valid_time"]).assign(step=24.0), tmp_path / "open.nc")
    with pytest.raises(InputError, match="lead time step has units ''"):
        archive(tmp_path, background=FieldSettings("open.nc"))


@pytest.mark.filterwarnings("ignore:.*[Cc]onsolidated")
def test_dry_days_and_times_off_by_microseconds_stay(tmp_path):
    """Zeros of rain in a Zarr 2 store, and hours that are stored as fractions of a day."""
    write(gridded(6), tmp_path / "state.nc")
    rain = gridded(6).isel(level=0, drop=True)
    values = np.where(np.arange(24).reshape(4, 6) % 3, 0.0, 6.0).astype(np.float32)
    days = (times(6) - np.datetime64("1900-01-01", "ns")) / np.timedelta64(1, "D")
    stored = ("time", days + 4e-11, {"units": "days since 1900-01-01"})
    dims = ("time", "latitude", "longitude")
    rain = rain.assign(tp=(dims, np.broadcast_to(values, (6, 4, 6)), {"units": "mm"}))[["tp"]]
    rain.assign_coords(time=stored).to_zarr(
        tmp_path / "rain.zarr",
        zarr_format=2,
        consolidated=False,
        encoding={"tp": {"_FillValue": 0.0}},  # Zarr's own default
    )
    fields = archive(tmp_path, rain=FieldSettings("rain.zarr", variable="total_precipitation"))
    assert np.isfinite(fields["rain"].array).all()
    np.testing.assert_allclose(fields["rain"].array.mean(), 0.002, rtol=1e-6)


def test_a_ship_and_rows_of_several_units_reach_the_grid(tmp_path):
    write(gridded(6), tmp_path / "state.nc")
    (tmp_path / "ship.csv").write_text(
        "time,lat,lon,elevation,variable,value,units,station\n"
        "2001-01-01,20,0,0,temperature,50,degF,ship\n"
        "2001-01-02,20,60,0,temperature,11,degC,ship\n"
        "2001-01-03,20,120,0,temperature,285.15,K,ship\n"
    )
    ship = FieldSettings("ship.csv", variable="temperature", stations=True)
    values = archive(tmp_path, ship=ship)["ship"].array[..., 0]
    assert np.isfinite(values).sum() == 3
    np.testing.assert_allclose(values[[0, 1, 2], 2, [0, 1, 2]], [283.15, 284.15, 285.15], rtol=1e-6)


def test_home_folders_in_the_paths_of_a_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("data", ("~/a.nc", "b.nc")) == [str(tmp_path / "a.nc"), "data/b.nc"]
    assert located("gs://bucket", "a.zarr") == ["gs://bucket/a.zarr"]
    config = held_suarez.get_config()
    config.workdir, config.data.root, config.data.cache = "~/run", "~/data[1]", "~/cache"
    settings = read(config)
    folders = (settings.workdir, settings.data.root, settings.data.cache)
    assert folders == tuple(str(tmp_path / name) for name in ("run", "data[1]", "cache"))


@pytest.mark.parametrize("home", [False, True])
def test_brackets_in_the_root_are_no_pattern(home, tmp_path, monkeypatch):
    """A pattern below `data[1]` finds the files there, not those of `data1`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("data[1]", "data1"):
        (tmp_path / name).mkdir()
    write(gridded(3), tmp_path / "data[1]" / "state_a.nc")
    write(gridded(6).isel(time=slice(3, None)), tmp_path / "data[1]" / "state_b.nc")
    write(gridded(2), tmp_path / "data1" / "state_c.nc")
    path = "~/data[1]/state_*.nc" if home else "state_*.nc"
    root = tmp_path / ("data1" if home else "data[1]")
    opened = open_dataset(located(root, path), variables=("temperature",))
    np.testing.assert_array_equal(opened["time"], times(6))
