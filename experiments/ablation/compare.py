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
    chosen = models or list(ablation.models)
    every = settings_of(
        ablation.coarsening, ablation.noise, ablation.stride, ablation.error, ablation.every
    )
    _check_named(ablation, every)
    rows: list[Row] = []
    with locked(folder):
        for name in chosen:
            rows += _rows_of(name, raw, ablation, every, folder, protocols)
            _publish(rows, folder)
        if "corrected" in protocols:
            rows += _baselines(chosen, raw, ablation, every, folder)
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


def _subject(settings: Settings, ablation: Ablation) -> Subject:
    data = inputs.load(settings)
    windows = windows_of(settings, data, ablation.windows)
    return Subject(settings, data, open_model(settings, data), windows, ablation.every)


def _rows_of(
    name: str,
    raw: Mapping[str, Any],
    ablation: Ablation,
    every: list[Setting],
    folder: Path,
    protocols: list[str],
) -> Iterator[Row]:
    """The rows of one model, which is trained first."""
    variant = ablation.models[name]
    settings = variant_settings(name, raw, ablation, folder)
    source = variant.trained or name
    trained, seed = variant_settings(source, raw, ablation, folder), ablation.models[source].seed
    logging.info("model %s: training", name)
    train(trained if seed is None else dataclasses.replace(trained, seed=seed))
    subject = _subject(settings, ablation)
    wanted = [(p, s) for p in protocols for s in every if variant.tries(p, s.name)]
    total, begun = len(wanted), time.monotonic()
    for i, (protocol, setting) in enumerate(wanted):
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
            ablation.windows,
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
    names: Sequence[str],
    raw: Mapping[str, Any],
    ablation: Ablation,
    every: list[Setting],
    folder: Path,
) -> Iterator[Row]:
    """Classical methods on what the models see, with the covariances of one of them."""
    tried = [n for n in names if any(ablation.models[n].tries("corrected", s.name) for s in every)]
    seen = {ablation.models[name].modalities: name for name in reversed(tried)}
    done: set[str] = set()
    for modalities, name in reversed(seen.items()):
        settings = variant_settings(name, raw, ablation, folder, classical=True)
        subject = _subject(settings, ablation)
        linear = functools.cache(lambda subject=subject: linear_of(subject))
        uses = {"background": (), "OI": settings.assimilation.streams, "smoother": modalities}
        systems = {" + ".join((method, *used)): method for method, used in uses.items()}
        new = {system: method for system, method in systems.items() if system not in done}
        done |= set(new)
        for setting in every:
            for system, method in new.items():
                yield _kept(
                    folder,
                    settings,
                    "corrected",
                    system,
                    setting,
                    lambda m=method, s=setting, of=subject, fit=linear: baseline_row(of, s, m, fit),
                    ablation.windows,
                )


def _kept(
    folder: Path,
    settings: Settings,
    protocol: str,
    model: str,
    setting: Setting,
    make: Callable[[], Row],
    windows: int,
) -> Row:
    """The row that an earlier run left, or a new one."""
    about = {
        "configuration": settings.raw,
        "setting": dataclasses.asdict(setting),
        "windows": windows,
        "format": FORMAT,
    }
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
