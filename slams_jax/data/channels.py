"""Conversion between Datasets in the library's schema and arrays with channels last."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.errors import InputError
from slams_jax.schema import LATITUDE, LEVEL, LONGITUDE, MEMBER, TIME, VARIABLES, Channel

COMPONENT = "component"  # the dimension of a variable with several channels and no levels


def stack_channels(
    dataset: xr.Dataset, channels: Sequence[Channel]
) -> Float[np.ndarray, "time lat lon channel"]:
    """The channels of `dataset` as one array; a dimension of components stays in its order.

    Raises:
        InputError: a missing variable or level, or a different number of components.
    """
    parts = []
    for name in dict.fromkeys(c.variable for c in channels):
        levels = [c.level for c in channels if c.variable == name]
        if name not in dataset:
            available = ", ".join(sorted(map(str, dataset.data_vars)))
            raise InputError(f"variable {name!r} is missing: the data have {available}")
        array = dataset[name]
        if levels[0] is not None:
            own = np.asarray(dataset[LEVEL], np.float64).tolist() if LEVEL in array.dims else []
            missing = [v for v in levels if v not in own]
            if missing:
                raise InputError(f"{name!r} lacks the levels {missing} hPa: it is on {own} hPa")
            array = array.sel({LEVEL: levels})
        extra = [d for d in array.dims if d not in (TIME, LATITUDE, LONGITUDE)]
        values = np.asarray(array.transpose(TIME, LATITUDE, LONGITUDE, *extra), np.float32)
        values = values.reshape(*values.shape[:3], -1)
        if values.shape[-1] != len(levels):
            raise InputError(
                f"{name!r} has {values.shape[-1]} channels, but {len(levels)} are expected"
            )
        parts.append(values)
    return np.concatenate(parts, axis=-1)


def stack_members(
    dataset: xr.Dataset, channels: Sequence[Channel]
) -> Float[np.ndarray, "member time lat lon channel"]:
    """`stack_channels` of every member of an ensemble."""
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
        standard = VARIABLES.get(name)
        attrs = {"long_name": name}
        if standard is not None:
            attrs = {
                "standard_name": standard.standard_name,
                "long_name": standard.long_name,
                "units": standard.units,
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
