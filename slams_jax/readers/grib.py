"""GRIB 1 and 2 through cfgrib (the extra `grib`); no index file is left beside the data."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import xarray as xr

from slams_jax.errors import InputError

# Forecast steps are dated by the time that they are valid at, so that accumulations line up.
_OPTIONS = {"indexpath": "", "errors": "raise", "time_dims": ("valid_time",), "squeeze": False}
_KEPT = ("valid_time", "isobaricInhPa", "latitude", "longitude")  # dimensions, also of size one


def open_grib(path: Path, **options: Any) -> xr.Dataset:
    """All messages of a GRIB file as one Dataset, lazily.

    Variables on different levels or times (several hypercubes) stand side by side; of an axis that
    differs the name gets a number.

    Args:
        path: the file.
        options: of `xarray.open_dataset`.

    Raises:
        InputError: no cfgrib, a damaged file, or a variable that is in two hypercubes.
    """
    try:
        cfgrib = importlib.import_module("cfgrib")
    except (ImportError, RuntimeError) as error:  # RuntimeError: no eccodes library
        raise InputError(
            f"{path}: GRIB needs cfgrib and eccodes: install them with "
            "`pip install 'slams-jax[grib]'`"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of merges inside cfgrib
        cubes = cfgrib.open_datasets(str(path), backend_kwargs=dict(_OPTIONS), **options)
    if not cubes:
        raise ValueError("no message")
    merged = xr.Dataset()
    for cube in cubes:
        if twice := sorted({str(v) for v in cube.data_vars} & {str(v) for v in merged.data_vars}):
            raise InputError(
                f"{path}: {twice[0]} is there on two kinds of levels or times: split the file, "
                "such as with `grib_copy in.grib 'out_[typeOfLevel].grib'`"
            )
        merged = _beside(merged, cube)
    return merged


def _beside(merged: xr.Dataset, cube: xr.Dataset) -> xr.Dataset:
    """Both, without the remarks of one size that a variable may stand at (surface, 2 m)."""
    cube = cube.isel({d: 0 for d, n in cube.sizes.items() if n == 1 and d not in _KEPT}, drop=True)
    cube = cube.drop_vars([c for c in cube.coords if c not in cube.dims])
    for dim in list(cube.dims):
        name, number = str(dim), 1
        while name in merged.dims and not (
            name in merged.coords and dim in cube.coords and merged[name].equals(cube[dim])
        ):
            number += 1
            name = f"{dim}_{number}"
        if name != dim:
            cube = cube.rename({dim: name})
    return merged.assign(cube.data_vars).assign_coords(cube.coords)
