"""What the network gains over other systems, level by level."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.compare.report import whole
from slams_jax.verify.figures import label_axis, legend_below, new_figure, palette, save

WIDTH, HEIGHT = 2.9, 3.8  # inches of a panel
APART = 0.14  # of two curves, in levels


def draw(scores: dict[str, Any], levels: list[float | None], path: Path) -> Path:
    """Differences in CRPS with their intervals, in percent of the other system's CRPS.

    One panel for each kind of opponent: the best classical method, the surrogate, and the network
    itself given less; one curve for each network.

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
    labels = [f"{level:g}" for level in levels] if on_levels else scores["channels"]
    # Evenly spaced, the surface at the bottom: on a scale of pressure low levels would crowd.
    place = np.arange(len(levels), dtype=np.float64)
    figure = new_figure(max(WIDTH * len(panels), 4.0), HEIGHT)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title, differences) in zip(axes, panels.items(), strict=True):
        axis.axvline(0.0, color="0.4", lw=1.0)
        for difference in differences:
            # Curves of one name lie at one height, apart from the others.
            apart = APART * (names.index(difference["system"]) - 0.5 * (len(names) - 1))
            _curve(axis, scores, difference, place + apart, looks[difference["system"]])
        first = axis is axes[0]
        ylabel = "Pressure, hPa" if first and on_levels else ""
        label_axis(axis, f"Against {title}", "CRPS, change in %", ylabel)
    axes[0].set_yticks(place, labels)
    axes[0].set_ylim(len(levels) - 0.5, -0.5)
    most = max(range(len(panels)), key=lambda i: len(axes[i].get_legend_handles_labels()[1]))
    legend_below(figure, axes[most])
    return save(figure, path)


def _curve(
    axis: Any,
    scores: dict[str, Any],
    difference: dict[str, Any],
    place: np.ndarray,
    look: dict[str, Any],
) -> None:
    """One network against one opponent, at the heights `place`."""
    of, other = difference["crps"], scores["systems"][difference["from"]]
    scale = 100.0 / np.array(whole(other)["crps"])
    value = scale * np.array(of["difference"])
    reach = None
    if "low" in of:
        reach = np.abs(np.stack([of["low"], of["high"]]) * scale - value)
    axis.errorbar(
        value,
        place,
        xerr=reach,
        ms=4.0,
        lw=1.2,
        capsize=2.0,
        label=difference["system"],
        **look,
    )
