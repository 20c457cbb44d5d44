"""Units at the boundary: what files write, and how it becomes what the library holds."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.schema import VARIABLES

GRAVITY = 9.80665  # m s-2, the standard gravity that defines the geopotential metre
KELVIN = 273.15  # K at 0 degrees Celsius
FILL_ABOVE = 1e20  # no atmospheric quantity in these units is so large: undeclared fill values are

# library units -> {spelling reduced by `_reduced`: (scale, offset)}
_SPELLINGS = {
    "K": {
        **dict.fromkeys(
            (
                "k",
                "kelvin",
                "kelvins",
                "degk",
                "degreek",
                "degreesk",
                "degreekelvin",
                "degreeskelvin",
            ),
            (1.0, 0.0),
        ),
        **dict.fromkeys(
            ("degc", "c", "degreec", "degreesc", "celsius", "degreecelsius", "degreescelsius"),
            (1.0, KELVIN),
        ),
        **dict.fromkeys(
            ("degf", "f", "degreef", "degreesf", "fahrenheit", "degreesfahrenheit"),
            (5.0 / 9.0, KELVIN - 32.0 * 5.0 / 9.0),
        ),
    },
    "Pa": {
        **dict.fromkeys(("pa", "pascal", "pascals"), (1.0, 0.0)),
        **dict.fromkeys(
            ("hpa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars"),
            (100.0, 0.0),
        ),
        **dict.fromkeys(("kpa", "kilopascal", "kilopascals"), (1000.0, 0.0)),
    },
    "m2 s-2": {
        **dict.fromkeys(("m2s-2", "m2/s2", "jkg-1", "j/kg"), (1.0, 0.0)),
        **dict.fromkeys(("m", "gpm", "meter", "meters", "metre", "metres"), (GRAVITY, 0.0)),
    },
    "kg kg-1": {
        **dict.fromkeys(("kgkg-1", "kg/kg", "1", "dimensionless"), (1.0, 0.0)),
        **dict.fromkeys(("gkg-1", "g/kg"), (1e-3, 0.0)),
    },
    "m": {
        **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), (1.0, 0.0)),
        **dict.fromkeys(("mm", "kgm-2", "kg/m2", "millimeter", "millimetre"), (1e-3, 0.0)),
    },
    "kg m-2 s-1": {
        **dict.fromkeys(("kgm-2s-1", "kg/m2/s", "kgm-2/s", "mms-1", "mm/s"), (1.0, 0.0)),
        **dict.fromkeys(
            ("mm/day", "mmday-1", "mm/d", "mmd-1", "kgm-2day-1", "kgm-2d-1"), (1.0 / 86400.0, 0.0)
        ),
        **dict.fromkeys(("mm/h", "mmh-1", "mm/hr", "mmhr-1", "kgm-2h-1"), (1.0 / 3600.0, 0.0)),
        **dict.fromkeys(("ms-1", "m/s"), (1000.0, 0.0)),
    },
    "W m-2": dict.fromkeys(("wm-2", "w/m2", "watt/m2", "watts/m2"), (1.0, 0.0)),
}

# What stands for a missing value in files that do not say so, where no variable takes it.
SENTINELS = (-999.0, -999.9, -9999.0, -9999.9, -99999.0, -999999.0)


def units_of(variable: xr.Variable | xr.DataArray | None) -> str:
    """The `units` attribute as text, also where it is a number; empty where there is none."""
    units = None if variable is None else variable.attrs.get("units")
    return "" if units is None else str(units).strip()


def _reduced(units: str) -> str:
    units = units.strip().lower().replace("°", "deg")
    for noise in ("**", "^", "_", " ", "."):
        units = units.replace(noise, "")
    return units


def canonical_name(name: str) -> str:
    """The library's name of the variable called `name` (`T`, `ta`, `air` -> `temperature`).

    A name that the library does not know is its own.
    """
    if name in VARIABLES:
        return name
    for variable in VARIABLES.values():
        if name.lower() in (variable.name, *variable.aliases):
            return variable.name
    return name


def conversion(variable: str, units: str | None, *, source: str) -> tuple[float, float]:
    """(scale, offset) from `units` to the library's units: library = scale * value + offset.

    Args:
        variable: library name; one that the library does not know is left in its own units.
        units: as the source writes them; None or empty means the library's own.
        source: what to name in the error, such as a file.

    Raises:
        InputError: units that do not measure this variable.
    """
    known = VARIABLES.get(variable)
    if known is None or not units or not units.strip():
        return 1.0, 0.0
    spellings = _SPELLINGS[known.units]
    if _reduced(units) not in spellings:
        one_each = {conversion: spelling for spelling, conversion in reversed(spellings.items())}
        raise InputError(
            f"{source}: {variable} has units {units!r}, not {known.units!r} or what converts to it "
            f"({', '.join(reversed(one_each.values()))}): correct the units in the source"
        )
    return spellings[_reduced(units)]


def check_plausible(
    variable: str,
    values: np.ndarray,
    *,
    source: str,
    plausible: Sequence[float | int] | None = None,
) -> None:
    """Refuse values that the library's units of `variable` cannot mean; NaN is ignored.

    Args:
        variable: library name.
        values: in the library's units.
        source: what to name in the error, such as a file.
        plausible: (lowest, highest) value; None takes that of `schema.VARIABLES`.

    Raises:
        InputError: an infinite value, one that stands for a missing value elsewhere (-9999), or one
            out of the plausible range, such as Celsius called Kelvin.
    """
    known = VARIABLES.get(variable)
    units = known.units if known else ""
    if np.isinf(values).any():
        raise InputError(f"{source}: {variable} is infinite somewhere: write missing values as NaN")
    finite = values[np.isfinite(values)]
    bounds = plausible or (known.plausible if known else None)
    if finite.size == 0:
        return
    lowest, highest = float(finite.min()), float(finite.max())
    if bounds is not None:
        low, high = bounds
        for extreme in (lowest, highest):
            if not low <= extreme <= high:
                raise InputError(
                    f"{source}: {variable} reaches {extreme:.6g} {units}, outside "
                    f"[{low:g}, {high:g}] {units}: its units or signs are wrong (Celsius for "
                    "Kelvin, hPa for Pa, mm for m?) or a missing value is not marked as one"
                )
    if any(np.float32(lowest) == np.float32(s) for s in SENTINELS):
        raise InputError(
            f"{source}: {variable} is {lowest:g} {units} somewhere, which other files write for "
            "missing values: declare it as _FillValue, or leave such cells empty"
        )


def check_errors(errors: np.ndarray, *, source: str) -> None:
    """Refuse standard deviations that are not positive; NaN is ignored.

    Raises:
        InputError: an error that is negative, zero or infinite.
    """
    if np.any((errors <= 0) | np.isinf(errors)):
        raise InputError(
            f"{source}: an error is negative, zero or infinite: give standard deviations > 0"
        )


def to_float32(values: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """float32(scale * values + offset), with NaN for infinities and undeclared fill values."""
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        missing = ~(np.abs(values) < FILL_ABOVE)
        # Python floats keep the precision of the file: float32 stays float32.
        converted = (values * scale + offset) if (scale, offset) != (1.0, 0.0) else values
        result = np.array(converted, dtype=np.float32)
    result[missing] = np.nan
    return result


_PRESSURES = {
    **dict.fromkeys(("pa", "pascal", "pascals"), 0.01),
    **dict.fromkeys(
        ("hpa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars"), 1.0
    ),
    "kpa": 10.0,
}


def hectopascals(values: np.ndarray, units: str | None) -> np.ndarray | None:
    """Pressures in hPa, float64, or None when `units` do not measure a pressure.

    Without units the range decides: above 1100 it is Pa; 1, 2, 3, ... n counts model levels.
    """
    values = np.asarray(values, dtype=np.float64)
    if units is None or not units.strip():
        if np.array_equal(values, np.arange(1, values.size + 1)) and values.size > 3:
            return None
        return values * 0.01 if values.max() > 1100.0 else values
    factor = _PRESSURES.get(_reduced(units))
    # Rounded: 0.01 * 85000 must be 850, not a neighbour of it.
    return None if factor is None else np.asarray(np.round(values * factor, 6))
