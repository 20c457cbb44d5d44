import numpy as np
import pytest
import xarray as xr
import xarray_regrid  # noqa: F401 - adds the accessor `regrid`

from slams_jax.data import regrid
from slams_jax.data.regrid import default_method, global_grid, inside, same_grid
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers import open_dataset

FINE = global_grid(7.5)  # rows at the poles
CENTRED = global_grid((24, 48))  # half a row off the poles
COARSE = global_grid(15.0)
SHIFTED = Grid.of(CENTRED.latitude, [v + 3.1 for v in CENTRED.longitude])
GAUSSIAN = Grid.of(
    np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(24)[0])), np.arange(48) * 7.5
)
REGION = Grid.of(np.arange(30.0, 61.0, 2.5), np.arange(-20.0, 31.0, 2.5))
INNER = Grid.of(np.arange(36.0, 55.0, 3.0), np.arange(-12.0, 25.0, 4.0))
GLOBAL = {"fine": FINE, "centred": CENTRED, "coarse": COARSE, "shifted": SHIFTED, "g": GAUSSIAN}
PAIRS = [
    ("fine", "coarse"),
    ("coarse", "fine"),
    ("centred", "coarse"),
    ("centred", "fine"),
    ("shifted", "coarse"),
    ("g", "fine"),
    ("fine", "g"),
]


def field(grid, count=3, seed=0, name="a"):
    values = np.random.default_rng(seed).standard_normal((count, *grid.shape)).astype(np.float32)
    return on(grid, values, name)


def on(grid, values, name="a"):
    dims = ("time", "latitude", "longitude")[-np.ndim(values) :]
    coords = {"latitude": list(grid.latitude), "longitude": list(grid.longitude)}
    return xr.Dataset({name: (dims, np.asarray(values, np.float32))}, coords)


def moved(dataset, grid, method, **options):
    return regrid.regrid(dataset, grid, method=method, **options)["a"].values


def area(grid):
    lat, lon = np.sin(np.deg2rad(grid.latitude_edges())), grid.longitude_edges()
    return np.outer(np.diff(lat), np.diff(lon))


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_integral_over_the_globe_is_kept(a, b):
    source, target = GLOBAL[a], GLOBAL[b]
    values = field(source)
    before = (values["a"].values.astype(np.float64) * area(source)).sum(axis=(1, 2))
    after = (moved(values, target, "conservative").astype(np.float64) * area(target)).sum((1, 2))
    assert np.abs(before).min() > 0.5  # there is something to keep
    np.testing.assert_allclose(after, before, atol=2e-4)


@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest"])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_a_constant_stays_at_the_poles_and_the_seam(a, b, method):
    values = on(GLOBAL[a], np.full((1, *GLOBAL[a].shape), 273.16))
    np.testing.assert_allclose(moved(values, GLOBAL[b], method), np.float32(273.16), rtol=1e-7)


def brute_force(values, source, target, points=40):
    """Means over the target's cells of a field that is constant on the source's, by sampling."""
    lat_edges, lon_edges = source.latitude_edges(), source.longitude_edges()
    result, share = np.full(target.shape, np.nan), np.zeros(target.shape)
    offsets = (np.arange(points) + 0.5) / points
    sines, lons = np.sin(np.deg2rad(target.latitude_edges())), target.longitude_edges()
    for i in range(target.shape[0]):
        lat = np.rad2deg(np.arcsin(sines[i] + (sines[i + 1] - sines[i]) * offsets))
        row = np.searchsorted(lat_edges, lat, side="right") - 1
        for j in range(target.shape[1]):
            lon = lons[j] + (lons[j + 1] - lons[j]) * offsets
            lon = lon_edges[0] + np.mod(lon - lon_edges[0], 360.0)
            column = np.searchsorted(lon_edges, lon, side="right") - 1
            inside = np.outer((row >= 0) & (row < source.shape[0]), column < source.shape[1])
            cells = values[np.clip(row, 0, source.shape[0] - 1)][
                :, np.clip(column, 0, source.shape[1] - 1)
            ]
            cells = np.where(inside, cells, np.nan)
            share[i, j] = np.isfinite(cells).mean()
            if share[i, j] >= 0.5:
                result[i, j] = np.nanmean(cells)
    return result, share


@pytest.mark.parametrize(
    ("source", "target", "missing"),
    [
        (FINE, SHIFTED, 0.3),
        (CENTRED, COARSE, 0.0),
        (REGION, INNER, 0.3),
        (FINE, INNER, 0.2),
        (REGION, COARSE, 0.0),
    ],
)
def test_conservative_means_agree_with_a_brute_force_integral(source, target, missing):
    values = field(source, 1)
    values["a"].values[np.random.default_rng(1).random(values["a"].shape) < missing] = np.nan
    expected, share = brute_force(values["a"].values[0], source, target)
    found = moved(values, target, "conservative")[0]
    assert np.isfinite(expected).mean() > 0
    differ = np.isnan(found) != np.isnan(expected)
    assert np.abs(share[differ] - 0.5).max(initial=0.0) < 0.03  # no more than half known
    np.testing.assert_allclose(found[~differ], expected[~differ], atol=0.12)
    assert np.nanstd((found - expected)[~differ]) < 0.03


def test_agrees_with_xarray_regrid():
    values = field(FINE)["a"]
    target = xr.Dataset(
        coords={n: np.asarray(getattr(INNER, n)) for n in ("latitude", "longitude")}
    )
    expected = values.regrid.linear(target).transpose("time", "latitude", "longitude")
    inner = Grid.of(INNER.latitude, [v for v in INNER.longitude if v >= 0])
    found = moved(field(FINE), inner, "bilinear")
    np.testing.assert_allclose(found, expected.sel(longitude=list(inner.longitude)), atol=1e-5)
    # It weighs rows by the cosine at their centre, which comes near the area of narrow rows.
    source, coarse = field(global_grid(2.0)), global_grid(10.0)
    target = xr.Dataset(coords=on(coarse, np.zeros(coarse.shape)).coords)
    expected = source["a"].regrid.conservative(target, latitude_coord="latitude")
    found = moved(source, coarse, "conservative")
    between = expected.transpose("time", "latitude", "longitude").values[:, 2:-2]
    np.testing.assert_allclose(found[:, 2:-2], between, atol=3e-3)


def test_bilinear_is_exact_for_a_linear_function():
    lat, lon = np.meshgrid(REGION.latitude, REGION.longitude, indexing="ij")
    values = on(REGION, (2.0 + 0.5 * lat - 0.25 * lon)[None])
    lat, lon = np.meshgrid(INNER.latitude, INNER.longitude, indexing="ij")
    found = moved(values, INNER, "bilinear")[0]
    np.testing.assert_allclose(found, 2.0 + 0.5 * lat - 0.25 * lon, atol=1e-5)


@pytest.mark.parametrize("target", [FINE, global_grid((36, 50))])
def test_bilinear_is_of_second_order_over_the_globe(target):
    """Also over the seam and between the last row and the poles, where the field is smooth."""
    smooth = lambda g: (
        np.sin(np.deg2rad(g.latitude))[:, None]
        + np.cos(np.deg2rad(g.latitude))[:, None] * np.cos(np.deg2rad(g.longitude))
    )
    errors = []
    for rows in (24, 48):
        source = global_grid((rows, 2 * rows))
        found = moved(on(source, smooth(source)[None]), target, "bilinear")[0]
        errors.append(np.abs(found - smooth(target)).max())
    assert errors[1] < errors[0] / 3.0
    assert errors[1] < 3e-3


def test_nearest_takes_the_cell_that_a_point_lies_in():
    values = field(CENTRED, 1)
    found = moved(values, SHIFTED, "nearest")
    np.testing.assert_array_equal(found, values["a"].values)  # 3.1 degrees are less than half
    further = Grid.of(CENTRED.latitude, [v + 4.0 for v in CENTRED.longitude])
    np.testing.assert_array_equal(
        moved(values, further, "nearest"), np.roll(values["a"].values, -1, axis=2)
    )


def test_missing_where_less_than_half_is_known():
    values = on(CENTRED, np.ones((1, *CENTRED.shape)))
    values["a"].values[0, 10:12, 4:6] = np.nan
    target = global_grid((12, 24))
    found = moved(values, target, "conservative")
    assert np.argwhere(np.isnan(found[0])).tolist() == [[5, 2]]  # a quarter of it is known
    aligned = Grid.of(target.latitude, [v + 3.75 for v in target.longitude])
    found = moved(values, aligned, "conservative")
    assert np.argwhere(np.isnan(found[0])).tolist() == [[5, 2]]
    values["a"].values[0, 11, 4:6] = 7.0  # the row nearer to the equator is the larger
    assert moved(values, aligned, "conservative")[0, 5, 2] == 7.0  # the mean of what is known
    assert np.isnan(moved(values, aligned, "conservative", known=0.9)[0, 5, 2])


def test_a_regional_field_is_missing_outside():
    values = field(REGION, 2)
    for method in ("conservative", "bilinear", "nearest"):
        found = moved(values, COARSE, method)
        lat, lon = np.meshgrid(COARSE.latitude, COARSE.longitude, indexing="ij")
        far = (lat < 20) | (lat > 70) | ((lon > 45) & (lon < 325))
        assert np.isnan(found[:, far]).all()
        known = (lat == 45) & ((lon <= 30) | (lon >= 345))
        assert np.isfinite(found[:, known]).all()


def test_is_computed_in_blocks_where_it_is_indexed(monkeypatch):
    values = field(FINE, 20)
    whole = moved(values, COARSE, "conservative")
    asked = []
    real = regrid.apply
    monkeypatch.setattr(regrid, "apply", lambda w, v, k: asked.append(v.shape) or real(w, v, k))
    monkeypatch.setattr(
        regrid, "first_axis_blocks", lambda i, n: (slice(s, s + 3) for s in range(0, i.size, 3))
    )
    lazily = regrid.regrid(values, COARSE, method="conservative")["a"]
    assert asked == []
    np.testing.assert_array_equal(lazily[2:13:2, 4:6, ::3], whole[2:13:2, 4:6, ::3])
    assert [s[0] for s in asked] == [3, 3]
    np.testing.assert_array_equal(lazily.values, whole)


def test_levels_are_carried_along():
    values = np.random.default_rng(0).standard_normal((2, 3, *FINE.shape)).astype(np.float32)
    dims = ("time", "level", "latitude", "longitude")
    given = xr.Dataset({"a": (dims, values)}, on(FINE, values[0]).coords).assign_coords(
        level=[1, 2, 3]
    )
    found = regrid.regrid(given, COARSE, method="bilinear")
    np.testing.assert_array_equal(
        found["a"].isel(level=1), moved(on(FINE, values[:, 1]), COARSE, "bilinear")
    )


def test_methods_by_variable_and_grids_by_number():
    assert default_method("total_precipitation") == "conservative"
    assert default_method("outgoing_longwave_radiation") == "conservative"
    assert default_method("temperature") == "bilinear"
    assert global_grid(1.5).shape == (121, 240)
    assert global_grid((120, 240)).latitude[:2] == (-89.25, -87.75)
    part = inside(global_grid(5.0), REGION)
    assert part.longitude[0] == -20.0
    assert part.longitude[-1] == 30.0
    assert (part.latitude[0], part.latitude[-1]) == (30.0, 60.0)
    assert regrid.regrid(field(FINE), FINE)["a"].identical(field(FINE)["a"])
    assert same_grid(FINE, Grid.of(FINE.latitude, FINE.longitude))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regrid.regrid(field(FINE), COARSE, method="cubic"), "unknown method 'cubic'"),
        (lambda: regrid.regrid(field(FINE), COARSE, known=0.0), r"known is a share in \(0, 1"),
        (lambda: global_grid(7.0), "must divide 180"),
        (lambda: global_grid(-1.5), "must divide 180"),
        (lambda: global_grid((1, 2)), r"at least \(2, 4\)"),
        (lambda: inside(global_grid(90.0), REGION), "choose a finer one"),
        (
            lambda: regrid.regrid(field(REGION), Grid.of([-60.0, -50.0], [90.0, 100.0])),
            "does not overlap the target grid",
        ),
        (
            lambda: regrid.regrid(field(FINE), Grid.of([0.0], [1.0, 2.0])),
            "two rows and two columns",
        ),
    ],
)
def test_bad_input_gives_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_real_temperature_on_a_coarser_grid(real_data):
    path = real_data / "samples" / "ncep_temperature_20100709_17levels.nc"
    with open_dataset(path, variables=["air"], levels=[500]) as read:
        own = Grid.of(read.latitude.values, read.longitude.values)
        before = (read.temperature.values[0, 0] * area(own)).sum()
        coarse = global_grid(5.0)
        after = regrid.regrid(read, coarse, method="conservative").temperature.values[0, 0]
        np.testing.assert_allclose((after * area(coarse)).sum(), before, rtol=1e-6)
        bilinear = regrid.regrid(read, coarse).temperature.values[0, 0]
        assert np.abs(bilinear - after).max() < 4.0
        np.testing.assert_allclose(bilinear, read.temperature.values[0, 0, ::2, ::2], atol=1e-4)
