"""Try guidance rules and solvers on problems whose posteriors are known.

    python -m experiments.calibrate --output=runs/calibration [--quick] [--cases=a,b,c]
    python -m experiments.calibrate --cases=d --lorenz=runs/lorenz63 --output=runs/calibration-d
    python -m experiments.calibrate --cases=e --config=configs/demo.py --output=runs/calibration-e

Writes `calibration.json` (a list of rows; those that are there already are not repeated),
`calibration.md` (the table) and one picture a case. Groups of cases: (a) Gaussian random fields on
the sphere, (b) mixtures and a curved ridge, (c) Markov trajectories; see `slams_jax.calibration`.
(d) Lorenz-63 takes the score that configs/lorenz63.py trains, and writes rank histograms too,
`ranks.json` and `ranks.png`. (e) takes the trained model of a configuration, and scores against the
withheld truth; its table is `trained.md`.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags, logging

from experiments.calibrate import lorenz as calibrate_lorenz
from experiments.calibrate import report as calibration_report
from experiments.calibrate import trained as calibrate_trained
from experiments.configuration.settings import CONFIG, read
from experiments.process import cli
from slams_jax.diffusion import SamplerConfig
from slams_jax.diffusion.presets import PRESETS, preset
from slams_jax.errors import InputError
from slams_jax.reference_problems import (
    Case,
    Guidance,
    LorenzCase,
    Oracle,
    field_cases,
    mixture_cases,
    run_case,
    run_lorenz,
    trajectory_cases,
)
from slams_jax.storage import write_text

# experiments.assimilate has a flag of this name too; each command has one of them.
OUTPUT = flags.DEFINE_string("output", None, "What to write into.", allow_override=True)
QUICK = flags.DEFINE_bool("quick", False, "Few rows and members: a few minutes.")
CASES = flags.DEFINE_list("cases", ["a", "b", "c"], "Groups of cases.")

BUILD = {
    "a": field_cases,
    "b": mixture_cases,
    "c": trajectory_cases,
    "d": calibrate_lorenz.cases,
}
TRAINED = "e"
# So many that the sampling error is well below a mean error of 0.05 and a ratio of 0.95 to 1.05.
MEMBERS = {"a": 192, "b": 4096, "c": 2048, "d": calibrate_lorenz.MEMBERS}
QUICK_MEMBERS = {"a": 192, "b": 4096, "c": 1024}
BATCH = 4096  # draws made at a time
BUDGET = calibration_report.BUDGET
FEWEST = 8  # steps: with fewer, none is any good
LONG = 1024  # evaluations and derivatives of the run that those of (b) and (d) are held against


class Combination(NamedTuple):
    """A rule and a sampler."""

    rule: Guidance | Oracle
    solver: str
    grid: str
    steps: int


Counted = dict[Combination, tuple[int, int]]  # evaluations and derivatives of a draw

SDA = Guidance("sda", (("gamma", 1e-2),))
MMPS_1 = Guidance("mmps", (("iterations", 1),))
MMPS = Guidance("mmps", (("iterations", 3),))
# The same, told what it needs where there is more noise than signal.
NEAR = Guidance("mmps", (("iterations", 3),), covariance=True)
PROXIMAL = Guidance("pigdm", (("iterations", 10), ("jacobian", False)))
GAUSSIAN_10 = Guidance("gaussian", (("iterations", 10),), covariance=True)
GAUSSIAN = Guidance("gaussian", (("iterations", 30),), covariance=True)
ORACLE = Oracle()
EXACT = Guidance("exact", covariance=True)
# Each with the products with the Jacobian that an evaluation takes. The first are tried on every
# case, the others on the last of a group.
COMMON = (
    (SDA, 1),
    (PROXIMAL, 0),
    (Guidance("tmpd"), 2),
    (MMPS_1, 1),
    (MMPS, 3),
    (GAUSSIAN_10, 0),
    (GAUSSIAN, 0),
)
RULES = (
    *COMMON,
    (Guidance("dps"), 1),
    (Guidance("pigdm", (("iterations", 10), ("jacobian", True))), 1),
    (NEAR, 3),
    (Guidance("mmps", (("iterations", 10),)), 10),
    (EXACT, 0),
)
BEST = "dpmpp_3m_ode"  # the solver that rules are compared with
SOLVERS = (BEST, "dpmpp_2m_ode", "dpmpp_2m", "euler_maruyama", "heun", "ddim", "ode", "pc")
GRIDS = ("log_snr", "edm", "uniform")
STEPS = (8, 16, 32, 64, 128)
# Of (d): Lorenz-63 takes a network, and trajectories are long. Guidance is far from exact there,
# and solvers that add fresh noise forget its errors.
NEAR_1 = Guidance("mmps", (("iterations", 1),), covariance=True)
LORENZ = (
    (SDA, 1, BEST),
    (PROXIMAL, 0, BEST),
    (GAUSSIAN, 0, BEST),
    (GAUSSIAN, 0, "dpmpp_2m"),
    (NEAR, 3, BEST),
    (NEAR, 3, "dpmpp_2m"),
    (NEAR_1, 1, "dpmpp_2m"),
    (NEAR_1, 1, "pc"),
)
# Of (d), the rank histograms.
RANKED = [
    (PROXIMAL, SamplerConfig(BEST, 32)),
    (GAUSSIAN, SamplerConfig("dpmpp_2m", 32)),
    (NEAR_1, SamplerConfig("dpmpp_2m", 16)),
]
# The rule with which solvers are compared: the most exact one where the prior is Gaussian.
COMPARE = {"a": GAUSSIAN, "b": ORACLE, "c": GAUSSIAN}


def combinations(group: str, *, quick: bool = False, last: bool = False) -> list[Combination]:
    """What is tried on a case of a group, in the order of the table.

    Rules are compared with the best solver, at equal cost, and on the last case of a group with
    equally many evaluations too; solvers, grids and numbers of steps there with the best rule.
    """
    of = lambda rule, steps: Combination(rule, BEST, "log_snr", steps)
    if group == "d":
        # What takes long, on the short trajectories alone; the long ones are the last.
        budgets = (BUDGET,) if last else (BUDGET, LONG)
        chosen = [
            Combination(rule, solver, "log_snr", n)
            for rule, d, solver in LORENZ
            for n in _steps(d, *(b // (1 + (solver == "pc")) for b in budgets))
        ]
        return list(dict.fromkeys(chosen if last else [*chosen, _preset("reference")]))
    best = COMPARE[group]
    if quick:
        chosen = [of(best, 8), of(best, 32), of(MMPS, 32)]
        if group == "b":  # 8 are 32 with the derivatives; the longest is what they are held against
            chosen += [of(MMPS, 8), of(MMPS, LONG // 4)]
        return list(dict.fromkeys(chosen))
    rules = RULES if last else COMMON
    budgets = (BUDGET, LONG) if group == "b" else (BUDGET,)
    chosen = [of(rule, n) for rule, d in rules for n in _steps(d, *budgets)]
    if group == "b":
        # With few steps, derivatives and a solver of lower order go together better.
        chosen += [Combination(MMPS_1, SOLVERS[1], "log_snr", n) for n in _steps(1, *budgets)]
        chosen += [of(ORACLE, BUDGET)]
    if last:
        chosen += [of(rule, BUDGET) for rule, _ in rules]
        chosen += [_preset(name) for name in PRESETS]
    if last and group != "c":
        chosen += [Combination(best, s, "log_snr", n) for s in SOLVERS[:3] for n in STEPS]
        chosen += [Combination(best, solver, "log_snr", 32) for solver in SOLVERS]
        chosen += [Combination(best, BEST, grid, 32) for grid in GRIDS]
    return list(dict.fromkeys(chosen))


def _steps(derivatives: int, *budgets: int) -> tuple[int, ...]:
    """Numbers of steps that cost `budgets`, those that are enough to try."""
    found = (n // (1 + derivatives) for n in budgets)
    return tuple(n for n in found if n >= FEWEST)


def _preset(name: str) -> Combination:
    """A preset of `assimilate`."""
    sampler, guidance = preset(name)
    return Combination(Guidance.of(guidance), sampler.solver, sampler.grid, sampler.steps)


def main() -> None:
    """Run what the flags say."""
    unknown = [name for name in CASES.value if name not in (*BUILD, TRAINED)]
    if unknown or not CASES.value:
        raise InputError(f"unknown cases {unknown}: choose some of --cases=a,b,c,d,e")
    if QUICK.value and {"d", TRAINED} & set(CASES.value):
        raise InputError(
            "cases d and e have no quick form: leave out --quick, or them from --cases"
        )
    if TRAINED in CASES.value and CONFIG.value is None:
        raise InputError("case e needs a trained model: set --config to its configuration")
    folder = Path(OUTPUT.value or "runs/calibration")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}): set --output") from None
    rows = calibrate([g for g in CASES.value if g != TRAINED], folder, quick=QUICK.value)
    if rows:
        print(calibration_report.best(rows))
    if TRAINED in CASES.value:
        trained = calibrate_trained.trained_rows(read(CONFIG.value))
        rows = [*rows, *trained]
        _write([*_kept(folder).values(), *trained], folder)
        write_text(calibrate_trained.table(trained), folder / "trained.md")
        print(calibrate_trained.table(trained))
    logging.info("%d rows in %s", len(rows), folder / "calibration.json")


def calibrate(groups: Sequence[str], folder: Path, *, quick: bool = False) -> list[dict[str, Any]]:
    """Try every combination on every case of the groups; rows are written, drawn and returned."""
    plan = [
        (group, case, combinations(group, quick=quick, last=case is cases[-1]))
        for group in groups
        for cases in [BUILD[group]()]
        for case in cases
    ]
    members = QUICK_MEMBERS if quick else MEMBERS
    kept = _kept(folder)
    named = lambda group, case, c: _name(case, c, members[group])
    progress = _Progress(
        sum(_weight(c) for g, case, cs in plan for c in cs if named(g, case, c) not in kept)
    )
    rows: list[dict[str, Any]] = []
    counted: Counted = {}
    for group, case, chosen in plan:
        for combination in chosen:
            if row := kept.pop(named(group, case, combination), None):
                rows.append(row)
                continue
            rows.append({"group": group, **_row(case, combination, members[group], counted)})
            progress(rows[-1], _weight(combination))
            _write([*rows, *kept.values()], folder)
        write_text(calibration_report.table(rows), folder / "calibration.md")
        calibration_report.draw([r for r in rows if r["case"] == case.name], folder)
        jax.clear_caches()  # every combination compiles a program of its own
    _write([*rows, *kept.values()], folder)
    if lorenz := [case for _, case, _ in plan if isinstance(case, LorenzCase)]:
        calibrate_lorenz.ranks(lorenz, RANKED, folder)
    return rows


def _row(
    case: Case | LorenzCase, combination: Combination, members: int, counted: Counted
) -> dict[str, Any]:
    rule, solver, grid, steps = combination
    sampler = SamplerConfig(solver=solver, steps=steps, grid=grid)  # pyright: ignore
    run = run_lorenz if isinstance(case, LorenzCase) else run_case
    counts = counted.get(combination)
    row = run(case, rule, sampler, members, jax.random.key(0), batch=BATCH, counts=counts)  # pyright: ignore
    # Steps and rule decide, not the case: one count serves all.
    counted[combination] = row.forward_evaluations, row.derivative_evaluations
    return row.as_dict()


def _name(case: Case | LorenzCase, combination: Combination, members: int) -> tuple[Any, ...]:
    """What a row is known by."""
    rule, solver, grid, steps = combination
    return case.name, str(rule), solver, grid, steps, members


def _write(rows: list[dict[str, Any]], folder: Path) -> None:
    write_text(json.dumps(rows, indent=1, allow_nan=False), folder / "calibration.json")


def _kept(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows that an earlier run left, which was stopped."""
    path = folder / "calibration.json"
    fields = ("case", "rule", "solver", "grid", "steps", "members")
    try:
        rows = json.loads(path.read_text()) if path.exists() else []
        return {tuple(row[f] for f in fields): row for row in rows if row["group"] != TRAINED}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error!r}): remove it, or set --output") from None


def _weight(combination: Combination) -> float:
    """About how long a row takes: to compile and to compute."""
    return 32 + combination.steps


class _Progress:
    """Says after every row what came out and how long the rest takes."""

    def __init__(self, total: float):
        self.total, self.done, self.started = total, 0.0, time.monotonic()

    def __call__(self, row: dict[str, Any], weight: float) -> None:
        self.done += weight
        left = (time.monotonic() - self.started) * (self.total / self.done - 1)
        logging.info(
            "%s, %s, %s %d: %s; %.0f s left",
            row["case"],
            row["rule"],
            row["solver"],
            row["steps"],
            calibration_report.figures(row),
            left,
        )


if __name__ == "__main__":
    cli.run(main, optional_config=True)
