"""Pictures: the right numbers stand in the right place; how they look was looked at."""

import sys

import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.verify import maps, plots

GLOBE = Grid.of(np.linspace(-85.0, 85.0, 18).tolist(), np.arange(0.0, 360.0, 20.0).tolist())
IBERIA = Grid.of(np.linspace(32.5, 45.0, 6).tolist(), np.linspace(-12.5, 7.5, 9).tolist())
LEVELS = np.array([10.0, 100.0, 500.0, 850.0, 925.0, 1000.0])


def fields(grid, seed=0):
    """Truth, background and analysis of different errors, one wholly above the truth's range."""
    rng = np.random.default_rng(seed)
    truth = 280 + 10 * rng.standard_normal(grid.shape)
    background = truth + 3 * rng.standard_normal(grid.shape)
    background[0, 0] = 400.0
    return {
        "truth": truth,
        "background": background,
        # Errors lean to one side on the globe and to the other in the region.
        "analysis": truth + rng.standard_normal(grid.shape) + (2.0 if grid.periodic else -2.0),
        "spread": 1 + rng.random(grid.shape),
    }


def observed():
    gridded = np.full((3, 4), 281.0)
    gridded[1, 2] = np.nan
    return (
        maps.Observed(np.array([-60.0, 0.0, 60.0]), np.array([45.0, 135.0, 225.0, 315.0]), gridded),
        maps.Observed(
            np.array([40.0, 41.0, -20.0]),
            np.array([-15.0, 200.0, 10.0]),
            np.array([280.0, np.nan, 9]),
        ),
    )


def artists(axis, kind):
    return [artist for artist in axis.collections if isinstance(artist, kind)]


def panels(figure):
    """The axes that hold data, colour bars left out."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


@pytest.mark.slow
@pytest.mark.parametrize("grid", [GLOBE, IBERIA], ids=["globe", "region"])
def test_maps_show_each_field_on_the_right_scale(grid):
    given = fields(grid)
    figure = maps.analysis_maps(grid, **given, title="Temperature 850 hPa", units="K")
    truth, background, observations, analysis, error, spread = panels(figure)
    titles = [axis.get_title().split(",")[0] for axis in panels(figure)]
    assert titles == [
        "Truth",
        "Background",
        "Observations: none",
        "Analysis mean",
        "Analysis error",
        "Spread",
    ]
    for axis, want in (
        (truth, given["truth"]),
        (background, given["background"]),
        (analysis, given["analysis"]),
        (error, given["analysis"] - given["truth"]),
        (spread, given["spread"]),
    ):
        np.testing.assert_array_equal(artists(axis, QuadMesh)[0].get_array(), want)
    shared = {artists(a, QuadMesh)[0].get_clim() for a in (truth, background, analysis)}
    lowest = min(given[name].min() for name in ("truth", "background", "analysis"))
    assert shared == {(lowest, 400.0)}
    low, high = artists(error, QuadMesh)[0].get_clim()
    assert low == -high
    assert high == np.abs(given["analysis"] - given["truth"]).max()
    assert artists(spread, QuadMesh)[0].get_clim() == (0.0, given["spread"].max())
    assert figure.get_suptitle() == "Temperature 850 hPa"
    assert [a.get_xlabel() for a in figure.axes if a not in panels(figure)] == [
        "State and observations (K)",
        "Error (K)",
        "Spread (K)",
    ]
    assert artists(observations, PathCollection) == []


def test_titles_hold_area_weighted_errors():
    given = fields(GLOBE)
    figure = maps.analysis_maps(GLOBE, **given)
    weights = GLOBE.area_weights()
    for axis, name in ((panels(figure)[1], "background"), (panels(figure)[3], "analysis")):
        square = np.average((given[name] - given["truth"]) ** 2, weights=weights)
        assert axis.get_title().endswith(f"RMSE {np.sqrt(square):.2f} K")


def test_observations_are_points_and_cells_in_the_scale_of_the_state():
    given = fields(GLOBE)
    figure = maps.analysis_maps(GLOBE, **given, observations=observed())
    state = artists(panels(figure)[0], QuadMesh)[0].get_clim()
    axis = panels(figure)[2]
    assert axis.get_title() == "Observations, 13 values"
    cells = artists(axis, QuadMesh)[-1]
    assert cells.get_clim() == state
    np.testing.assert_array_equal(np.ma.getmaskarray(cells.get_array()).sum(), 1)
    (points,) = artists(axis, PathCollection)
    assert points.get_clim() == state
    np.testing.assert_array_equal(points.get_array(), [280.0, 9.0])
    # 15 W lies at 345 E on this map, and the missing report lies nowhere.
    np.testing.assert_array_equal(points.get_offsets(), [[345.0, 40.0], [10.0, -20.0]])
    for other in panels(figure)[4:]:
        np.testing.assert_array_equal(other.lines[0].get_xdata(), [345.0, 10.0])
    assert figure.axes[6].get_xlabel().startswith("State")


def test_cells_reach_half_way_to_their_neighbours_and_not_over_the_pole():
    longitude, latitude = maps._cells(GLOBE)
    np.testing.assert_allclose(longitude, np.arange(-10.0, 351.0, 20.0))
    np.testing.assert_allclose(latitude, np.linspace(-90.0, 90.0, 19))
    poles = Grid.of(np.linspace(-90.0, 90.0, 5).tolist(), GLOBE.longitude)
    np.testing.assert_allclose(maps._cells(poles)[1], [-90, -67.5, -22.5, 22.5, 67.5, 90])
    np.testing.assert_allclose(maps._cells(IBERIA)[0], np.arange(-13.75, 9.0, 2.5))


def test_degrees_are_written_with_their_hemisphere():
    assert [maps.degrees_east(v) for v in (0.0, 60.0, 180.0, 270.0, 350.0, -12.5, 360.0)] == [
        "0°",
        "60°E",
        "180°",
        "90°W",
        "10°W",
        "12.5°W",
        "0°",
    ]
    assert [maps.degrees_north(v) for v in (-60.0, 0.0, 37.5)] == ["60°S", "0°", "37.5°N"]
    figure = maps.analysis_maps(IBERIA, **fields(IBERIA))
    figure.canvas.draw()
    axis = panels(figure)[3]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["10°W", "5°W", "0°", "5°E"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["35°N", "40°N", "45°N"]


def test_profiles_put_the_ground_at_the_bottom():
    rng = np.random.default_rng(1)
    systems = ("climatology", "background", "oi", "analysis", "another")
    scores = {
        "RMSE": {name: 1 + rng.random(6) for name in systems},
        "Bias": {name: rng.standard_normal(6) for name in systems},
    }
    figure = plots.profiles(LEVELS, scores, spread=np.arange(1.0, 7.0), units="K")
    left, right = figure.axes
    bottom, top = left.get_ylim()
    assert bottom > 1000 > 10 > top
    assert left.get_yscale() == "log"
    assert [left.get_xlabel(), right.get_xlabel()] == ["RMSE (K)", "Bias (K)"]
    assert left.get_ylabel() == "Pressure (hPa)"
    np.testing.assert_array_equal(left.get_yticks(), LEVELS)
    shown = [text.get_text() for text in left.get_yticklabels()]
    assert shown == ["10", "100", "500", "850", "", "1000"]
    for line, name in zip(left.lines, systems, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), scores["RMSE"][name])
        np.testing.assert_array_equal(line.get_ydata(), LEVELS)
    looks = [(line.get_color(), line.get_marker()) for line in left.lines[:5]]
    assert len({color for color, _ in looks}) == len({marker for _, marker in looks}) == 5
    assert left.lines[5].get_linestyle() == "--"
    assert left.lines[5].get_color() == left.lines[3].get_color()
    assert left.get_xlim()[0] == 0
    assert right.get_xlim()[0] < 0
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "Climatology",
        "Background",
        "OI",
        "Analysis",
        "another",
        "Spread of the analysis",
    ]


def test_rank_histograms_show_frequencies_over_uniform_and_their_band():
    counts = np.array([[100, 300, 200], [2000, 2000, 2000]])
    figure = plots.rank_histograms(counts, ["500 hPa", "850 hPa"])
    first, second = figure.axes
    assert [bar.get_height() for bar in first.containers[0]] == pytest.approx([0.5, 1.5, 1.0])
    assert first.get_title() == "500 hPa"
    widths = []
    for axis, total in ((first, 600), (second, 6000)):
        band = axis.patches[-1]
        assert band.get_y() < 1 < band.get_y() + band.get_height()
        widths.append(band.get_height())
        # 95 % of a binomial count is 1.96 standard deviations either side.
        std = np.sqrt(total * (1 / 3) * (2 / 3)) / (total / 3)
        assert widths[-1] == pytest.approx(2 * 1.96 * std, rel=0.05)
    assert "among 2 members" in figure.get_supxlabel()
    fewer = plots.rank_histograms(counts, ["a", "b"], independent=[60, 600]).axes[0].patches[-1]
    assert fewer.get_height() > 2.5 * widths[0]


def test_spread_skill_is_centred_on_one():
    ratio = np.array([0.3, 0.9, 1.0, 1.1, 1.2, 1.0])
    figure = plots.spread_skill(LEVELS, rmse=np.ones(6), spread=ratio, ratio=ratio)
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[1].get_xdata(), ratio)
    np.testing.assert_array_equal(right.lines[0].get_xdata(), ratio)
    low, high = right.get_xlim()
    assert low + high == pytest.approx(2)
    assert low < 0.3
    assert right.get_ylim()[0] > right.get_ylim()[1]


def test_station_scores_are_bars_beside_each_other():
    scores = {"background": np.array([3.0, 2.0]), "analysis": np.array([1.0, np.nan])}
    figure = plots.station_scores(["Lisboa", "Madrid"], scores, counts=[12, 0])
    (axis,) = figure.axes
    first, second = axis.containers
    assert [bar.get_height() for bar in first] == [3.0, 2.0]
    assert second[0].get_height() == 1.0
    assert first[0].get_x() < second[0].get_x() < first[1].get_x()
    assert [t.get_text() for t in axis.get_xticklabels()] == ["Lisboa\n(n = 12)", "Madrid\n(n = 0)"]
    assert axis.get_ylabel() == "RMSE (K)"


def test_training_curves_take_the_losses_of_the_records():
    records = [{"step": s, "loss": 1 / (s + 1), "rate": 3.0, "note": "x"} for s in range(50)]
    records += [{"step": 20, "validation_loss": 0.5}, {"step": 40, "validation_loss": None}]
    records += [{"message": "done", "loss": 7.0}, {"step": 60, "loss": float("nan")}]
    (axis,) = plots.training_curves(records).axes
    loss, validation = axis.lines
    np.testing.assert_array_equal(loss.get_xdata(), np.arange(50))
    np.testing.assert_array_equal(validation.get_xydata(), [[20, 0.5]])
    assert validation.get_marker() != "none"
    assert axis.get_yscale() == "log"
    (axis,) = plots.training_curves(records, keys=["rate"]).axes
    assert len(axis.lines) == 1


def figures():
    scores = {"RMSE": {"analysis": np.ones(6)}}
    return {
        "maps": maps.analysis_maps(GLOBE, **fields(GLOBE), observations=observed()),
        "profiles": plots.profiles(LEVELS, scores),
        "ranks": plots.rank_histograms(np.ones((7, 9), int), list("abcdefg")),
        "spread": plots.spread_skill(
            LEVELS, rmse=np.ones(6), spread=np.ones(6), ratio=np.full(6, np.nan)
        ),
        "stations": plots.station_scores(["a"] * 8, {"oi": np.ones(8)}),
        "training": plots.training_curves([{"step": 1, "loss": -0.2}]),
    }


def test_a_figure_may_be_saved_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    figure = plots.training_curves([{"step": 1, "loss": 1.0}])
    assert plots.save(figure, "~/curves.png") == tmp_path / "curves.png"
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.slow
def test_figures_are_written_whole_and_small(tmp_path):
    for name, figure in figures().items():
        path = plots.save(figure, tmp_path / "pictures" / f"{name}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
        assert 5_000 < path.stat().st_size < 300_000
    assert len(list((tmp_path / "pictures").iterdir())) == 6  # no draft is left


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    figure = plots.rank_histograms(np.ones((1, 3), int), ["a"])
    path = tmp_path / "ranks.png"
    path.write_text("old")

    def fail(draft, **_):
        with open(draft, "w") as file:
            file.write("half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.save(figure, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_drawing_leaves_no_trace_in_pyplot():
    figures()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'slams-jax\[plot\]'"):
        plots.training_curves([{"step": 1, "loss": 1.0}])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.training_curves([{"step": 1, "rate": 1.0}]), "no numbers to draw"),
        (lambda: plots.profiles(LEVELS, {}), "no scores to draw"),
        (lambda: plots.rank_histograms(np.ones((2, 3)), ["a"]), "1 names for 2"),
        (lambda: plots.station_scores(["a"], {"oi": np.ones(2)}), "2 scores of oi for 1 stations"),
        (
            lambda: maps.analysis_maps(IBERIA, **fields(GLOBE)),
            r"truth has shape \(18, 18\), but the grid has \(6, 9\)",
        ),
        (
            lambda: plots.save(plots.training_curves([{"step": 1, "loss": 1.0}]), "a.xyz"),
            "unsupported figure format '.xyz'",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
