"""Between Datasets in the library's schema and arrays with channels last."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.errors import InputError
from slams_jax.schema import (
    LATITUDE,
    LEVEL,
    LONGITUDE,
    MEMBER,
    TIME,
    VARIABLES,
    Channel,
)

COMPONENT = "component"  # the dimension of a variable with several channels and no levels


def stack_channels(
    dataset: xr.Dataset, channels: Sequence[Channel]
) -> Float[np.ndarray, "time lat lon channel"]:
    """The channels of `dataset` as one array; one extra dimension is taken whole, in its order.

    Raises:
        InputError: a variable or level that is missing, or channels that do not match.
    """
    parts = []
    for name in dict.fromkeys(c.variable for c in channels):
        levels = [c.level for c in channels if c.variable == name]
        if name not in dataset:
            have = ", ".join(sorted(map(str, dataset.data_vars)))
            raise InputError(f"variable {name!r} is missing: the data holds {have}")
        array = dataset[name]
        if levels[0] is not None:
            have = np.asarray(dataset[LEVEL], np.float64).tolist() if LEVEL in array.dims else []
            missing = [v for v in levels if v not in have]
            if missing:
                raise InputError(f"{name!r} lacks the levels {missing} hPa: it is on {have} hPa")
            array = array.sel({LEVEL: levels})
        extra = [d for d in array.dims if d not in (TIME, LATITUDE, LONGITUDE)]
        values = np.asarray(array.transpose(TIME, LATITUDE, LONGITUDE, *extra), np.float32)
        values = values.reshape(*values.shape[:3], -1)
        if values.shape[-1] != len(levels):
            raise InputError(
                f"{name!r} has {values.shape[-1]} channels where {len(levels)} are expected"
            )
        parts.append(values)
    return np.concatenate(parts, axis=-1)


def stack_members(
    dataset: xr.Dataset, channels: Sequence[Channel]
) -> Float[np.ndarray, "member time lat lon channel"]:
    """The channels of every member of an ensemble, as `stack_channels` gives those of one."""
    members = range(dataset.sizes["member"])
    return np.stack([stack_channels(dataset.isel(member=i), channels) for i in members])


def unstack_channels(
    states: Float[np.ndarray, "member time lat lon channel"],
    channels: Sequence[Channel],
    times: np.ndarray,
    latitude: Sequence[float] | np.ndarray,
    longitude: Sequence[float] | np.ndarray,
) -> xr.Dataset:
    """States as a CF Dataset on (member, time, level, latitude, longitude)."""
    coords = {
        MEMBER: ((MEMBER,), np.arange(states.shape[0]), {"standard_name": "realization"}),
        TIME: ((TIME,), np.asarray(times, "datetime64[ns]"), {"standard_name": "time"}),
        LATITUDE: (
            (LATITUDE,),
            np.asarray(latitude),
            {"standard_name": "latitude", "units": "degrees_north"},
        ),
        LONGITUDE: (
            (LONGITUDE,),
            np.asarray(longitude),
            {"standard_name": "longitude", "units": "degrees_east"},
        ),
    }
    variables = {}
    for name in dict.fromkeys(c.variable for c in channels):
        index = [i for i, c in enumerate(channels) if c.variable == name]
        levels = [channels[i].level for i in index]
        part = states[..., index]
        known = VARIABLES.get(name)
        attrs = {"long_name": name}
        if known is not None:
            attrs = {
                "standard_name": known.standard_name,
                "long_name": known.long_name,
                "units": known.units,
            }
        if levels[0] is not None:
            coords[LEVEL] = (
                (LEVEL,),
                np.asarray(levels),
                {"standard_name": "air_pressure", "units": "hPa", "positive": "down"},
            )
            dims = (MEMBER, TIME, LEVEL, LATITUDE, LONGITUDE)
            variables[name] = (dims, np.moveaxis(part, -1, 2), attrs)
        elif len(index) == 1:
            variables[name] = ((MEMBER, TIME, LATITUDE, LONGITUDE), part[..., 0], attrs)
        else:
            variables[name] = ((MEMBER, TIME, LATITUDE, LONGITUDE, COMPONENT), part, attrs)
    return xr.Dataset(variables, coords, {"Conventions": "CF-1.11"})
