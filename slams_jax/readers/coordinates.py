"""What the coordinates of a file are, and the order that the library wants them in."""

import re
from collections.abc import Hashable

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.units import hectopascals, units_of
from slams_jax.schema import (
    ALTITUDE,
    CHANNEL,
    COORDINATE_ALIASES,
    LATITUDE,
    LEVEL,
    LONGITUDE,
    MEMBER,
    TIME,
)

_ROLES = (TIME, LEVEL, LATITUDE, LONGITUDE, MEMBER, CHANNEL)
_AXES = {"T": TIME, "Z": LEVEL, "Y": LATITUDE, "X": LONGITUDE, "E": MEMBER}
_STANDARD_NAMES = {
    "time": TIME,
    "air_pressure": LEVEL,
    "latitude": LATITUDE,
    "longitude": LONGITUDE,
    "realization": MEMBER,
    "sensor_band_identifier": CHANNEL,
    "sensor_band_central_radiation_wavelength": CHANNEL,
    "sensor_band_central_radiation_wavenumber": CHANNEL,
    "radiation_wavelength": CHANNEL,
    "radiation_frequency": CHANNEL,
}
# Vertical coordinates other than pressure, in the names of GRIB, CF and models, lower case.
_HEIGHTS = ("surface", "heightaboveground", "heightabovesea", "meansea", "geopotential_height")
_MODEL_LEVELS = (
    "hybrid",
    "hybridlayer",
    "model_level",
    "modellevel",
    "model_level_number",
    "generalvertical",
    "generalverticallayer",
    "sigma",
    "sigma_level",
    "eta",
    "bottom_top",
    "theta",
    "potentialvorticity",
    "depth",
    "depthbelowland",
    "depthbelowlandlayer",
)
_VERTICAL_STANDARD_NAMES = (
    "model_level_number",
    "altitude",
    "height",
    "geopotential_height",
    "depth",
    "air_potential_temperature",
)
_NO_PRESSURE = re.compile(r"\b(hybrid|sigma|eta|model[ _-]?levels?|log[ -]pressure|ln)\b")
# hPa of the levels that reanalyses and models are published on, between multiples of 25 hPa.
_USUAL_LEVELS = (*range(1, 11), 15, 20, 30, 40, 50, 60, 70, 80, 90)


def role_of(name: Hashable, coordinate: xr.Variable | None) -> str | None:
    """The part that dimension `name` plays (`time`, `level`, ...), or None when it is another.

    Its name decides, then the attributes `standard_name`, `axis` and `units` of its coordinate
    variable (CF conventions, chapter 4), then the beginning of its name (`level_z`, `lat_2`).
    """
    lower = str(name).lower()
    for role in _ROLES:
        if lower in COORDINATE_ALIASES[role]:
            return role
    if lower in (*COORDINATE_ALIASES[ALTITUDE], *_HEIGHTS, *_MODEL_LEVELS):
        return LEVEL  # vertical, but not a pressure: `pressures` tells
    attributes = {} if coordinate is None else coordinate.attrs
    standard_name = str(attributes.get("standard_name", ""))
    if standard_name in _STANDARD_NAMES:
        return _STANDARD_NAMES[standard_name]
    if standard_name.startswith("atmosphere_") or standard_name in _VERTICAL_STANDARD_NAMES:
        return LEVEL
    if attributes.get("axis") in _AXES:
        return _AXES[attributes["axis"]]
    units = units_of(coordinate)
    if units.lower().startswith(("degrees_n", "degree_n")):
        return LATITUDE
    if units.lower().startswith(("degrees_e", "degree_e")):
        return LONGITUDE
    if " since " in units:
        return TIME
    if coordinate is not None and units and hectopascals(np.ones(1), units) is not None:
        return LEVEL
    stem = lower.rstrip("0123456789").split("_")[0]
    for role in _ROLES:
        if len(stem) > 1 and stem in COORDINATE_ALIASES[role]:
            return role
    return None


def pressures(name: Hashable, coordinate: xr.Variable | None) -> np.ndarray | None:
    """hPa, float64 (n,), of a vertical coordinate, or None when it is not a pressure.

    `standard_name`, `formula_terms` and `long_name` decide before the units: hybrid coordinates are
    often written in hPa. Without any of these the name (`plev`) or values that are published
    pressure levels are needed; other numbers may count the levels of a model.
    """
    lower = str(name).lower()
    if coordinate is None or lower in (*COORDINATE_ALIASES[ALTITUDE], *_HEIGHTS, *_MODEL_LEVELS):
        return None
    standard_name = str(coordinate.attrs.get("standard_name", ""))
    words = f"{lower} {str(coordinate.attrs.get('long_name', '')).lower()}"
    foreign = standard_name and (
        standard_name.startswith("atmosphere_") or "pressure" not in standard_name
    )
    if foreign or "formula_terms" in coordinate.attrs or _NO_PRESSURE.search(words):
        return None
    levels = hectopascals(exact_float64(coordinate.values), units_of(coordinate))
    said = units_of(coordinate) or standard_name or "pres" in words or "plev" in words
    said = said or "isobar" in words
    return levels if levels is None or said or _usual(levels) else None


def _usual(levels: np.ndarray) -> bool:
    """Whether all of `levels` are hPa that data are published on, and not 1, 2, 3, ... n."""
    counted = np.array_equal(levels, np.arange(1, levels.size + 1))
    return not counted and bool(np.all((levels % 25 == 0) | np.isin(levels, _USUAL_LEVELS)))


def is_height(name: Hashable, coordinate: xr.Variable | None) -> bool:
    """Whether a vertical coordinate is a height, as in "at 2 m", or the surface."""
    lengths = ("m", "meter", "meters", "metre", "metres", "km", "ft")
    names = (*COORDINATE_ALIASES[ALTITUDE], *_HEIGHTS)
    return str(name).lower() in names or units_of(coordinate).strip().lower() in lengths


def exact_float64(values: np.ndarray) -> np.ndarray:
    """float64 of the shortest decimal that each float32 stands for (270.3, not 270.29998...)."""
    values = np.asarray(values)
    if values.dtype == np.float32:
        return np.array([float(str(v)) for v in values.ravel()]).reshape(values.shape)
    return values.astype(np.float64)


def horizontal(coordinate: xr.Variable | None, role: str, *, source: str) -> np.ndarray:
    """Degrees, float64 (n,), of a latitude or longitude coordinate.

    Raises:
        InputError: no coordinate, two-dimensional, other units than degrees, or not on the globe.
    """
    if coordinate is None or coordinate.ndim != 1:
        raise InputError(
            f"{source}: no one-dimensional {role} coordinate: only rectangular "
            "latitude-longitude grids are read, interpolate the data to one"
        )
    units = units_of(coordinate).lower() or "degrees"
    values = exact_float64(coordinate.values)
    limit = 90.0 if role == LATITUDE else 720.0
    if not units.startswith("deg") or not np.all(np.abs(values) <= limit + 1e-6):
        raise InputError(
            f"{source}: {role} is not in degrees (units {units!r}, values {values[0]:g} to "
            f"{values[-1]:g}): interpolate the data to a latitude-longitude grid"
        )
    return values


def latitude_order(latitude: np.ndarray, *, source: str) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, ascending latitudes), both (n,).

    Raises:
        InputError: a latitude that appears twice.
    """
    order = np.argsort(latitude, kind="stable")
    ascending = np.round(latitude[order], 6)
    if np.any(np.diff(ascending) <= 0):
        raise InputError(f"{source}: a latitude appears twice: keep each row once")
    return order, ascending


def longitude_order(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, ascending longitudes without a gap), both (n,).

    The result lies in [0, 360) where that leaves the domain in one piece; else what lies beyond
    the hole and beyond 180 becomes negative. A meridian that the file repeats to close the circle
    is dropped.
    """
    wrapped = np.round(np.mod(np.round(longitude, 6), 360.0), 6) % 360.0
    wrapped, order = np.unique(wrapped, return_index=True)
    if wrapped.size > 1:
        seam = 360.0 - (wrapped[-1] - wrapped[0])
        gaps = np.diff(wrapped)
        if gaps.max() > seam + 1e-3:  # the hole of the domain lies inside [0, 360)
            after = max(180.0, wrapped[gaps.argmax() + 1])
            wrapped = np.where(wrapped >= after, wrapped - 360.0, wrapped)
            ascending = np.argsort(wrapped)
            return order[ascending], np.round(wrapped[ascending], 6)
    return order, wrapped


def select_levels(
    available: np.ndarray, wanted: tuple[float, ...] | None, *, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """(indices into the file, ascending pressures in hPa) of `wanted`, or of all levels.

    Raises:
        InputError: a level that the file does not have, or has twice.
    """
    order = np.argsort(available, kind="stable")
    ascending = available[order]
    if np.any(np.diff(ascending) <= 0):
        raise InputError(f"{source}: a level appears twice: keep each once")
    if wanted is None:
        return order, ascending
    chosen = []
    for level in sorted(set(wanted)):
        near = np.flatnonzero(np.abs(ascending - level) <= 1e-4 * level)
        if near.size == 0:
            there = ", ".join(f"{v:g}" for v in ascending)
            raise InputError(f"{source}: no level {level:g} hPa: it has {there} hPa")
        chosen.append(near[0])
    return order[chosen], np.array(sorted(set(wanted)), dtype=np.float64)
