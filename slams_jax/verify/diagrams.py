"""Figures of reliability, scale and significance; the looks are those of `plots`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from slams_jax.errors import InputError
from slams_jax.verify.figures import FONT, label_axis, legend_below, look, new_figure, pressure_axis
from slams_jax.verify.maps import degrees_north

if TYPE_CHECKING:
    import matplotlib.figure

Profile = Float[np.ndarray, " level"]
DEPTH = 1e-5  # of the largest power, below which a model's cut-off is all that shows
DASHES = {"power": "-", "error": "-", "spread": "--"}


def score_differences(
    levels: Profile,
    differences: Mapping[str, Mapping[str, Mapping[str, Profile]]],
    *,
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Differences of scores by level with their confidence intervals, better to the left of zero.

    Args:
        levels: pressure (level,), hPa.
        differences: score, e.g. "RMSE" -> reference, e.g. "background" -> `difference`, `low` and
            `high` (level,): a panel for each score, with one line a reference.
        title: over the figure.
        units: of the scores.

    Raises:
        InputError: no differences, or no matplotlib.
    """
    if not differences:
        raise InputError("no differences to draw: give at least one score")
    figure = new_figure(3.6 * len(differences) + 0.5, 4.8)
    axes = np.atleast_1d(figure.subplots(1, len(differences), sharey=True))
    for index, (axis, (score, references)) in enumerate(
        zip(axes, differences.items(), strict=True)
    ):
        for position, (reference, found) in enumerate(references.items()):
            style = look(reference, position)
            style["label"] = f"against {style['label']}"
            reach = [found["difference"] - found["low"], found["high"] - found["difference"]]
            # Lines side by side, a little above and below the level.
            place = levels * np.exp(0.02 * (position - (len(references) - 1) / 2))
            axis.errorbar(
                found["difference"], place, xerr=reach, ms=4.5, lw=1.2, capsize=2.5, **style
            )
        axis.axvline(0.0, color="k", lw=0.8, zorder=1)
        label_axis(
            axis,
            score,
            f"Difference of {score} ({units})\nbetter < 0 < worse",
            "Pressure (hPa)" if index == 0 else "",
        )
        pressure_axis(axis, levels)
    legend_below(figure, axes[0])
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def spread_by_region(
    levels: Profile,
    regions: Mapping[str, Mapping[str, Mapping[str, Profile]]],
    *,
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Error of the ensemble mean (full) and spread (dashed) by level, a panel for each region.

    Args:
        levels: pressure (level,), hPa.
        regions: region -> ensemble -> `rmse` and `spread` (level,), the spread times √((M + 1)/M)
            if it is to equal the error.
        title: over the figure.
        units: of both.

    Raises:
        InputError: no regions, or no matplotlib.
    """
    if not regions:
        raise InputError("no regions to draw: give at least one")
    figure = new_figure(max(2.15 * len(regions) + 0.4, 4.0), 4.4)
    axes = np.atleast_1d(figure.subplots(1, len(regions), sharex=True, sharey=True))
    for index, (axis, (region, systems)) in enumerate(zip(axes, regions.items(), strict=True)):
        for position, (system, found) in enumerate(systems.items()):
            style = look(system, position)
            axis.plot(
                found["rmse"],
                levels,
                lw=1.5,
                ms=4,
                **(style | {"label": f"Error, {style['label']}"}),
            )
            style |= {"label": f"Spread, {style['label']}", "marker": "none"}
            axis.plot(found["spread"], levels, lw=1.5, ls="--", **style)
        label_axis(axis, region.capitalize(), units, "Pressure (hPa)" if index == 0 else "")
        pressure_axis(axis, levels)
    axes[0].set_xlim(left=0.0)
    legend_below(figure, axes[0])
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def binned_spread(
    names: Sequence[str],
    systems: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Error against spread in bins of spread, a panel for each name, with the diagonal.

    Args:
        names: of the panels, e.g. the levels.
        systems: ensemble -> spread and error of `metrics.binned_spread_skill` (bins, panel).
        title: over the figure.
        units: of both.

    Raises:
        InputError: no matplotlib.
    """
    figure, axes = _panels(len(names))
    for panel, (axis, name) in enumerate(zip(axes, names, strict=True)):
        largest = 0.0
        for position, (system, (spread, error)) in enumerate(systems.items()):
            x, y = spread[:, panel], error[:, panel]
            axis.plot(x, y, lw=1.3, ms=4, **look(system, position))
            largest = max(largest, float(np.nanmax([x, y], initial=0.0)))
        limit = 1.05 * largest or 1.0
        axis.plot([0, limit], [0, limit], color="k", lw=0.8, zorder=1)
        axis.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
        label_axis(axis, name, f"Spread ({units})", f"RMSE ({units})" if panel == 0 else "")
    legend_below(figure, axes[0])
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def reliability_diagram(
    names: Sequence[str],
    probability: Float[np.ndarray, " probability"],
    systems: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    title: str = "",
) -> "matplotlib.figure.Figure":
    """How often an event came against how probable it was said to be, a panel for each name.

    The area of a marker is the share of the points with that forecast.

    Args:
        names: of the panels, e.g. the levels.
        probability: forecast (probability,).
        systems: ensemble -> frequency and share of `metrics.reliability_curve`
            (probability, panel), on the same probabilities.
        title: over the figure.

    Raises:
        InputError: no matplotlib.
    """
    figure, axes = _panels(len(names))
    for panel, (axis, name) in enumerate(zip(axes, names, strict=True)):
        axis.plot([0, 1], [0, 1], color="k", lw=0.8, zorder=1)
        for position, (system, (frequency, share)) in enumerate(systems.items()):
            style = look(system, position)
            axis.plot(probability, frequency[:, panel], lw=1.3, ms=2.5, **style)
            axis.scatter(
                probability,
                frequency[:, panel],
                8 + 150 * share[:, panel],
                color=style["color"],
                alpha=0.45,
                linewidths=0,
            )
        axis.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
        label_axis(axis, name, "Forecast probability", "Frequency" if panel == 0 else "")
    legend_below(figure, axes[0])
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def spectra(
    names: Sequence[str],
    wavenumber: Shaped[np.ndarray, " wavenumber"],
    curves: Mapping[str, Mapping[str, Float[np.ndarray, "wavenumber panel"]]],
    *,
    xlabel: str = "Zonal wavenumber",
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Power of values in the upper row, of errors (full) and spread (dashed) in the lower one.

    Args:
        names: of the columns, e.g. levels.
        wavenumber: the first, the mean of the row, is left out: it has no place on a logarithm.
        curves: "truth" or a system -> "power", "error" or "spread" -> (wavenumber, panel).
        xlabel: what the wavenumber is.
        title: over the figure.
        units: of the values; power is in their square.

    Raises:
        InputError: no matplotlib.
    """
    figure = new_figure(max(2.15 * len(names) + 0.5, 4.0), 5.2)
    axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for panel, name in enumerate(names):
        for position, (system, kinds) in enumerate(curves.items()):
            style = look(system, position) | {"marker": "none"}
            if system == "truth":
                style |= {"color": "k", "label": "Truth"}
            for kind, power in kinds.items():
                axis = axes[0 if kind == "power" else 1, panel]
                label = style["label"] if kind != "spread" else f"Spread, {style['label']}"
                axis.plot(
                    wavenumber[1:],
                    power[1:, panel],
                    lw=1.4,
                    ls=DASHES[kind],
                    **(style | {"label": label}),
                )
        for axis in axes[:, panel]:
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
        label_axis(axes[0, panel], name, "", f"Power ({units}²)" if panel == 0 else "")
        label_axis(axes[1, panel], "", xlabel, f"Error, spread ({units}²)" if panel == 0 else "")
    for row in axes:
        values = np.concatenate([line.get_ydata() for axis in row for line in axis.lines])
        top = float(np.nanmax(values, initial=1e-30))
        row[0].set_ylim(max(DEPTH * top, float(np.nanmin(values, initial=top)) / 2), 2 * top)
    _legend_of_all(figure, axes.ravel())
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def zonal_sections(
    latitude: Sequence[float],
    levels: Profile,
    sections: Mapping[str, Float[np.ndarray, "lat level"]],
    *,
    diverging: bool,
    label: str,
    title: str = "",
) -> "matplotlib.figure.Figure":
    """Sections of latitude and pressure side by side, on one scale of colours.

    Args:
        latitude: degrees north, ascending.
        levels: pressure (level,), hPa.
        sections: title of the panel -> (lat, level).
        diverging: differences, on a scale centred on zero; else values that begin at zero.
        label: of the colour bar, with units.
        title: over the figure.

    Raises:
        InputError: no sections, or no matplotlib.
    """
    if not sections:
        raise InputError("no sections to draw: give at least one")
    figure = new_figure(8.5 if len(sections) > 1 else 4.5, 3.1)
    axes = np.atleast_1d(figure.subplots(1, len(sections), sharey=True))
    largest = max(float(np.nanmax(np.abs(s), initial=1e-6)) for s in sections.values())
    scale: dict[str, Any] = {"cmap": "magma_r", "vmin": 0.0, "vmax": largest}
    if diverging:
        scale = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    images = []
    for index, (axis, (name, section)) in enumerate(zip(axes, sections.items(), strict=True)):
        images.append(
            axis.pcolormesh(
                np.asarray(latitude),
                levels,
                np.ma.masked_invalid(section.T),
                shading="nearest",
                **scale,
            )
        )
        label_axis(axis, name, "Latitude", "Pressure (hPa)" if index == 0 else "")
        axis.grid(visible=False)
        axis.xaxis.set_major_formatter(lambda value, _: degrees_north(value))
        pressure_axis(axis, levels)
    bar = figure.colorbar(images[0], ax=axes.tolist(), aspect=25, pad=0.01)
    bar.set_label(label, fontsize=FONT - 1)
    bar.ax.tick_params(labelsize=FONT - 2)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def _panels(number: int) -> tuple[Any, Any]:
    """A row of panels, four at most beside each other."""
    columns = min(number, 4)
    rows = -(-number // columns)
    figure = new_figure(max(2.1 * columns, 3.4) + 0.3, 2.1 * rows + 0.65)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[number:]:
        axis.set_axis_off()
    return figure, axes[:number]


def _legend_of_all(figure: Any, axes: Iterable[Any]) -> None:
    """One legend under all panels, of everything that any of them shows."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=min(len(found), 6),
        fontsize=FONT - 1,
        frameon=False,
    )
