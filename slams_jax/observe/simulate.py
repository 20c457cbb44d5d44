"""Simulated observing networks, for experiments in which the truth is known.

Positions, gaps and errors are drawn here; what is observed comes from the operators. Everything
is NumPy on the host, a function of its key. A gap is NaN.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from slams_jax.aliases import PRNGKey
from slams_jax.errors import InputError
from slams_jax.grid import EARTH_RADIUS, Grid

# A sun-synchronous orbit like those of the NOAA satellites: 71 orbits in 5 days.
ORBITS, REPEAT_DAYS = 71, 5
INCLINATION = 98.7  # degrees
HALF_SWATH = 1125.0  # km, of AMSU-A


class Network(NamedTuple):
    """Surface stations."""

    latitude: Float[np.ndarray, " station"]  # degrees north
    longitude: Float[np.ndarray, " station"]  # degrees east
    altitude: Float[np.ndarray, " station"]  # m


def station_network(
    key: PRNGKey,
    grid: Grid,
    count: int,
    *,
    clusters: int = 0,
    clustered: float = 0.7,
    spread: float = 12.0,
    separation: float = 50.0,
    highest: float = 1500.0,
) -> Network:
    """Stations at irregular places of the domain, uniform in area or gathered like land stations.

    Args:
        key: decides everything.
        grid: whose domain they lie in.
        count: number of stations.
        clusters: number of regions in which stations gather; 0 for none.
        clustered: share of the stations in such regions.
        spread: standard deviation of a region, degrees.
        separation: least distance between two stations, km.
        highest: greatest altitude, m; half the stations are below a quarter of it.

    Raises:
        InputError: a value out of range, or no room for so many stations.
    """
    if count < 1 or clusters < 0 or not 0.0 <= clustered <= 1.0 or not 0.0 <= highest <= 5000.0:
        raise InputError(
            f"stations need count >= 1, clusters >= 0, clustered in [0, 1] and highest in "
            f"[0, 5000] m, got {count}, {clusters}, {clustered} and {highest}"
        )
    rng = _generator(key)
    centres = _uniform(rng, grid, clusters)
    places = np.zeros((0, 2))
    nearest = np.cos(separation * 1e3 / EARTH_RADIUS)
    for _ in range(50 * count):
        if clusters and rng.random() < clustered:
            place = _around(rng, centres[rng.integers(clusters)], spread)
        else:
            place = _uniform(rng, grid, 1)[0]
        if not _inside(grid, place) or np.any(_unit(places) @ _unit(place) > nearest):
            continue
        places = np.concatenate([places, place[None]])
        if len(places) == count:
            altitude = highest * rng.random(count) ** 2
            west = grid.longitude[0]
            # Clusters reach over the seam of a global grid; elsewhere this changes nothing.
            return Network(places[:, 0], west + np.mod(places[:, 1] - west, 360.0), altitude)
    raise InputError(
        f"no room for {count} stations {separation:g} km apart: lower the count or the separation"
    )


def outages(
    key: PRNGKey, times: int, stations: int, *, missing: float = 0.05, length: float = 3.0
) -> Bool[np.ndarray, "time station"]:
    """When stations report nothing: spells whose mean length is `length` times.

    Each station is on or off in turns (a Markov chain in its stationary state), off for the share
    `missing` of the time.

    Raises:
        InputError: a share that is not in [0, 1), or a length below one.
    """
    if not 0.0 <= missing < 1.0 or not length >= 1.0:
        raise InputError(
            f"outages need a share in [0, 1) and a length >= 1, got {missing} and {length}"
        )
    rng = _generator(key)
    end = 1.0 / length
    begin = min(1.0, end * missing / (1.0 - missing))
    draws = rng.random((times, stations))
    off = np.zeros((times, stations), dtype=bool)
    off[0] = draws[0] < missing
    for t in range(1, times):
        off[t] = np.where(off[t - 1], draws[t] >= end, draws[t] < begin)
    return off


def swath(
    grid: Grid, days: int, *, first_orbit: float = 0.0, half_width: float = HALF_SWATH
) -> Bool[np.ndarray, "day lat lon"]:
    """What the ascending passes of a polar-orbiting satellite see on each day.

    The gaps between neighbouring swaths narrow polewards and move from day to day.

    Args:
        grid: the points.
        days: number of days.
        first_orbit: number (with fraction) of the orbit that the first day begins with.
        half_width: of the swath, km.
    """
    phase = np.deg2rad(np.arange(-90.0, 91.0, 2.0))  # along the ascending half of an orbit
    tilt = np.deg2rad(INCLINATION)
    latitude = np.arcsin(np.sin(tilt) * np.sin(phase))
    turn = 2 * np.pi * REPEAT_DAYS / ORBITS  # of the Earth, during one orbit
    ahead = np.arctan2(np.cos(tilt) * np.sin(phase), np.cos(phase)) - phase / (2 * np.pi) * turn
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    points = _unit(np.stack([lat, lon], axis=-1))
    edge = np.cos(half_width * 1e3 / EARTH_RADIUS)
    seen = np.zeros((min(days, REPEAT_DAYS), *grid.shape), dtype=bool)
    for day in range(len(seen)):
        start = first_orbit + day * ORBITS / REPEAT_DAYS
        for orbit in np.arange(np.ceil(start), start + ORBITS / REPEAT_DAYS):
            track = np.stack([latitude, ahead - orbit * turn], axis=-1)
            seen[day] |= (points @ _unit(np.rad2deg(track)).T).max(axis=-1) >= edge
    return np.resize(seen, (days, *grid.shape))


def measure(
    key: PRNGKey,
    values: Float[np.ndarray, "..."],
    error: Float[np.ndarray, "..."] | float,
    seen: Bool[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """`values` with independent Gaussian errors, NaN where nothing is seen.

    Args:
        key: of the errors.
        values: what a perfect instrument would give.
        error: standard deviation, in the units of `values`; against its last dimensions.
        seen: against the first dimensions of `values`.

    Raises:
        InputError: an error that is not positive.
    """
    error = np.asarray(error, dtype=np.float32)
    if not np.all(np.isfinite(error) & (error > 0)):
        raise InputError(f"observation error must be positive, got {error.tolist()}")
    noise = _generator(key).standard_normal(values.shape, dtype=np.float32)
    seen = np.expand_dims(seen, tuple(range(seen.ndim, values.ndim)))
    return np.where(seen, values + error * noise, np.nan).astype(np.float32)


def _generator(key: PRNGKey) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def _unit(place: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) of places (..., 2) in degrees."""
    lat, lon = np.deg2rad(place[..., 0]), np.deg2rad(place[..., 1])
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _uniform(rng: np.random.Generator, grid: Grid, count: int) -> np.ndarray:
    """Places (count, 2), uniform in area."""
    south, north, west, east = _bounds(grid)
    sine = rng.uniform(np.sin(np.deg2rad(south)), np.sin(np.deg2rad(north)), count)
    return np.stack([np.rad2deg(np.arcsin(sine)), rng.uniform(west, east, count)], axis=-1)


def _around(rng: np.random.Generator, centre: np.ndarray, spread: float) -> np.ndarray:
    lat = centre[0] + spread * rng.standard_normal()
    stretch = max(0.2, np.cos(np.deg2rad(centre[0])))
    return np.array([lat, centre[1] + spread / stretch * rng.standard_normal()])


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    south, north = grid.latitude[0], grid.latitude[-1]
    west, east = grid.longitude[0], grid.longitude[-1]
    return south, north, west, west + 360.0 if grid.periodic else east


def _inside(grid: Grid, place: np.ndarray) -> bool:
    south, north, west, east = _bounds(grid)
    return bool(south <= place[0] <= north and (grid.periodic or west <= place[1] <= east))
