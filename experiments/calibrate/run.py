"""Every method on every case, row by row; an interrupted run resumes after its last row."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from experiments.calibrate import lorenz, report
from experiments.calibrate.methods import methods, ranked
from slams_jax.errors import InputError
from slams_jax.reference_problems import (
    Case,
    LorenzCase,
    Method,
    field_cases,
    latent_cases,
    mixture_cases,
    predictable_cases,
    rain_case,
    run_case,
    run_lorenz,
    trajectory_cases,
)
from slams_jax.storage import write_text

BUILD = {
    "a": field_cases,
    "b": mixture_cases,
    "c": trajectory_cases,
    "f": latent_cases,
    "g": lambda: [rain_case()],
    "i": predictable_cases,
}
LORENZ, TRAINED, NOISY = "d", "e", "h"  # groups that need a trained model
GROUPS = tuple(sorted((*BUILD, LORENZ, TRAINED, NOISY)))
# So many that the sampling error is well below a mean error of 0.05 and a ratio of 0.95 to 1.05.
MEMBERS = {
    "a": 192,
    "b": 4096,
    "c": 2048,
    "f": 2048,
    "g": 64,
    "i": 64,
    LORENZ: lorenz.MEMBERS,
    NOISY: lorenz.NOISY_MEMBERS,
}
QUICK_MEMBERS = {"a": 192, "b": 4096, "c": 1024, "f": 1024, "g": 64, "i": 64}
BATCH = 4096  # draws made at a time

Row = dict[str, Any]


def calibrate(
    groups: Sequence[str],
    folder: Path,
    *,
    quick: bool = False,
    models: Mapping[str, Path | None] | None = None,
) -> list[Row]:
    """Try every method on every case of the groups; rows are written, drawn and returned.

    Args:
        groups: letters of `BUILD`, "d" or "h".
        folder: where the results go, and where those of an earlier run are taken up.
        quick: few methods and members.
        models: work directories of the models of groups "d" and "h".

    Raises:
        InputError: no such model, or results in the folder that cannot be read.
    """
    models = models or {}
    build = BUILD | {
        LORENZ: lambda: lorenz.cases(models.get(LORENZ)),
        NOISY: lambda: lorenz.noisy_cases(models.get(NOISY)),
    }
    plan = [
        (group, case, methods(group, quick=quick, last=case is cases[-1]))
        for group in groups
        for cases in [build[group]()]
        for case in cases
    ]
    members = QUICK_MEMBERS if quick else MEMBERS
    kept = kept_rows(folder)
    named = lambda group, case, m: _name(case, m, members[group])
    progress = _Progress(
        sum(_weight(m) for g, case, ms in plan for m in ms if named(g, case, m) not in kept)
    )
    rows: list[Row] = []
    for group, case, chosen in plan:
        for method in chosen:
            if row := kept.pop(named(group, case, method), None):
                rows.append(row)
                continue
            rows.append({"group": group, **_row(case, method, members[group])})
            progress(rows[-1], _weight(method))
            write_rows([*rows, *kept.values()], folder)
        write_text(report.table(rows), folder / "calibration.md")
        report.draw([r for r in rows if r["case"] == case.name], folder)
        jax.clear_caches()  # every method compiles a program of its own
    write_rows([*rows, *kept.values()], folder)
    if of_lorenz := [case for group, case, _ in plan if group == LORENZ]:
        lorenz.ranks(of_lorenz, ranked(), folder)
    return rows


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write `calibration.json`."""
    write_text(json.dumps(list(rows), indent=1, allow_nan=False), folder / "calibration.json")


def kept_rows(folder: Path) -> dict[tuple[Any, ...], Row]:
    """The rows of an earlier run by what they are of, those of trained models left out.

    Raises:
        InputError: a file that cannot be read.
    """
    path = folder / "calibration.json"
    fields = ("case", "rule", "solver", "grid", "steps", "members")
    try:
        rows = json.loads(path.read_text()) if path.exists() else []
        return {tuple(row[f] for f in fields): row for row in rows if row["group"] != TRAINED}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error!r}): remove it, or set --output") from None


def _row(case: Case | LorenzCase, method: Method, members: int) -> Row:
    run = run_lorenz if isinstance(case, LorenzCase) else run_case
    return run(case, method, members, jax.random.key(0), batch=BATCH).as_dict()  # pyright: ignore


def _name(case: Case | LorenzCase, method: Method, members: int) -> tuple[Any, ...]:
    """The key of a row."""
    sampler = method.sampler
    return case.name, method.label, sampler.solver, sampler.grid, sampler.steps, members


def _weight(method: Method) -> float:
    """Relative time of a row: to compile and to compute."""
    moves = method.refinement
    steps = method.paths * method.sampler.steps
    return 32 + steps + (moves.moves * moves.sampler.steps if moves else 0)


class _Progress:
    """Logs each row and the time left."""

    def __init__(self, total: float):
        self.total, self.done, self.started = total, 0.0, time.monotonic()

    def __call__(self, row: Row, weight: float) -> None:
        self.done += weight
        left = (time.monotonic() - self.started) * (self.total / self.done - 1)
        logging.info(
            "%s, %s, %s %d: %s; %.0f s left",
            row["case"],
            row["rule"],
            row["solver"],
            row["steps"],
            report.figures(row),
            left,
        )
