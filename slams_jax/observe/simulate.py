"""Simulated observing networks, for experiments with a known truth (OSSEs).

Positions, gaps and errors are drawn here; the observed quantities come from the operators. All
functions use NumPy on the host and are deterministic given a key. Gaps are NaN.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from slams_jax.aliases import PRNGKey
from slams_jax.errors import InputError
from slams_jax.grid import EARTH_RADIUS, Grid

# A sun-synchronous orbit like that of the NOAA satellites: 71 orbits in 5 days.
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
    land: Float[np.ndarray, "lat lon"] | None = None,
) -> Network:
    """Stations at irregular positions, uniform in area or clustered as on land.

    Args:
        key: of all draws.
        grid: the stations lie in its domain.
        count: number of stations.
        clusters: number of clusters; 0 for none.
        clustered: share of the stations in clusters.
        spread: standard deviation of a cluster, degrees.
        separation: smallest distance between two stations, km.
        highest: largest altitude, m; half of the stations are below a quarter of it.
        land: share of land in each cell of `grid`; stations lie in cells where it is at least a
            half. None for stations everywhere.

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
        if land is not None and land[grid.nearest(place[0], place[1])] < 0.5:
            continue
        places = np.concatenate([places, place[None]])
        if len(places) == count:
            altitude = highest * rng.random(count) ** 2
            west = grid.longitude[0]
            # Clusters may cross the seam of a global grid; elsewhere this changes nothing.
            return Network(places[:, 0], west + np.mod(places[:, 1] - west, 360.0), altitude)
    raise InputError(
        f"no room for {count} stations {separation:g} km apart: lower the count or the separation"
    )


def outages(
    key: PRNGKey, times: int, stations: int, *, missing: float = 0.05, length: float = 3.0
) -> Bool[np.ndarray, "time station"]:
    """Outages of stations, in spells with a mean length of `length` times; True where missing.

    Each station is a two-state Markov chain in its stationary state that is off for a share
    `missing` of the time.

    Raises:
        InputError: a share that is not in [0, 1), or a length below one.
    """
    if not 0.0 <= missing < 1.0 or not length >= 1.0:
        raise InputError(
            f"outages need missing in [0, 1) and length >= 1, got {missing} and {length}"
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
    """Grid points observed by the ascending passes of a polar-orbiting satellite on each day.

    The gaps between neighbouring swaths narrow towards the poles and move from day to day.

    Args:
        grid: the points.
        days: number of days.
        first_orbit: orbit number, with fraction, at the beginning of the first day.
        half_width: half the width of the swath, km.
    """
    phase = np.deg2rad(np.arange(-90.0, 91.0, 2.0))  # along the ascending half of an orbit
    tilt = np.deg2rad(INCLINATION)
    latitude = np.arcsin(np.sin(tilt) * np.sin(phase))
    turn = 2 * np.pi * REPEAT_DAYS / ORBITS  # of the Earth, during one orbit
    ahead = np.arctan2(np.cos(tilt) * np.sin(phase), np.cos(phase)) - phase / (2 * np.pi) * turn
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    points = _unit(np.stack([lat, lon], axis=-1))
    edge = np.cos(half_width * 1e3 / EARTH_RADIUS)
    covered = np.zeros((min(days, REPEAT_DAYS), *grid.shape), dtype=bool)
    for day in range(len(covered)):
        start = first_orbit + day * ORBITS / REPEAT_DAYS
        for orbit in np.arange(np.ceil(start), start + ORBITS / REPEAT_DAYS):
            track = np.stack([latitude, ahead - orbit * turn], axis=-1)
            covered[day] |= (points @ _unit(np.rad2deg(track)).T).max(axis=-1) >= edge
    return np.resize(covered, (days, *grid.shape))


def measure(
    key: PRNGKey,
    values: Float[np.ndarray, "..."],
    error: Float[np.ndarray, "..."] | float,
    observed: Bool[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """`values` with independent Gaussian errors, NaN where nothing is observed.

    Args:
        key: of the errors.
        values: error-free observations.
        error: standard deviation, in the units of `values`; broadcasts against its last dimensions.
        observed: broadcasts against the first dimensions of `values`.

    Raises:
        InputError: an error that is not positive.
    """
    error = np.asarray(error, dtype=np.float32)
    if not np.all(np.isfinite(error) & (error > 0)):
        raise InputError(f"observation error must be positive, got {error.tolist()}")
    noise = _generator(key).standard_normal(values.shape, dtype=np.float32)
    observed = np.expand_dims(observed, tuple(range(observed.ndim, values.ndim)))
    return np.where(observed, values + error * noise, np.nan).astype(np.float32)


def gauge(
    key: PRNGKey,
    rain: Float[np.ndarray, "time station"],
    observed: Bool[np.ndarray, "time station"],
    *,
    spread: float,
    trace: float,
) -> Float[np.ndarray, "time station"]:
    """What rain gauges report of `rain`: never negative, 0 where dry, NaN where missing.

    Their errors, of the instrument and of a point that stands for a cell, are multiplicative and
    skewed: log-normal factors with mean 1, independent of one another (as those of Tian et al.
    2013, Geophys. Res. Lett. 40, 2060-2065). What is then below `trace` is reported as 0.

    Args:
        key: of the errors.
        rain: the truth, mm/day.
        observed: where there are reports.
        spread: standard deviation of the logarithm of a factor.
        trace: smallest amount that is reported, mm/day.

    Raises:
        InputError: a spread that is not positive, or a negative trace.
    """
    if not spread > 0.0 or not trace >= 0.0:
        raise InputError(f"gauges need spread > 0 and trace >= 0, got {spread} and {trace}")
    noise = _generator(key).standard_normal(rain.shape, dtype=np.float32)
    amount = rain * np.exp(np.float32(spread) * noise - np.float32(spread) ** 2 / 2)
    reported = np.where(amount < trace, 0.0, amount)
    return np.where(observed, reported, np.nan).astype(np.float32)


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
    """A place in the cluster around `centre`, degrees."""
    lat = centre[0] + spread * rng.standard_normal()
    stretch = max(0.2, np.cos(np.deg2rad(centre[0])))
    return np.array([lat, centre[1] + spread / stretch * rng.standard_normal()])


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    """South, north, west and east of the domain, degrees."""
    south, north = grid.latitude[0], grid.latitude[-1]
    west, east = grid.longitude[0], grid.longitude[-1]
    return south, north, west, west + 360.0 if grid.periodic else east


def _inside(grid: Grid, place: np.ndarray) -> bool:
    south, north, west, east = _bounds(grid)
    return bool(south <= place[0] <= north and (grid.periodic or west <= place[1] <= east))
