"""The files of a cache: written whole or not at all, opened only if intact.

What is not yet whole is a draft, a hidden folder beside it. A writer that is killed, or stopped by
a server that does not answer, leaves its draft with what is finished of it; the next writer of the
same archive takes it over and goes on. The result is the same to the bit.
"""

import dataclasses
import io
import json
import logging
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

from slams_jax.data import journal
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers.units import check_plausible
from slams_jax.schema import LATITUDE, LONGITUDE, TIME, VARIABLES, Channel

LOG = logging.getLogger(__name__)

_CHUNK_BYTES = 2**26  # of a field, written at once
_READ_BYTES = 2**24  # of a file, read at once to check it
_KEPT = 7 * 86400.0  # s that the draft of another archive is kept for somebody to go on with
_OWN: set[str] = set()  # names of the drafts that this process is writing


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
        LOG.warning("archive %s: damaged, not used (%s)", path, error)
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
    _remove_abandoned(final.parent)
    draft, damaged = _claimed(final), _draft(final)
    needed -= sum(part.stat().st_size for part in draft.iterdir())
    try:
        if shutil.disk_usage(final.parent).free < needed:
            raise InputError(f"{final.parent}: no room for an archive of {needed / 2**30:.1f} GiB")
        for name, dataset in fields.items():
            shape = (times.size, *grid.shape, depth[name])
            checksum = _write_field(draft / f"{name}.npy", dataset, sources[name], times, shape)
            index["fields"][name]["crc32"] = checksum
        _write_synced(draft / "index.json", json.dumps(index, indent=1).encode())
        (draft / journal.NAME).unlink(missing_ok=True)
        _sync_directory(draft)
        if final.exists() and open_archive(final) is None:
            os.rename(final, damaged)
        try:
            os.rename(draft, final)
        except OSError:
            if open_archive(final) is None:  # else another process was faster: its is as good
                raise
            shutil.rmtree(draft, ignore_errors=True)
        _sync_directory(final.parent)
    except (OSError, InputError):  # the disk or the input is to be changed: another archive then
        shutil.rmtree(draft, ignore_errors=True)
        raise
    except BaseException:
        if not (draft / journal.NAME).exists():
            shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        _OWN.discard(draft.name)
        shutil.rmtree(damaged, ignore_errors=True)


def _draft(final: Path) -> Path:
    """A new name for what is not yet, or no more, an archive; tells which process it is of."""
    name = f".{socket.gethostname()}-{os.getpid()}-{final.name}.{uuid.uuid4().hex[:8]}.part"
    return final.parent / name


def _claimed(final: Path) -> Path:
    """A draft of this process: one that nobody writes any more, to go on with, or a new one."""
    draft = _draft(final)
    _OWN.add(draft.name)
    for left in final.parent.glob(f".{socket.gethostname()}-*-{final.name}.*.part"):
        if _is_abandoned(left):
            try:
                os.rename(left, draft)  # of two processes that try, one succeeds
            except OSError:
                continue
            LOG.info("archive %s: gone on with", final)
            return draft
    draft.mkdir()
    return draft


def _is_abandoned(draft: Path) -> bool:
    """Whether no process of this machine writes a draft any more."""
    owner = draft.name.rsplit("-", 2)[1]
    if not owner.isdigit() or not Path("/proc").is_dir():
        return False
    if int(owner) == os.getpid():
        return draft.name not in _OWN
    return not Path(f"/proc/{owner}").exists()


def _remove_abandoned(root: Path) -> None:
    """Remove drafts that nobody writes any more and nobody went on with for a week."""
    for draft in root.glob(f".{socket.gethostname()}-*.part"):
        try:
            newest = max(p.stat().st_mtime for p in (draft, *draft.iterdir()))
        except OSError:
            continue  # somebody else has just removed it
        if _is_abandoned(draft) and time.time() - newest > _KEPT:
            shutil.rmtree(draft, ignore_errors=True)


def _write_field(
    path: Path,
    dataset: xr.Dataset,
    sources: list[Source],
    times: np.ndarray,
    shape: tuple[int, ...],
) -> int:
    """Write one field in blocks of times, after those that are there; returns its checksum."""
    own = dataset[TIME].values.astype("datetime64[ns]")
    rows = np.minimum(np.searchsorted(own, times), own.size - 1)
    rows = np.where(own[rows] == times, rows, -1)
    row_bytes = 4 * int(np.prod(shape[1:]))
    step = max(1, _CHUNK_BYTES // row_bytes)
    header = _header(shape)
    first, checksum = journal.finished(path.parent, path.stem, header, row_bytes)
    started, told = time.monotonic(), time.monotonic()
    with path.open("r+b" if first else "wb") as file:
        file.write(header)
        file.truncate(len(header) + first * row_bytes)
        file.seek(0, os.SEEK_END)
        for start in range(first, times.size, step):
            block = _block(dataset, sources, rows[start : start + step], shape[1:])
            checksum = zlib.crc32(block.data, checksum)
            file.write(block.data)
            file.flush()
            os.fsync(file.fileno())
            stop = start + len(block)
            journal.record(path.parent, path.stem, start, stop, zlib.crc32(block.data))
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                done = (stop - first) / (times.size - first)
                left = (told - started) * (1 - done) / done
                percent = 100 * stop / times.size
                LOG.info("archive: %s %d %%, %.0f s left", path.stem, percent, left)
    return checksum


def _header(shape: tuple[int, ...]) -> bytes:
    """What a `.npy` file of this shape begins with."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


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
            known = VARIABLES.get(source.variable)
            if known is not None and picked.attrs.get("units") == known.units:  # not transformed
                first_time = str(picked[TIME].values[0])[:16]
                check_plausible(source.variable, values, source=f"data from {first_time} on")
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
