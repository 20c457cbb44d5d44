"""The fields of a configuration as datasets on one grid and at the times of the state, lazily."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from experiments.configuration.settings import DataSettings, FieldSettings
from slams_jax.data import grid_points
from slams_jax.data.regrid import default_method, global_grid, inside, regrid, same_grid
from slams_jax.data.resample import match_times, persistence, shared_times, shifted
from slams_jax.data.transforms import transform
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers import open_dataset, read_stations, select_period
from slams_jax.readers.remote import is_url
from slams_jax.schema import LATITUDE, LONGITUDE, TIME

STATE, BACKGROUND, PREVIOUS = "state", "background", "previous"
Described = dict[str, Any]  # of one field, for people: where from, and how it came here


def located(root: Path | str, path: str | Sequence[str]) -> list[str]:
    """Paths of a configuration as they can be opened: URLs and absolute ones as they are."""
    paths = [path] if isinstance(path, str) else list(path)
    if not paths or not all(paths):
        raise InputError(f"a path of the data is empty: {path!r}: name a file, store or URL")
    paths = [p if is_url(p) else os.path.expanduser(p) for p in paths]
    join = lambda p: f"{str(root).rstrip('/')}/{p}" if is_url(str(root)) else os.path.join(root, p)
    return [p if is_url(p) else join(p) for p in paths]


def open_fields(
    root: Path | str, data: DataSettings
) -> tuple[dict[str, xr.Dataset], dict[str, Described]]:
    """(datasets, descriptions) of state, background and modalities, by name.

    Raises:
        InputError: files, variables, levels, grids or times that do not fit.
    """
    state, grid, about = _state(root, data)
    times = np.asarray(state[TIME])
    fields, described = {STATE: state}, {STATE: about}
    if data.background is not None and data.background.path == PREVIOUS:
        fields[BACKGROUND] = persistence(state)
        described[BACKGROUND] = about | {"source": "the state one time earlier"}
    elif data.background is not None:
        opened = _open(root, data.background, data.variables, data.levels)
        fields[BACKGROUND], described[BACKGROUND] = _fitted(
            BACKGROUND, data.background, opened, grid, times
        )
    for name, modality in data.modalities.items():
        if modality.stations:
            fields[name], described[name] = _stations(root, name, modality, grid, times)
        else:
            opened = _open(root, modality, (modality.variable,), ())
            fields[name], described[name] = _fitted(name, modality, opened, grid, times)
    return fields, described


def open_forecasts(path: str, data: DataSettings, grid: Grid, times: np.ndarray) -> xr.Dataset:
    """Forecasts for an analysis, with or without members, on `grid` and at `times`.

    Where they are missing they are NaN.

    Raises:
        InputError: files, variables or levels that do not fit, or none of the times.
    """
    opened = _open("", FieldSettings(path), data.variables, data.levels)
    name = f"--background {path}"
    shared = shared_times(np.asarray(opened[TIME]), times, name)
    moved = regrid(opened.isel({TIME: shared}), grid, name=name, must_cover=True)
    return moved.load().reindex({TIME: times})


def open_stations(root: Path | str, settings: FieldSettings | Any) -> xr.Dataset:
    """Station data (time, station) of a modality or a stream."""
    return read_stations(
        located(root, settings.path),
        stations=located(root, settings.metadata)[0] if settings.metadata else None,
        variable=settings.variable,
        units=settings.units or "degC",
    )


def _open(
    root: Path | str, field: FieldSettings, variables: Sequence[str], levels: Sequence[float]
) -> xr.Dataset:
    opened = open_dataset(
        located(root, field.path), variables=variables, levels=levels or None, units=field.units
    )
    return shifted(opened, field.shift)


def _state(root: Path | str, data: DataSettings) -> tuple[xr.Dataset, Grid, Described]:
    """The state on the common grid, at the times that are wanted; and that grid."""
    opened = _open(root, data.state, data.variables, data.levels)
    times = np.asarray(opened[TIME])
    wanted = np.zeros(times.size, bool)
    span = select_period(times, data.period, name="data.period") if data.period else slice(None)
    wanted[span] = True
    if data.hours:
        hour = times.astype("datetime64[h]")
        of_day = (hour - times.astype("datetime64[D]")).astype(int)
        wanted &= (times == hour) & np.isin(of_day, data.hours)
    if not wanted.any():
        raise InputError(
            f"data.hours {data.hours} are of none of the state's times, such as "
            f"{str(times[0])[:16]}: choose hours that it has"
        )
    own = Grid.of(opened[LATITUDE].values, opened[LONGITUDE].values)
    grid = _common_grid(root, data.grid, own)
    if data.state.matching == "exact" and not wanted.all():
        opened = opened.isel({TIME: np.flatnonzero(wanted)})
    state, about = _fitted(STATE, data.state, opened, grid, times[wanted])
    return state, grid, about


def _common_grid(root: Path | str, spec: str | float | Sequence[int], own: Grid) -> Grid:
    if isinstance(spec, str) and not spec:
        return own
    if isinstance(spec, str):
        with open_dataset(located(root, spec)) as given:
            return Grid.of(given[LATITUDE].values, given[LONGITUDE].values)
    try:
        return inside(global_grid(spec), own)
    except InputError as error:
        raise InputError(f"data.grid: {error}") from None


def _fitted(
    name: str, field: FieldSettings, opened: xr.Dataset, grid: Grid, times: np.ndarray
) -> tuple[xr.Dataset, Described]:
    """A gridded field at `times`, on `grid`, transformed; and what was done."""
    own = Grid.of(opened[LATITUDE].values, opened[LONGITUDE].values)
    matched = match_times(
        opened, times, field.matching, hours=field.hours, known=field.known, name=name
    )
    moved = regrid(
        matched,
        grid,
        method=field.method,
        known=field.known,
        name=name,
        must_cover=name in (STATE, BACKGROUND),
    )
    result = transform(moved, field.transform, field.scale, name=name)
    method = "" if same_grid(own, grid) else field.method
    if not same_grid(own, grid):
        method = field.method or " and ".join({default_method(str(v)): 0 for v in opened.data_vars})
        logging.info("%s: %s from %s to %s", name, method, own.shape, grid.shape)
    described = _described(field, np.asarray(opened[TIME]), own.shape, grid.shape)
    return result, described | {"method": method}


def _stations(
    root: Path | str, name: str, field: FieldSettings, grid: Grid, times: np.ndarray
) -> tuple[xr.Dataset, Described]:
    stations = shifted(open_stations(root, field), field.shift)
    points = grid_points(stations, grid, times, field.variable)
    described = _described(field, np.asarray(stations[TIME]), stations.sizes["station"], grid.shape)
    return (
        transform(points, field.transform, field.scale, name=name),
        described | {"method": "means of the stations in a cell"},
    )


def _described(
    field: FieldSettings, times: np.ndarray, before: tuple[int, int] | int, after: tuple[int, int]
) -> Described:
    scaled = f"log(1 + x / {field.scale:g})" if field.transform else ""
    scaled += ", x > 0" if field.transform == "log1p+wet" else ""
    return {
        "source": field.path if isinstance(field.path, str) else ", ".join(field.path),
        "grid_before": f"{before} stations" if isinstance(before, int) else list(before),
        "grid": list(after),
        "source_times": [str(times[0])[:16], str(times[-1])[:16], int(times.size)],
        "matching": field.matching + (f" {field.hours:g} h" if field.hours else ""),
        "shift_hours": float(field.shift),
        "transform": scaled,
    }
