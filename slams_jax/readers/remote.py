"""Data behind a URL: Zarr stores read in place, files downloaded once, both with retries.

Any scheme that fsspec knows works (`https`, `gs`, `s3`, `memory`, ...); credentials and other
options of a file system are fsspec's own (`~/.config/fsspec`, `FSSPEC_S3_ANON=true`). A request
that fails or gets no answer for `TIMEOUT` seconds is tried up to `ATTEMPTS` times, with doubling
pauses; then the run ends with one line.

To Zarr an absent chunk is a chunk of fill values, so a store that disappears while it is read would
silently become missing values. Whenever a chunk is absent, the metadata of the store are therefore
requested again.
"""

import asyncio
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore, WrapperStore

from slams_jax.errors import InputError, RunError, first_line

LOG = logging.getLogger(__name__)

TIMEOUT = 60.0  # s without an answer
ATTEMPTS = 5
PAUSE = 1.0  # s before the second attempt
STORE_FILES = ("zarr.json", ".zmetadata", ".zgroup")
_FILES = (".nc", ".nc4", ".cdf", ".grib", ".grib1", ".grib2", ".grb", ".grb2", ".parquet", ".csv")
# What file systems report of a file that changes with its contents.
_VERSION = ("size", "ETag", "etag", "mtime", "LastModified", "Last-Modified", "created", "updated")
_FRESH = 5.0  # s for which a store that answered counts as present

T = TypeVar("T")


def is_url(path: object) -> bool:
    """Whether `path` is text with a scheme, such as `gs://bucket/store.zarr`."""
    return isinstance(path, str) and "://" in path


def expand_url(url: str) -> list[str]:
    """The URLs that a pattern (`*`) matches, or the URL itself.

    Raises:
        InputError: an unknown scheme, a missing package, or a pattern that matches nothing.
        RunError: the server does not answer.
    """
    if "*" not in url:
        _file_system(url)
        return [url]
    system, path = _file_system(url)
    found = _patiently(lambda: sorted(system.glob(path)), url)
    if not found:
        raise InputError(f"{url}: matches no file: check the pattern")
    return [system.unstrip_protocol(str(p)) for p in found]


def is_file(url: str) -> bool:
    """Whether a URL names a file to download, by its suffix; otherwise it is a Zarr store."""
    return url.rstrip("/").lower().endswith(_FILES)


def open_store(url: str) -> Store:
    """A Zarr store at a URL, read-only, that retries what fails.

    Raises:
        InputError: an unknown scheme or a missing package.
    """
    _file_system(url)
    options = {} if _is_http(url) else {"skip_instance_cache": True}
    return PatientStore(FsspecStore.from_url(url, storage_options=options, read_only=True), url)


def root_metadata(url: str) -> bytes:
    """The metadata at the root of the Zarr store at a URL; with consolidated metadata, all of it.

    Raises:
        InputError: an unknown scheme, a missing package, or access refused.
        RunError: the server does not answer.
    """
    system, path = _file_system(url)
    names = [f"{path.rstrip('/')}/{name}" for name in STORE_FILES]

    def read() -> list[bytes]:
        answers = system.cat(names, on_error="return").values()  # at once, where it can
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                raise answer
        return [answer for answer in answers if isinstance(answer, bytes)]

    return b"".join(_patiently(read, url))


def fetch(url: str) -> Path:
    """A copy of the file at a URL in the user's cache folder, downloaded once, complete or absent.

    Raises:
        InputError: an unknown scheme, a missing package, no such file, or no room.
        RunError: the server does not answer.
    """
    system, path = _file_system(url)
    about = _patiently(lambda: system.info(path), url)
    seen = [str(about.get(k)) for k in _VERSION]
    digest = hashlib.sha256("\n".join([url, *seen]).encode()).hexdigest()[:16]
    folder = _cache() / digest
    target = folder / url.rstrip("/").rsplit("/", 1)[-1].partition("?")[0]
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(handle)
    except OSError as error:
        raise _no_room(folder, error) from None
    try:
        LOG.info("%s: fetched into %s", url, folder)
        _patiently(lambda: _download(system, path, draft, about.get("size")), url)
        os.replace(draft, target)
    finally:
        Path(draft).unlink(missing_ok=True)
    return target


class PatientStore(WrapperStore[Store]):
    """A store that retries reads and notices when it has disappeared."""

    def __init__(self, store: Store, url: str = ""):
        super().__init__(store)
        self._url = url
        self._seen = 0.0

    def _with_store(self, store: Store) -> "PatientStore":
        return type(self)(store, self._url)

    async def get(self, key, prototype, byte_range=None):
        """The bytes of a key, or None if the store has no such key."""
        value = await self._ask(lambda: self._store.get(key, prototype, byte_range), key)
        if value is None and not key.endswith(("zarr.json", ".zarray", ".zattrs", *STORE_FILES)):
            await self._check(prototype)
        return value

    async def get_partial_values(self, prototype, key_ranges):
        """The bytes of several keys."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key):
        """Whether there is such a key."""
        return await self._ask(lambda: self._store.exists(key), key)

    async def _check(self, prototype) -> None:
        if time.monotonic() - self._seen < _FRESH:
            return
        for name in STORE_FILES:
            if await self._ask(lambda n=name: self._store.get(n, prototype), name) is not None:
                self._seen = time.monotonic()
                return
        raise RunError(f"{self._url}: the store has disappeared: restore it and start again")

    async def _ask(self, request: Callable[[], Awaitable[T]], key: str) -> T:
        source = f"{self._url.rstrip('/')}/{key}"
        for attempt in range(ATTEMPTS):
            try:
                return await asyncio.wait_for(request(), TIMEOUT)
            except Exception as error:  # every file system has its own types
                pause = _pause(error, attempt, source)
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _patiently(action: Callable[[], T], source: str) -> T:
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except Exception as error:  # as above
            pause = _pause(error, attempt, source)
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _pause(error: Exception, attempt: int, source: str) -> float:
    """Seconds to wait before the next attempt; raises where there is none.

    Raises:
        InputError: an error that no retry can mend.
        RunError: the last attempt.
    """
    reason = first_line(error)
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "Timeout" in type(error).__name__:
        reason = f"no answer for {TIMEOUT:g} s"
    if isinstance(error, InputError | RunError):
        raise error
    if isinstance(error, ImportError):
        raise _missing(source, error) from None
    if isinstance(error, FileNotFoundError):
        raise InputError(f"{source}: no such file or store: check the URL") from None
    status = getattr(error, "status", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        raise InputError(f"{source}: access refused ({reason}): check credentials") from None
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        raise InputError(f"{source}: the request was refused ({reason}): check the URL") from None
    if attempt + 1 == ATTEMPTS:
        raise RunError(
            f"{source}: cannot be read after {ATTEMPTS} attempts ({reason}): check the connection "
            "and start again"
        ) from None
    pause = PAUSE * 2.0**attempt
    LOG.warning("%s: %s: trying again in %g s", source, reason, pause)
    return pause


def _file_system(url: str) -> tuple[Any, str]:
    """The synchronous file system of a URL, and the path in it."""
    options: dict[str, Any] = {}
    try:
        if _is_http(url):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
            options = {"client_kwargs": {"timeout": timeout}, "skip_instance_cache": True}
        return fsspec.url_to_fs(url, **options)
    except ImportError as error:
        raise _missing(url, error) from None
    except ValueError as error:
        scheme = url.partition("://")[0]
        raise InputError(
            f"{url}: cannot be opened as {scheme}:// ({first_line(error)}): use a path, or a URL "
            "of https, gs or s3"
        ) from None


def _missing(url: str, error: ImportError) -> InputError:
    return InputError(
        f"{url}: needs a package that is not installed ({first_line(error)}): install it with "
        "`pip install 'slams-jax[remote]'`"
    )


def _download(system: Any, path: str, draft: str, size: int | None) -> None:
    # Block size 0 streams a web server's answer instead of requesting ranges of it.
    options = {"block_size": 0} if _is_http(path) else {}
    with system.open(path, "rb", **options) as source, open(draft, "wb") as target:
        while data := source.read(2**22):
            try:
                target.write(data)
            except OSError as error:
                raise _no_room(draft, error) from None
    if size is not None and os.path.getsize(draft) != size:
        raise OSError(f"{os.path.getsize(draft)} of {size} bytes came")


def _no_room(path: Path | str, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror}): make room, or set XDG_CACHE_HOME"
    )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "slams_jax" / "files"


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))
