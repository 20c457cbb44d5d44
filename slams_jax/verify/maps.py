"""Maps at one level and time: truth, background, observations, analysis, its error and spread.

Grid cells are drawn as cells, without interpolation.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.verify import metrics
from slams_jax.verify.coastlines import draw_coastlines
from slams_jax.verify.figures import FONT, new_figure

if TYPE_CHECKING:
    import matplotlib.figure

Map = Float[np.ndarray, "lat lon"]


class Observed(NamedTuple):
    """Observations of the mapped variable, scattered or gridded, in its units.

    Attributes:
        latitude: degrees north, (point,) or ascending (lat,).
        longitude: degrees east, (point,) in any convention, or ascending (lon,) in that of the map.
        values: (point,) if scattered, (lat, lon) if gridded; NaN where missing.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    values: np.ndarray


def analysis_maps(
    grid: Grid,
    *,
    truth: Map,
    background: Map,
    analysis: Map,
    spread: Map,
    observations: Sequence[Observed] = (),
    title: str = "",
    units: str = "K",
    coastlines: bool = False,
) -> "matplotlib.figure.Figure":
    """Six maps at one level and time: truth, background, observations, analysis, error, spread.

    Truth, background, observations and analysis share the colour scale of truth, background and
    analysis; that of the error is centred on zero, that of the spread starts at zero. The titles
    give area-weighted root-mean-square errors.

    Args:
        grid: the grid of the maps, global or regional.
        truth: (lat, lon), in `units`; NaN where unknown.
        background: (lat, lon).
        analysis: mean of the ensemble (lat, lon).
        spread: standard deviation of the ensemble (lat, lon).
        observations: of the same variable and time, drawn in this order: gridded ones as cells
            with gaps, scattered ones as points coloured by value (and as small dots on the maps of
            error and spread).
        title: of the figure, for instance "Temperature 850 hPa, 12 March 2004".
        units: of all arrays.
        coastlines: draw coastlines.

    Raises:
        InputError: a map whose shape differs from the grid, or no matplotlib.
    """
    _check_shapes(grid, truth=truth, background=background, analysis=analysis, spread=spread)
    height = map_height(grid)
    figure = new_figure(8.5, 2 * height + 1.75)
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    scale = _limits(truth, background, analysis)
    state = {"cmap": "viridis", "vmin": scale[0], "vmax": scale[1]}
    draw_map(axes[0, 0], grid, truth, "Truth", **state)
    name = f"Background, RMSE {_rmse(grid, background, truth):.2f} {units}"
    draw_map(axes[0, 1], grid, background, name, **state)
    _draw_observations(axes[0, 2], grid, observations, **state)

    name = f"Analysis mean, RMSE {_rmse(grid, analysis, truth):.2f} {units}"
    image = draw_map(axes[1, 0], grid, analysis, name, **state)
    extend = _extend(observations, scale)
    colour_bar(figure, image, axes[1, 0], f"State and observations ({units})", extend)
    error = analysis - truth
    limit = float(np.nanmax(np.abs(error), initial=1e-6))
    name = "Analysis error, mean − truth"
    image = draw_map(axes[1, 1], grid, error, name, cmap="RdBu_r", vmin=-limit, vmax=limit)
    colour_bar(figure, image, axes[1, 1], f"Error ({units})")
    limit = float(np.nanmax(spread, initial=1e-6))
    name = f"Spread, mean {_rmse(grid, spread, np.zeros_like(spread)):.2f} {units}"
    image = draw_map(axes[1, 2], grid, spread, name, cmap="magma_r", vmin=0.0, vmax=limit)
    colour_bar(figure, image, axes[1, 2], f"Spread ({units})")
    for axis in axes[1, 1:]:
        _mark_points(axis, grid, observations)
    if coastlines:
        for axis in axes.ravel():
            draw_coastlines(axis)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def field_maps(
    grid: Grid,
    fields: Mapping[str, Map],
    *,
    units: Mapping[str, str],
    title: str = "",
    coastlines: bool = False,
) -> "matplotlib.figure.Figure":
    """Maps of different quantities at one time, each on a scale of its own.

    Args:
        grid: the grid of the maps, global or regional.
        fields: values by name (lat, lon), NaN where missing.
        units: of each field.
        title: of the figure.
        coastlines: draw coastlines.

    Raises:
        InputError: no map, a map whose shape differs from the grid, or no matplotlib.
    """
    figure, axes = _row(grid, fields, "fields")
    for axis, (name, field) in zip(axes, fields.items(), strict=True):
        low, high = _limits(field) if np.isfinite(field).any() else (0.0, 1.0)
        image = draw_map(axis, grid, field, name, cmap="viridis", vmin=low, vmax=high)
        colour_bar(figure, image, axis, units[name])
        if coastlines:
            draw_coastlines(axis)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def _row(grid: Grid, fields: Mapping[str, Map], what: str) -> tuple[Any, np.ndarray]:
    """A figure with a row of axes, one for each map, once the maps fit the grid."""
    if not fields:
        raise InputError(f"no {what} to draw: give at least one map")
    _check_shapes(grid, **fields)
    figure = new_figure(2.83 * max(len(fields), 2), map_height(grid) + 1.35)
    return figure, np.atleast_1d(figure.subplots(1, len(fields), sharex=True, sharey=True))


def error_maps(
    grid: Grid,
    errors: Mapping[str, Map],
    *,
    title: str = "",
    units: str = "K",
    coastlines: bool = False,
) -> "matplotlib.figure.Figure":
    """Error maps of several systems at one level and time, on a common scale centred on zero.

    Args:
        grid: the grid of the maps, global or regional.
        errors: from the name of a system to its value minus the truth (lat, lon), in `units`.
        title: of the figure.
        units: of all arrays.
        coastlines: draw coastlines.

    Raises:
        InputError: no map, a map whose shape differs from the grid, or no matplotlib.
    """
    figure, axes = _row(grid, errors, "errors")
    limit = max(float(np.nanmax(np.abs(e), initial=1e-6)) for e in errors.values())
    images = []
    for axis, (name, error) in zip(axes, errors.items(), strict=True):
        size = _rmse(grid, error, np.zeros_like(error))
        text = f"{name}, RMSE {size:.2f} {units}"
        scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        images.append(draw_map(axis, grid, error, text, **scale))
        if coastlines:
            draw_coastlines(axis)
    bar = figure.colorbar(images[0], ax=axes.tolist(), location="bottom", aspect=45, shrink=0.6)
    bar.set_label(f"Error ({units})", fontsize=FONT - 1)
    bar.ax.tick_params(labelsize=FONT - 2)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def _check_shapes(grid: Grid, **fields: Map) -> None:
    for name, field in fields.items():
        if field.shape != grid.shape:
            raise InputError(f"{name} has shape {field.shape}, but the grid has {grid.shape}")


def degrees_east(longitude: float) -> str:
    """A longitude for labels: 350 becomes 10°W."""
    value = (longitude + 180.0) % 360.0 - 180.0
    if value in (0.0, -180.0):
        return f"{abs(value):g}°"
    return f"{abs(value):g}°{'E' if value > 0 else 'W'}"


def degrees_north(latitude: float) -> str:
    """A latitude for labels: -30 becomes 30°S."""
    if latitude == 0:
        return "0°"
    return f"{abs(latitude):g}°{'N' if latitude > 0 else 'S'}"


def _aspect(grid: Grid) -> float:
    """One for a globe; 1/cos of the middle latitude for a region, where degrees shrink."""
    if grid.periodic:
        return 1.0
    middle = (grid.latitude[0] + grid.latitude[-1]) / 2
    return float(1.0 / max(np.cos(np.deg2rad(middle)), 0.2))


def _edges(centres: np.ndarray, low: float, high: float) -> np.ndarray:
    """Edges of cells half-way between centres, the outer ones mirrored and kept in bounds."""
    centres = np.asarray(centres, dtype=np.float64)
    if centres.size == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    outer = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.clip(np.concatenate([[outer[0]], middle, [outer[1]]]), low, high)


def _degree_ticks(low: float, high: float) -> np.ndarray:
    """About four round values in a range of degrees."""
    steps = np.array([1.0, 2.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 90.0])
    step = steps[np.argmax(steps >= (high - low) / 5)] if high - low <= 450 else 90.0
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def _limits(*fields: np.ndarray) -> tuple[float, float]:
    low = min(float(np.nanmin(f, initial=np.inf)) for f in fields)
    high = max(float(np.nanmax(f, initial=-np.inf)) for f in fields)
    return low, high if high > low else low + 1.0


def _extend(observations: Sequence[Observed], scale: tuple[float, float]) -> str:
    """The ends of the scale that observations exceed."""
    values = np.concatenate([np.ravel(o.values) for o in observations] or [np.empty(0)])
    below, above = bool(np.any(values < scale[0])), bool(np.any(values > scale[1]))
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]


def draw_map(axis: Any, grid: Grid, field: np.ndarray, title: str, **scale: Any) -> Any:
    """Draw a map of grid cells with its axes; returns the image."""
    longitude, latitude = _cells(grid)
    axis.set_aspect(_aspect(grid))
    axis.set_xlim(longitude[0], longitude[-1])
    axis.set_ylim(latitude[0], latitude[-1])
    axis.set_xticks(_degree_ticks(longitude[0], longitude[-1]))
    axis.set_yticks(_degree_ticks(latitude[0], latitude[-1]))
    axis.xaxis.set_major_formatter(lambda value, _: degrees_east(value))
    axis.yaxis.set_major_formatter(lambda value, _: degrees_north(value))
    axis.set_facecolor("0.9")
    axis.set_title(title, fontsize=FONT)
    axis.tick_params(labelsize=FONT - 2)
    return axis.pcolormesh(longitude, latitude, np.ma.masked_invalid(field), **scale)


def _draw_observations(
    axis: Any, grid: Grid, observations: Sequence[Observed], **scale: Any
) -> None:
    number = sum(int(np.isfinite(o.values).sum()) for o in observations)
    title = f"Observations, {number} values" if number else "Observations: none"
    draw_map(axis, grid, np.full(grid.shape, np.nan), title, **scale)
    for observed in observations:
        if np.ndim(observed.values) == 2:
            own = Grid.of(*([float(v) for v in axis] for axis in observed[:2]))
            axis.pcolormesh(*_cells(own), np.ma.masked_invalid(observed.values), **scale)
            continue
        longitude, latitude, values = _present(grid, observed)
        size = 14 if values.size > 60 else 28
        axis.scatter(longitude, latitude, size, values, edgecolors="k", linewidths=0.4, **scale)


def _mark_points(axis: Any, grid: Grid, observations: Sequence[Observed]) -> None:
    for observed in observations:
        if np.ndim(observed.values) == 1:
            place = _present(grid, observed)[:2]
            axis.plot(*place, "o", ms=2.4, color="k", markeredgecolor="w", markeredgewidth=0.4)


def _present(grid: Grid, observed: Observed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Longitude, latitude and value of the scattered observations that are not missing."""
    valid = np.isfinite(observed.values)
    west = _cells(grid)[0][0]  # longitudes may be in -180..180 on a map of 0..360
    longitude = (observed.longitude[valid] - west) % 360.0 + west
    return longitude, observed.latitude[valid], observed.values[valid]


def _cells(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the cells in longitude and latitude."""
    longitude = _edges(np.asarray(grid.longitude), -360.0, 540.0)
    return longitude, _edges(np.asarray(grid.latitude), -90.0, 90.0)


def map_height(grid: Grid) -> float:
    """Height in inches of a map that is one of three side by side."""
    longitude, latitude = _cells(grid)
    return float(np.clip(2.5 * np.ptp(latitude) / np.ptp(longitude) * _aspect(grid), 0.8, 4.0))


def colour_bar(figure: Any, image: Any, axis: Any, label: str, extend: str = "neither") -> None:
    """Add a labelled colour bar below a map."""
    bar = figure.colorbar(image, ax=axis, location="bottom", extend=extend, aspect=25)
    bar.set_label(label, fontsize=FONT - 1)
    bar.ax.tick_params(labelsize=FONT - 2)
    bar.ax.locator_params(nbins=6)


def _rmse(grid: Grid, field: np.ndarray, truth: np.ndarray) -> float:
    score = metrics.rmse(field[..., None], truth[..., None], grid.area_weights())
    return float(score[0])
