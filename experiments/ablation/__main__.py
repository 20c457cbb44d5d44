"""Which model wins where: one table over models and settings of observations, in two protocols.

    python -m experiments.ablation --config=configs/ablation.py --output=runs/ablation
        [--protocols=released,corrected] [--models=pixel,latent]

Trains each model of `ablation.models` below the output folder, then analyses every setting with
it. `released` is the protocol published with SLAMS, `corrected` what it should have been; see
`experiments.ablation_protocols` and docs/ablation.md. A run that was stopped is gone on with by the
same command: training from its checkpoints, analyses after the last that is in
`<output>/results`. Writes `ablation.json` (a list of rows), `ablation.md` and one picture a
protocol.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags, logging

from experiments.ablation import report as ablation_report
from experiments.ablation.protocols import PROTOCOLS, Setting, Subject, baseline_row, settings_of
from experiments.configuration import inputs
from experiments.configuration.models import open_model
from experiments.configuration.settings import CONFIG, Settings, build, plain, read
from experiments.process import cli
from experiments.train import train
from slams_jax.errors import InputError
from slams_jax.storage import locked, write_text

OUTPUT = flags.DEFINE_string("output", None, "Folder to write into.", allow_override=True)
CHOSEN = flags.DEFINE_list("protocols", list(PROTOCOLS), "Protocols to run.")
MODELS = flags.DEFINE_list("models", [], "Models to run; all of the configuration unless given.")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One model of the ablation, as changes of the configuration.

    Attributes:
        autoencoder: whether it has one; without, the state itself is diffused.
        modalities: names of `data.modalities` that its encoder sees beside the background.
        score: fields of the score network that differ.
        score_training: likewise of its training.
    """

    autoencoder: bool = True
    modalities: tuple[str, ...] = ()
    score: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    score_training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.modalities and not self.autoencoder:
            raise InputError("modalities enter through an encoder: set autoencoder=True")


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
        frames: times of each analysis, from the beginning of the period.
        members: draws of each analysis.
    """

    models: Mapping[str, Variant]
    coarsening: tuple[int, ...]
    noise: tuple[float, ...]
    stride: tuple[int, ...]
    error: float = 0.1
    every: int = 4
    frames: int = 29
    members: int = 4

    def __post_init__(self):
        if not self.models:
            raise InputError("models is empty: name at least one")
        for name in ("coarsening", "noise", "stride"):
            if any(not value > 0 for value in getattr(self, name)):
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name, low in (("every", 1), ("frames", 1), ("members", 2)):
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.noise and not self.coarsening:
            raise InputError("noise is varied at the smallest coarsening: give coarsening factors")
        if not self.error > 0:
            raise InputError(f"error must be positive, got {self.error}")


def main() -> None:
    """Compare what the flags say."""
    raw = plain(CONFIG.value)
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the folder to write into")
    unknown = [name for name in CHOSEN.value if name not in PROTOCOLS]
    if unknown or not CHOSEN.value:
        raise InputError(f"unknown protocols {unknown}: choose some of {','.join(PROTOCOLS)}")
    compare(raw, Path(OUTPUT.value), protocols=CHOSEN.value, models=MODELS.value)


def compare(
    raw: Mapping[str, Any], folder: Path, *, protocols: list[str], models: list[str]
) -> list[Row]:
    """Train and try the models; each is kept as it comes, all are written, drawn and returned.

    Raises:
        InputError: a configuration without `ablation`, unknown models, or a folder in use.
    """
    if "ablation" not in raw:
        raise InputError("the configuration has no 'ablation': see configs/ablation.py")
    ablation = _read(raw["ablation"])
    if unknown := sorted(set(models) - set(ablation.models)):
        raise InputError(f"unknown models {unknown}: choose some of {sorted(ablation.models)}")
    chosen = models or list(ablation.models)
    every = settings_of(
        ablation.coarsening, ablation.noise, ablation.stride, ablation.error, ablation.every
    )
    rows: list[Row] = []
    with locked(folder):
        for name in chosen:
            rows += _rows_of(name, raw, ablation, every, folder, protocols)
            _publish(rows, folder)
        if "corrected" in protocols:
            rows += _baselines(chosen[0], raw, ablation, every, folder)
        text = _publish(rows, folder)
    print(text)
    logging.info("%d rows in %s", len(rows), folder / "ablation.json")
    return rows


def _publish(rows: list[Row], folder: Path) -> str:
    """Write rows, tables and pictures of what there is so far; returns the tables."""
    write_text(json.dumps(rows, indent=1, allow_nan=False), folder / "ablation.json")
    text = ablation_report.tables(rows)
    write_text(text, folder / "ablation.md")
    for protocol in dict.fromkeys(r["protocol"] for r in rows):
        ablation_report.draw(rows, protocol, folder / f"{protocol}.png")
    return text


def _read(group: Mapping[str, Any]) -> Ablation:
    if not isinstance(group, Mapping) or not isinstance(group.get("models"), Mapping):
        raise InputError("ablation must be a group of fields, with a group 'models'")
    models = {n: build(Variant, v, f"ablation.models.{n}") for n, v in group["models"].items()}
    rest = {name: value for name, value in group.items() if name != "models"}
    return build(Ablation, rest, "ablation", models=models)


def variant_settings(
    name: str, raw: Mapping[str, Any], ablation: Ablation, folder: Path
) -> Settings:
    """The configuration of one model: its work directory is below `folder`.

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
    data = {**values["data"], "modalities": {m: there[m] for m in variant.modalities}}
    values |= {
        "workdir": str(folder / "models" / name.replace(" ", "")),
        "data": data,
        "score": {**values["score"], **variant.score},
        "score_training": {**values["score_training"], **variant.score_training},
        "assimilation": {
            **values["assimilation"],
            "latent_inputs": variant.modalities,
            "frames": ablation.frames,
            "members": ablation.members,
        },
    }
    if not variant.autoencoder:
        values["autoencoder"] = None
    return read(values)


def _subject(settings: Settings) -> Subject:
    data = inputs.load(settings)
    return Subject(settings, data, open_model(settings, data))


def _rows_of(
    name: str,
    raw: Mapping[str, Any],
    ablation: Ablation,
    every: list[Setting],
    folder: Path,
    protocols: list[str],
) -> Iterator[Row]:
    """The rows of one model, which is trained first."""
    settings = variant_settings(name, raw, ablation, folder)
    logging.info("model %s: training", name)
    train(settings)
    subject = _subject(settings)
    total, begun = len(every) * len(protocols), time.monotonic()
    for i, (protocol, setting) in enumerate((p, s) for p in protocols for s in every):
        if not subject.fits(protocol, setting):
            logging.info("model %s: %s does not fit its latents, left out", name, setting.name)
            continue
        yield _kept(
            folder,
            settings,
            protocol,
            name,
            setting,
            lambda p=protocol, s=setting: PROTOCOLS[p](subject, s),
        )
        logging.info(
            "%s, %s, %s: %d of %d, %.0f s",
            name,
            protocol,
            setting.name,
            i + 1,
            total,
            time.monotonic() - begun,
        )


def _baselines(
    name: str, raw: Mapping[str, Any], ablation: Ablation, every: list[Setting], folder: Path
) -> list[Row]:
    """Background and optimal interpolation, with the covariances of one of the models."""
    settings = variant_settings(name, raw, ablation, folder)
    subject = _subject(settings)
    make = lambda setting, name: lambda: baseline_row(subject, setting, name)
    return [
        _kept(folder, settings, "corrected", name, setting, make(setting, name))
        for setting in every
        for name in ("background", "OI")
    ]


def _kept(
    folder: Path,
    settings: Settings,
    protocol: str,
    model: str,
    setting: Setting,
    make: Callable[[], Row],
) -> Row:
    """The row that an earlier run left, or a new one."""
    about = {"configuration": settings.raw, "setting": dataclasses.asdict(setting)}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / "results" / f"{protocol}-{model}-{setting.name}.json".replace(" ", "")
    try:
        kept = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it") from None
    if kept.get("digest") == digest:
        return kept["row"]
    row = {"protocol": protocol, "model": model, **dataclasses.asdict(setting), **make()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(json.dumps({"digest": digest, "row": row}, allow_nan=False), path)
    return row


if __name__ == "__main__":
    cli.run(main)
