import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from slams_jax.data import grid_points
from slams_jax.dynamics import (
    Convection,
    GaugesConfig,
    ImperfectConvection,
    MoistConfig,
    MoistForecastConfig,
    MoistRun,
    RadiosondesConfig,
    StationsConfig,
    moist,
    moist_ensemble,
    moist_run,
    nature,
    nature_run,
)
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import Points, standard_pressure
from slams_jax.readers import open_dataset, read_stations
from slams_jax.schema import channels_of

pytestmark = pytest.mark.optimised  # days of the model, each of which takes long


def needs_jcm(test):
    """`make test` installs the package, and runs these; building the model takes a while."""
    absent = importlib.util.find_spec("jcm") is None
    how = "pip install --no-deps -r requirements/moist.txt"
    return pytest.mark.slow(pytest.mark.skipif(absent, reason=f"jcm is not installed: {how}")(test))


# One model, with the default convection, for truth and backgrounds: it is compiled once.
CONVECTION = ImperfectConvection(**dataclasses.asdict(Convection()))
MODEL = MoistConfig(convection=CONVECTION)
CYCLE = MoistForecastConfig(spin_up=1, soundings=20, members=3, convection=CONVECTION)
GAUGES = GaugesConfig(count=150, clusters=0, missing=0.2)


def short(cache, **changes):
    values = {
        "model": MODEL,
        "days": 4,
        "spin_up": 2,
        "forecast": CYCLE,
        "gauges": GAUGES,
        **changes,
    }
    return MoistRun(
        stations=StationsConfig(30, 0), radiosondes=RadiosondesConfig(5), cache=str(cache), **values
    )


@pytest.mark.slow
def test_interpolation_to_pressure():
    sigma = (0.05, 0.2, 0.5, 0.9)
    surface = jnp.array([[1000.0, 900.0], [1030.0, 600.0]])
    pressure = jnp.asarray(sigma)[:, None, None] * surface[None]
    levels = (10.0, 100.0, 300.0, 500.0, 925.0)
    found = moist.on_pressure(250.0 + 7.0 * jnp.log(pressure), surface, sigma, levels)
    # Linear in log-pressure between the layers; below the lowest, the standard lapse rate.
    expected = np.broadcast_to(250.0 + 7.0 * np.log(levels), (2, 2, 5)).copy()
    expected[..., 0] = 250.0 + 7.0 * np.log(pressure[0])
    lowest = 0.9 * np.asarray(surface)
    base = 250.0 + 7.0 * np.log(lowest)
    expected[..., 4] = np.where(
        lowest < 925.0, base * (925.0 / lowest) ** 0.19026, expected[..., 4]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # From 540 to 925 hPa are some 4.9 km of 6.5 K.
    assert 28.0 < found[1, 1, 4] - base[1, 1] < 35.0


@pytest.fixture(scope="module")
def earth():
    return moist.moist_atmosphere(MODEL)


@pytest.fixture(scope="module")
def january(earth):
    """(state, means) of three days from the restart."""
    days, state = [], earth.start(jax.random.key(0), 0)
    for _ in range(3):
        state, means = earth.day(state)
        days.append((state, means))
    return days


def assert_same(one, other, tolerance):
    """But for rounding: their distance is small beside their variations."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    assert np.sqrt(np.mean((one - other) ** 2)) <= tolerance * np.std(other)


def area_mean(earth, field):
    return float((np.asarray(field) * earth.grid.area_weights()).sum()) / float(
        earth.grid.area_weights().sum()
    )


@needs_jcm
def test_land_and_mountains_are_where_they_should_be(earth):
    assert earth.grid.shape == earth.land.shape == (32, 64)
    assert 0.25 < area_mean(earth, earth.land) < 0.35
    at = lambda field, lat, lon: float(field[earth.grid.nearest(lat, lon)])
    assert at(earth.land, 50.0, 80.0) > 0.9
    assert at(earth.land, -22.0, 133.0) > 0.9
    assert at(earth.land, 0.0, 200.0) < 0.1
    assert at(earth.orography, 33.0, 90.0) > 3000.0
    assert abs(at(earth.orography, 0.0, 200.0)) < 50.0


@needs_jcm
def test_a_day_has_the_climate_of_the_evidence(earth, january):
    means = january[-1][1]
    rain, longwave = np.asarray(means.precipitation), np.asarray(means.longwave)
    assert rain.min() >= 0.0
    assert 1.8 < area_mean(earth, rain) < 3.4
    assert 210.0 < area_mean(earth, longwave) < 240.0
    tropics = np.abs(np.asarray(earth.grid.latitude)) < 20
    assert rain[tropics].mean() > 2 * rain[np.abs(np.asarray(earth.grid.latitude)) > 60].mean()
    # Deep cloud is cold at its top: where it rains, less radiation leaves the tropics.
    assert np.corrcoef(rain[tropics].ravel(), longwave[tropics].ravel())[0, 1] < -0.4
    layers = np.asarray(means.temperature)
    assert layers.shape == (8, 32, 64)
    assert 280.0 < area_mean(earth, layers[-1]) < 292.0
    assert np.all((layers > 120.0) & (layers < 330.0))
    winds = earth.nodal(january[-1][0])
    assert 25.0 < np.asarray(winds.zonal_wind)[2].mean(axis=-1).max() < 60.0  # 200 hPa
    assert np.asarray(winds.specific_humidity).max() < 0.03


@needs_jcm
def test_air_is_conserved(earth, january):
    mass = [area_mean(earth, means.surface_pressure) for _, means in january]
    assert 990.0 < mass[0] < 1010.0
    np.testing.assert_allclose(mass, mass[0], rtol=2e-4)


@needs_jcm
def test_the_calendar_turns_the_seasons(earth, january):
    """From the same state, northern land is warmed in July and cooled in January."""
    state = january[0][0]
    north = (np.asarray(earth.grid.latitude) > 40)[:, None] & (earth.land > 0.9)
    low = {
        day: np.asarray(earth.day(state._replace(day=jnp.int32(day)))[1].temperature)[-1][north]
        for day in (1, 183)
    }
    assert low[183].mean() > low[1].mean() + 3.0
    assert int(january[0][0].day) == 1


@needs_jcm
def test_seeds_start_a_ripple_apart(earth):
    one, other = (earth.nodal(earth.start(jax.random.key(k), -5)) for k in (0, 1))
    apart = np.asarray(one.temperature - other.temperature)
    # Half of the noise is on scales that the truncation drops.
    assert 0.2 < apart.std() < 1.0
    np.testing.assert_allclose(one.zonal_wind, other.zonal_wind, atol=1e-2)


@needs_jcm
def test_a_restart_is_what_was_saved(earth, january, tmp_path, monkeypatch):
    state = january[1][0]
    moist.save_restart({21: state}, tmp_path / "restart.npz")
    monkeypatch.setattr(moist, "RESTARTS", tmp_path / "restart.npz")
    started = earth.start(jax.random.key(0), 7)
    assert int(started.day) == 7
    saved, ripple = earth.nodal(state), earth.nodal(started).temperature
    assert 0.1 < np.asarray(ripple - saved.temperature).std() < 0.7
    for name in ("zonal_wind", "specific_humidity", "surface_pressure"):
        assert_same(getattr(earth.nodal(started), name), getattr(saved, name), 1e-5)


def test_restarts_of_every_truncation_come_with_the_library():
    assert moist.RESTARTS.stat().st_size < 1e6
    with np.load(moist.RESTARTS, allow_pickle=False) as file:
        assert {name.split("_")[0] for name in file.files} == {"T21", "T31"}
        assert all(np.isfinite(file[name]).all() for name in file.files)
        assert file["T31_vorticity"].shape == (8, 63, 33)


@needs_jcm
def test_increments_on_the_grid_lead_from_state_to_state(earth, january):
    first, last = january[0][0], january[2][0]
    fields = earth.nodal(last)
    increment = jax.tree.map(jnp.subtract, fields, earth.nodal(first))
    nothing = earth.add(first, jax.tree.map(jnp.zeros_like, increment))
    jax.tree.map(lambda a, b: assert_same(a, b, 1e-5), nothing, first)
    reached = earth.nodal(earth.add(first, increment))
    for name, moved in increment._asdict().items():
        # The smallest scale of wind on the grid is beyond the truncation of the spectrum.
        left = getattr(reached, name) - getattr(fields, name)
        assert np.asarray(left).std() < 0.1 * np.asarray(moved).std(), name


@needs_jcm
def test_a_perfect_model_has_perfect_backgrounds(earth, tmp_path):
    """So truth and background are of the same day."""
    forecast = MoistForecastConfig(spin_up=1, soundings=5, members=2, variance=1e-12)
    told = []
    truth, background = moist_run.generate(
        short(tmp_path, days=3, forecast=forecast),
        earth,
        earth,
        jax.random.key(0),
        tmp_path,
        report=lambda *stage: told.append(stage),
    )
    assert truth.temperature.shape == (3, 32, 64, 8)
    for one, other in zip(truth, background, strict=True):
        # Rounding may make a shower begin a step later: it is nearer than another day by far.
        assert np.std(one - other) < 0.2 * np.std(one[1:] - one[:-1])
    np.testing.assert_allclose(truth.temperature, background.temperature, atol=0.5)
    assert ("truth and backgrounds", 4, 4) in told
    assert ("climate of the imperfect model", 7, 7) in told


@needs_jcm
def test_backgrounds_come_from_another_model(earth, tmp_path, monkeypatch):
    built = lambda config: dataclasses.replace(earth, config=config)
    monkeypatch.setattr(moist, "moist_atmosphere", built)

    def generate(run, truth, imperfect, *_, **__):
        assert truth.config == MODEL
        assert imperfect.config == MoistConfig(convection=ImperfectConvection())
        raise InputError("seen")

    monkeypatch.setattr(moist_run, "generate", generate)
    with pytest.raises(InputError, match="seen"):
        nature_run(
            short(tmp_path, forecast=dataclasses.replace(CYCLE, convection=ImperfectConvection()))
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that was killed in its second chunk, and resumed."""
    run = short(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moist_run, "CHUNK", 2)
        work, calls = moist_run._cycle, []

        def killed(*arguments, **options):
            calls.append(arguments)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return work(*arguments, **options)

        patch.setattr(moist_run, "_cycle", killed)
        with pytest.raises(KeyboardInterrupt):
            nature_run(run)
        assert len(calls) == 3  # spin-up, days 0 and 1, and those that were lost
        result = nature_run(run)
        assert len(calls) == 4
    return result


@needs_jcm
def test_four_days_are_two_and_two_bit_for_bit(folder, tmp_path, monkeypatch):
    again = nature_run(short(tmp_path))  # in one chunk
    for file in ("state", "background", "gauges", "olr"):
        with (
            xr.open_dataset(folder / f"{file}.nc") as one,
            xr.open_dataset(again / f"{file}.nc") as other,
        ):
            xr.testing.assert_identical(one, other)
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]
    monkeypatch.setattr(nature, "moist_data", lambda *_: pytest.fail("generated again"))
    assert nature_run(short(tmp_path)) == again


@needs_jcm
def test_files_hold_what_the_readers_expect(folder):
    levels = (30.0, 500.0, 925.0)
    state = open_dataset(folder / "state.nc", variables=("temperature",), levels=levels)
    assert state.temperature.shape == (4, 3, 32, 64)
    assert str(state.time.values[0])[:10] == "2000-01-01"
    with xr.open_dataset(folder / "state.nc") as file:
        assert file.total_precipitation.attrs["units"] == "mm"
        assert file.outgoing_longwave_radiation.attrs["units"] == "W m-2"
        assert file.surface_pressure.attrs["units"] == "Pa"
        assert 9e4 < float(file.surface_pressure.mean()) < 1.02e5
    background = open_dataset(folder / "background.nc", variables=("temperature",), levels=levels)
    error = (background.temperature - state.temperature).values
    assert np.all((np.std(error, axis=(0, 2, 3)) > 0.01) & (np.std(error, axis=(0, 2, 3)) < 3.0))
    with xr.open_dataset(folder / "surface.nc") as surface:
        assert 0.0 <= float(surface.land_sea_mask.min()) < float(surface.land_sea_mask.max()) <= 1.0
    olr = open_dataset(folder / "olr.nc", variables=("outgoing_longwave_radiation",))
    truth = open_dataset(folder / "state.nc", variables=("outgoing_longwave_radiation",))
    departure = (olr - truth).outgoing_longwave_radiation.values
    assert 0.02 < np.isnan(departure).mean() < 0.3
    np.testing.assert_allclose(np.nanstd(departure), 5.0, rtol=0.05)


@needs_jcm
def test_gauges_stand_on_land_and_measure_their_cells(folder):
    gauges = read_stations(folder / "gauges.nc", variable="total_precipitation")
    rain = open_dataset(folder / "state.nc", variables=("total_precipitation",))
    grid = Grid.of(rain.latitude.values, rain.longitude.values)
    cells = grid.nearest(gauges.latitude.values, gauges.longitude.values)
    with xr.open_dataset(folder / "surface.nc") as surface:
        assert surface.land_sea_mask.values[cells].min() >= 0.5
        highest = surface.orography.values[cells].max()
    assert float(gauges.altitude.max()) == pytest.approx(highest, rel=1e-4)
    truth = rain.total_precipitation.values[:, *cells] * 1e3  # mm
    values = gauges.total_precipitation.values * 1e3
    assert 0.1 < np.isnan(values).mean() < 0.3
    wet = values > 0.0
    assert np.all(values[wet] >= 0.1 - 1e-4)
    ratio = np.log(values[wet & (truth > 1.0)] / truth[wet & (truth > 1.0)])
    assert ratio.size > 60
    np.testing.assert_allclose(ratio.std(), 0.5, rtol=4 / np.sqrt(2 * ratio.size))
    np.testing.assert_allclose(ratio.mean(), -0.125, atol=4 * 0.5 / np.sqrt(ratio.size))
    # The gauge analysis: the mean of the gauges of a cell, missing elsewhere.
    analysis = grid_points(gauges, grid, rain.time.values, "total_precipitation")
    analysis = analysis.total_precipitation.values
    for day, row, column in np.argwhere(np.isfinite(analysis)):
        here = values[day, (cells[0] == row) & (cells[1] == column)]
        np.testing.assert_allclose(analysis[day, row, column] * 1e3, np.nanmean(here), rtol=1e-5)
    assert 300 < np.isfinite(analysis).sum() < np.isfinite(values).sum()


@needs_jcm
def test_stations_and_radiosondes_measure_the_state(folder):
    with xr.open_dataset(folder / "state.nc") as file:
        state = file.temperature.load()
    grid = Grid.of(state.latitude.values, state.longitude.values)
    columns = jnp.asarray(np.moveaxis(state.values, 1, -1))
    for name, error in (("stations", 0.5), ("soundings", 0.7)):
        data = read_stations(folder / f"{name}.nc")
        if name == "stations":
            pressure = standard_pressure(data.altitude.values)
        else:
            pressure = data.level.values
            assert set(pressure) == set(moist.LEVELS)
        operator = Points.at(
            grid,
            channels_of(["temperature"], moist.LEVELS),
            data.latitude.values,
            data.longitude.values,
            pressure,
        )
        departure = data.temperature.values - np.asarray(operator(columns))
        departure = departure[np.isfinite(departure)]
        np.testing.assert_allclose(departure.std(), error, rtol=5 / np.sqrt(2 * departure.size))
        assert abs(departure.mean()) < 4 * error / np.sqrt(departure.size)


@pytest.fixture(scope="module")
def season(earth):
    """Four members of the climate of a May, from days next to one another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moist_ensemble, "SETTLE", 1)
        return moist_ensemble.climate(earth, moist.LEVELS, jax.random.key(0), day=130, count=4)


@needs_jcm
def test_members_of_a_climate_are_dated_alike_and_forecast_one_by_one(earth, season):
    assert season.count == 4
    np.testing.assert_array_equal(season.states.day, 130)
    assert season.means.temperature.shape == (4, 32, 64, 8)
    # Days next to one another are alike, and no two are the same.
    apart = np.std(np.diff(np.asarray(season.means.temperature), axis=0), axis=(1, 2, 3))
    assert np.all((apart > 0.1) & (apart < 5.0))
    later = moist_ensemble.forecasts(earth, moist.LEVELS)(season, jax.random.key(1))
    np.testing.assert_array_equal(later.states.day, 131)
    one, means = earth.day(jax.tree.map(lambda x: x[2], season.states))
    for found, expected in zip(jax.tree.leaves(later.states), jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(found[2], expected)
    np.testing.assert_array_equal(later.means.longwave[2], means.longwave)


@needs_jcm
def test_columns_hold_states_and_means_and_lead_back(earth, season):
    columns = moist_ensemble.columns_of(earth, season)
    assert columns.shape == (4, 32 * 64, 4 * 8 + 1 + 8 + 3)
    state, means = moist_ensemble.fields_of(earth, columns)
    for name in moist.Nodal._fields:
        expected = jax.vmap(earth.nodal)(season.states)
        np.testing.assert_array_equal(getattr(state, name), getattr(expected, name))
    np.testing.assert_array_equal(means.temperature, season.means.temperature)
    np.testing.assert_allclose(means.precipitation, season.means.precipitation, atol=1e-4)
    same = moist_ensemble.moved(earth, season, columns, columns)
    kept = moist_ensemble.columns_of(earth, same)
    np.testing.assert_allclose(kept[..., :8], columns[..., :8], atol=1e-3)
    # Warmer by one kelvin, and drier than is possible.
    changed = columns.at[..., :8].add(1.0).at[..., 24:32].add(-1.0)
    after, _ = moist_ensemble.fields_of(
        earth,
        moist_ensemble.columns_of(earth, moist_ensemble.moved(earth, season, columns, changed)),
    )
    np.testing.assert_allclose(after.temperature - state.temperature, 1.0, atol=1e-3)
    dry = np.asarray(after.specific_humidity)
    assert dry.min() > -0.1 * np.asarray(state.specific_humidity).max()
    assert np.abs(dry).mean() < 0.1 * np.asarray(state.specific_humidity).mean()


@needs_jcm
def test_bad_ensembles_of_the_climate(earth):
    with pytest.raises(InputError, match="at least 2 members"):
        moist_ensemble.climate(earth, moist.LEVELS, jax.random.key(0), day=0, count=1)
