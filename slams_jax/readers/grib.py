"""GRIB 1 and 2 through cfgrib (the extra `grib`); no index file is left beside the data."""

import importlib
import warnings
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.coordinates import is_height, role_of
from slams_jax.schema import LEVEL

# Forecast steps are dated by their valid time, so that accumulations line up.
_OPTIONS = {"indexpath": "", "errors": "raise", "time_dims": ("valid_time",), "squeeze": False}
_KEPT = ("valid_time", "isobaricInhPa", "latitude", "longitude")  # dimensions, also of size one
# What tells one field from another, apart from the start of its forecast.
_FIELD_KEYS = [
    "shortName",
    "paramId",
    "dataType",
    "stepType",
    "typeOfLevel",
    "level:float",
    "number",
    "directionNumber",
    "frequencyNumber",
    "md5GridSection",
    "valid_time",
]


def open_grib(path: Path, **options: Any) -> xr.Dataset:
    """All messages of a GRIB file as one Dataset, lazily.

    Variables on different levels or times (several hypercubes) are put side by side; the name of an
    axis that differs gets a number.

    Args:
        path: the file.
        options: of `xarray.open_dataset`.

    Raises:
        InputError: no cfgrib, a damaged file, a variable that is in two hypercubes, or two messages
            for one valid time.
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
        _refuse_second_messages(cfgrib, path)
        cubes = cfgrib.open_datasets(str(path), backend_kwargs=dict(_OPTIONS), **options)
    if not cubes:
        raise ValueError("no message")
    merged = xr.Dataset()
    for cube in cubes:
        if twice := sorted({str(v) for v in cube.data_vars} & {str(v) for v in merged.data_vars}):
            raise InputError(
                f"{path}: {twice[0]} is on two kinds of levels or times: split the file, "
                "such as with `grib_copy in.grib 'out_[typeOfLevel].grib'`"
            )
        merged = _beside(merged, cube)
    return merged


def _describes(cube: xr.Dataset, dim: Hashable) -> bool:
    """Whether a dimension of size one is no level of a model, which would be lost without it."""
    coordinate = cube.variables.get(dim)
    return role_of(dim, coordinate) != LEVEL or is_height(dim, coordinate)


def _refuse_second_messages(cfgrib: Any, path: Path) -> None:
    """Refuse a file with two messages for one field: forecasts of two starts, or copies.

    cfgrib would keep the last of them.
    """
    stream = cfgrib.messages.FileStream(str(path), errors="raise")
    index = cfgrib.messages.FileIndex.from_fieldset(
        stream, _FIELD_KEYS, cfgrib.cfmessage.COMPUTED_KEYS
    )
    for header, offsets in index.iter_index():
        if len(offsets) > 1:
            field = dict(zip(index.index_keys, header, strict=True))
            steps = sorted({str(stream[o]["stepRange"]) for o in offsets})
            when = np.datetime64(int(field["valid_time"]), "s")
            raise InputError(
                f"{path}: {field['shortName']} appears twice at {str(when)[:16]}, with forecast "
                f"steps {', '.join(steps)}: keep one, such as with "
                f"`grib_copy -w stepRange={steps[0]} in.grib out.grib`"
            )


def _beside(merged: xr.Dataset, cube: xr.Dataset) -> xr.Dataset:
    """Both, without dimensions of size one that only describe a variable (surface, 2 m)."""
    alone = [d for d, n in cube.sizes.items() if n == 1 and d not in _KEPT and _describes(cube, d)]
    cube = cube.isel(dict.fromkeys(alone, 0), drop=True)
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
