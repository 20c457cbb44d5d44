"""What every command reads: the data of a configuration, split and with its statistics."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.distributed import writer_first
from experiments.generate import nature_run
from experiments.settings import DataSettings, FieldSettings, Settings
from slams_jax.data import (
    Archive,
    Statistics,
    build_archive,
    fit_statistics,
    grid_points,
    open_dataset,
    read_stations,
    split_periods,
    standardise,
)
from slams_jax.data.fields import unstack_channels
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.schema import LATITUDE, LONGITUDE, TIME

STATE, BACKGROUND = "state", "background"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The data of a run.

    Attributes:
        root: folder that relative paths of the configuration start from.
        archive: state, background and modalities on one grid and one time axis, memory-mapped.
        spans: the slice of the time axis of each period.
        statistics: climatology and standard deviation of each field, from the training period;
            the background has those of the state.
    """

    root: Path
    archive: Archive
    spans: dict[str, slice]
    statistics: dict[str, Statistics]

    def frames(self, period: str) -> np.ndarray:
        """Indices of the times of a period."""
        span = self.spans[period]
        return np.arange(span.start, span.stop)

    def standardised(self, name: str, index: np.ndarray | slice) -> np.ndarray:
        """One field at some times, standardised (time, lat, lon, channel)."""
        values = np.asarray(self.archive.fields[name].array[index])
        return standardise(values, self.statistics[name], self.archive.times[index])

    def read(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """All fields at some times, standardised."""
        return {name: self.standardised(name, index) for name in self.archive.fields}

    def background(self, index: np.ndarray) -> xr.Dataset:
        """The background at some times, physical units.

        Raises:
            InputError: a configuration without background.
        """
        if BACKGROUND not in self.archive.fields:
            raise InputError(
                "the configuration has no background: set assimilation.background=False"
            )
        field, grid = self.archive.fields[BACKGROUND], self.archive.grid
        return unstack_channels(
            field.array[index][None],
            field.channels,
            self.archive.times[index],
            grid.latitude,
            grid.longitude,
        ).isel(member=0)

    def standardise_window(self, window: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A window of fields with their `times`, as the loader gives it, standardised."""
        return {
            name: standardise(values, self.statistics[name], window["times"])
            for name, values in window.items()
            if name != "times"
        }


def data_root(settings: Settings) -> Path:
    """The folder of the data: as configured, or of the nature run, generated if need be."""
    if settings.data.root:
        root = Path(settings.data.root).expanduser()
        if not root.is_dir():
            raise InputError(f"data.root {root} is not a folder: set --config.data.root")
        return root
    if settings.nature is None:
        raise InputError("data.root is empty and there is no nature run: set --config.data.root")
    return nature_run(settings.nature)


def load(settings: Settings) -> Inputs:
    """Open, select and cache the data of a configuration; of several processes, one by one.

    Raises:
        InputError: files, variables, levels or periods that do not fit.
    """
    with writer_first("data"):
        return _load(settings)


def _load(settings: Settings) -> Inputs:
    root, data = data_root(settings), settings.data
    state = open_dataset(root / data.state, variables=data.variables, levels=data.levels or None)
    grid = Grid.of(state[LATITUDE].values, state[LONGITUDE].values)
    times = np.asarray(state[TIME])
    fields = {STATE: state}
    if data.background:
        fields[BACKGROUND] = _background(root, data, state)
    for name, modality in data.modalities.items():
        fields[name] = _modality(root, modality, grid, times)
    _check_latent_inputs(settings, fields)
    archive = build_archive(data.cache, _key(settings), fields)
    spans = split_periods(archive.times, data.periods)
    train = spans["train"]
    statistics = {
        name: fit_statistics(
            field.array[train],
            archive.times[train],
            weights=grid.area_weights(),
            harmonics=data.harmonics,
            per_point=data.per_point,
        )
        for name, field in archive.fields.items()
        if name != BACKGROUND
    }
    if BACKGROUND in archive.fields:
        statistics[BACKGROUND] = statistics[STATE]
    return Inputs(root, archive, spans, statistics)


def open_stations(root: Path, settings: FieldSettings | Any) -> xr.Dataset:
    """Station data (time, station) of a modality or a stream."""
    return read_stations(
        root / settings.path,
        stations=root / settings.metadata if settings.metadata else None,
        variable=settings.variable,
        units=settings.units or "degC",
    )


def _background(root: Path, data: DataSettings, state: xr.Dataset) -> xr.Dataset:
    if data.background == "previous":
        # Persistence: what was the state one time earlier; the first time has none.
        return state.shift({TIME: 1})
    return open_dataset(
        root / data.background, variables=data.variables, levels=data.levels or None
    )


def _modality(root: Path, modality: FieldSettings, grid: Grid, times: np.ndarray) -> xr.Dataset:
    if modality.stations:
        return grid_points(open_stations(root, modality), grid, times, modality.variable)
    return open_dataset(root / modality.path, variables=(modality.variable,))


def _check_latent_inputs(settings: Settings, fields: dict[str, xr.Dataset]) -> None:
    names = settings.assimilation.latent_inputs
    if names and settings.autoencoder is None:
        raise InputError("assimilation.latent_inputs need an autoencoder: leave them out")
    known = sorted(set(fields) - {STATE})
    unknown = [n for n in names if n not in known]
    if unknown:
        raise InputError(
            f"assimilation.latent_inputs names {unknown[0]!r}, which is no background or modality "
            f"of the data: choose from {known}"
        )


def _key(settings: Settings) -> dict[str, Any]:
    """What of the configuration decides the selected data, beside the files themselves."""
    chosen = ("state", "background", "variables", "levels", "modalities")
    return {name: settings.raw["data"].get(name) for name in chosen}
