"""Regions over which scores are averaged, as in WeatherBench 2 (Rasp et al. 2024)."""

import numpy as np
from jaxtyping import Bool

from slams_jax.grid import Grid

TROPICS = 20.0  # degrees, the latitude between tropics and extratropics


def regions_of(grid: Grid) -> dict[str, Bool[np.ndarray, "lat lon"]]:
    """Masks of the regions of a grid by name, the complete grid first.

    A grid around the globe has `globe`, `northern extratropics`, `tropics` and `southern
    extratropics`, as far as it has rows in them; any other grid is one region, `domain`.
    """
    everywhere = np.ones(grid.shape, bool)
    if not grid.periodic:
        return {"domain": everywhere}
    latitude = np.broadcast_to(np.asarray(grid.latitude)[:, None], grid.shape)
    masks = {
        "globe": everywhere,
        "northern extratropics": latitude > TROPICS,
        "tropics": np.abs(latitude) <= TROPICS,
        "southern extratropics": latitude < -TROPICS,
    }
    return {name: mask for name, mask in masks.items() if mask.any()}
