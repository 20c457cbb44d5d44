"""Figures of an analysis and its scores, with matplotlib.

Every function takes plain arrays and returns a new `matplotlib.figure.Figure`: no pyplot, no global
state, no display. matplotlib (from the extra `plot`) is loaded when the first figure is drawn.
Pressure is in hPa on a logarithmic axis, with the surface at the bottom.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from slams_jax.errors import InputError
from slams_jax.verify.figures import (
    FONT,
    label_axis,
    legend_below,
    look,
    new_figure,
    palette,
    pressure_axis,
    save,
)
from slams_jax.verify.maps import Observed, analysis_maps

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = [
    "Observed",
    "analysis_maps",
    "profiles",
    "rank_histograms",
    "save",
    "spread_skill",
    "station_scores",
    "training_curves",
]

Profile = Float[np.ndarray, " level"]


def profiles(
    levels: Profile,
    scores: Mapping[str, Mapping[str, Profile]],
    *,
    spread: Profile | None = None,
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Vertical profiles of scores, one panel per score and one line per system.

    Args:
        levels: pressure (level,), hPa.
        scores: from a score such as "RMSE" or "Bias" and a system to (level,). Panels with
            negative values have a line at zero; all others start at zero.
        spread: of the analysis (level,), dashed in the first panel, for comparison with its RMSE.
        title: of the figure.
        units: of scores and spread.

    Raises:
        InputError: no scores, or no matplotlib.
    """
    if not scores:
        raise InputError(
            "no scores to draw: give at least one, such as {'RMSE': {'analysis': ...}}"
        )
    figure = new_figure(2.75 * len(scores) + 0.25, 4.8)
    axes = np.atleast_1d(figure.subplots(1, len(scores), sharey=True))
    for index, (axis, (name, systems)) in enumerate(zip(axes, scores.items(), strict=True)):
        for position, (system, values) in enumerate(systems.items()):
            axis.plot(values, levels, lw=1.5, ms=4.5, **look(system, position))
        if spread is not None and index == 0:
            style = look("analysis", 0) | {"label": "Spread of the analysis", "marker": "none"}
            axis.plot(spread, levels, ls="--", lw=1.5, **style)
        values = np.concatenate([np.ravel(v) for v in systems.values()])
        if np.nanmin(values, initial=0.0) < 0:
            axis.axvline(0.0, color="k", lw=0.8, zorder=1)
        else:
            axis.set_xlim(left=0.0)
        label_axis(axis, name, f"{name} ({units})", "Pressure (hPa)" if index == 0 else "")
        pressure_axis(axis, levels)
    legend_below(figure, axes[0])
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def rank_histograms(
    counts: Shaped[np.ndarray, "panel bins"],
    names: Sequence[str],
    *,
    independent: Sequence[float | int] | None = None,
    title: str = "",
) -> "matplotlib.figure.Figure":
    """Rank histograms side by side, with the uniform line and the range of chance.

    Bars are frequencies relative to uniform, so that 1 is calibrated for any ensemble size. The
    grey band contains 95 % of the bars of a calibrated ensemble (binomial counts).

    Args:
        counts: of `metrics.rank_histogram` (panel, bins).
        names: of the panels, such as levels.
        independent: number of independent points in each panel, for the band. None takes the
            number of counts, which makes the band too narrow if neighbours are correlated.
        title: of the figure.

    Raises:
        InputError: names and panels differ in number, or no matplotlib.
    """
    from scipy.stats import binom  # slow to import

    if len(names) != len(counts):
        raise InputError(f"{len(names)} names for {len(counts)} rank histograms: give one each")
    panels, bins = counts.shape
    columns = min(panels, 5)
    rows = -(-panels // columns)
    figure = new_figure(max(1.65 * columns, 3.4) + 0.25, max(1.6 * rows, 2.2) + 0.7)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    sizes = counts.sum(axis=1) if independent is None else np.asarray(independent)
    for axis in axes.ravel()[panels:]:
        axis.set_axis_off()
    for axis, number, size, name in zip(axes.ravel(), counts, sizes, names, strict=False):
        total = max(float(number.sum()), 1.0)
        axis.bar(np.arange(bins), number / total * bins, width=0.9, color="#56B4E9", zorder=2)
        n = max(round(float(size)), 1)
        low, high = binom.ppf([0.025, 0.975], n, 1 / bins) / n * bins
        axis.axhspan(low, high, color="k", alpha=0.22, lw=0, zorder=3)
        axis.axhline(1.0, color="k", lw=1.0, zorder=4)
        axis.set_xlim(-0.6, bins - 0.4)
        axis.set_xticks([0, (bins - 1) // 2, bins - 1])
        label_axis(axis, name, "", "")
    figure.supxlabel(
        f"Rank of the truth among {bins - 1} members\n"
        "(line: uniform; grey: 95 % of a calibrated ensemble)",
        fontsize=FONT,
    )
    figure.supylabel("Frequency / uniform", fontsize=FONT)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def spread_skill(
    levels: Profile,
    *,
    rmse: Profile,
    spread: Profile,
    ratio: Profile,
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Spread and error of the ensemble mean by level, and their ratio (1 if calibrated).

    Args:
        levels: pressure (level,), hPa.
        rmse: of the ensemble mean (level,).
        spread: of `metrics.spread` (level,).
        ratio: of `metrics.spread_skill` (level,), corrected for the number of members.
        title: of the figure.
        units: of `rmse` and `spread`.

    Raises:
        InputError: no matplotlib.
    """
    figure = new_figure(6.0, 4.8)
    left, right = figure.subplots(1, 2, sharey=True)
    style = look("analysis", 0)
    left.plot(rmse, levels, lw=1.5, ms=4.5, **(style | {"label": "RMSE of the mean"}))
    left.plot(spread, levels, lw=1.5, ls="--", **(style | {"label": "Spread", "marker": "none"}))
    left.set_xlim(left=0.0)
    label_axis(left, "Spread and error", units, "Pressure (hPa)")
    right.plot(ratio, levels, lw=1.5, ms=4.5, **style)
    right.axvline(1.0, color="k", lw=1.0, zorder=1)
    reach = max(0.5, 1.1 * float(np.nanmax(np.abs(ratio - 1.0), initial=0.0)))
    right.set_xlim(max(0.0, 1.0 - reach), 1.0 + reach)
    label_axis(right, "Spread / RMSE", "overconfident  < 1 <  underconfident", "")
    for axis in (left, right):
        pressure_axis(axis, levels)
    legend_below(figure, left)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def station_scores(
    names: Sequence[str],
    scores: Mapping[str, Float[np.ndarray, " station"]],
    *,
    counts: Sequence[int | float] | None = None,
    score: str = "RMSE",
    title: str = "",
    units: str = "K",
) -> "matplotlib.figure.Figure":
    """Bars of a score at withheld stations, one group per station and one bar per system.

    Args:
        names: of the stations, for instance with "All stations" in front.
        scores: from a system to (station,), in `units`; NaN draws no bar.
        counts: number of reports of each station, shown below its name.
        score: name of the score, for the axis.
        title: of the figure.
        units: of the scores.

    Raises:
        InputError: names and scores differ in number, or no matplotlib.
    """
    for system, values in scores.items():
        if len(values) != len(names):
            raise InputError(
                f"{len(values)} scores of {system} for {len(names)} stations: give one each"
            )
    labels = list(names)
    if counts is not None:
        labels = [f"{name}\n(n = {n})" for name, n in zip(names, counts, strict=True)]
    crowded = len(names) > 6
    figure = new_figure(float(np.clip(1.1 * len(names) + 1.0, 4.0, 8.5)), 3.8 if crowded else 3.2)
    axis = figure.subplots()
    width = 0.8 / max(len(scores), 1)
    for position, (system, values) in enumerate(scores.items()):
        style = look(system, position)
        place = np.arange(len(names)) + (position - (len(scores) - 1) / 2) * width
        bars = axis.bar(place, values, width * 0.92, color=style["color"], label=style["label"])
        if len(names) * len(scores) <= 20:
            axis.bar_label(bars, fmt="%.2f", fontsize=FONT - 2, padding=1)
    axis.set_xticks(np.arange(len(names)), labels)
    label_axis(axis, title, "", f"{score} ({units})")
    axis.tick_params("x", length=0)
    axis.margins(y=0.1)
    if crowded:
        for text in axis.get_xticklabels():
            text.set(rotation=45, ha="right", rotation_mode="anchor")
    axis.grid(visible=False, axis="x")
    legend_below(figure, axis)
    return figure


def training_curves(
    records: Sequence[Mapping[str, Any]], *, keys: Sequence[str] = (), title: str = ""
) -> "matplotlib.figure.Figure":
    """Losses against the training step, from the records in the metrics file of a run.

    Args:
        records: mappings with "step" and some numbers; others are ignored.
        keys: keys to draw; by default, all that contain "loss".
        title: of the figure.

    Raises:
        InputError: no record with a number to draw, or no matplotlib.
    """
    steps = [r for r in records if "step" in r]
    wanted = list(keys) or sorted({key for r in steps for key in r if "loss" in key})
    curves = {key: [(r["step"], r[key]) for r in steps if _number(r.get(key))] for key in wanted}
    curves = {key: np.array(points, dtype=float) for key, points in curves.items() if points}
    if not curves:
        raise InputError(f"no numbers to draw for {wanted or 'any loss'} in {len(records)} records")
    figure = new_figure(6.0, 3.6)
    axis = figure.subplots()
    for (key, points), style in zip(curves.items(), palette(len(curves)), strict=True):
        sparse = len(points) <= 40
        style |= {"lw": 1.3, "ms": 4, "label": key.replace("_", " ")}
        if not sparse:
            style["marker"] = "none"
        axis.plot(*points.T, **style)
    if min(points[:, 1].min() for points in curves.values()) > 0:
        axis.set_yscale("log")
    label_axis(axis, title, "Step", "Loss")
    legend_below(figure, axis)
    return figure


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
