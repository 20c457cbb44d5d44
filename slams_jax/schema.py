"""Names, dimensions and units: the one place where the library's vocabulary is written.

Dimension and variable names are those of WeatherBench 2; pressure levels are in hPa, ascending
(top of the atmosphere first), latitudes ascend, longitudes ascend without a gap.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from slams_jax.errors import InputError

TIME, LEVEL, LATITUDE, LONGITUDE = "time", "level", "latitude", "longitude"
MEMBER, STATION, ALTITUDE = "member", "station", "altitude"
DIMS = (TIME, LEVEL, LATITUDE, LONGITUDE)

# Other spellings of the dimensions and coordinates, lower case.
COORDINATE_ALIASES = {
    TIME: ("time", "valid_time", "date", "t", "times", "datetime"),
    LEVEL: (
        "level",
        "lev",
        "plev",
        "pressure_level",
        "isobaricinhpa",
        "pressure",
        "pfull",
        "p",
        "isobaric",
        "levels",
        "air_pressure",
    ),
    LATITUDE: ("latitude", "lat", "y", "nav_lat", "lats"),
    LONGITUDE: ("longitude", "lon", "x", "nav_lon", "lons"),
    MEMBER: ("member", "number", "realization", "ensemble", "ens"),
    ALTITUDE: ("altitude", "elevation", "height", "alt", "elev"),
}


@dataclasses.dataclass(frozen=True)
class Variable:
    """What is known of a variable: its units inside the library and its other names."""

    name: str
    units: str
    standard_name: str
    long_name: str
    aliases: tuple[str, ...] = ()


VARIABLES = {
    v.name: v
    for v in (
        Variable("temperature", "K", "air_temperature", "Temperature", ("t", "ta", "air", "temp")),
        Variable(
            "2m_temperature", "K", "air_temperature", "2 metre temperature", ("t2m", "tas", "2t")
        ),
        Variable("geopotential", "m2 s-2", "geopotential", "Geopotential", ("z",)),
        Variable(
            "specific_humidity", "kg kg-1", "specific_humidity", "Specific humidity", ("q", "hus")
        ),
        Variable(
            "mean_sea_level_pressure",
            "Pa",
            "air_pressure_at_mean_sea_level",
            "Mean sea level pressure",
            ("slp", "msl", "psl"),
        ),
        Variable(
            "total_precipitation",
            "m",
            "lwe_thickness_of_precipitation_amount",
            "Total precipitation",
            ("tp", "precip"),
        ),
        Variable(
            "outgoing_longwave_radiation",
            "W m-2",
            "toa_outgoing_longwave_flux",
            "Outgoing longwave radiation",
            ("olr", "rlut"),
        ),
        Variable(
            "brightness_temperature",
            "K",
            "toa_brightness_temperature",
            "Brightness temperature",
            ("tb", "bt"),
        ),
    )
}

SLAMS_LEVELS = (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0)  # hPa


class Channel(NamedTuple):
    """One channel of an array: a variable on a pressure level (hPa), or without one."""

    variable: str
    level: float | None = None

    def __str__(self) -> str:
        return self.variable if self.level is None else f"{self.variable} {self.level:g} hPa"


def channels_of(variables: Sequence[str], levels: Sequence[float]) -> tuple[Channel, ...]:
    """The channels of `variables` on `levels` (hPa), levels of one variable side by side.

    An empty `levels` means variables without a vertical dimension.

    Raises:
        InputError: no variables, or levels that do not ascend or are no pressure in hPa.
    """
    if not variables:
        raise InputError("variables is empty: name at least one")
    ordered = [float(level) for level in levels]
    if any(not 0.0 < level <= 1100.0 for level in ordered) or ordered != sorted(set(ordered)):
        raise InputError(f"levels must ascend and lie in (0, 1100] hPa, got {tuple(levels)}")
    return tuple(Channel(v, level) for v in variables for level in (ordered or [None]))
