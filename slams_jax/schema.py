"""Names, dimensions and units: the one place where the library's vocabulary is written.

Dimension and variable names are those of WeatherBench 2; pressure levels are in hPa, ascending
(top of the atmosphere first), latitudes ascend, longitudes ascend without a gap.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from slams_jax.errors import InputError

TIME, LEVEL, LATITUDE, LONGITUDE = "time", "level", "latitude", "longitude"
MEMBER, STATION, ALTITUDE, CHANNEL = "member", "station", "altitude", "channel"
ERROR = "error"  # standard deviation of the errors of a variable, beside it or as its attribute
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
    STATION: ("station", "station_id", "station_name", "id", "wmo_id", "name", "stn", "site"),
    CHANNEL: (
        "channel",
        "sounding_channel",
        "component",
        "band",
        "wavelength",
        "wavenumber",
        "frequency",
    ),
}


@dataclasses.dataclass(frozen=True)
class Variable:
    """What the library knows of a variable.

    Attributes:
        name: WeatherBench 2's.
        units: inside the library.
        standard_name, long_name: of CF.
        plausible: (lowest, highest) value in these units; beyond it units or signs are wrong.
        on_levels: whether it lies on pressure levels; None where nothing is known.
        aliases: other names, lower case.
    """

    name: str
    units: str
    standard_name: str
    long_name: str
    plausible: tuple[float, float]
    aliases: tuple[str, ...] = ()
    on_levels: bool | None = False


# A little below zero is what packing leaves of values that cannot be negative.
VARIABLES = {
    v.name: v
    for v in (
        Variable(
            "temperature",
            "K",
            "air_temperature",
            "Temperature",
            (100.0, 400.0),
            ("t", "ta", "air", "temp"),
            on_levels=True,
        ),
        Variable(
            "2m_temperature",
            "K",
            "air_temperature",
            "2 metre temperature",
            (174.2, 345.0),
            ("t2m", "tas", "2t"),
        ),
        Variable(
            "geopotential",
            "m2 s-2",
            "geopotential",
            "Geopotential",
            (-9e3, 9e5),
            ("z",),
            on_levels=True,
        ),
        Variable(
            "specific_humidity",
            "kg kg-1",
            "specific_humidity",
            "Specific humidity",
            (-1e-3, 0.2),
            ("q", "hus"),
            on_levels=True,
        ),
        Variable(
            "mean_sea_level_pressure",
            "Pa",
            "air_pressure_at_mean_sea_level",
            "Mean sea level pressure",
            (2e4, 1.2e5),
            ("slp", "msl", "psl"),
        ),
        Variable(
            "surface_pressure",
            "Pa",
            "surface_air_pressure",
            "Surface pressure",
            (3e4, 1.2e5),
            ("sp", "ps"),
        ),
        Variable(
            "total_precipitation",
            "m",
            "lwe_thickness_of_precipitation_amount",
            "Total precipitation",
            (-1e-4, 10.0),
            ("tp", "precip"),
        ),
        Variable(
            "precipitation_flux",
            "kg m-2 s-1",
            "precipitation_flux",
            "Precipitation",
            (-1e-6, 0.1),
            ("pr", "prate"),
        ),
        Variable(
            "outgoing_longwave_radiation",
            "W m-2",
            "toa_outgoing_longwave_flux",
            "Outgoing longwave radiation",
            (-10.0, 700.0),
            ("olr", "rlut"),
        ),
        Variable(
            "brightness_temperature",
            "K",
            "toa_brightness_temperature",
            "Brightness temperature",
            (100.0, 400.0),
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
