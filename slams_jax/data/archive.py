"""Archives: the fields of a training set on one grid and one time axis, memory-mapped.

An archive is a directory `<root>/<digest>` that holds `index.json` and, for each field, an array
`<field>.npy` of float32 (time, lat, lon, channel). The digest covers everything that the archive
is made of: the caller's key, channels, coordinates, and the sources of the values. It is reused
only while all of that stays the same.

The source of a field is the digest that `open_dataset` makes of its files, together with its
values at a few times, which give away a changed selection or conversion. Values in memory, and
lazy ones of unknown origin, are digested in full.
"""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from slams_jax.data.regrid import same_grid
from slams_jax.data.store import Archive, Source, open_archive, write_archive
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers.lazy import first_axis_blocks, source_digest
from slams_jax.readers.periods import check_times
from slams_jax.schema import LATITUDE, LEVEL, LONGITUDE, TIME, Channel

LOG = logging.getLogger(__name__)

STATE = "state"  # the field whose times and grid the others follow
_FORMAT = 2
_SAMPLED_TIMES = 3  # of a field from files, digested with its source
# Words in the names of dimensions whose positions are channels without a level.
_CHANNEL_WORDS = ("channel", "component", "band", "wavelength", "frequency")


def channels_in(dataset: xr.Dataset) -> tuple[Channel, ...]:
    """Every channel of a dataset: each variable on each of its levels.

    A dimension of channels or components (those of a sounder) gives channels without a level.

    Raises:
        InputError: a dimension that is none of time, latitude, longitude, level or channel.
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
    """The archive of `fields`: reused if it exists, otherwise written block by block.

    Args:
        root: directory of archives, created if necessary.
        key: anything else that the fields depend on (JSON); each key has its own archive.
        fields: "state" and others, as `open_dataset` and `grid_points` return them. All are
            brought to the times of "state": missing times become NaN, other times are dropped.
        channels: of each field, in order; by default all channels of the field.

    Returns:
        The archive, its arrays memory-mapped.

    Raises:
        InputError: no state, fields on different grids, channels that do not exist, no time in
            common, an unknown dimension, or not enough disk space.
    """
    if STATE not in fields:
        given = ", ".join(fields) or "none"
        raise InputError(f"an archive needs the field {STATE!r}, got {given}: add it")
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
        LOG.info("archive %s: reused", final)
        return archive
    index = json.loads(description) | {"digest": digest}
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        write_archive(final, index, fields, sources, times, grid)
    except OSError as error:
        raise InputError(f"{final}: cannot be written ({error.strerror or error})") from error
    archive = open_archive(final)
    if archive is None:
        raise InputError(f"{final}: its contents differ from what was written: check the disk")
    return archive


# --- checks -------------------------------------------------------------------------------------


def _checked_axes(fields: Mapping[str, xr.Dataset]) -> tuple[Grid, np.ndarray]:
    """Grid and times of the state, which the other fields must fit."""
    for name, dataset in fields.items():
        if not name.isidentifier():
            raise InputError(
                f"field {name!r}: a name may have letters, digits and underscores: rename it"
            )
        for dim in (TIME, LATITUDE, LONGITUDE):
            if dim not in dataset.dims or dim not in dataset.coords:
                raise InputError(
                    f"field {name!r} has no dimension {dim} with a coordinate: read it with "
                    "open_dataset, or put stations on the grid with grid_points"
                )
    state = fields[STATE]
    grid = Grid.of(state[LATITUDE].values, state[LONGITUDE].values)
    times = check_times(state[TIME].values, name="state times")
    for name, dataset in fields.items():
        own = Grid.of(dataset[LATITUDE].values, dataset[LONGITUDE].values)
        if not same_grid(own, grid):
            raise InputError(
                f"field {name!r} is on a different grid ({own.extent}) from the state's "
                f"({grid.extent}): interpolate it, for example with regrid"
            )
        if not np.isin(check_times(dataset[TIME].values, name=f"{name} times"), times).any():
            raise InputError(
                f"field {name!r} shares no time with the state ({str(times[0])[:16]} to "
                f"{str(times[-1])[:16]}): check its dates and hours"
            )
    return grid, times


def _extra_dimension(name: str, variable: xr.DataArray) -> str | None:
    """The dimension of a variable that holds its levels or channels, if it has one."""
    extra = [str(d) for d in variable.dims if d not in (TIME, LATITUDE, LONGITUDE)]
    if len(extra) > 1 or not {TIME, LATITUDE, LONGITUDE} <= set(variable.dims):
        raise InputError(
            f"{name} has dimensions {tuple(map(str, variable.dims))}: expected time, latitude, "
            "longitude and at most one more: select one position along the others with isel"
        )
    if extra and extra[0] != LEVEL and not any(w in extra[0].lower() for w in _CHANNEL_WORDS):
        raise InputError(
            f"{name} has the unknown dimension {extra[0]!r} of size {variable.sizes[extra[0]]}: "
            f"select one position with isel({extra[0]}=0), or rename it to 'component' if each "
            "position is a channel of its own"
        )
    if LEVEL not in variable.dims and LEVEL in variable.coords:
        raise InputError(
            f"{name} has a single level ({variable[LEVEL].item():g} hPa) but no dimension for it: "
            f"keep the dimension with sel(level=[{variable[LEVEL].item():g}]), or drop the level "
            "with drop_vars('level')"
        )
    return extra[0] if extra else None


# --- contents -----------------------------------------------------------------------------------


def _sources(name: str, dataset: xr.Dataset, channels: tuple[Channel, ...]) -> list[Source]:
    """Where to find the channels in `dataset`, in their order."""
    sources = []
    for variable, group in itertools.groupby(channels, key=lambda c: c.variable):
        levels = [channel.level for channel in group]
        if variable not in dataset:
            available = ", ".join(map(str, dataset.data_vars))
            raise InputError(
                f"field {name!r} has no variable {variable!r}: choose among {available}"
            )
        dim = _extra_dimension(variable, dataset[variable])
        size = dataset.sizes[dim] if dim else 1
        if dim == LEVEL:
            available = dataset[LEVEL].values
            near = [
                np.flatnonzero(np.isclose(available, np.nan if v is None else v)) for v in levels
            ]
            if any(n.size != 1 for n in near):
                raise InputError(
                    f"field {name!r}: {variable} is on the levels "
                    f"{', '.join(f'{v:g}' for v in available)} hPa, not on all of {levels}: choose "
                    "among these"
                )
            positions = np.array([n[0] for n in near])
        elif levels != [None] * size:
            raise InputError(
                f"field {name!r}: {variable} has {size} channels without a level, but {levels} "
                "are requested: choose channels that it has"
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
    """Everything that decides the contents of an archive, as canonical JSON."""
    entries = {
        name: {
            "channels": [list(channel) for channel in channels[name]],
            "source": _source(fields[name], channels[name]),
            "times": _digest([fields[name][TIME].values.astype("datetime64[ns]").tobytes()]),
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


def _source(dataset: xr.Dataset, channels: tuple[Channel, ...]) -> str:
    """Digest of the values of a field: of its files and a few times, or of all values."""
    files, size = source_digest(dataset), dataset.sizes[TIME]
    rows = np.linspace(0, size - 1, _SAMPLED_TIMES).astype(int) if files else np.arange(size)

    def blocks() -> Iterator[bytes]:
        for name in dict.fromkeys(channel.variable for channel in channels):
            variable = dataset[name]
            yield f"{name} {variable.dims} {variable.attrs.get('units')}".encode()
            bytes_each = 4 * variable.size // size
            for part in first_axis_blocks(rows, bytes_each):
                values = variable.isel({TIME: rows[part]}).values
                yield values.astype(np.float32).tobytes()

    return f"{files or 'values'} {_digest(blocks())}"


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:20]
