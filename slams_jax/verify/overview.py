"""Overview of a training set: maps, a histogram and the missing share of each field."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.verify.figures import FONT, label_axis, new_figure
from slams_jax.verify.maps import colour_bar, draw_map, map_height

if TYPE_CHECKING:
    import matplotlib.figure

_BLUE, _VERMILION = "#0072B2", "#D55E00"  # Okabe and Ito


class Shown(NamedTuple):
    """The contents of the panels of one field."""

    name: str
    channel: str
    units: str
    frame: np.ndarray  # (lat, lon), at one time
    when: str  # that time
    mean: np.ndarray  # (lat, lon)
    values: np.ndarray  # (value,), for the histogram
    missing: np.ndarray  # (time,), share


def overview(
    grid: Grid, times: np.ndarray, fields: Sequence[Shown], *, title: str = ""
) -> "matplotlib.figure.Figure":
    """A row of panels for each field: one time, the mean over time, a histogram, and gaps.

    Args:
        grid: of all fields.
        times: datetime64 (time,).
        fields: contents of the rows.
        title: of the figure.

    Raises:
        InputError: no fields, or no matplotlib.
    """
    if not fields:
        raise InputError("no fields to draw: give at least one")
    height = float(np.clip(map_height(grid), 1.4, 2.2)) + 0.9
    figure = new_figure(11.0, height * len(fields) + 0.5)
    axes = figure.subplots(len(fields), 4, squeeze=False)
    for row, shown in zip(axes, fields, strict=True):
        maps = [shown.frame, shown.mean]
        values = np.concatenate([m[np.isfinite(m)] for m in maps])
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        scale = {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1.0}
        label = f"{shown.channel} ({shown.units})"
        for axis, field, name in zip(row, maps, (shown.when, "Mean over time"), strict=False):
            image = draw_map(axis, grid, field, f"{shown.name}: {name}", **scale)
            colour_bar(figure, image, axis, label)
        row[2].hist(shown.values, bins=60, color=_BLUE, log=True)
        label_axis(row[2], f"{shown.name}: values", label, "Number")
        _gaps(row[3], shown, times)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def _gaps(axis, shown: Shown, times: np.ndarray) -> None:
    """Missing share against time, averaged so that years of daily data stay readable."""
    every = max(1, len(times) // 400)
    count = len(times) // every * every
    share = shown.missing[:count].reshape(-1, every).mean(axis=1)
    when = times[:count:every].astype("datetime64[s]")
    few = len(when) <= 40
    axis.plot(when, 100 * share, color=_VERMILION, lw=1.2, marker="o" if few else "none", ms=3)
    axis.set_ylim(-3, 103)
    label_axis(axis, f"{shown.name}: missing", "", "Missing (%)")
    axis.xaxis.set_major_locator(_dates().AutoDateLocator(maxticks=4))
    axis.xaxis.set_major_formatter(_dates().ConciseDateFormatter(axis.xaxis.get_major_locator()))


def _dates():
    import matplotlib.dates

    return matplotlib.dates
