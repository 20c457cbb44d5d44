"""The files of an archive: complete or absent, and opened only if intact.

An unfinished archive is a draft, a hidden folder beside the archive. A writer that is killed, or
stopped by a server that does not answer, leaves its draft behind; the next writer of the same
archive resumes it. The result is the same bit for bit.
"""

import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from slams_jax.data import journal
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers.periods import check_times
from slams_jax.readers.units import check_plausible
from slams_jax.schema import LATITUDE, LONGITUDE, TIME, VARIABLES, Channel

LOG = logging.getLogger(__name__)

_CHUNK_BYTES = 2**26  # of a field, written at once
_READ_BYTES = 2**24  # of a file, read at once to check it
_DRAFT_LIFETIME = 7 * 86400.0  # s that an abandoned draft waits to be resumed
_ABSENT = -1  # row of a time that a field does not have
_WRITING: set[str] = set()  # names of the drafts that this process is writing


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """One field of an archive.

    Attributes:
        array: (time, lat, lon, channel), float32, NaN where missing; memory-mapped, read-only.
        channels: of the last axis.
    """

    array: np.ndarray
    channels: tuple[Channel, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Archive:
    """Fields on one grid at the same times.

    Attributes:
        path: directory of the archive.
        times: datetime64[ns] (time,), ascending.
        grid: of all fields.
        fields: by name, such as "state", "background", "stations".
    """

    path: Path
    times: np.ndarray
    grid: Grid
    fields: dict[str, Field]


class Source(NamedTuple):
    """Where to find consecutive channels of a field: positions along one variable's dimension."""

    variable: str
    dim: str | None  # dimension besides time, latitude and longitude, if any
    positions: np.ndarray  # indices along it


def open_archive(path: str | os.PathLike[str]) -> Archive | None:
    """The archive in directory `path`, or None unless it is complete and intact."""
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
                raise ValueError(f"{name}.npy does not match its checksum")
            fields[name] = Field(array, tuple(Channel(*c) for c in entry["channels"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        LOG.warning("archive %s: damaged, ignored (%s)", path, error)
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
    """Write an archive beside `final`, then rename it to that.

    Args:
        final: directory of the finished archive.
        index: contents of `index.json`, without the checksums.
        fields: by name.
        sources: where to find the channels of each field.
        times: datetime64[ns] (time,).
        grid: of all fields.

    Raises:
        InputError: not enough free disk space, or a field that cannot be read.
        OSError: the operating system refuses to write.
    """
    shapes = {
        name: (times.size, *grid.shape, sum(s.positions.size for s in sources[name]))
        for name in fields
    }
    _remove_abandoned(final.parent)
    with _drafting(final) as draft:
        _check_space(draft, sum(4 * math.prod(shape) for shape in shapes.values()))
        for name, dataset in fields.items():
            path = draft / f"{name}.npy"
            checksum = _write_field(path, dataset, sources[name], times, shapes[name])
            index["fields"][name]["crc32"] = checksum
        _write_synced(draft / "index.json", json.dumps(index, indent=1).encode())
        (draft / journal.NAME).unlink(missing_ok=True)
        _publish(draft, final)


# --- drafts -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _drafting(final: Path) -> Iterator[Path]:
    """A draft to write an archive into: one that was abandoned, or a new one.

    When writing fails, the draft is removed if the disk or the input is at fault, since both will
    have changed by the next attempt; otherwise it is kept, if there is anything to resume.
    """
    draft = _new_name(final)
    _WRITING.add(draft.name)
    try:
        if not _take_over(final, draft):
            draft.mkdir()
        yield draft
    except (OSError, InputError):
        shutil.rmtree(draft, ignore_errors=True)
        raise
    except BaseException:
        if not (draft / journal.NAME).exists():
            shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        _WRITING.discard(draft.name)


def _new_name(final: Path) -> Path:
    """A hidden name beside `final` that tells host and process of the writer."""
    name = f".{socket.gethostname()}-{os.getpid()}-{final.name}.{uuid.uuid4().hex[:8]}.part"
    return final.parent / name


def _take_over(final: Path, draft: Path) -> bool:
    """Rename an abandoned draft of `final` to `draft`; whether there was one."""
    for abandoned in final.parent.glob(f".{socket.gethostname()}-*-{final.name}.*.part"):
        if _is_abandoned(abandoned):
            # Of two processes that try, one succeeds.
            with contextlib.suppress(OSError):
                os.rename(abandoned, draft)
                LOG.info("archive %s: resumed", final)
                return True
    return False


def _is_abandoned(draft: Path) -> bool:
    """Whether the process that wrote a draft on this machine has ended."""
    owner = draft.name.rsplit("-", 2)[1]
    if not owner.isdigit() or not Path("/proc").is_dir():
        return False
    if int(owner) == os.getpid():
        return draft.name not in _WRITING
    return not Path(f"/proc/{owner}").exists()


def _remove_abandoned(root: Path) -> None:
    """Remove abandoned drafts that nobody has resumed for a week."""
    for draft in root.glob(f".{socket.gethostname()}-*.part"):
        try:
            newest = max(p.stat().st_mtime for p in (draft, *draft.iterdir()))
        except OSError:
            continue  # removed by another process in the meantime
        if _is_abandoned(draft) and time.time() - newest > _DRAFT_LIFETIME:
            shutil.rmtree(draft, ignore_errors=True)


def _check_space(draft: Path, size: int) -> None:
    """Refuse to begin what will not fit, given what the draft already holds."""
    missing = size - sum(part.stat().st_size for part in draft.iterdir())
    if shutil.disk_usage(draft.parent).free < missing:
        raise InputError(
            f"{draft.parent}: not enough free space for an archive of {missing / 2**30:.1f} GiB: "
            "free some, or choose another disk"
        )


def _publish(draft: Path, final: Path) -> None:
    """Rename a finished draft to `final`, in place of a damaged archive if there is one."""
    _sync_directory(draft)
    damaged = _new_name(final)
    if final.exists() and open_archive(final) is None:
        os.rename(final, damaged)
    try:
        os.rename(draft, final)
    except OSError:
        if open_archive(final) is None:
            raise
        # Another process was faster; its archive is the same.
        shutil.rmtree(draft, ignore_errors=True)
    finally:
        shutil.rmtree(damaged, ignore_errors=True)
    _sync_directory(final.parent)


# --- fields -------------------------------------------------------------------------------------


def _write_field(
    path: Path,
    dataset: xr.Dataset,
    sources: list[Source],
    times: np.ndarray,
    shape: tuple[int, ...],
) -> int:
    """Write one field block by block, after the blocks already on disk; returns its CRC-32."""
    own = check_times(dataset[TIME].values, name=f"{path.stem} times")
    rows = np.minimum(np.searchsorted(own, times), own.size - 1)
    rows = np.where(own[rows] == times, rows, _ABSENT)
    row_bytes = 4 * math.prod(shape[1:])
    step = max(1, _CHUNK_BYTES // row_bytes)
    header = _header(shape)
    first, checksum = journal.finished(path.parent, path.stem, header, row_bytes)
    progress = _Progress(path.stem, first, times.size)
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
            progress.report(stop)
    return checksum


class _Progress:
    """Logs how far a field is and how long it will take, every ten seconds at most."""

    def __init__(self, field: str, first: int, total: int):
        self._field, self._first, self._total = field, first, total
        self._started = self._logged = time.monotonic()

    def report(self, row: int) -> None:
        """Log that all rows before `row` are written."""
        now = time.monotonic()
        if now - self._logged <= 10.0:
            return
        self._logged = now
        done = (row - self._first) / (self._total - self._first)
        left = (now - self._started) * (1 - done) / done
        percent = 100 * row / self._total
        LOG.info("archive: %s %d %%, %.0f s left", self._field, percent, left)


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of a `.npy` file of float32 of this shape."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _block(
    dataset: xr.Dataset, sources: list[Source], rows: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """(time, lat, lon, channel) of some rows of `dataset`; NaN where a row is `_ABSENT`."""
    block = np.full((rows.size, *shape), np.nan, dtype="<f4")
    present = rows != _ABSENT
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
            standard = VARIABLES.get(source.variable)
            if standard is not None and picked.attrs.get("units") == standard.units:
                # Transformed values have other units and no plausible range.
                first_time = str(picked[TIME].values[0])[:16]
                check_plausible(source.variable, values, source=f"data from {first_time} on")
            values = values.transpose([picked.dims.index(d) for d in order])
            block[present, ..., first : first + depth] = values.reshape(*values.shape[:3], depth)
        first += depth
    return block


def _checksum(path: Path, offset: int) -> int:
    """CRC-32 of a file from `offset`; read, since mapped pages would count as memory in use."""
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
