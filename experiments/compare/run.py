"""Analyse windows of the test period with every system; an interrupted run resumes."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments.compare import report
from experiments.compare.kept import Record, keep, kept
from experiments.compare.picture import draw
from experiments.compare.systems import Run, System, opened, systems_of
from experiments.configuration import inputs
from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.models import open_model
from experiments.configuration.settings import Settings
from experiments.evaluation.references import Study
from slams_jax.errors import InputError
from slams_jax.records import arrays_digest, record_digest
from slams_jax.storage import locked, write_text
from slams_jax.verify import metrics
from slams_jax.verify.significance import FEWEST
from slams_jax.verify.summary import without_nan


def compare(settings: Settings, folder: Path, *, source: str | None = None) -> str:
    """Analyse, score and compare; returns the tables, in Markdown.

    Args:
        settings: the configuration.
        folder: for scores and finished windows.
        source: of the model, if not its work directory (`open_model`).

    Raises:
        InputError: a test period without a window, unknown systems, or a folder in use.
    """
    data = inputs.load(settings)
    model = open_model(settings, data, source)
    days = analysis_times(settings, data)
    study = opened(settings, data, model)
    systems = systems_of(study)
    with locked(folder):
        records = _records(study, systems, days, folder / "windows")
        times = [str(data.archive.times[d])[:16] for d in days]
        scores = report.scores(study, systems, times, records)
        write_text(json.dumps(without_nan(scores), indent=1), folder / "compare.json")
        text = report.text(study, scores)
        write_text(text, folder / "compare.md")
        if scores["differences"]:
            draw(scores, [c.level for c in model.channels], folder / "compare.png")
    logging.info("scores in %s", folder / "compare.json")
    return text


def analysis_times(settings: Settings, data: Inputs) -> np.ndarray:
    """Indices of the times that are analysed, `compare.every` apart in the test period.

    Raises:
        InputError: no window fits into the period.
    """
    options, frames = settings.compare, data.frames("test")
    last = len(frames) - options.after
    days = frames[options.before : last : options.every][: options.windows]
    if not len(days):
        raise InputError(
            f"the test period has {len(frames)} times, fewer than the "
            f"{options.before + 1 + options.after} of a window: lower compare.before or after"
        )
    if len(days) < max(options.windows, FEWEST):
        logging.warning(
            "%d windows fit into the test period, %d are asked for; %d are needed for intervals",
            len(days),
            options.windows,
            FEWEST,
        )
    return days


def _records(
    study: Study, systems: dict[str, System], days: np.ndarray, folder: Path
) -> dict[str, list[Record]]:
    """The record of each system and window, kept or new."""
    options = study.settings.compare
    found: dict[tuple[str, int], Record] = {}
    missing: list[tuple[str, int]] = []
    model = arrays_digest((study.model.arrays, study.model.background_error))
    path_of = lambda name, day: (
        folder / f"{_stamp(study, day)}-{name}.json".replace(" ", "_").replace(":", "")
    )
    digests = {}
    for name, system in systems.items():
        for day in map(int, days):
            digests[name, day] = _digest(study, model, name, system, day)
            record = kept(path_of(name, day), digests[name, day])
            if record is None:
                missing.append((name, day))
            else:
                found[name, day] = record
    logging.info("%d of %d analyses are there", len(found), len(found) + len(missing))
    runs: dict[str, Run] = {}
    begun = time.monotonic()
    # Window by window, so that what there is at any time can be compared.
    for number, (name, day) in enumerate(sorted(missing, key=lambda m: m[1]), start=1):
        if name not in runs:
            logging.info("%s: fitting", name)
            runs[name] = systems[name].make()
        after = options.after if systems[name].sees == "smoother" else 0
        frames = np.arange(day - options.before, day + after + 1)
        found[name, day] = _record(study, runs[name](frames, options.before), day)
        keep(path_of(name, day), digests[name, day], found[name, day])
        left = (time.monotonic() - begun) / number * (len(missing) - number)
        logging.info(
            "%s, %s: %d of %d, %.0f min left",
            name,
            _stamp(study, day),
            number,
            len(missing),
            left / 60.0,
        )
    return {name: [found[name, int(day)] for day in days] for name in systems}


def _record(study: Study, members: np.ndarray, day: int) -> Record:
    """The scores of one analysis (member, lat, lon, channel)."""
    data = study.data
    truth = np.asarray(data.archive.fields[STATE].array[day])
    weights, size = data.archive.grid.area_weights(), len(members)
    regions = {}
    for region, mask in metrics.regions_of(data.archive.grid).items():
        area = weights * mask
        regions[region] = {
            "square": _list(jnp.square(metrics.rmse(members.mean(axis=0), truth, area))),
            "crps": _list(metrics.crps(members, truth, area)),
            "variance": _list(jnp.square(metrics.spread(members, truth, area)))
            if size > 1
            else None,
        }
    errors: list[float] = []
    first = int(data.frames("test")[0])
    for w in study.withheld:
        # A moving station has an operator of its own for each time.
        fixed = w.operator.cell.ndim == 2
        operator = w.operator if fixed else jax.tree.map(lambda a: a[[day - first]], w.operator)
        at = np.asarray(operator(jnp.asarray(members.mean(axis=0))[None]))[0]
        errors += _list(at - w.values[day - first])
    return without_nan({"members": size, "regions": regions, "stations": errors})


def _digest(study: Study, model: str, name: str, system: System, day: int) -> str:
    """Of everything that a record follows from; how many others there are is no part of it."""
    options = study.settings.compare
    window = [options.before, options.after if system.sees == "smoother" else 0]
    raw = {k: v for k, v in study.settings.raw.items() if k != "compare"}
    about = [raw, model, name, day, window, options.members, options.rank]
    return record_digest(about)[:16]


def _stamp(study: Study, day: int) -> str:
    return str(study.data.archive.times[day].astype("datetime64[m]"))


def _list(values: Any) -> list[float]:
    return [float(v) for v in np.asarray(values)]
