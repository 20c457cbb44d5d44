"""What a model is trained on: an archive, its periods, statistics of the training period."""

import dataclasses
import functools
import hashlib
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from slams_jax.data.anamorphosis import (
    Anamorphosis,
    Censored,
    Transforms,
    fit_anamorphosis,
    transforms_of,
)
from slams_jax.data.archive import STATE, build_archive
from slams_jax.data.gridding import on_cells
from slams_jax.data.statistics import Statistics, fit_statistics, standardise
from slams_jax.data.store import Archive
from slams_jax.data.transforms import InputTransform, transform
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.readers import split_periods
from slams_jax.schema import LATITUDE, LONGITUDE, TIME

BACKGROUND = "background"
TRAIN, VALIDATION = "train", "validation"  # the periods that a training needs
_ROWS = 256  # times digested at once


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """Fields on one grid and one time axis, split into periods.

    Attributes:
        archive: state, background and modalities, memory-mapped.
        spans: the slice of the time axis of each period; "train" and "validation" among them.
        statistics: climatology and standard deviation of each field, from the training period;
            the background has those of the state.
        anamorphosis: of the state and the background, to which their statistics then apply; None
            where they are taken as they are.
        physical: statistics of the state in physical units; None for those in `statistics`.
        input_transforms: of the modalities that have one, by name; the archive holds them
            transformed.
    """

    archive: Archive
    spans: Mapping[str, slice]
    statistics: Mapping[str, Statistics]
    anamorphosis: Anamorphosis | None = None
    physical: Statistics | None = None
    input_transforms: Mapping[str, InputTransform] = dataclasses.field(default_factory=dict)

    def frames(self, period: str) -> np.ndarray:
        """Indices of the times of a period."""
        span = self.spans[period]
        return np.arange(span.start, span.stop)

    def standardised(
        self, name: str, index: np.ndarray | slice
    ) -> Float[np.ndarray, "time lat lon channel"]:
        """One field at some times, standardised."""
        return standardise(
            self.gaussian(name, index), self.statistics[name], self.archive.times[index]
        )

    def gaussian(
        self, name: str, index: np.ndarray | slice
    ) -> Float[np.ndarray, "time lat lon channel"]:
        """One field at some times, after the anamorphosis if it has one; else as it is."""
        values = np.asarray(self.archive.fields[name].array[index])
        return _gaussian(self.anamorphosis, name, values, self.archive.times[index])

    @property
    def transforms(self) -> Transforms:
        """Of each channel of the state; () where there are none."""
        return () if self.anamorphosis is None else self.anamorphosis.transforms

    @property
    def physical_statistics(self) -> Statistics:
        """Climatology and standard deviation of the state, physical units."""
        return self.statistics[STATE] if self.physical is None else self.physical

    def read(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """All fields at some times, standardised."""
        return {name: self.standardised(name, index) for name in self.archive.fields}

    def standardise_window(self, window: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A window of fields with their `times`, as the loader gives it, standardised."""
        return {
            name: standardise(
                _gaussian(self.anamorphosis, name, values, window["times"]),
                self.statistics[name],
                window["times"],
            )
            for name, values in window.items()
            if name != "times"
        }

    @property
    def time_step(self) -> np.timedelta64:
        """The most frequent interval between successive times of the training period."""
        steps, counts = np.unique(
            np.diff(self.archive.times[self.spans[TRAIN]]), return_counts=True
        )
        return steps[counts.argmax()]


def training_set(
    fields: Mapping[str, xr.Dataset],
    periods: Mapping[str, Sequence[Any]],
    cache: str | os.PathLike[str],
    *,
    harmonics: int = 0,
    per_point: bool = True,
    transforms: Mapping[str, Censored] = types.MappingProxyType({}),
    input_transforms: Mapping[str, InputTransform] = types.MappingProxyType({}),
) -> TrainingSet:
    """The training set of Datasets in the library's schema.

    Args:
        fields: "state", optionally "background" with the same variables, and modalities under
            names of your own. Gridded fields are on the grid of the state, with names, units and
            order as `from_dataset` reads them; station data of one variable, as `from_stations`
            reads them, are put onto its cells. All follow the times of the state: what they lack
            there is missing.
        periods: "train" and "validation", and others such as "test" -> (first, last) date, both
            inclusive.
        cache: folder of the memory-mapped arrays, made if need be. All values are read to tell
            whether it holds them already; `build_archive` and `split_archive` go by the files.
        harmonics: waves of the year in the climatology, as in `fit_statistics`.
        per_point: a climatology for each grid point, or one for each channel.
        transforms: variable of the state, such as "total_precipitation" -> how it is censored;
            others are taken as they are.
        input_transforms: name of a modality -> how it is transformed, such as rain, most of which
            is zero; others are taken as they are.

    Returns:
        The training set.

    Raises:
        InputError: no state, fields that do not fit it, periods that are missing, empty or
            overlap, transforms of variables or modalities that there are not, or negative amounts
            in those that are censored or have a logarithm.
    """
    if STATE not in fields:
        raise InputError(f"a training set needs the field {STATE!r}, got {sorted(fields)}")
    for period in (TRAIN, VALIDATION):
        if period not in periods:
            raise InputError(
                f"periods lack {period!r}, got {sorted(periods)}: give its (first, last) date"
            )
    _check_inputs(input_transforms, fields)
    state = fields[STATE]
    grid, times = Grid.of(state[LATITUDE].values, state[LONGITUDE].values), np.asarray(state[TIME])
    gridded = {name: on_cells(field, grid, times, name=name) for name, field in fields.items()}
    for name, how in input_transforms.items():
        gridded[name] = transform(gridded[name], how.kind, how.scale, name=f"field {name!r}")
    values = {name: _digest(field) for name, field in gridded.items()}
    archive = build_archive(cache, {"values": values}, gridded)
    return split_archive(
        archive,
        periods,
        harmonics=harmonics,
        per_point=per_point,
        transforms=transforms,
        input_transforms=input_transforms,
    )


def split_archive(
    archive: Archive,
    periods: Mapping[str, Sequence[Any]],
    *,
    harmonics: int = 0,
    per_point: bool = True,
    transforms: Mapping[str, Censored] = types.MappingProxyType({}),
    input_transforms: Mapping[str, InputTransform] = types.MappingProxyType({}),
) -> TrainingSet:
    """The training set of an archive; arguments and errors as those of `training_set`.

    The modalities in the archive are transformed already; `input_transforms` says how.
    """
    spans = split_periods(archive.times, periods)
    train, weights = spans[TRAIN], archive.grid.area_weights()
    state = archive.fields[STATE]
    anamorphosis = physical = None
    if chosen := transforms_of(state.channels, transforms):
        anamorphosis = fit_anamorphosis(state.array[train], chosen, weights)
    statistics = {}
    for name, field in archive.fields.items():
        if name == BACKGROUND:
            continue
        array, times = field.array[train], archive.times[train]
        fit = functools.partial(
            fit_statistics,
            times=times,
            weights=weights,
            harmonics=harmonics,
            per_point=per_point,
        )
        try:
            statistics[name] = fit(array)
            if name == STATE and anamorphosis is not None:
                physical = statistics[STATE]
                statistics[STATE] = fit(_Gaussian(array, anamorphosis, times))
        except InputError as error:
            raise InputError(f"field {name!r}: {error}") from None
    if BACKGROUND in archive.fields:
        statistics[BACKGROUND] = statistics[STATE]
    return TrainingSet(archive, spans, statistics, anamorphosis, physical, input_transforms)


def _check_inputs(transforms: Mapping[str, InputTransform], fields: Mapping[str, Any]) -> None:
    modalities = sorted(set(fields) - {STATE, BACKGROUND})
    for name in transforms:
        if name not in modalities:
            raise InputError(
                f"input_transforms names {name!r}, which is no modality: choose from {modalities}"
            )


@dataclasses.dataclass(frozen=True)
class _Gaussian:
    """The state after its anamorphosis, read block by block of times."""

    array: Any
    anamorphosis: Anamorphosis
    times: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, lat, lon, channel)."""
        return self.array.shape

    def __getitem__(self, index: slice) -> np.ndarray:
        return self.anamorphosis.gaussian(self.array[index], self.times[index])


def _gaussian(
    anamorphosis: Anamorphosis | None, name: str, values: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """A field after the anamorphosis: dry values of the state are drawn, others are expected."""
    if anamorphosis is None or name not in (STATE, BACKGROUND):
        return values
    return anamorphosis.gaussian(values, times if name == STATE else None, name=name)


def _digest(field: xr.Dataset) -> str:
    """SHA-256 of the values of a Dataset, read in blocks of times."""
    digest = hashlib.sha256()
    for name in sorted(map(str, field.data_vars)):
        for start in range(0, field.sizes[TIME], _ROWS):
            block = field[name].isel({TIME: slice(start, start + _ROWS)})
            digest.update(np.ascontiguousarray(block.values).tobytes())
    return digest.hexdigest()
