"""One run at a time in a directory.

The lock is the kernel's: it ends with the process that holds it, however that ends, so that a run
that was killed leaves none behind.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from slams_jax.errors import InputError

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
        logging.warning("%s is on a file system without locks: let one run use it", directory)
    with contextlib.suppress(OSError):  # a full disk; the name is a courtesy
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
