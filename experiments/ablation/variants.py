"""What is compared: models as changes of one configuration, and settings of observations."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.configuration.build import build
from experiments.configuration.settings import Settings, StreamSettings, read
from slams_jax.errors import InputError, check_at_least, check_positive


@dataclasses.dataclass(frozen=True)
class Variant:
    """One model of the ablation, as changes of the configuration.

    Attributes:
        autoencoder: whether it has one; without, the state itself is diffused.
        modalities: names of `data.modalities` that its encoder sees beside the background.
        changes: fields that differ, by the group of the configuration that they belong to.
        seed: of the training, if not that of the configuration.
        trained: name of the model whose networks it takes, if it is not trained itself.
        protocols: names of the protocols that it is tried in; all if empty.
        settings: names of the settings that it is tried with; all if empty.
    """

    autoencoder: bool = True
    modalities: tuple[str, ...] = ()
    changes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    trained: str = ""
    protocols: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __post_init__(self):
        if self.modalities and not self.autoencoder:
            raise InputError("modalities enter through an encoder: set autoencoder=True")
        if self.trained and self.seed is not None:
            raise InputError("a seed is that of a training: leave out seed or trained")

    def tries(self, protocol: str, setting: str) -> bool:
        """Whether it is tried with a setting in a protocol."""
        return (not self.protocols or protocol in self.protocols) and (
            not self.settings or setting in self.settings
        )


@dataclasses.dataclass(frozen=True)
class Ablation:
    """What is compared.

    Attributes:
        models: by name.
        coarsening: factors of block means, on the grid of the state.
        noise: standard deviations of their errors, in units of the climatological ones, at the
            smallest factor.
        stride: factors of sparse sampling.
        error: noise where it is not what is varied.
        every: block means are seen at every n-th time; sparse samples always.
        streams: how classical methods observe the modalities that have an operator. The linear
            smoother takes the others as gridded fields; optimal interpolation has no use for them.
        windows: number of analyses, evenly spread over the period.
        frames: times of each analysis.
        members: draws of each analysis.
    """

    models: Mapping[str, Variant]
    coarsening: tuple[int, ...]
    noise: tuple[float, ...]
    stride: tuple[int, ...]
    streams: Mapping[str, StreamSettings] = dataclasses.field(default_factory=dict)
    error: float = 0.1
    every: int = 4
    windows: int = 1
    frames: int = 29
    members: int = 4

    def __post_init__(self):
        if not self.models:
            raise InputError("models is empty: name at least one")
        for name, variant in self.models.items():
            source = self.models.get(variant.trained) if variant.trained else variant
            if source is None or source.trained:
                raise InputError(
                    f"models.{name}.trained is {variant.trained!r}: name a model that is trained"
                )
        for name in ("coarsening", "noise", "stride"):
            if any(not value > 0 for value in getattr(self, name)):
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        check_at_least(self, every=1, windows=1, frames=1, members=2)
        if self.noise and not self.coarsening:
            raise InputError("noise is varied at the smallest coarsening: give coarsening factors")
        used = {m for variant in self.models.values() for m in variant.modalities}
        if unseen := sorted(set(self.streams) - used):
            raise InputError(f"streams has {unseen[0]!r}, which no model sees: leave it out")
        check_positive(self, "error")


def read_ablation(group: Mapping[str, Any]) -> Ablation:
    """The checked `ablation` of a configuration.

    Raises:
        InputError: an unknown field, or a value out of range.
    """
    if not isinstance(group, Mapping) or not isinstance(group.get("models"), Mapping):
        raise InputError("ablation must be a group of fields, with a group 'models'")
    models = {n: build(Variant, v, f"ablation.models.{n}") for n, v in group["models"].items()}
    streams = {
        n: build(StreamSettings, v, f"ablation.streams.{n}")
        for n, v in group.get("streams", {}).items()
    }
    rest = {name: value for name, value in group.items() if name not in ("models", "streams")}
    return build(Ablation, rest, "ablation", models=models, streams=streams)


def variant_settings(
    name: str,
    raw: Mapping[str, Any],
    ablation: Ablation,
    folder: Path,
    *,
    classical: bool = False,
) -> Settings:
    """The configuration of one model: its work directory is below `folder`.

    With `classical`, what its encoder sees becomes streams where it can, for methods without one.

    Raises:
        InputError: a modality that the data do not have.
    """
    variant = ablation.models[name]
    values = {key: value for key, value in raw.items() if key != "ablation"}
    there = values["data"].get("modalities", {})
    if unknown := [m for m in variant.modalities if m not in there]:
        raise InputError(
            f"ablation.models.{name} names the modality {unknown[0]!r}, which the data do not "
            f"have: choose from {sorted(there)}"
        )
    if unknown := [group for group in variant.changes if group not in values]:
        raise InputError(
            f"ablation.models.{name}.changes has {unknown[0]!r}, which is no group of the "
            f"configuration: choose from {sorted(values)}"
        )
    values |= {group: {**values[group], **fields} for group, fields in variant.changes.items()}
    data = {**values["data"], "modalities": {m: there[m] for m in variant.modalities}}
    streams = raw["ablation"].get("streams", {}) if classical else {}
    values |= {
        "workdir": str(folder / "models" / (variant.trained or name).replace(" ", "")),
        "data": data,
        "assimilation": {
            **values["assimilation"],
            "latent_inputs": () if classical else variant.modalities,
            # Beside what the settings of the ablation observe.
            "streams": {m: s for m, s in streams.items() if m in variant.modalities},
            "frames": ablation.frames,
            "members": ablation.members,
        },
    }
    if not variant.autoencoder:
        values["autoencoder"] = None
    return read(values)
