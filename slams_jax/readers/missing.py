"""What a declared fill value takes out of a field, and whether that can be right."""

import logging

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.schema import VARIABLES

LOG = logging.getLogger(__name__)
LARGE = 0.1  # share of a field


def without_default_fill(dataset: xr.Dataset) -> xr.Dataset:
    """A Zarr store, not yet decoded, whose arrays of format 2 do not take 0 for missing.

    0 is what Zarr 2 writes for the `fill_value` of absent chunks when nothing else is said, and
    xarray shows it as `_FillValue`: dry days would be missing. It counts as missing only where
    `missing_value` says so too.
    """
    for variable in dataset.variables.values():
        attributes = variable.attrs
        of_format_2 = "serializer" not in variable.encoding
        fill, missing = (attributes.get(k) for k in ("_FillValue", "missing_value"))
        if of_format_2 and _is_zero(fill) and not _is_zero(missing):
            del attributes["_FillValue"]
    return dataset


def _is_zero(fill: object) -> bool:
    numbers = np.ravel(np.asarray(fill))
    return numbers.dtype.kind in "iuf" and 0 in numbers


def declared_fills(variable: xr.Variable) -> tuple[float, ...]:
    """The values, in the units of the file, that its attributes call missing."""
    scale = float(variable.encoding.get("scale_factor", 1.0))
    offset = float(variable.encoding.get("add_offset", 0.0))
    declared = [variable.encoding.get(k) for k in ("_FillValue", "missing_value")]
    numbers = [np.ravel(d) for d in declared if d is not None]
    fills = {float(v) * scale + offset for n in numbers if n.dtype.kind in "iuf" for v in n}
    return tuple(sorted(v for v in fills if np.isfinite(v)))


def check_mask(
    name: str,
    field: np.ndarray,
    variable: xr.Variable,
    scale: float,
    offset: float,
    *,
    source: str,
) -> None:
    """Log the share of a field that is missing, and refuse a fill value that is a value.

    Zeros of rain that a file declares as missing are dry days: with them the mean is lost.

    Args:
        name: library name.
        field: in the library's units, NaN where missing.
        variable: as it was read, with the declared fill values in its encoding.
        scale: library units = scale * file units + offset.
        offset: likewise.
        source: what to name in errors.

    Raises:
        InputError: more than a tenth of the field is missing, more than have any other value, and
            the fill value is 0 where the variable can be 0, or lies between its values.
    """
    missing = np.isnan(field)
    share = float(missing.mean())
    if share == 0.0:
        return
    LOG.info("%s: %.1f%% of its first field is missing", source, 100 * share)
    present, counts = np.unique(field[~missing], return_counts=True)
    if share <= LARGE or missing.sum() <= counts.max(initial=0):
        return
    known = VARIABLES.get(name)
    for fill in declared_fills(variable):
        value = fill * scale + offset
        possible = known is None or known.plausible[0] <= value <= known.plausible[1]
        between = present.size > 0 and present[0] < value < present[-1]
        if (fill == 0.0 and possible) or between:
            raise InputError(
                f"{source}: {share:.0%} of its first field is {fill:g}, which the file declares as "
                f"missing and which {name} can be: remove the attributes _FillValue and "
                "missing_value, or write NaN where values are missing"
            )
