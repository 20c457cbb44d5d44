"""Train each model and analyse every setting; an interrupted run resumes after its last row."""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from experiments.ablation import report
from experiments.ablation.gains import draw as draw_gains
from experiments.ablation.gains import gains
from experiments.ablation.protocols import (
    PROTOCOLS,
    Setting,
    Subject,
    baseline_row,
    linear_of,
    settings_of,
    windows_of,
)
from experiments.ablation.variants import Ablation, read_ablation, variant_settings
from experiments.configuration import inputs
from experiments.configuration.models import open_model
from experiments.configuration.settings import Settings
from experiments.configuration.training import train
from slams_jax.errors import InputError
from slams_jax.storage import locked, write_text

Row = dict[str, Any]
FORMAT = 2  # of rows; an older one lacks the times of its cases, and is made anew


def compare(
    raw: Mapping[str, Any], folder: Path, *, protocols: list[str], models: list[str]
) -> list[Row]:
    """Train and try the models; every row is kept as it comes, all are drawn and returned.

    Args:
        raw: the configuration, with the group `ablation`.
        folder: for models and results.
        protocols: names of `PROTOCOLS`.
        models: names of `ablation.models`; empty for all.

    Raises:
        InputError: a configuration without `ablation`, unknown models, or a folder in use.
    """
    if "ablation" not in raw:
        raise InputError("the configuration has no 'ablation': see configs/ablation.py")
    ablation = read_ablation(raw["ablation"])
    if unknown := sorted(set(models) - set(ablation.models)):
        raise InputError(f"unknown models {unknown}: choose some of {sorted(ablation.models)}")
    every = settings_of(
        ablation.coarsening, ablation.noise, ablation.stride, ablation.error, ablation.every
    )
    _check_named(ablation, every)
    chosen, run = models or list(ablation.models), _Run(raw, ablation, every, folder)
    rows: list[Row] = []
    with locked(folder):
        for name in chosen:
            rows += run.of_model(name, protocols)
            _publish(rows, folder)
        if "corrected" in protocols:
            rows += run.of_baselines(chosen)
        _publish(rows, folder)
    logging.info("%d rows in %s", len(rows), folder / "ablation.json")
    return rows


def _publish(rows: list[Row], folder: Path) -> None:
    """Write rows, tables and pictures of what there is so far."""
    write_text(json.dumps(rows, indent=1, allow_nan=False), folder / "ablation.json")
    write_text(report.tables(rows), folder / "ablation.md")
    for protocol in dict.fromkeys(r["protocol"] for r in rows):
        report.draw(rows, protocol, folder / f"{protocol}.png")
    if found := gains(rows):
        draw_gains(found, folder / "gains.png")


def _check_named(ablation: Ablation, every: list[Setting]) -> None:
    """That what the models name is there: they would be left out silently."""
    known = {"protocols": list(PROTOCOLS), "settings": [s.name for s in every]}
    for name, variant in ablation.models.items():
        for what, there in known.items():
            if unknown := sorted(set(getattr(variant, what)) - set(there)):
                raise InputError(
                    f"ablation.models.{name}.{what} has {unknown[0]!r}: choose from {there}"
                )


@dataclasses.dataclass(frozen=True)
class _Run:
    """One comparison, and its folder.

    Attributes:
        raw: the whole configuration.
        ablation: what it compares.
        every: settings of the observations.
        folder: for models and results.
    """

    raw: Mapping[str, Any]
    ablation: Ablation
    every: Sequence[Setting]
    folder: Path

    def settings(self, name: str, *, classical: bool = False) -> Settings:
        """The configuration of one model, or of classical methods that see the same."""
        return variant_settings(name, self.raw, self.ablation, self.folder, classical=classical)

    def subject(self, settings: Settings) -> Subject:
        """The trained model of a configuration, with its data and windows."""
        data = inputs.load(settings)
        windows = windows_of(settings, data, self.ablation.windows)
        return Subject(settings, data, open_model(settings, data), windows, self.ablation.every)

    def of_model(self, name: str, protocols: Sequence[str]) -> Iterator[Row]:
        """The rows of one model, which is trained first."""
        variant, settings = self.ablation.models[name], self.settings(name)
        source = variant.trained or name
        trained, seed = self.settings(source), self.ablation.models[source].seed
        logging.info("model %s: training", name)
        train(trained if seed is None else dataclasses.replace(trained, seed=seed))
        subject = self.subject(settings)
        wanted = [(p, s) for p in protocols for s in self.every if variant.tries(p, s.name)]
        begun = time.monotonic()
        for i, (protocol, setting) in enumerate(wanted):
            if not subject.fits(protocol, setting):
                logging.info("model %s: %s does not fit its latents, left out", name, setting.name)
                continue
            make = functools.partial(PROTOCOLS[protocol], subject, setting)
            yield self.kept(settings, protocol, name, setting, make)
            logging.info(
                "%s, %s, %s: %d of %d, %.0f s",
                name,
                protocol,
                setting.name,
                i + 1,
                len(wanted),
                time.monotonic() - begun,
            )

    def of_baselines(self, names: Sequence[str]) -> Iterator[Row]:
        """Classical methods on what the models see, with the covariances of one of them."""
        models = self.ablation.models
        tried = [n for n in names if any(models[n].tries("corrected", s.name) for s in self.every)]
        seen = {models[name].modalities: name for name in reversed(tried)}
        done: set[str] = set()
        for modalities, name in reversed(seen.items()):
            settings = self.settings(name, classical=True)
            subject = self.subject(settings)
            linear = functools.cache(functools.partial(linear_of, subject))
            uses = {
                "background": (),
                "OI": settings.assimilation.streams,
                "smoother": modalities,
            }
            systems = {" + ".join((method, *used)): method for method, used in uses.items()}
            new = {system: method for system, method in systems.items() if system not in done}
            done |= set(new)
            for setting in self.every:
                for system, method in new.items():
                    make = functools.partial(baseline_row, subject, setting, method, linear)
                    yield self.kept(settings, "corrected", system, setting, make)

    def kept(
        self,
        settings: Settings,
        protocol: str,
        model: str,
        setting: Setting,
        make: Callable[[], Row],
    ) -> Row:
        """The row that an earlier run left, or a new one."""
        about = {
            "configuration": settings.raw,
            "setting": dataclasses.asdict(setting),
            "windows": self.ablation.windows,
            "format": FORMAT,
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        name = f"{protocol}-{model}-{setting.name}.json".replace(" ", "")
        path = self.folder / "results" / name
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
