"""What all figures share: creation, labels, colours, and saving (complete or not at all)."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slams_jax.errors import InputError
from slams_jax.storage import replacing

if TYPE_CHECKING:
    import matplotlib.figure

DPI = 120
FONT = 9  # points; a figure 8.5 inches wide fills the column of a README
GREY = "0.78"

# The colour-blind-safe palette of Okabe and Ito, each colour with its own marker.
STYLES: dict[str, dict[str, Any]] = {
    "persistence": {"color": "#009E73", "marker": "v", "label": "Persistence"},
    "oi_analysis": {"color": "#56B4E9", "marker": "X", "label": "OI, deterministic"},
    "climatology": {"color": "#999999", "marker": "D", "label": "Climatology"},
    "background": {"color": "#E69F00", "marker": "s", "label": "Background"},
    "oi": {"color": "#0072B2", "marker": "^", "label": "OI"},
    "analysis": {"color": "#D55E00", "marker": "o", "label": "Analysis"},
}
SPARE = (("#CC79A7", "P"), ("#000000", "*"))


def new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """An empty figure, width and height in inches, with constrained layout.

    Raises:
        InputError: no matplotlib.
    """
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise InputError(
            "figures need matplotlib: install it with `pip install 'slams-jax[plot]'`"
        ) from error
    return module.Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: "matplotlib.figure.Figure", path: str | os.PathLike) -> Path:
    """Save a figure, complete or not at all, in the format of the suffix (.png, .pdf, .svg).

    Raises:
        InputError: a suffix that matplotlib cannot write.
    """
    path = Path(path).expanduser()
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:] not in formats:
        raise InputError(
            f"{path}: unsupported figure format {path.suffix!r}: use .png, .pdf or .svg"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return path


def label_axis(axis: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Set title and labels, and draw a faint grid behind the data."""
    axis.set_title(title, fontsize=FONT)
    axis.set_xlabel(xlabel, fontsize=FONT)
    axis.set_ylabel(ylabel, fontsize=FONT)
    axis.tick_params(which="both", labelsize=FONT - 1)
    axis.grid(color=GREY, lw=0.5, zorder=0)
    axis.set_axisbelow(True)


def legend_below(figure: Any, axis: Any) -> None:
    """One legend below all panels, with the entries of `axis`."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 5),
        fontsize=FONT - 1,
        frameon=False,
    )


def look(system: str, position: int) -> dict[str, Any]:
    """Colour, marker and label of a system; those in `STYLES` look the same in every figure."""
    if system in STYLES:
        return dict(STYLES[system])
    color, marker = SPARE[position % len(SPARE)]
    return {"color": color, "marker": marker, "label": system}


def palette(number: int) -> list[dict[str, Any]]:
    """Colour, marker and line of curves that are not the systems of an evaluation.

    Once the colours are used up they come again, with other markers and broken lines.
    """
    pairs = [(style["color"], style["marker"]) for style in reversed(STYLES.values())]
    pairs += SPARE
    looks = []
    for index in range(number):
        turn, place = divmod(index, len(pairs))
        marker = pairs[(place + turn) % len(pairs)][1]
        looks.append({"color": pairs[place][0], "marker": marker, "ls": "--" if turn else "-"})
    return looks


def pressure_axis(axis: Any, levels: np.ndarray) -> None:
    """Logarithmic pressure axis, surface at the bottom, with labels where they fit."""
    axis.set_yscale("log")
    bottom, top = float(np.max(levels)), float(np.min(levels))
    margin = max(0.03 * np.log(bottom / top), 0.02)
    axis.set_ylim(bottom * np.exp(margin), top / np.exp(margin))
    height = np.log(bottom / top) + 2 * margin
    shown: list[float] = []
    for level in sorted((float(v) for v in levels), reverse=True):
        if not shown or np.log(shown[-1] / level) > 0.03 * height:
            shown.append(level)
    axis.set_yticks([float(v) for v in levels], minor=False)
    axis.set_yticklabels([f"{v:g}" if float(v) in shown else "" for v in levels])
    axis.minorticks_off()
