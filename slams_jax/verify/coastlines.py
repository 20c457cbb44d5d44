"""Coastlines for maps, included in the library so that nothing is downloaded.

`coastlines.npz` holds the land boundaries of Natural Earth 4.1.0 at 1:110 million (public domain,
naturalearthdata.com), from `land-110m.json` of the npm package `world-atlas` 2.0.2: each arc once,
without the edge along the antimeridian, which is not a coast; longitude and latitude in hundredths
of a degree.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

FILE = Path(__file__).with_name("coastlines.npz")


@functools.cache
def coastlines() -> tuple[Float[np.ndarray, "point coordinate"], ...]:
    """Lines of (longitude, latitude), degrees east in [-180, 180] and north."""
    with np.load(FILE, allow_pickle=False) as file:
        points, length = file["points"] / 100.0, file["length"]
    return tuple(np.split(points, np.cumsum(length.astype(int))[:-1]))


def draw_coastlines(axis: Any) -> None:
    """Draw coastlines on a map in degrees, for any range of longitudes."""
    west, east = axis.get_xlim()
    south, north = axis.get_ylim()
    gap = np.full((1, 2), np.nan)  # separates two lines
    shown = [
        moved
        for shift in (-360.0, 0.0, 360.0)
        for line in coastlines()
        if (moved := line + np.array([shift, 0.0]))[:, 0].max() >= west
        and moved[:, 0].min() <= east
    ]
    if shown:
        points = np.concatenate([part for line in shown for part in (line, gap)])
        axis.plot(*points.T, color="0.25", lw=0.5, zorder=2.5)
    axis.set_xlim(west, east)
    axis.set_ylim(south, north)
