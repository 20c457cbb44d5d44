"""Coastlines, maps of errors, and figures of reliability and scale: the right numbers, in place."""

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.verify import coastlines, diagrams, maps

GLOBE = Grid.of(np.linspace(-85.0, 85.0, 18).tolist(), np.arange(0.0, 360.0, 20.0).tolist())
IBERIA = Grid.of(np.linspace(32.5, 45.0, 6).tolist(), np.linspace(-12.5, 7.5, 9).tolist())
LEVELS = np.array([10.0, 100.0, 500.0, 1000.0])


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def mesh(axis):
    return next(a for a in axis.collections if isinstance(a, QuadMesh))


# --- coastlines --------------------------------------------------------------------------------


def test_coastlines_are_small_and_where_the_coasts_are():
    assert coastlines.FILE.stat().st_size < 100_000
    lines = coastlines.coastlines()
    points = np.concatenate(lines)
    assert len(lines) > 100
    assert np.abs(points[:, 0]).max() <= 180
    assert -90 <= points[:, 1].min() < -80  # Antarctica
    assert points[:, 1].max() > 80
    # No line jumps across the map, and none runs along its edge.
    for line in lines:
        assert np.abs(np.diff(line[:, 0])).max() < 30
        edge = np.abs(np.abs(line[:, 0]) - 180) < 0.02
        assert not np.any(edge[1:] & edge[:-1])
    for longitude, latitude in ((-9.5, 38.8), (18.5, -34.1), (-80.1, 25.2), (151.3, -33.6)):
        # Cabo da Roca, the Cape, Florida, Sydney, within two degrees: the scale is 1:110 million.
        distance = np.hypot(points[:, 0] - longitude, points[:, 1] - latitude)
        assert distance.min() < 2.0
    for longitude, latitude in ((-30.0, 0.0), (-140.0, -30.0), (80.0, -20.0)):  # open ocean
        distance = np.hypot(points[:, 0] - longitude, points[:, 1] - latitude)
        assert distance.min() > 5.0


@pytest.mark.parametrize("grid", [GLOBE, IBERIA], ids=["globe", "region"])
def test_coastlines_are_drawn_in_the_longitudes_of_the_map(grid):
    error = {"analysis": np.ones(grid.shape)}
    plain, drawn = (
        panels(maps.error_maps(grid, error, coastlines=wanted))[0] for wanted in (False, True)
    )
    assert len(plain.lines) == 0
    assert drawn.get_xlim() == plain.get_xlim()
    assert drawn.get_ylim() == plain.get_ylim()
    west, east = drawn.get_xlim()
    points = drawn.lines[0].get_xydata()
    inside = (west <= points[:, 0]) & (points[:, 0] <= east)
    nearest = lambda place: np.hypot(*(points[inside] - place).T).min()
    if grid is GLOBE:  # from 10 W to 350 E: Florida lies at 280 E there
        assert inside.sum() > 4500
        assert nearest([279.9, 25.2]) < 2.0
    assert nearest([-9.4, 38.7]) < 2.0  # Lisbon
    # The pen is lifted between lines: nothing crosses the map.
    assert np.nanmax(np.abs(np.diff(points[:, 0]))) < 30


def test_all_six_maps_have_coastlines_when_wanted():
    field = np.ones(GLOBE.shape)
    given = dict.fromkeys(("truth", "background", "analysis", "spread"), field)
    for axis in panels(maps.analysis_maps(GLOBE, **given, coastlines=True)):
        assert max(len(line.get_xdata()) for line in axis.lines) > 4500


# --- maps and sections -------------------------------------------------------------------------


def test_errors_share_one_scale_about_zero():
    rng = np.random.default_rng(0)
    errors = {
        "Background": rng.standard_normal(IBERIA.shape),
        "Analysis": np.full(IBERIA.shape, 0.5),
    }
    errors["Background"][0, 0] = -7.0
    figure = maps.error_maps(IBERIA, errors, title="850 hPa")
    for axis, (name, error) in zip(panels(figure), errors.items(), strict=True):
        np.testing.assert_array_equal(mesh(axis).get_array(), error)
        assert mesh(axis).get_clim() == (-7.0, 7.0)
        assert axis.get_title().startswith(f"{name}, RMSE ")
    assert panels(figure)[1].get_title() == "Analysis, RMSE 0.50 K"
    assert figure.axes[-1].get_xlabel() == "Error (K)"


def test_fields_have_scales_of_their_own():
    fields = {
        "gauges": np.full(IBERIA.shape, np.nan),
        "olr": np.linspace(200, 300, 54).reshape(6, 9),
    }
    fields["gauges"][2, :4] = [0.0, 1.0, 2.0, 3.0]
    units = {"gauges": "mm", "olr": "W m-2"}
    figure = maps.field_maps(IBERIA, fields, units=units, title="Inputs")
    gauges, olr = panels(figure)
    assert (mesh(gauges).get_clim(), mesh(olr).get_clim()) == ((0.0, 3.0), (200.0, 300.0))
    assert np.ma.count(np.ma.masked_invalid(mesh(gauges).get_array())) == 4
    assert [a.get_xlabel() for a in figure.axes if a not in (gauges, olr)] == ["mm", "W m-2"]
    nothing = maps.field_maps(IBERIA, {"none": np.full(IBERIA.shape, np.nan)}, units={"none": "K"})
    assert panels(nothing)[0].get_title() == "none"


@pytest.mark.parametrize("diverging", [True, False])
def test_sections_have_pressure_decreasing_upwards_and_one_scale(diverging):
    rng = np.random.default_rng(1)
    sections = {n: np.abs(rng.standard_normal((18, 4))) for n in ("Background", "Analysis")}
    sections["Background"][3, 2] = 9.0
    figure = diagrams.zonal_sections(
        GLOBE.latitude, LEVELS, sections, diverging=diverging, label="Error (K)"
    )
    left, right = panels(figure)
    for axis, section in ((left, sections["Background"]), (right, sections["Analysis"])):
        np.testing.assert_array_equal(mesh(axis).get_array(), section.T)
        assert mesh(axis).get_clim() == ((-9.0, 9.0) if diverging else (0.0, 9.0))
        assert axis.get_yscale() == "log"
        assert axis.get_ylim()[0] > 1000 > 10 > axis.get_ylim()[1]
    assert mesh(left).get_cmap().name == ("RdBu_r" if diverging else "magma_r")


# --- scores ------------------------------------------------------------------------------------


def test_differences_are_drawn_with_their_intervals():
    found = {"difference": np.array([-1.0, 0.5, 0.0, 2.0])}
    found |= {"low": found["difference"] - 0.25, "high": found["difference"] + 0.5}
    figure = diagrams.score_differences(LEVELS, {"RMSE": {"background": found, "oi": found}})
    (axis,) = figure.axes
    first = axis.containers[0]
    np.testing.assert_array_equal(first.lines[0].get_xdata(), found["difference"])
    segments = np.array([s[:, 0] for s in first.lines[2][0].get_segments()])
    np.testing.assert_allclose(segments, np.stack([found["low"], found["high"]], axis=1))
    np.testing.assert_allclose(first.lines[0].get_ydata(), LEVELS, rtol=0.02)
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["versus Background", "versus OI"]


def test_spread_and_error_of_regions_share_their_axes():
    rmse, spread = np.arange(1.0, 5.0), np.arange(2.0, 6.0)
    found = {"analysis": {"rmse": rmse, "spread": spread}}
    regions = {"globe": found, "tropics": found}
    figure = diagrams.spread_by_region(LEVELS, regions)
    for axis, name in zip(figure.axes, ("Globe", "Tropics"), strict=True):
        error, wide = axis.lines
        np.testing.assert_array_equal(error.get_xdata(), rmse)
        np.testing.assert_array_equal(wide.get_xdata(), spread)
        assert (error.get_linestyle(), wide.get_linestyle()) == ("-", "--")
        assert axis.get_title() == name
        assert axis.get_xlim() == figure.axes[0].get_xlim()
        assert axis.get_xlim()[0] == 0


def test_bins_and_reliability_have_their_diagonal():
    spread, error = np.array([[1.0, 2], [3, 4]]), np.array([[1.5, 2], [3, np.nan]])
    figure = diagrams.binned_spread(["a", "b"], {"oi": (spread, error)})
    for panel, axis in enumerate(figure.axes[:2]):
        np.testing.assert_array_equal(axis.lines[0].get_xdata(), spread[:, panel])
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), error[:, panel])
        np.testing.assert_array_equal(axis.lines[1].get_xdata(), axis.lines[1].get_ydata())
        assert axis.get_xlim() == axis.get_ylim()
    probability = np.array([0.0, 0.5, 1.0])
    frequency, share = np.array([[0.1], [0.4], [0.9]]), np.array([[0.7], [0.2], [0.1]])
    figure = diagrams.reliability_diagram(["a"], probability, {"analysis": (frequency, share)})
    diagonal, line = figure.axes[0].lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(line.get_ydata(), frequency[:, 0])
    sizes = figure.axes[0].collections[0].get_sizes()
    assert sizes[0] > sizes[1] > sizes[2]


def test_spectra_are_logarithmic_and_leave_the_mean_out():
    power = np.array([[99.0], [4.0], [1e-3], [1e-12]])
    figure = diagrams.spectra(
        ["500 hPa"],
        np.arange(4),
        {"truth": {"power": power}, "analysis": {"error": power / 2, "spread": power / 3}},
    )
    above, below = figure.axes
    np.testing.assert_array_equal(above.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(above.lines[0].get_ydata(), power[1:, 0])
    assert [line.get_linestyle() for line in below.lines] == ["-", "--"]
    assert below.lines[0].get_color() == below.lines[1].get_color()
    assert above.get_xscale() == above.get_yscale() == "log"
    assert above.get_ylim() == (4e-5, 8.0)  # a model's cut-off does not squeeze the rest
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["Truth", "Analysis", "Spread, Analysis"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diagrams.score_differences(LEVELS, {}), "no differences to draw"),
        (lambda: diagrams.spread_by_region(LEVELS, {}), "no regions to draw"),
        (
            lambda: diagrams.zonal_sections([0.0], LEVELS, {}, diverging=True, label=""),
            "no sections to draw",
        ),
        (lambda: maps.error_maps(GLOBE, {}), "no errors to draw"),
        (lambda: maps.field_maps(GLOBE, {}, units={}), "no fields to draw"),
        (
            lambda: maps.error_maps(IBERIA, {"oi": np.ones(GLOBE.shape)}),
            r"oi has shape \(18, 18\), but the grid has \(6, 9\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
