"""Opening NetCDF files and Zarr stores, with one clear line when that fails."""

import gc
import glob
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from slams_jax.errors import InputError

PathLike = str | os.PathLike[str]

# First bytes of a file -> (engine of xarray that reads it, or None; what it is)
_SIGNATURES: tuple[tuple[bytes, str | None, str], ...] = (
    (b"CDF\x01", "scipy", "NetCDF classic"),
    (b"CDF\x02", "scipy", "NetCDF 64-bit offset"),
    (b"CDF\x05", None, "NetCDF 64-bit data: convert it with `nccopy -k nc4`"),
    (b"\x89HDF\r\n\x1a\n", "h5netcdf", "NetCDF 4"),
    (b"GRIB", None, "GRIB: convert it with `cdo -f nc4 copy` or `grib_to_netcdf`"),
    (b"PAR1", None, "Parquet"),
    (b"PK\x03\x04", None, "a zip archive: unpack it"),
    (b"\x1f\x8b", None, "gzip: unpack it"),
)


def expand_paths(path: PathLike | Sequence[PathLike]) -> list[Path]:
    """Existing files and Zarr stores named by a path, a glob pattern, or a list of both.

    Raises:
        InputError: nothing given, a path that does not exist, a pattern that matches nothing.
    """
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not given:
        raise InputError("no file given: name at least one NetCDF file or Zarr store")
    paths: list[Path] = []
    for item in given:
        text = os.path.expanduser(os.fspath(item))
        if os.path.exists(text):
            paths.append(Path(text))
        elif glob.has_magic(text) and (found := sorted(glob.glob(text))):
            paths.extend(Path(f) for f in found)
        else:
            what = "matches no file" if glob.has_magic(text) else "no such file or directory"
            raise InputError(f"{text}: {what}: check the path")
    return list(dict.fromkeys(paths))


def _engine(path: Path) -> str:
    if path.is_dir():
        if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata")):
            return "zarr"
        raise InputError(f"{path}: a directory that is no Zarr store: name files or a store")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for signature, engine, what in _SIGNATURES:
        if head.startswith(signature):
            if engine is None:
                raise InputError(f"{path}: is no NetCDF that can be read here but {what}")
            return engine
    raise InputError(f"{path}: neither NetCDF nor Zarr (first bytes {head!r}): check the file")


def open_file(path: Path, *, what: str = "gridded data") -> xr.Dataset:
    """One file as it is, lazily: fill values become NaN, times stay numbers.

    Args:
        path: a NetCDF file (classic, 64-bit offset or 4) or a Zarr store.
        what: named in the error when the file holds no variable at all.

    Raises:
        InputError: not readable: missing, truncated, or of another format.
    """
    engine = _engine(path)
    options: dict[str, Any] = {"chunks": None, "decode_times": False, "cache": False}
    with warnings.catch_warnings():
        # Several declared fill values, a Zarr store without consolidated metadata: both read.
        warnings.simplefilter("ignore")
        try:
            dataset, reason = xr.open_dataset(path, engine=engine, **options), ""
        except Exception as error:  # the backends raise a dozen types on damaged files
            dataset, reason = None, (str(error).strip() or type(error).__name__).splitlines()[0]
        if dataset is None:
            gc.collect()  # closes what the backend left open, while its warnings are not heard
    if dataset is None:
        raise InputError(
            f"{path}: cannot be read as {engine} ({reason}): the file is damaged or incomplete, "
            "fetch or write it again"
        )
    if not dataset.data_vars:
        dataset.close()
        raise InputError(f"{path}: holds no variable: {what} expected")
    return dataset


def fingerprint(paths: Sequence[Path]) -> str:
    """A digest of names, sizes and modification times, so that a changed file is noticed."""
    digest = hashlib.sha256()
    for path in paths:
        # A Zarr store shows a change in the folders of its arrays.
        parts = (
            [path, *sorted(p for p in path.iterdir() if path.is_dir())] if path.is_dir() else [path]
        )
        for part in parts:
            status = part.stat()
            digest.update(f"{part.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
