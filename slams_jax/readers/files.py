"""Opening NetCDF and GRIB files and Zarr stores; a failure is one clear line."""

import gc
import glob
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from slams_jax.errors import InputError, RunError, first_line
from slams_jax.readers import remote
from slams_jax.readers.grib import open_grib
from slams_jax.readers.missing import without_default_fill

PathLike = str | os.PathLike[str]
Location = Path | str  # a local file or store, or the URL of a store

# First bytes of a file -> (engine of xarray that reads it, or None; what it is)
_SIGNATURES: tuple[tuple[bytes, str | None, str], ...] = (
    (b"CDF\x01", "scipy", "NetCDF classic"),
    (b"CDF\x02", "scipy", "NetCDF 64-bit offset"),
    (b"CDF\x05", None, "NetCDF 64-bit data: convert it with `nccopy -k nc4`"),
    (b"\x89HDF\r\n\x1a\n", "h5netcdf", "NetCDF 4"),
    (b"GRIB", "cfgrib", "GRIB"),
    (b"PAR1", None, "Parquet: reports of stations are read by read_stations"),
    (b"PK\x03\x04", None, "a zip archive: unpack it"),
    (b"\x1f\x8b", None, "gzip: unpack it"),
)


def expand_paths(path: PathLike | Sequence[PathLike]) -> list[Location]:
    """Existing files and Zarr stores named by a path, a glob pattern, a URL, or a list of these.

    Files behind a URL are downloaded; stores are read in place.

    Raises:
        InputError: nothing given, a path that does not exist, a pattern that matches nothing.
        RunError: a server that does not answer.
    """
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not given:
        raise InputError("no file given: name at least one NetCDF file or Zarr store")
    paths: list[Location] = []
    for item in given:
        if remote.is_url(item):
            urls = remote.expand_url(str(item))
            paths.extend(remote.fetch(u) if remote.is_file(u) else u for u in urls)
            continue
        text = os.path.expanduser(os.fspath(item))
        if os.path.exists(text):
            paths.append(Path(text))
        elif glob.has_magic(text) and (found := sorted(glob.glob(_below_folders(text)))):
            paths.extend(Path(f) for f in found)
        else:
            what = "matches no file" if glob.has_magic(text) else "no such file or directory"
            raise InputError(f"{text}: {what}: check the path")
    return list(dict.fromkeys(paths))


def _below_folders(pattern: str) -> str:
    """`pattern` with the folders that there are taken by name: `run[1]/*.nc` is in `run[1]`."""
    folder = Path(pattern).parent
    while not folder.exists():
        folder = folder.parent
    rest = str(Path(pattern).relative_to(folder))
    return os.path.join(glob.escape(str(folder)), rest)


def is_store(path: Location) -> bool:
    """Whether a location is a Zarr store."""
    if isinstance(path, str):
        return True
    return path.is_dir() and any((path / name).exists() for name in remote.STORE_FILES)


def _engine(path: Location) -> str:
    if is_store(path):
        return "zarr"
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a directory, but not a Zarr store: name files or a store")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix.lower() == ".npz":
        raise InputError(
            f"{path}: a NumPy archive has arrays without coordinates: give them times, latitudes "
            "and longitudes with xarray.Dataset and write NetCDF with its to_netcdf"
        )
    for signature, engine, what in _SIGNATURES:
        if head.startswith(signature):
            if engine is None:
                raise InputError(f"{path}: not a NetCDF file that can be read here, but {what}")
            return engine
    raise InputError(f"{path}: neither NetCDF nor Zarr (first bytes {head!r}): check the file")


def open_file(
    path: Location, *, what: str = "gridded data", leave_out: Sequence[str] = ()
) -> xr.Dataset:
    """One file as it is, lazily: fill values become NaN, times stay numbers.

    Args:
        path: a NetCDF (classic, 64-bit offset or 4) or GRIB file, or a Zarr store.
        what: named in the error when the file holds no variable at all.
        leave_out: names of variables that are not opened.

    Raises:
        InputError: not readable: missing, truncated, or of another format.
        RunError: a server that does not answer.
    """
    engine = _engine(path)
    options: dict[str, Any] = {"chunks": None, "decode_times": False, "cache": False}
    if leave_out:
        options["drop_variables"] = list(leave_out)
    with warnings.catch_warnings():
        # Several declared fill values, a Zarr store without consolidated metadata: both read.
        warnings.simplefilter("ignore")
        try:
            dataset, reason = _open(path, engine, options), ""
        except (InputError, RunError):
            raise
        except Exception as error:  # the backends raise a dozen types on damaged files
            dataset, reason = None, first_line(error)
        if dataset is None:
            gc.collect()  # closes what the backend left open, while its warnings are ignored
    if dataset is None:
        raise InputError(_unreadable(path, engine, reason))
    if not dataset.data_vars:
        dataset.close()
        raise InputError(f"{path}: holds no variable: {what} expected")
    return dataset


def _open(path: Location, engine: str, options: dict[str, Any]) -> xr.Dataset:
    if engine == "cfgrib":
        return open_grib(Path(path), **options)
    if engine != "zarr":
        return xr.open_dataset(path, engine=engine, **options)
    store: Any = remote.open_store(path) if isinstance(path, str) else path
    options = {k: v for k, v in options.items() if k != "decode_times"}
    raw = xr.open_dataset(store, engine="zarr", decode_cf=False, **options)
    decoded = xr.decode_cf(without_default_fill(raw), decode_times=False)
    # A store lists its arrays in the order of a directory, which differs between machines.
    names = sorted(decoded.data_vars, key=str)
    ordered = decoded.drop_vars(names).assign({name: decoded[name] for name in names})
    ordered.set_close(decoded.close)
    return ordered


def _unreadable(path: Location, engine: str, reason: str) -> str:
    if isinstance(path, str):
        return (
            f"{path}: no Zarr store that can be read ({reason}): check the URL; a store on a web "
            "server needs consolidated metadata, a file needs a suffix such as .nc or .grib"
        )
    return (
        f"{path}: cannot be read as {engine} ({reason}): the file is damaged or incomplete, "
        "download or write it again"
    )


def fingerprint(paths: Sequence[Location]) -> str:
    """A digest that changes with the contents of files and stores.

    It covers name, size and modification time of each file, and of each file inside a local Zarr
    store (metadata and chunks). Of stores behind URLs, it covers the URLs and the metadata at the
    root of the first store: chunks that are overwritten in place go unnoticed.
    """
    digest = hashlib.sha256()
    urls = [path for path in paths if isinstance(path, str)]
    if urls:
        digest.update("\n".join(urls).encode() + remote.root_metadata(urls[0]))
    for path in paths:
        if isinstance(path, str):
            continue
        files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        for file in files:
            status, name = file.stat(), file.relative_to(path.parent)
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
