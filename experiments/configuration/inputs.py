"""What every command reads: the data of a configuration, split and with its statistics."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.configuration.fields import BACKGROUND, STATE, Described, located, open_fields
from experiments.configuration.settings import DataSettings, Settings
from experiments.generate import nature_run
from experiments.process.distributed import writer_first
from slams_jax.data import Archive, Statistics, build_archive, fit_statistics, standardise
from slams_jax.data.channels import unstack_channels
from slams_jax.errors import InputError
from slams_jax.readers import split_periods
from slams_jax.readers.remote import is_url


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The data of a run.

    Attributes:
        root: folder that relative paths of the configuration start from.
        archive: state, background and modalities on one grid and one time axis, memory-mapped.
        spans: the slice of the time axis of each period.
        statistics: climatology and standard deviation of each field, from the training period;
            the background has those of the state.
        described: of each field, where it is from and how it came onto the grid and times.
    """

    root: Path | str
    archive: Archive
    spans: dict[str, slice]
    statistics: dict[str, Statistics]
    described: dict[str, Described] = dataclasses.field(default_factory=dict)

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


def data_root(settings: Settings) -> Path | str:
    """The folder (or URL) of the data: as configured, or of the nature run, generated if need be.

    It may be empty where the state says by itself where it is.
    """
    root = settings.data.root
    if is_url(root):
        return root
    if root:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise InputError(f"data.root {folder} is not a folder: set --config.data.root")
        return folder
    if settings.nature is not None:
        return nature_run(settings.nature)
    if all(is_url(p) or Path(p).is_absolute() for p in located("", settings.data.state.path)):
        return Path()
    raise InputError("data.root is empty and there is no nature run: set --config.data.root")


def load(settings: Settings) -> Inputs:
    """Open, select and cache the data of a configuration; of several processes, one by one.

    Raises:
        InputError: files, variables, levels or periods that do not fit.
    """
    with writer_first("data"):
        return _load(settings)


def _load(settings: Settings) -> Inputs:
    root, data = data_root(settings), settings.data
    fields, described = open_fields(root, data)
    _check_latent_inputs(settings, fields)
    archive = build_archive(data.cache, _key(settings), fields)
    spans = split_periods(archive.times, data.periods)
    train = spans["train"]
    statistics = {
        name: _statistics(name, archive, train, data)
        for name in archive.fields
        if name != BACKGROUND
    }
    if BACKGROUND in archive.fields:
        statistics[BACKGROUND] = statistics[STATE]
    return Inputs(root, archive, spans, statistics, described)


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


def _statistics(name: str, archive: Archive, train: slice, data: DataSettings) -> Statistics:
    """Of one field, from the training period; what is wrong with it names the field."""
    try:
        return fit_statistics(
            archive.fields[name].array[train],
            archive.times[train],
            weights=archive.grid.area_weights(),
            harmonics=data.harmonics,
            per_point=data.per_point,
        )
    except InputError as error:
        raise InputError(f"field {name!r}: {error}") from None


def _key(settings: Settings) -> dict[str, Any]:
    """What of the configuration decides the selected data, beside the files themselves."""
    data = settings.raw["data"]
    chosen = ("state", "background", "variables", "levels", "modalities")
    later = ("grid", "period", "hours")  # what is not set leaves earlier archives as they are
    return {name: data.get(name) for name in chosen} | {n: data[n] for n in later if data.get(n)}
