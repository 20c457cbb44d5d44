"""What the network gains over other systems, level by level."""

from pathlib import Path
from typing import Any

import numpy as np

from slams_jax.verify.figures import (
    FONT,
    label_axis,
    legend_below,
    new_figure,
    palette,
    pressure_axis,
    save,
)

WIDTH, HEIGHT = 2.9, 3.6  # inches of a panel


def draw(scores: dict[str, Any], levels: list[float | None], path: Path) -> Path:
    """Differences in CRPS with their intervals, in percent of the other system's CRPS.

    One panel for each kind of opponent: the best baseline, the surrogate, and the network itself
    given less; one curve for each network.

    Args:
        scores: as `report.scores` has them, with at least one difference.
        levels: hPa, of the channels; None where a channel has none.
        path: of the picture.
    """
    panels: dict[str, list[dict[str, Any]]] = {}
    for difference in scores["differences"]:
        panels.setdefault(difference["opponent"], []).append(difference)
    names = list(dict.fromkeys(d["system"] for d in scores["differences"]))
    looks = dict(zip(names, palette(len(names)), strict=True))
    on_levels = all(level is not None for level in levels)
    place = np.array(levels if on_levels else np.arange(len(levels)), np.float64)
    figure = new_figure(max(WIDTH * len(panels), 4.0), HEIGHT)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title, differences) in zip(axes, panels.items(), strict=True):
        axis.axvline(0.0, color="0.4", lw=1.0)
        for number, difference in enumerate(differences):
            _curve(axis, scores, difference, place, looks[difference["system"]], number)
        first = axis is axes[0]
        ylabel = "Pressure, hPa" if first and on_levels else ""
        label_axis(axis, f"Against {title}", "CRPS, change in %", ylabel)
    if on_levels:
        pressure_axis(axes[0], place)
    else:
        axes[0].set_yticks(place, scores["channels"], fontsize=FONT - 1)
    most = max(range(len(panels)), key=lambda i: len(axes[i].get_legend_handles_labels()[1]))
    legend_below(figure, axes[most])
    return save(figure, path)


def _curve(
    axis: Any,
    scores: dict[str, Any],
    difference: dict[str, Any],
    place: np.ndarray,
    look: tuple[str, str],
    number: int,
) -> None:
    """One network against one opponent; `number` keeps intervals from covering one another."""
    of, other = difference["crps"], scores["systems"][difference["from"]]
    scale = 100.0 / np.array(next(iter(other["regions"].values()))["crps"])
    value = scale * np.array(of["difference"])
    reach = None
    if "low" in of:
        reach = np.abs(np.stack([of["low"], of["high"]]) * scale - value)
    nearest = np.min(np.abs(np.diff(np.log(place)))) if place.min() > 0 and place.size > 1 else 0.0
    colour, marker = look
    axis.errorbar(
        value,
        place * np.exp(0.12 * nearest * number),
        xerr=reach,
        color=colour,
        marker=marker,
        ms=4.0,
        lw=1.2,
        capsize=2.0,
        label=difference["system"],
    )
