"""Figures of reliability, scale and significance, in the style of `plots`."""

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
DEPTH = 1e-5  # relative to the largest power; below, only the truncation of models would show
DASHES = {"power": "-", "error": "-", "spread": "--"}


def score_differences(
    levels: Profile,
    differences: Mapping[str, Mapping[str, Mapping[str, Profile]]],
    *,
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Score differences by level with confidence intervals; negative is better.

    Args:
        levels: pressure (level,), hPa.
        differences: from a score such as "RMSE" and a reference such as "background" to
            `difference`, `low` and `high` (level,): one panel per score, one line per reference.
        title: of the figure.
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
        for position, (reference, profile) in enumerate(references.items()):
            style = look(reference, position)
            style["label"] = f"versus {style['label']}"
            value, low, high = (profile[name] for name in ("difference", "low", "high"))
            # Lines side by side, slightly above and below the level.
            place = levels * np.exp(0.02 * (position - (len(references) - 1) / 2))
            reach = [value - low, high - value]
            axis.errorbar(value, place, xerr=reach, ms=4.5, lw=1.2, capsize=2.5, **style)
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
    """Error of the ensemble mean (solid) and spread (dashed) by level, one panel per region.

    Args:
        levels: pressure (level,), hPa.
        regions: from a region and an ensemble to `rmse` and `spread` (level,), the spread times
            √((M + 1)/M) if it should equal the error.
        title: of the figure.
        units: of both.

    Raises:
        InputError: no regions, or no matplotlib.
    """
    if not regions:
        raise InputError("no regions to draw: give at least one")
    figure = new_figure(max(2.15 * len(regions) + 0.4, 4.0), 4.4)
    axes = np.atleast_1d(figure.subplots(1, len(regions), sharex=True, sharey=True))
    for index, (axis, (region, systems)) in enumerate(zip(axes, regions.items(), strict=True)):
        for position, (system, profile) in enumerate(systems.items()):
            style = look(system, position)
            error = style | {"label": f"Error, {style['label']}", "ms": 4}
            spread = style | {"label": f"Spread, {style['label']}", "marker": "none", "ls": "--"}
            axis.plot(profile["rmse"], levels, lw=1.5, **error)
            axis.plot(profile["spread"], levels, lw=1.5, **spread)
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
    """Error against spread in bins of spread, one panel per name, with the diagonal.

    Args:
        names: of the panels, such as levels.
        systems: from an ensemble to spread and error of `metrics.binned_spread_skill`, each
            (bins, panel).
        title: of the figure.
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
    """Observed frequency of an event against its forecast probability, one panel per name.

    The area of a marker shows the share of points with that forecast.

    Args:
        names: of the panels, such as levels.
        probability: forecast (probability,).
        systems: from an ensemble to frequency and share of `metrics.reliability_curve`, each
            (probability, panel), at the same probabilities.
        title: of the figure.

    Raises:
        InputError: no matplotlib.
    """
    figure, axes = _panels(len(names))
    for panel, (axis, name) in enumerate(zip(axes, names, strict=True)):
        axis.plot([0, 1], [0, 1], color="k", lw=0.8, zorder=1)
        for position, (system, (frequency, share)) in enumerate(systems.items()):
            style, area = look(system, position), 8 + 150 * share[:, panel]
            curve = probability, frequency[:, panel]
            axis.plot(*curve, lw=1.3, ms=2.5, **style)
            axis.scatter(*curve, area, color=style["color"], alpha=0.45, linewidths=0)
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
    """Power of values in the upper row, of errors (solid) and spread (dashed) in the lower row.

    Args:
        names: of the columns, such as levels.
        wavenumber: the first one, the mean of the row, is not drawn on the logarithmic axis.
        curves: from "truth" or a system and "power", "error" or "spread" to (wavenumber, panel).
        xlabel: name of the wavenumber.
        title: of the figure.
        units: of the values; power has their square.

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
                line = style | {"ls": DASHES[kind]}
                if kind == "spread":
                    line["label"] = f"Spread, {style['label']}"
                axis.plot(wavenumber[1:], power[1:, panel], lw=1.4, **line)
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
    """Latitude-pressure sections side by side, on a common colour scale.

    Args:
        latitude: degrees north, ascending.
        levels: pressure (level,), hPa.
        sections: from the title of a panel to (lat, level).
        diverging: for differences, a scale centred on zero; else a scale that starts at zero.
        label: of the colour bar, with units.
        title: of the figure.

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
        values = np.ma.masked_invalid(section.T)
        mesh = axis.pcolormesh(np.asarray(latitude), levels, values, shading="nearest", **scale)
        images.append(mesh)
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
    """Panels in rows of four at most."""
    columns = min(number, 4)
    rows = -(-number // columns)
    figure = new_figure(max(2.1 * columns, 3.4) + 0.3, 2.1 * rows + 0.65)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[number:]:
        axis.set_axis_off()
    return figure, axes[:number]


def _legend_of_all(figure: Any, axes: Iterable[Any]) -> None:
    """One legend below all panels, with the entries of all of them."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=min(len(entries), 6),
        fontsize=FONT - 1,
        frameon=False,
    )
