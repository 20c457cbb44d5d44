"""Writing to disk: one run at a time in a directory; files that are complete or absent.

Two kinds of files grow while a run goes on, JSON lines and Zarr stores. A run that resumes cuts
them to what its checkpoint knows of.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import xarray as xr

from slams_jax.errors import InputError

LOG = logging.getLogger(__name__)

LOCK = ".lock"


@contextlib.contextmanager
def locked(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Hold the lock of a directory: no other process, and no other call, can hold it meanwhile.

    The directory is created if necessary, and removed again if it stays empty. The kernel holds
    the lock and releases it when the process ends, however it ends: a `.lock` file left by a
    killed process is no obstacle.

    Raises:
        InputError: the directory cannot be written, or another run holds the lock.
    """
    directory = Path(directory).absolute()
    created = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = _open_locked(directory)
    except OSError as error:
        raise InputError(
            f"cannot write to {directory} ({error.strerror}): choose another directory"
        ) from None
    try:
        yield directory
    finally:
        # Removed while still locked: a process that has opened the file sees that it is gone.
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink()
        os.close(file)
        for path in created:
            with contextlib.suppress(OSError):  # not empty, or already removed
                path.rmdir()


def _open_locked(directory: Path) -> int:
    """File descriptor of the lock file, locked."""
    while True:
        file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(file, directory)
            if os.fstat(file).st_nlink:
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the previous holder has just removed it: open a new one


def _lock(file: int, directory: Path) -> None:
    """Lock an open file and write the holder's name into it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 200, 0).decode(errors="replace") or "unknown"
        raise InputError(
            f"{directory} is in use by another run ({holder}): wait until it ends, or choose "
            "another directory"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        LOG.warning(
            "%s is on a file system without locks: make sure that only one run uses it", directory
        )
    with contextlib.suppress(OSError):  # a full disk: the name is only informative
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


@contextlib.contextmanager
def replacing(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends, and is removed if it raises.

    Args:
        path: file or directory to write or replace.
        scratch: folder on the same file system for the temporary path; None takes that of `path`.

    Yields:
        A path with the suffix of `path`.
    """
    temporary = (scratch or path.parent) / f".{path.stem}.{os.getpid()}.part{path.suffix}"
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():  # a directory does not replace a full one
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_dataset(dataset: xr.Dataset, path: Path, scratch: Path | None = None) -> None:
    """Write a Dataset as NetCDF 4, or as Zarr where `path` ends in `.zarr`; complete or not at all.

    Args:
        dataset: what to write.
        path: file or store; its folder is created if necessary.
        scratch: folder on the same file system for the unfinished file; None takes that of `path`.

    Raises:
        InputError: a path that cannot be written.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, scratch) as temporary:
            if path.suffix == ".zarr":
                dataset.to_zarr(temporary, mode="w", consolidated=False)
            else:
                dataset.to_netcdf(temporary, engine="h5netcdf")


def write_bytes(content: bytes, path: Path, *, parents: bool = False) -> None:
    """Write a file, complete or not at all; with `parents`, create its folder first.

    Raises:
        InputError: a path that cannot be written.
    """
    with _refusals(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def write_text(text: str, path: Path, *, parents: bool = False) -> None:
    """Write a text file as `write_bytes` does, in UTF-8.

    Raises:
        InputError: a path that cannot be written.
    """
    write_bytes(text.encode("utf-8"), path, parents=parents)


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The complete records of a file of JSON lines, in order; a torn last line is left out.

    No file gives no records.
    """
    path = Path(path).expanduser()
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break  # killed while writing
    return records


def open_records(path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> TextIO:
    """A file of JSON lines, opened for `write_record` after its records that `keep` accepts.

    Raises:
        InputError: a path that cannot be written.
    """
    kept = [json.dumps(record) + "\n" for record in read_records(path) if keep(record)]
    write_text("".join(kept), path)
    return path.open("a")


def write_record(file: TextIO, record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines, where others can read it at once."""
    file.write(json.dumps(record) + "\n")
    file.flush()


def append_dataset(dataset: xr.Dataset, path: Path, position: int) -> None:
    """Write along `time` of a Zarr store from index `position` on; what was behind it is cut off.

    A process that is killed while it appends leaves a store that the same call completes.

    Args:
        dataset: its variables with a time have it as their first dimension.
        path: of the store; written, or replaced, where `position` is 0.
        position: the number of times that stay.

    Raises:
        InputError: a path that cannot be written, or a store with fewer times than stay.
    """
    if position == 0:
        write_dataset(dataset, path)
        return
    import zarr  # slow to import

    with _refusals(path):
        stored = dict(zarr.open_group(path, mode="r+").arrays()) if path.exists() else {}
        growing = [str(n) for n, variable in dataset.variables.items() if "time" in variable.dims]
        if any(n not in stored or stored[n].shape[0] < position for n in growing):
            raise InputError(
                f"{path} lacks some of its first {position} times: restore it, or start over in "
                "another directory"
            )
        for name in growing:
            stored[name].resize((position, *stored[name].shape[1:]))
        dataset.to_zarr(path, mode="a", append_dim="time", consolidated=False)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
