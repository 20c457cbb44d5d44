"""The cache of a training set: fields on one grid and one time axis, memory-mapped.

A cache is a directory `<root>/<digest>` with `index.json` and one `<field>.npy` of float32
(time, lat, lon, channel) each. The digest covers the caller's key, the channels, and the
coordinates and source files of the datasets, so that a cache is used again only for the same data.
It is written under another name and renamed when complete: a cache is whole or it is not there. A
writer that was stopped is gone on with by the next one (`store`).
"""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from slams_jax.data.store import Archive, Source, open_archive, write_archive
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers.periods import check_times
from slams_jax.schema import LATITUDE, LEVEL, LONGITUDE, TIME, Channel

LOG = logging.getLogger(__name__)

STATE = "state"  # the field whose times and grid the others follow
_FORMAT = 1


def channels_in(dataset: xr.Dataset) -> tuple[Channel, ...]:
    """Every channel of a dataset: its variables, each on its levels.

    A dimension other than the level (the channels of a sounder) gives as many channels without one.
    """
    channels: list[Channel] = []
    for name, variable in dataset.data_vars.items():
        extra = _extra_dimension(str(name), variable)
        if extra == LEVEL:
            channels += [Channel(str(name), float(v)) for v in dataset[LEVEL].values]
        else:
            channels += [Channel(str(name))] * (variable.sizes[extra] if extra else 1)
    return tuple(channels)


def build_archive(
    root: str | os.PathLike[str],
    key: Mapping[str, Any],
    fields: Mapping[str, xr.Dataset],
    channels: Mapping[str, tuple[Channel, ...]] | None = None,
) -> Archive:
    """The cache of `fields`: the one that is there, or a new one, written block by block.

    Args:
        root: directory of caches, made if needed.
        key: whatever else the fields depend on (JSON); caches of other keys are left alone.
        fields: "state" and others, as `open_dataset` and `grid_points` give them. All follow the
            times of "state": what they lack there is NaN, what they have besides is left out.
        channels: of each field, in order; a field that is not named takes all that it has.

    Returns:
        The archive, its arrays memory-mapped.

    Raises:
        InputError: no state, other grids, channels that are not there, no time in common, or no
            room on the disk.
    """
    if STATE not in fields:
        raise InputError(f"an archive needs the field {STATE!r}, got {', '.join(fields) or 'none'}")
    grid, times = _checked_axes(fields)
    chosen = {
        name: tuple((channels or {}).get(name) or channels_in(dataset))
        for name, dataset in fields.items()
    }
    sources = {name: _sources(name, fields[name], chosen[name]) for name in fields}
    description = _describe(key, fields, chosen, grid, times)
    digest = hashlib.sha256(description.encode()).hexdigest()[:20]
    final = Path(root).expanduser().absolute() / digest
    if (archive := open_archive(final)) is not None:
        LOG.info("archive %s: used again", final)
        return archive
    index = json.loads(description) | {"digest": digest}
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        write_archive(final, index, fields, sources, times, grid)
    except OSError as error:
        raise InputError(f"{final}: cannot be written ({error.strerror or error})") from error
    archive = open_archive(final)
    if archive is None:
        raise InputError(f"{final}: reads back other than written: check the disk")
    return archive


# --- what is to be written ---------------------------------------------------------------------


def _checked_axes(fields: Mapping[str, xr.Dataset]) -> tuple[Grid, np.ndarray]:
    """Grid and times of the state, after a look at those of the others."""
    for name, dataset in fields.items():
        if not name.isidentifier():
            raise InputError(f"field {name!r} must be named by letters, digits and underscores")
        for dim in (TIME, LATITUDE, LONGITUDE):
            if dim not in dataset.dims or dim not in dataset.coords:
                raise InputError(
                    f"field {name!r} has no dimension {dim} with a coordinate: read it with "
                    "open_dataset, put stations on the grid with grid_points"
                )
    state = fields[STATE]
    grid = Grid.of(state[LATITUDE].values, state[LONGITUDE].values)
    times = check_times(state[TIME].values, name="state times")
    for name, dataset in fields.items():
        own = Grid.of(dataset[LATITUDE].values, dataset[LONGITUDE].values)
        close = own.shape == grid.shape and all(
            np.allclose(a, b, atol=1e-3, rtol=0)
            for a, b in ((own.latitude, grid.latitude), (own.longitude, grid.longitude))
        )
        if not close:
            raise InputError(
                f"field {name!r} lies on another grid ({own.extent}) than the state "
                f"({grid.extent}): interpolate or select it"
            )
        if not np.isin(check_times(dataset[TIME].values, name=f"{name} times"), times).any():
            raise InputError(
                f"field {name!r} shares no time with the state ({str(times[0])[:16]} to "
                f"{str(times[-1])[:16]}): check its dates and hours"
            )
    return grid, times


def _extra_dimension(name: str, variable: xr.DataArray) -> str | None:
    extra = [str(d) for d in variable.dims if d not in (TIME, LATITUDE, LONGITUDE)]
    if len(extra) > 1 or not {TIME, LATITUDE, LONGITUDE} <= set(variable.dims):
        raise InputError(
            f"{name} has dimensions {variable.dims}: time, latitude, longitude and at most one "
            "other are expected"
        )
    return extra[0] if extra else None


def _sources(name: str, dataset: xr.Dataset, channels: tuple[Channel, ...]) -> list[Source]:
    """Where in `dataset` the channels are, in their order."""
    sources = []
    for variable, group in itertools.groupby(channels, key=lambda c: c.variable):
        levels = [channel.level for channel in group]
        if variable not in dataset:
            there = ", ".join(map(str, dataset.data_vars))
            raise InputError(f"field {name!r} has no variable {variable!r}; it has {there}")
        dim = _extra_dimension(variable, dataset[variable])
        size = dataset.sizes[dim] if dim else 1
        if dim == LEVEL:
            available = dataset[LEVEL].values
            near = [
                np.flatnonzero(np.isclose(available, np.nan if v is None else v)) for v in levels
            ]
            if any(n.size != 1 for n in near):
                raise InputError(
                    f"field {name!r}: {variable} has the levels "
                    f"{', '.join(f'{v:g}' for v in available)} hPa, asked for {levels}"
                )
            positions = np.array([n[0] for n in near])
        elif levels != [None] * size:
            raise InputError(
                f"field {name!r}: {variable} makes {size} channels without a level, asked for "
                f"{levels}"
            )
        else:
            positions = np.arange(size)
        sources.append(Source(variable, dim, positions))
    return sources


def _describe(
    key: Mapping[str, Any],
    fields: Mapping[str, xr.Dataset],
    channels: Mapping[str, tuple[Channel, ...]],
    grid: Grid,
    times: np.ndarray,
) -> str:
    """All that decides what the cache holds, as canonical JSON."""
    entries = {
        name: {
            "channels": [list(channel) for channel in channels[name]],
            "source": fields[name].attrs.get("source_digest"),
            "times": hashlib.sha256(
                fields[name][TIME].values.astype("datetime64[ns]").tobytes()
            ).hexdigest(),
        }
        for name in fields
    }
    index = {
        "format": _FORMAT,
        "key": dict(key),
        "latitude": list(grid.latitude),
        "longitude": list(grid.longitude),
        "times": times.astype("int64").tolist(),
        "fields": entries,
    }
    try:
        return json.dumps(index, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the key of an archive must be plain JSON: {error}") from None
