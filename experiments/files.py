"""Files that are there when they are complete, or not at all."""

import os
import shutil
from pathlib import Path

import xarray as xr

from slams_jax.errors import InputError


def write(dataset: xr.Dataset, path: Path, scratch: Path | None = None) -> None:
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
