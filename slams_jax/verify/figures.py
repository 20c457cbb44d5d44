"""What all pictures share: a figure of its own, labels, and a file that is whole or absent."""

import importlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slams_jax.errors import InputError

if TYPE_CHECKING:
    import matplotlib.figure

DPI = 120
FONT = 9  # points; a figure 8.5 inches wide fills the column of a README
GREY = "0.78"

# Okabe and Ito's colours, which the colour-blind tell apart, each with its own marker.
STYLES: dict[str, dict[str, Any]] = {
    "climatology": {"color": "#999999", "marker": "D", "label": "Climatology"},
    "background": {"color": "#E69F00", "marker": "s", "label": "Background"},
    "oi": {"color": "#0072B2", "marker": "^", "label": "OI"},
    "analysis": {"color": "#D55E00", "marker": "o", "label": "Analysis"},
}
SPARE = (("#009E73", "v"), ("#CC79A7", "P"), ("#56B4E9", "X"), ("#000000", "*"))


def new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """An empty figure of a size in inches, with constrained layout.

    Raises:
        InputError: no matplotlib.
    """
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise InputError(
            "pictures need matplotlib: install it with `pip install 'slams-jax[plot]'`"
        ) from error
    return module.Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: "matplotlib.figure.Figure", path: str | os.PathLike) -> Path:
    """Write a figure, whole or not at all, in the format of the suffix (.png, .pdf, .svg).

    Raises:
        InputError: a suffix that matplotlib cannot write.
    """
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:] not in formats:
        raise InputError(f"no picture format {path.suffix!r} of {path}: use .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    try:
        figure.savefig(draft, dpi=DPI)
        os.chmod(draft, 0o644)  # mkstemp's own mode hides the file from everyone else
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    return path


def label_axis(axis: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels, their sizes, and a faint grid behind the data."""
    axis.set_title(title, fontsize=FONT)
    axis.set_xlabel(xlabel, fontsize=FONT)
    axis.set_ylabel(ylabel, fontsize=FONT)
    axis.tick_params(which="both", labelsize=FONT - 1)
    axis.grid(color=GREY, lw=0.5, zorder=0)
    axis.set_axisbelow(True)


def legend_below(figure: Any, axis: Any) -> None:
    """One legend under all panels, of what `axis` shows."""
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
    """Colour, marker and label of a system; the same in every figure for those it knows."""
    if system in STYLES:
        return dict(STYLES[system])
    color, marker = SPARE[position % len(SPARE)]
    return {"color": color, "marker": marker, "label": system}


def palette(number: int) -> list[tuple[str, str]]:
    """Colours with markers, for things that are no systems of an evaluation."""
    known = [(style["color"], style["marker"]) for style in reversed(STYLES.values())]
    every = [*known, *SPARE]
    return [every[index % len(every)] for index in range(number)]


def pressure_axis(axis: Any, levels: np.ndarray) -> None:
    """Logarithmic, the ground at the bottom, a tick at every level and a label where it fits."""
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
