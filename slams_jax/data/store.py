"""The files of a cache: written whole or not at all, opened only if intact."""

import dataclasses
import json
import os
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from absl import logging

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.schema import LATITUDE, LONGITUDE, TIME, Channel

_CHUNK_BYTES = 2**26  # of a field, written at once
_READ_BYTES = 2**24  # of a file, read at once to check it


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """One field of an archive.

    Attributes:
        array: (time, lat, lon, channel), float32, NaN where missing; memory-mapped, read-only.
        channels: what the last axis holds.
    """

    array: np.ndarray
    channels: tuple[Channel, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Archive:
    """Fields on one grid at the same times.

    Attributes:
        path: the directory of the cache.
        times: datetime64[ns] (time,), ascending.
        grid: of all fields.
        fields: by name, such as "state", "background", "stations".
    """

    path: Path
    times: np.ndarray
    grid: Grid
    fields: dict[str, Field]


class Source(NamedTuple):
    """A run of channels that one variable of a dataset holds."""

    variable: str
    dim: str | None  # the dimension between time and latitude, if any
    positions: np.ndarray  # along it


def open_archive(path: str | os.PathLike[str]) -> Archive | None:
    """The archive in directory `path`, or None when there is none that is complete and intact."""
    path = Path(path)
    try:
        index = json.loads((path / "index.json").read_text())
        times = np.array(index["times"], dtype="int64").astype("datetime64[ns]")
        grid = Grid(tuple(index["latitude"]), tuple(index["longitude"]))
        fields = {}
        for name, entry in index["fields"].items():
            array = np.load(path / f"{name}.npy", mmap_mode="r")
            shape = (times.size, *grid.shape, len(entry["channels"]))
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}.npy has shape {array.shape}, not {shape}")
            if _checksum(path / f"{name}.npy", array.offset) != entry["crc32"]:
                raise ValueError(f"{name}.npy differs from its checksum")
            fields[name] = Field(array, tuple(Channel(*c) for c in entry["channels"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logging.warning("archive %s: damaged, not used (%s)", path, error)
        return None
    return Archive(path, times, grid, fields)


def write_archive(
    final: Path,
    index: dict[str, Any],
    fields: Mapping[str, xr.Dataset],
    sources: Mapping[str, list[Source]],
    times: np.ndarray,
    grid: Grid,
) -> None:
    """Write all of an archive beside `final`, then give it that name.

    Args:
        final: the directory that is to be.
        index: all but the checksums.
        fields: by name.
        sources: where the channels of each field are.
        times: datetime64[ns] (time,).
        grid: of all fields.

    Raises:
        InputError: no room on the disk.
        OSError: the disk refuses.
    """
    depth = {name: sum(s.positions.size for s in sources[name]) for name in fields}
    needed = times.size * int(np.prod(grid.shape)) * sum(depth.values()) * 4
    if shutil.disk_usage(final.parent).free < needed:
        raise InputError(f"{final.parent}: no room for an archive of {needed / 2**30:.1f} GiB")
    _remove_abandoned(final.parent)
    draft, damaged = _draft(final.parent), _draft(final.parent)
    draft.mkdir()
    try:
        for name, dataset in fields.items():
            shape = (times.size, *grid.shape, depth[name])
            checksum = _write_field(draft / f"{name}.npy", dataset, sources[name], times, shape)
            index["fields"][name]["crc32"] = checksum
        _write_synced(draft / "index.json", json.dumps(index, indent=1).encode())
        _sync_directory(draft)
        if final.exists() and open_archive(final) is None:
            os.rename(final, damaged)
        try:
            os.rename(draft, final)
        except OSError:
            if open_archive(final) is None:  # else another process was faster: its is as good
                raise
        _sync_directory(final.parent)
    finally:
        for leftover in (draft, damaged):
            shutil.rmtree(leftover, ignore_errors=True)


def _draft(root: Path) -> Path:
    """A new name for what is not yet, or no more, an archive; tells which process it is of."""
    return root / f".{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part"


def _write_field(
    path: Path,
    dataset: xr.Dataset,
    sources: list[Source],
    times: np.ndarray,
    shape: tuple[int, ...],
) -> int:
    """Write one field in blocks of times; returns the checksum of its values."""
    own = dataset[TIME].values.astype("datetime64[ns]")
    rows = np.minimum(np.searchsorted(own, times), own.size - 1)
    rows = np.where(own[rows] == times, rows, -1)
    step = max(1, _CHUNK_BYTES // (4 * int(np.prod(shape[1:]))))
    checksum, started, told = 0, time.monotonic(), time.monotonic()
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, times.size, step):
            block = _block(dataset, sources, rows[start : start + step], shape[1:])
            checksum = zlib.crc32(block.data, checksum)
            file.write(block.data)
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                done = (start + step) / times.size
                left = (told - started) * (1 - done) / done
                logging.info("archive: %s %d %%, %.0f s left", path.stem, 100 * done, left)
        file.flush()
        os.fsync(file.fileno())
    return checksum


def _block(
    dataset: xr.Dataset, sources: list[Source], rows: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """(time, lat, lon, channel) of the rows of `dataset`; -1 stands for a missing time."""
    block = np.full((rows.size, *shape), np.nan, dtype="<f4")
    present = rows >= 0
    first = 0
    for source in sources:
        depth = source.positions.size
        if present.any():
            picked = dataset[source.variable].isel({TIME: rows[present]})
            order: tuple[str, ...] = (TIME, LATITUDE, LONGITUDE)
            if source.dim is not None:
                picked = picked.isel({source.dim: source.positions})
                order = (*order, source.dim)
            values = np.asarray(picked.values, dtype=np.float32)
            values = values.transpose([picked.dims.index(d) for d in order])
            block[present, ..., first : first + depth] = values.reshape(*values.shape[:3], depth)
        first += depth
    return block


def _checksum(path: Path, offset: int) -> int:
    """CRC-32 of a file from `offset`, by reading: mapped pages would count as memory in use."""
    checksum = 0
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(_READ_BYTES):
            checksum = zlib.crc32(data, checksum)
    return checksum


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(root: Path) -> None:
    """Remove drafts of processes of this machine that are no more."""
    for draft in root.glob(f".{socket.gethostname()}-*.part"):
        owner = draft.name.rsplit("-", 2)[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc").is_dir():
            shutil.rmtree(draft, ignore_errors=True)
