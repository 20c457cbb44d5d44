"""Writing to disk: one run at a time in a directory, files that are complete or absent.

The lock is the kernel's: it ends with the process that holds it, however that ends, so that a run
that was killed leaves none behind.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from slams_jax.errors import InputError

LOG = logging.getLogger(__name__)

LOCK = ".lock"


@contextlib.contextmanager
def locked(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Within, no other process and no other call is in a `locked` of the same directory.

    The directory is made if need be, and goes again if nothing has come into it. The file `.lock`
    in it means nothing by itself: one that a killed process leaves is taken over.

    Raises:
        InputError: the directory cannot be written, or another run is in it.
    """
    directory = Path(directory).absolute()
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = _opened(directory)
    except OSError as error:
        raise InputError(
            f"cannot write to {directory} ({error.strerror}): give another directory"
        ) from None
    try:
        yield directory
    finally:
        # Removed while it is held: who has opened it meanwhile sees that it is no longer there.
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink()
        os.close(file)
        for path in made:
            with contextlib.suppress(OSError):  # not empty, or gone already
                path.rmdir()


def _opened(directory: Path) -> int:
    """The lock file, open and locked."""
    while True:
        file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _take(file, directory)
            if os.fstat(file).st_nlink:
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder has just removed it


def _take(file: int, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 200, 0).decode(errors="replace") or "unknown"
        raise InputError(
            f"{directory} is in use by another run ({holder}): wait for its end, or give another "
            "directory"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        LOG.warning("%s is on a file system without locks: let one run use it", directory)
    with contextlib.suppress(OSError):  # a full disk; the name is a courtesy
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def write_dataset(dataset: xr.Dataset, path: Path, scratch: Path | None = None) -> None:
    """Write under a temporary name beside `path`, or in a folder `scratch` there, then rename.

    Raises:
        InputError: a path that cannot be written.
    """
    part = (scratch or path.parent) / f".{path.name}.{os.getpid()}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zarr":
            dataset.to_zarr(part, mode="w", consolidated=False)
            if path.is_dir():
                shutil.rmtree(path)
        else:
            dataset.to_netcdf(part, engine="h5netcdf")
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def write_text(text: str, path: Path, *, parents: bool = False) -> None:
    """Write a text file under a temporary name, then rename; with `parents` make its folder first.

    Raises:
        InputError: a path that cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
