"""Cycle the moist atmosphere with each system, and compare them: progress, tables, picture."""

import functools
import json
import time as clocks
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from experiments.configuration import inputs
from experiments.configuration.models import open_model
from experiments.configuration.settings import Settings
from experiments.cycle import moist
from experiments.cycle.moist import DAY, MoistCycleSettings, World
from slams_jax.cycling import Cycled, run_cycle
from slams_jax.cycling.files import RECORDS
from slams_jax.errors import Diverged
from slams_jax.models.model import Model
from slams_jax.records import arrays_digest
from slams_jax.storage import read_records, write_text
from slams_jax.training.metrics import duration
from slams_jax.verify import metrics, summary
from slams_jax.verify.figures import label_axis, new_figure, save
from slams_jax.verify.report import Table, chapters, difference_cells
from slams_jax.verify.significance import FEWEST, paired_difference

Record = dict[str, Any]
# What of the cycle a run is of, by system: the rest may change when it resumes.
COMMON = ("first", "radius", "rain_error", "longwave_error")
LETKF = (*COMMON, "members", "inflation")
OF_RUN = {"3dvar": (*COMMON, "variance"), "letkf": LETKF, "score": (*LETKF, "draws")}
# What of `assimilation` is how it is computed, or not used.
OF_COMPUTER = (
    "members",
    "member_batch",
    "window_chunk",
    "remat",
    "window_devices",
    "space_devices",
)
SCORES = {"rmse": "RMSE (K)", "crps": "CRPS (K)", "spread_skill": "Spread/skill"}
PICTURE = "cycle.png"
COLOURS = {"3dvar": "#0072B2", "letkf": "#E69F00", "score": "#D55E00"}


def run(
    settings: Settings, cycle: MoistCycleSettings, folder: Path, source: str | None = None
) -> str:
    """Cycle with each system, or what is left of it; returns the tables, in Markdown.

    Args:
        settings: the configuration.
        cycle: its cycle.
        folder: for all files; each system has a folder in it.
        source: of the model of "score", if not its work directory (`open_model`).

    Raises:
        InputError: data, a model or observations that do not suit, or a folder of another run.
        RunError: the model of the atmosphere became unstable before the first cycle.
    """
    data = inputs.load(settings)
    model = open_model(settings, data, source) if "score" in cycle.methods else None
    world = moist.open_world(settings, cycle, data, folder)
    for number, method in enumerate(cycle.methods, start=1):
        done = len(read_records(folder / method / RECORDS))
        try:
            _run_one(world, method, model, folder / method, done)
        except Diverged as error:  # the others go on, and the table says so
            logging.warning("%s: %s", method, error)
        text = _finish(world, cycle.methods[:number], folder)
    return text


def _run_one(world: World, method: str, model: Model | None, folder: Path, done: int) -> None:
    cycle, data = world.cycle, world.data
    times = data.archive.times[world.frames]
    system = moist.system_of(world, method, model)
    weights = data.archive.grid.area_weights()
    begun = clocks.monotonic()

    def scored(draws: np.ndarray, truth: np.ndarray) -> tuple[list[float], ...]:
        square = np.square(np.asarray(metrics.rmse(draws.mean(axis=0), truth, weights)))
        spread = np.zeros_like(square)
        if len(draws) > 1:
            spread = np.square(np.asarray(metrics.spread(draws, truth, weights)))
        crps = np.asarray(metrics.crps(draws, truth, weights))
        return square.tolist(), spread.tolist(), crps.tolist()

    def verify(time: Any, found: Cycled) -> dict[str, Any]:
        truth = world.truth(int((time - times[0]) / DAY))
        names = ("square", "variance", "crps")
        draws = moist.temperatures(world, method, found.analysis)
        after = dict(zip(names, scored(draws, truth), strict=True))
        before = scored(np.asarray(found.background.means.temperature), truth)
        return after | {f"background_{n}": v for n, v in zip(names, before, strict=True)}

    def report(record: Record) -> None:
        number = record["cycle"] + 1
        left = (clocks.monotonic() - begun) / (number - done) * (cycle.cycles - number)
        rmse = lambda name: np.sqrt(np.mean(record[name]))
        logging.info(
            "%s, %s: %d/%d  RMSE %.3f K, %.3f before  chi-squared %.2f  %s left",
            method,
            record["time"][:10],
            number,
            cycle.cycles,
            rmse("square"),
            rmse("background_square"),
            record["chi_squared"] or np.nan,
            duration(left),
        )

    run_cycle(
        system.forecast,
        system.analyse,
        system.start,
        zip(times, world.observing.values, strict=True),
        jax.random.key(world.settings.seed),
        directory=folder,
        observed=system.observed,
        begin=times[0] - DAY,
        interval=DAY,
        about=_about(world, method, model),
        keep=functools.partial(moist.kept, world, method),
        verify=verify,
        report=report,
        every=cycle.every,
    )


def _about(world: World, method: str, model: Model | None) -> dict[str, Any]:
    """What must not change when a run resumes."""
    cycle = {name: getattr(world.cycle, name) for name in OF_RUN[method]}
    raw, nature = world.settings.raw, moist.nature_of(world.settings)
    observed = {name: raw["assimilation"][name] for name in ("streams", "latent_inputs")}
    about = {"method": method, "cycle": cycle, "nature": nature, "observed": observed}
    if method != "score" or model is None:
        return about
    less = {"assimilation": OF_COMPUTER, "data": ("cache",)}
    groups = ("assimilation", "data", "sampler", "guidance", "refinement", "ensemble")
    return about | {
        "model": arrays_digest(model.arrays)[:16],
        **{g: {k: v for k, v in raw[g].items() if k not in less.get(g, ())} for g in groups},
    }


def _finish(world: World, methods: Sequence[str], folder: Path) -> str:
    """Write scores, tables and picture of the systems that are done; returns the tables."""
    records = {
        method: read_records(folder / method / RECORDS)[: world.cycle.cycles] for method in methods
    }
    records = {method: of for method, of in records.items() if of}
    scores = compared(world, records)
    write_text(json.dumps(summary.without_nan(scores), indent=1) + "\n", folder / "summary.json")
    text = chapters(tables(scores))
    write_text(text, folder / "summary.md")
    if records:
        _draw(records, folder / PICTURE)
    return text


def compared(world: World, records: dict[str, list[Record]]) -> dict[str, Any]:
    """Scores of the systems by level after the spin-up, and differences of those that finished."""
    skipped = world.cycle.spin_up
    channels = world.data.archive.fields[moist.STATE].channels
    systems, series = {}, {}
    for method, of in records.items():
        column = lambda name, of=of: np.array([r[name] for r in of[skipped:]], np.float64)
        row: dict[str, Any] = {
            "cycles": len(of),
            "seconds": float(np.median([r["seconds"] for r in of])),
        }
        if len(of) == world.cycle.cycles:
            for kind in ("", "background_"):
                square, crps = column(f"{kind}square"), column(f"{kind}crps")
                variance = column(f"{kind}variance").mean(axis=0)
                drawn = method == "score" and not kind
                members = world.cycle.draws if drawn else world.cycle.members
                rmse = np.sqrt(square.mean(axis=0))
                if variance.any():
                    spread = np.sqrt((members + 1) / members * variance)
                    row[f"{kind}spread_skill"] = (spread / rmse).tolist()
                square = square - column(f"{kind}variance") / members
                row[f"{kind}rmse"] = np.sqrt(np.maximum(square.mean(axis=0), 0.0)).tolist()
                row[f"{kind}crps"] = crps.mean(axis=0).tolist()
                if not kind:
                    series[method] = {"rmse": square, "crps": crps}
            if method != "score":  # whose forecasts are those of the LETKF
                chi = np.array([r["chi_squared"] for r in of[skipped:]], np.float64)
                row["chi_squared"] = float(np.nanmean(chi))
        systems[method] = row
    times = world.data.archive.times[world.frames]
    return {
        "channels": [str(c) for c in channels],
        "times": [str(t)[:10] for t in times[skipped:]],
        "systems": systems,
        "differences": [
            {"system": ours, "from": theirs, **_differences(series[ours], series[theirs])}
            for number, ours in enumerate(series)
            for theirs in list(series)[:number]
        ],
    }


def _differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, Any]:
    """With intervals, where there are days enough."""
    if len(ours["crps"]) < FEWEST:
        return {}
    return {
        name: summary.listed(paired_difference(ours[name], theirs[name], root=name == "rmse"))
        for name in ("rmse", "crps")
    }


def tables(scores: dict[str, Any]) -> list[Table]:
    """Scores by level of forecasts and analyses, cost, and differences."""
    systems, channels = scores["systems"], scores["channels"]
    found = []
    for name, title in SCORES.items():
        rows = [
            [method, what, *row[f"{kind}{name}"], float(np.mean(row[f"{kind}{name}"]))]
            for method, row in systems.items()
            for kind, what in (("background_", "forecasts"), ("", "analyses"))
            # Those of the trained model are of the forecasts of the LETKF.
            if f"{kind}{name}" in row and (method != "score" or not kind)
        ]
        note = f"{len(scores['times'])} days." if rows else ""
        if name == "rmse":
            note += " Of infinitely many members."
        found.append(Table(title, ["System", "of its", *channels, "mean"], rows, note))
    rows = [
        [method, row["cycles"], row.get("chi_squared"), row["seconds"]]
        for method, row in systems.items()
    ]
    header = ["System", "cycles", "chi-squared", "seconds a cycle"]
    found.append(Table("Cycles", header, rows, "The median of the seconds, scores included."))
    for name in ("rmse", "crps"):
        rows = [
            [of["system"], of["from"], *difference_cells(of[name])]
            for of in scores["differences"]
            if name in of
        ]
        if rows:
            note = (
                "Negative: the first is better. Half-widths of 95 % intervals, bold beyond chance."
            )
            title = f"Differences in {name.upper()} (K)"
            found.append(Table(title, ["System", "from", *channels], rows, note))
    return found


def _draw(records: dict[str, list[Record]], path: Path) -> None:
    """RMSE of forecasts and analyses above, CRPS of analyses below, against time."""
    figure = new_figure(8.0, 5.0)
    above, below = figure.subplots(2, 1, sharex=True)
    root = lambda of, name: [np.sqrt(np.mean(r[name])) for r in of]
    for method, of in records.items():
        time = np.array([r["time"] for r in of], "datetime64[ns]")
        how = {"color": COLOURS[method], "lw": 1.2}
        above.plot(time, root(of, "square"), label=method, **how)
        above.plot(time, root(of, "background_square"), ls=":", **how)
        below.plot(time, [np.mean(r["crps"]) for r in of], **how)
    above.legend(fontsize=8, frameon=False)
    label_axis(above, "", "", "RMSE (K); dotted: of the forecast")
    label_axis(below, "", "", "CRPS (K)")
    save(figure, path)
