"""Horizontal grids: coordinates, area weights and padding rules."""

import dataclasses
from collections.abc import Iterable
from typing import Literal, SupportsFloat

import numpy as np
from jaxtyping import Float

from slams_jax.errors import InputError

EARTH_RADIUS = 6.371229e6  # m, the sphere of ERA5 and GRIB

# Rules for values that a stencil reads beyond the edges of an array (..., lat, lon, channel):
#   sphere   longitude wraps; latitude continues over the pole, along the opposite meridian
#   channel  longitude wraps; latitude repeats its last row
#   edge     both repeat their last row (a regional domain)
#   torus    both wrap (doubly periodic test problems, and the networks of SLAMS)
Padding = Literal["sphere", "channel", "edge", "torus"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """A rectangular latitude-longitude grid. Hashable, so that it can be a static argument.

    Attributes:
        latitude: degrees north, strictly ascending.
        longitude: degrees east, strictly ascending, over less than a full circle.

    Raises:
        InputError: coordinates that do not ascend or are outside the globe.
    """

    latitude: tuple[float, ...]
    longitude: tuple[float, ...]

    def __post_init__(self):
        for name, values, low, high in (
            ("latitude", self.latitude, -90.0, 90.0),
            ("longitude", self.longitude, -180.0, 360.0),
        ):
            array = np.asarray(values, dtype=np.float64)
            if array.ndim != 1 or array.size == 0:
                raise InputError(f"{name} must be a non-empty list of degrees, got {values!r}")
            if not np.all(np.isfinite(array)) or np.any(np.diff(array) <= 0):
                raise InputError(
                    f"{name} must ascend strictly, got {array[:4].tolist()} ...: sort it"
                )
            if array[0] < low - 1e-6 or array[-1] > high + 1e-6:
                raise InputError(
                    f"{name} must lie in [{low:g}, {high:g}] degrees, "
                    f"got {array[0]:g} to {array[-1]:g}"
                )
        if self.longitude[-1] - self.longitude[0] >= 360.0 - 1e-6:
            raise InputError("longitude covers more than a full circle: drop the repeated meridian")

    @classmethod
    def of(cls, latitude: Iterable[SupportsFloat], longitude: Iterable[SupportsFloat]) -> "Grid":
        """The grid of two coordinate arrays, rounded to 1e-6 degrees so that files match."""
        return cls(
            tuple(round(float(v), 6) for v in latitude),
            tuple(round(float(v), 6) for v in longitude),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return len(self.latitude), len(self.longitude)

    @property
    def extent(self) -> str:
        """Size and domain, as text."""
        lat, lon = self.latitude, self.longitude
        return f"{len(lat)} x {len(lon)}, {lat[0]:g} to {lat[-1]:g} N, {lon[0]:g} to {lon[-1]:g} E"

    @property
    def periodic(self) -> bool:
        """Whether the first meridian follows the last, around the globe."""
        lon = np.asarray(self.longitude)
        if lon.size < 4:
            return False
        spacing = np.diff(lon)
        gap = 360.0 - (lon[-1] - lon[0])
        return bool(np.ptp(spacing) < 1e-3 and abs(gap - spacing.mean()) < 1e-2 * spacing.mean())

    @property
    def padding(self) -> Padding:
        """The padding rule that suits this grid."""
        if not self.periodic:
            return "edge"
        lat = np.asarray(self.latitude)
        spacing = np.diff(lat).mean() if lat.size > 1 else 180.0
        reaches_poles = max(90.0 + lat[0], 90.0 - lat[-1]) <= spacing and lat.size > 1
        # To continue over the pole, the opposite meridian must be one of the grid.
        return "sphere" if reaches_poles and self.shape[1] % 2 == 0 else "channel"

    def nearest(
        self, latitude: np.ndarray | float, longitude: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of the point nearest in latitude and in longitude to each place."""
        lat, lon = np.asarray(latitude)[..., None], np.asarray(longitude)[..., None]
        row = np.abs(lat - np.asarray(self.latitude)).argmin(axis=-1)
        column = degrees_apart(lon, np.asarray(self.longitude)).argmin(axis=-1)
        return np.asarray(row), np.asarray(column)

    def latitude_edges(self) -> np.ndarray:
        """Edges of the rows of cells, degrees north (lat + 1,).

        A cell extends half-way to its neighbours, and to the pole at the ends of a grid that
        covers it.
        """
        lat = np.asarray(self.latitude, dtype=np.float64)
        middle = (lat[1:] + lat[:-1]) / 2
        first = max(-90.0, lat[0] - (middle[0] - lat[0]))
        last = min(90.0, lat[-1] + (lat[-1] - middle[-1]))
        if self.padding == "sphere":
            first, last = -90.0, 90.0
        return np.concatenate([[first], middle, [last]])

    def longitude_edges(self) -> np.ndarray:
        """Edges of the columns of cells, degrees east (lon + 1,), at most a full circle."""
        lon = np.asarray(self.longitude, dtype=np.float64)
        middle = (lon[1:] + lon[:-1]) / 2
        if self.periodic:
            seam = (lon[0] + lon[-1] - 360.0) / 2
            return np.concatenate([[seam], middle, [seam + 360.0]])
        first, last = 2 * lon[0] - middle[0], 2 * lon[-1] - middle[-1]
        beyond = max(0.0, last - first - 360.0) / 2
        return np.concatenate([[first + beyond], middle, [last - beyond]])

    def area_weights(self) -> np.ndarray:
        """Area of each cell relative to the mean area, float32 (lat, lon), with mean one.

        The area of a cell is proportional to the difference between the sines of its edges.
        """
        if len(self.latitude) == 1:
            return np.ones(self.shape, dtype=np.float32)
        weights = np.diff(np.sin(np.deg2rad(self.latitude_edges())))
        weights = weights / weights.mean()
        return np.broadcast_to(weights[:, None], self.shape).astype(np.float32)


def degrees_apart(
    first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Distances of longitudes along the circle, so that a global grid has no seam."""
    return np.abs(np.mod(first - second + 180.0, 360.0) - 180.0)
