"""A table of filters over several twin experiments, each tuned on other observations."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from experiments.configuration.build import build
from experiments.cycle.run import run
from experiments.cycle.twin import CycleSettings
from slams_jax.cycling.files import RECORDS
from slams_jax.errors import Diverged, InputError
from slams_jax.storage import read_records, write_text

BATCHES = 10  # consecutive parts of a run, whose means tell its standard error
HEADER = "| filter | tuned | RMSE of the mean | spread | spread/RMSE | chi-squared | ms a cycle |"


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """Filters and experiments.

    Attributes:
        tuning_seed: of the experiment that chooses among the settings of a filter.
        tuning_cycles: its number of cycles.
        cases: by name, a twin experiment `cycle` and its `filters`: by name, the settings to choose
            from, each of which changes `cycle`.
    """

    tuning_seed: int
    tuning_cycles: int
    cases: Mapping[str, Mapping[str, Any]]

    def __post_init__(self):
        for name, case in self.cases.items():
            if set(case) != {"cycle", "filters"}:
                raise InputError(f"case {name!r} has the fields {sorted(case)}, not cycle, filters")
            for title, choices in case["filters"].items():
                if not choices:
                    raise InputError(f"filter {title!r} of {name!r} has no settings")
                for chosen in choices:
                    settings = build(CycleSettings, {**case["cycle"], **chosen}, title)
                    if settings.seed == self.tuning_seed:
                        raise InputError(
                            f"case {name!r} has the seed of the tuning, {settings.seed}"
                        )


def benchmark(settings: BenchmarkSettings, folder: Path, draw_every: int) -> str:
    """Run what is missing of all filters; returns the tables, in Markdown.

    Args:
        settings: of the benchmark.
        folder: for all files: a folder for each run, `benchmark.json` and `benchmark.md`.
        draw_every: cycles between two pictures of a run.

    Raises:
        InputError: settings that a filter does not take, or a folder of another benchmark.
    """
    tables, rows = [], {}
    for name, case in settings.cases.items():
        place = folder / _slug(name)
        lines = [f"**{name}**\n", HEADER, "|" + "---|" * 7]
        for title, choices in case["filters"].items():
            row = _row(settings, case["cycle"], choices, place / _slug(title), place, draw_every)
            rows.setdefault(name, {})[title] = row
            lines.append(_line(title, row, len(choices)))
        tables.append("\n".join(lines) + "\n")
        write_text(json.dumps(rows, indent=1) + "\n", folder / "benchmark.json")
        write_text("\n".join(tables), folder / "benchmark.md")
    return "\n".join(tables)


def _row(
    settings: BenchmarkSettings,
    cycle: Mapping[str, Any],
    choices: tuple[Mapping[str, Any], ...],
    folder: Path,
    place: Path,
    draw_every: int,
) -> dict[str, Any]:
    """The scores of the settings that do best in the tuning experiment."""
    best = choices[0]
    if len(choices) > 1:
        tuning = {
            "seed": settings.tuning_seed,
            "cycles": settings.tuning_cycles,
            "spin_up": min(cycle["spin_up"], settings.tuning_cycles // 3),
        }
        tried = [
            _scores({**cycle, **c, **tuning}, folder / f"tuning-{i}", place, draw_every)["rmse"]
            for i, c in enumerate(choices)
        ]
        best = choices[int(np.argmin([math.inf if r is None else r for r in tried]))]
    return {"settings": dict(best), **_scores({**cycle, **best}, folder / "run", place, draw_every)}


def _scores(cycle: Mapping[str, Any], folder: Path, place: Path, draw_every: int) -> dict[str, Any]:
    """Of one run, or what is left of it; the RMSE of one that diverged is None."""
    settings = build(CycleSettings, cycle, "cycle")
    logging.info("%s", folder)
    records = read_records(folder / RECORDS)
    if len(records) != settings.cycles:
        try:
            run(settings, folder, draw_every, place / "prior")
        except Diverged as error:
            logging.info("%s", error)
        records = read_records(folder / RECORDS)
    counted = records[settings.spin_up :]
    found: dict[str, Any] = {"cycles": len(counted), "rmse": None}
    if len(records) < settings.cycles:
        return found | {"diverged": len(records)}
    column = lambda name: np.array([math.nan if r[name] is None else r[name] for r in counted])
    rmse = column("rmse")
    batches = [part.mean() for part in np.array_split(rmse, min(BATCHES, len(rmse)))]
    return found | {
        "rmse": float(rmse.mean()),
        "rmse_se": float(np.std(batches, ddof=1) / len(batches) ** 0.5),
        "spread": float(column("state_spread").mean()),
        "chi_squared": float(column("chi_squared").mean()),
        "seconds": float(np.median(column("seconds"))),
    }


def _line(title: str, row: Mapping[str, Any], choices: int) -> str:
    """A row of the table."""
    tuned = ", ".join(
        f"{name} {value}"
        for name, value in row["settings"].items()
        if name in ("inflation", "variance", "radius")
    )
    if row["rmse"] is None:
        return f"| {title} | {tuned or '-'} | diverged after {row['diverged']} cycles | | | | |"
    known = math.isfinite(row["spread"])
    spread = f"{row['spread']:.2f} | {row['spread'] / row['rmse']:.2f}" if known else "- | -"
    return (
        f"| {title} | {tuned or '-'} | {row['rmse']:.3f} ± {row['rmse_se']:.3f} | {spread} | "
        f"{row['chi_squared']:.2f} | {1e3 * row['seconds']:.0f} |"
    )


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
