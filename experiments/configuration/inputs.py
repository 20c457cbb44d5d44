"""What every command reads: the data of a configuration, split and with its statistics."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.configuration.build import non_defaults
from experiments.configuration.fields import BACKGROUND, STATE, Described, located, open_fields
from experiments.configuration.settings import DataSettings, Settings
from experiments.process.distributed import writer_first
from slams_jax.data import InputTransform, TrainingSet, build_archive, split_archive
from slams_jax.data.channels import unstack_channels
from slams_jax.dynamics import nature_run
from slams_jax.errors import InputError
from slams_jax.readers.remote import is_url


@dataclasses.dataclass(frozen=True)
class Inputs(TrainingSet):
    """The data of a run.

    Attributes:
        root: folder that relative paths of the configuration start from.
        described: of each field, where it is from and how it came onto the grid and times.
    """

    root: Path | str = ""
    described: dict[str, Described] = dataclasses.field(default_factory=dict)

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


def data_root(settings: Settings) -> Path | str:
    """The folder (or URL) of the data: as configured, or of the nature run, generated if need be.

    It may be empty where the state says by itself where it is.
    """
    root = settings.data.root
    if is_url(root):
        return root
    if root:
        folder = Path(root)
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
    archive = build_archive(data.cache, _key(data), fields)
    split = split_archive(
        archive,
        data.periods,
        harmonics=data.harmonics,
        per_point=data.per_point,
        transforms=data.transforms,
        input_transforms={
            name: InputTransform(field.transform, field.scale)
            for name, field in data.modalities.items()
            if field.transform
        },
    )
    own = {f.name: getattr(split, f.name) for f in dataclasses.fields(split)}
    return Inputs(**own, root=root, described=described)


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


def _key(data: DataSettings) -> dict[str, Any]:
    """The part of the configuration that decides what is in the archive, defaults left out."""
    fields = {STATE: data.state, **data.modalities}
    if data.background is not None:
        fields[BACKGROUND] = data.background
    return {
        "fields": {name: non_defaults(field) for name, field in fields.items()},
        "variables": data.variables,
        "levels": data.levels,
        **{n: v for n, v in non_defaults(data).items() if n in ("grid", "period", "hours")},
    }
