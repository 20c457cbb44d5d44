"""From a ConfigDict to checked, frozen settings: the one place where configurations are read."""

import dataclasses
import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ml_collections import ConfigDict

from experiments.configuration.build import build, check_names, group, plain, require
from experiments.configuration.nature import read_nature
from slams_jax.assimilation import HybridConfig, InversionConfig
from slams_jax.assimilation.posterior import ScoreKind
from slams_jax.data import Censored
from slams_jax.diffusion import CosineSchedule, RefinementConfig, SamplerConfig
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.dynamics import NatureRun
from slams_jax.errors import InputError, check_at_least, check_known
from slams_jax.models import StageConfig
from slams_jax.training import OptimiserConfig


@dataclasses.dataclass(frozen=True)
class FieldSettings:
    """State, background or a modality: where it is and how it comes onto the common grid and times.

    A configuration may give the path alone for a state or a background.

    Attributes:
        path: file, store, glob pattern, URL, or a tuple of these; relative to the data's root.
        variable: of a modality, its name in the library's vocabulary.
        stations: whether it is station data, put on the cells of the grid for the encoder.
        metadata: for station tables without positions, the file that has them.
        units: of station tables, and of gridded files that do not say theirs.
        method: onto another grid "conservative", "bilinear" or "nearest"; "" by the variable.
        known: a cell, or a mean over time, is missing when less than this share of it is known.
        matching: of times: "exact", "nearest", or the "mean" or "sum" of the interval that ends.
        hours: tolerance of "nearest", length of the interval; 0 for half of, and the whole of, the
            state's step.
        shift: hours by which its times are late: 24 for days that are dated by their beginning.
        transform: of a modality, before it is standardised: "log1p", "log1p+wet", or "" for none.
        scale: of the transform, in the library's units: log(1 + x / scale).
    """

    path: str | tuple[str, ...]
    variable: str = ""
    stations: bool = False
    metadata: str = ""
    units: str = ""
    method: str = ""
    known: float = 0.5
    matching: str = "exact"
    hours: float = 0.0
    shift: float = 0.0
    transform: str = ""
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What is read, and which period is for what.

    Attributes:
        root: folder of the files; empty for the nature run of the configuration.
        state: the truth.
        background: the background; of path "previous" for the state one time earlier; None for no
            background.
        variables: of the state.
        levels: of those of them that lie on levels, hPa; empty if none does.
        transforms: of variables of the state whose amounts are censored, by name.
        modalities: what the encoder sees beside the background, by name.
        periods: "train", "validation", "test" -> (first date, last date).
        grid: of all fields: empty for the state's own, a spacing in degrees, (rows, columns), or a
            file that has it.
        period: first and last date of the state's times that are taken; empty for all.
        hours: hours of the day of the state's times that are taken; empty for all.
        harmonics: of the yearly cycle taken off; 0 takes the mean.
        per_point: one climatology for each grid point, not one for each channel.
        cache: folder of the memory-mapped selection.
    """

    root: str
    state: FieldSettings
    background: FieldSettings | None
    variables: tuple[str, ...]
    levels: tuple[float, ...]
    modalities: Mapping[str, FieldSettings]
    periods: Mapping[str, tuple[str, str]]
    grid: str | float | tuple[int, int] = ""
    period: tuple[str, ...] = ()
    hours: tuple[int, ...] = ()
    harmonics: int = 0
    per_point: bool = True
    cache: str = "cache"
    transforms: Mapping[str, Censored] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        missing = {"train", "validation", "test"} - set(self.periods)
        if missing:
            raise InputError(f"data.periods lacks {sorted(missing)}: give (first, last) dates")
        if self.harmonics < 0:
            raise InputError(f"data.harmonics must be 0 or more, got {self.harmonics}")
        if not set(self.hours) <= set(range(24)):
            raise InputError(f"data.hours must be hours of the day, 0 to 23, got {self.hours}")
        if len(self.period) not in (0, 2):
            raise InputError(f"data.period must be (first, last) or (), got {self.period}")
        for name, field in (("state", self.state), ("background", self.background)):
            if field is not None and (field.transform or field.stations):
                raise InputError(
                    f"data.{name}: transforms and stations are for modalities: leave them out; "
                    "rain in the state has data.transforms"
                )
        unknown = sorted(set(self.transforms) - set(self.variables))
        if unknown:
            raise InputError(
                f"data.transforms names {unknown[0]!r}, which is not among data.variables "
                f"{self.variables}: add it there, or leave it out"
            )
        for name, field in self.modalities.items():
            if not field.variable:
                raise InputError(f"data.modalities.{name} lacks 'variable': set it")


@dataclasses.dataclass(frozen=True)
class StreamSettings:
    """One stream of observations of an analysis.

    Attributes:
        kind: "points", "grid", "coarse", "stride", "sounder" or "olr".
        path: file, relative to the data's root; empty to simulate the stream from the true state.
        variable: observed.
        error: standard deviation; 0 takes the errors in the file, or estimates them (`estimate`).
        estimate: estimate bias and error of each station against the state of the training period.
        factor: of simulated "coarse" and "stride" streams.
        every: observe every n-th time only, beginning with the first (simulated streams).
        withhold: names of stations, or a share of them, kept for verification.
        metadata: for station tables without positions, the file that has them.
        units: of station tables.
    """

    kind: str
    path: str = ""
    variable: str = "temperature"
    error: float = 0.0
    estimate: bool = False
    factor: int = 1
    every: int = 1
    withhold: tuple[str, ...] | float = 0.0
    metadata: str = ""
    units: str = ""

    def __post_init__(self):
        kinds = ("points", "grid", "coarse", "stride", "sounder", "olr")
        check_known(self, kind=kinds)
        if self.error < 0 or (self.error == 0 and not self.path):
            raise InputError(f"error must be positive, got {self.error}: give a standard deviation")
        if isinstance(self.withhold, float | int) and not 0.0 <= self.withhold < 1.0:
            raise InputError(f"withhold must be a share in [0, 1), got {self.withhold}")


@dataclasses.dataclass(frozen=True)
class AssimilationSettings:
    """An analysis of the test period, or of the first frames of it.

    Attributes:
        streams: observations that enter through their operators, by name.
        members: draws.
        frames: number of times, from the start of the period; 0 for all.
        period: whose data are analysed.
        background: whether the background enters, as an observation of the state.
        latent_inputs: fields that enter through the encoder, as one observation of the latent.
        inflation: factor on all error variances.
        gross_error: reject observations so many standard deviations from the background; 0 for no
            check.
        score: the prior, the trained "network" or the "gaussian" of the model's statistics.
        paths: guided for each member, of which several are resampled by their weights.
        window_chunk: windows evaluated at a time by a device; 0 for all.
        remat: compute the activations of a chunk again for gradients instead of keeping them.
        member_batch: members drawn at a time by a device; 0 for all.
        window_devices: devices that share the windows of each member.
        space_devices: devices that share the latitudes of each field: for states that are too
            large for one. The devices that are left share the members.
        rank: EOFs of a block of the prior, and patterns of the error covariance, at most.
    """

    streams: Mapping[str, StreamSettings]
    members: int = 16
    frames: int = 0
    period: str = "test"
    background: bool = True
    latent_inputs: tuple[str, ...] = ()
    inflation: float = 1.0
    gross_error: float = 0.0
    score: ScoreKind = "network"
    paths: int = 1
    window_chunk: int = 0
    remat: bool = True
    member_batch: int = 0
    window_devices: int = 1
    space_devices: int = 1
    rank: int = 400

    def __post_init__(self):
        check_at_least(
            self,
            "assimilation.",
            members=1,
            frames=0,
            window_chunk=0,
            member_batch=0,
            window_devices=1,
            space_devices=1,
            rank=1,
            paths=1,
            gross_error=0,
        )
        check_known(self, "assimilation.", score=get_args(ScoreKind))


@dataclasses.dataclass(frozen=True)
class CompareSettings:
    """What `experiments.compare` compares.

    Attributes:
        windows: number of analyses; fewer where the test period is too short.
        every: times between them.
        before: times before that of the analysis in its window.
        after: times after it, which smoothers see and filters do not.
        members: of every ensemble.
        rank: EOFs of a block of the linear baselines.
        systems: what is compared (`experiments.compare.systems`); empty for all.
        inputs: sets of `assimilation.latent_inputs`, each seen by systems of its own; empty for all
            of them together.
    """

    windows: int = 60
    every: int = 5
    before: int = 4
    after: int = 2
    members: int = 8
    rank: int = 60
    systems: tuple[str, ...] = ()
    inputs: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self):
        check_at_least(self, "compare.", windows=1, every=1, before=0, after=0, members=2, rank=1)
        if any(isinstance(seen, str) for seen in self.inputs):
            raise InputError(
                f"compare.inputs must be a tuple of tuples of names, got {self.inputs}: "
                "write (('olr',), ()) for one input and for none"
            )


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole configuration.

    `autoencoder` and `score` stay dictionaries: their channel counts and padding follow from the
    data, and only then are they checked, as `AutoencoderConfig` and `ScoreConfig`.
    """

    seed: int
    workdir: str
    data: DataSettings
    nature: NatureRun | None
    schedule: CosineSchedule
    autoencoder: Mapping[str, Any] | None
    autoencoder_training: StageConfig | None
    score: Mapping[str, Any]
    score_training: StageConfig
    sampler: SamplerConfig
    guidance: GuidanceConfig
    refinement: RefinementConfig | None
    ensemble: HybridConfig | InversionConfig
    assimilation: AssimilationSettings
    compare: CompareSettings
    raw: Mapping[str, Any]


def read(config: ConfigDict | Mapping[str, Any]) -> Settings:
    """The checked settings of `config`.

    Raises:
        InputError: an unknown or missing field, or a value out of range.
    """
    raw = _without_empty_transforms(plain(config))
    known = {f.name for f in dataclasses.fields(Settings)} - {"raw"}
    check_names(raw, known, "the configuration")
    needed = {"seed", "workdir", "data", "score", "score_training", "assimilation"}
    if raw.get("autoencoder") is not None:
        needed |= {"autoencoder_training"}
    require(raw, needed, "the configuration")
    data = dict(group(raw["data"], "data"))
    data |= {n: _at_home(data[n], f"data.{n}") for n in ("root", "cache") if n in data}
    derived = {n: _field(data.pop(n), f"data.{n}") for n in ("state", "background") if n in data}
    modalities = {
        name: build(FieldSettings, values, f"data.modalities.{name}")
        for name, values in group(data.pop("modalities", {}), "data.modalities").items()
    }
    transforms = {
        name: build(Censored, values, f"data.transforms.{name}")
        for name, values in group(data.pop("transforms", {}), "data.transforms").items()
    }
    assimilation = dict(group(raw["assimilation"], "assimilation"))
    streams = {
        name: build(StreamSettings, values, f"assimilation.streams.{name}")
        for name, values in group(assimilation.pop("streams", {}), "assimilation.streams").items()
    }
    settings = Settings(
        seed=raw["seed"],
        workdir=_at_home(raw["workdir"], "workdir"),
        data=build(
            DataSettings, data, "data", modalities=modalities, transforms=transforms, **derived
        ),
        nature=None if raw.get("nature") is None else read_nature(raw["nature"]),
        schedule=build(CosineSchedule, raw.get("schedule", {}), "schedule"),
        autoencoder=raw.get("autoencoder"),
        autoencoder_training=(
            _training(raw["autoencoder_training"], "autoencoder_training")
            if raw.get("autoencoder") is not None
            else None
        ),
        score=raw["score"],
        score_training=_training(raw["score_training"], "score_training"),
        sampler=build(SamplerConfig, raw.get("sampler", {}), "sampler"),
        guidance=build(GuidanceConfig, raw.get("guidance", {}), "guidance"),
        refinement=_refinement(raw.get("refinement", {})),
        ensemble=_ensemble(raw.get("ensemble", {})),
        assimilation=build(AssimilationSettings, assimilation, "assimilation", streams=streams),
        compare=build(CompareSettings, raw.get("compare", {}), "compare"),
        raw=raw,
    )
    _check_counted_once(settings.data, settings.assimilation)
    return settings


def _without_empty_transforms(raw: Mapping[str, Any]) -> dict[str, Any]:
    """As configurations were before there were any, so that their runs resume."""
    data = raw.get("data")
    if isinstance(data, Mapping) and data.get("transforms") == {}:
        return {**raw, "data": {k: v for k, v in data.items() if k != "transforms"}}
    return dict(raw)


def _refinement(values: Any) -> RefinementConfig | None:
    """Moves and their sampler, checked; None where there are no moves."""
    values = dict(group(values, "refinement"))
    moves = values.get("moves", 0)
    sampler = build(SamplerConfig, values.pop("sampler", {}), "refinement.sampler")
    config = build(RefinementConfig, values | {"moves": moves or 1}, "refinement", sampler=sampler)
    return config if moves else None


def _ensemble(values: Any) -> HybridConfig | InversionConfig:
    """How members of a background enter, checked."""
    values = dict(group(values, "ensemble"))
    level = values.pop("level", 0.0)
    radius = values.pop("radius", HybridConfig().radius) or None
    config = build(HybridConfig, values, "ensemble", radius=radius)
    return build(InversionConfig, {"level": level}, "ensemble") if level else config


def _check_counted_once(data: DataSettings, options: AssimilationSettings) -> None:
    """Refuse an analysis that would count an observation, or the background, twice.

    Raises:
        InputError: the background or the file of a stream is also a latent input, with whatever
            stations are withheld for verification; or two streams have one variable of one file.
    """
    where = "assimilation.latent_inputs"
    if options.background and "background" in options.latent_inputs:
        raise InputError(
            f"{where} names 'background', which assimilation.background uses too: that would count "
            "it double, leave one out"
        )
    used: dict[tuple[str, str], str] = {}
    for name, stream in options.streams.items():
        for latent in options.latent_inputs:
            modality = data.modalities.get(latent)
            if name == latent or (modality and overlap(stream.path, modality.path)):
                raise InputError(
                    f"{where} names {latent!r}, which assimilation.streams.{name} observes too: "
                    "that would count it double, stations withheld for verification included, "
                    "leave one out"
                )
        for (path, variable), other in used.items():
            if variable == stream.variable and overlap(path, stream.path):
                raise InputError(
                    f"assimilation.streams.{name} and assimilation.streams.{other} are both of "
                    f"{variable!r} in {stream.path}: that would count it double, leave one out"
                )
        used[stream.path, stream.variable] = name


def overlap(one: str | Sequence[str], other: str | Sequence[str]) -> bool:
    """Whether two lists of paths or patterns name a file in common, as far as they tell."""
    listed = lambda paths: [paths] if isinstance(paths, str) else paths
    normal = lambda paths: [os.path.normpath(os.path.expanduser(p)) for p in listed(paths) if p]
    return any(
        fnmatch.fnmatch(a, b) or fnmatch.fnmatch(b, a) for a in normal(one) for b in normal(other)
    )


def _at_home(path: Any, where: str) -> str:
    """A folder of a configuration, with `~` for the user's home expanded."""
    if not isinstance(path, str):
        raise InputError(f"{where} must be the path of a folder, got {path!r}")
    return os.path.expanduser(path)


def _field(value: Any, where: str) -> FieldSettings | None:
    """A state or background, which may be given by its path alone; without a path it is none."""
    values = value if isinstance(value, Mapping) else {"path": value or ""}
    if where == "data.background" and values.get("path") == "":
        return None
    return build(FieldSettings, values, where)


def _training(values: Mapping[str, Any], where: str) -> StageConfig:
    mine = {f.name for f in dataclasses.fields(StageConfig)} - {"optimiser"}
    optimiser = {k: v for k, v in group(values, where).items() if k not in mine}
    rest = {k: v for k, v in values.items() if k in mine}
    return build(StageConfig, rest, where, optimiser=build(OptimiserConfig, optimiser, where))
