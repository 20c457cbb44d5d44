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
from typing import Any, NamedTuple, get_args

import jax
from absl import flags, logging

from experiments import calibrate_lorenz, calibrate_trained, calibration_report, cli
from experiments.files import write_text
from experiments.settings import CONFIG, read
from slams_jax.calibration import (
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
from slams_jax.diffusion import SamplerConfig
from slams_jax.diffusion.guidance import Rule
from slams_jax.diffusion.sampler import Solver, TimeGrid
from slams_jax.errors import InputError

# experiments.assimilate has a flag of this name too; each command has one of them.
OUTPUT = flags.DEFINE_string("output", None, "What to write into.", allow_override=True)
QUICK = flags.DEFINE_bool("quick", False, "Few rows and members: a few minutes.")
CASES = flags.DEFINE_list("cases", ["a", "b", "c"], "Groups of cases.")

BUILD = {
    "a": field_cases, "b": mixture_cases, "c": trajectory_cases, "d": calibrate_lorenz.cases,
}  # fmt: skip
TRAINED = "e"
# So many that the sampling error is well below a mean error of 0.05 and a ratio of 0.95 to 1.05.
MEMBERS = {"a": 192, "b": 8192, "c": 2048, "d": calibrate_lorenz.MEMBERS}
QUICK_MEMBERS = {"a": 256, "b": 4096, "c": 1024}
BATCH = 4096  # draws made at a time
LONG = 1024  # steps of the run that those of (b) are held against


class Combination(NamedTuple):
    """A rule and a sampler. A solver or rule that the library does not know is left out."""

    rule: Guidance | Oracle
    solver: str
    grid: str
    steps: int


SDA = Guidance("sda", (("gamma", 1e-2),))
MMPS = Guidance("mmps", (("iterations", 3),))
GAUSSIAN = Guidance("gaussian", (("iterations", 30),), covariance=True)
ORACLE = Oracle()
# Each with the number of steps that costs 32 evaluations and derivatives together, and with 32.
RULES = (
    (SDA, (16, 32)),
    (Guidance("dps"), (16, 32)),
    (Guidance("pigdm", (("iterations", 10), ("jacobian", True))), (16, 32)),
    (Guidance("pigdm", (("iterations", 10), ("jacobian", False))), (32,)),
    (Guidance("tmpd"), (10, 32)),
    (Guidance("mmps", (("iterations", 1),)), (16, 32)),
    (MMPS, (8, 32)),
    (Guidance("mmps", (("iterations", 10),)), (32,)),
    (Guidance("mmps", (("iterations", 10),), covariance=True), (32,)),
    (Guidance("gaussian", (("iterations", 10),), covariance=True), (32,)),
    (GAUSSIAN, (32,)),
    (Guidance("exact", covariance=True), (32,)),
)
SOLVERS = ("dpmpp_2m", "dpmpp_2m_ode", "euler_maruyama", "heun", "ddim", "ode", "pc")
GRIDS = ("log_snr", "edm", "uniform")
STEPS = (8, 16, 32, 64, 128)
# For (d), where a long run of each is what the others are held against.
NEAR = Guidance("mmps", (("iterations", 3),), covariance=True)
LORENZ_RULES = (SDA, RULES[3][0], RULES[9][0], NEAR)
LORENZ_STEPS = (8, 16, 32, 64, LONG)
# Of (d), the rank histograms.
RANKED = [(rule, SamplerConfig("dpmpp_2m_ode", 32)) for rule in LORENZ_RULES]
# The rule with which solvers are compared: the most exact one where the prior is Gaussian.
COMPARE = {"a": GAUSSIAN, "b": ORACLE, "c": GAUSSIAN}


def combinations(group: str, *, quick: bool = False, last: bool = False) -> list[Combination]:
    """What is tried on a case of a group, in the order of the table.

    Rules are compared on every case, with the best solver; solvers, grids and numbers of steps on
    the last of a group, with the best rule.
    """
    if group == "d":
        return [
            Combination(rule, "dpmpp_2m_ode", "log_snr", n)
            for rule in LORENZ_RULES
            for n in LORENZ_STEPS
        ]
    best, cheap = COMPARE[group], MMPS
    if quick:
        chosen = [
            Combination(best, "dpmpp_2m_ode", "log_snr", 8),
            Combination(best, "dpmpp_2m_ode", "log_snr", 32),
            Combination(best, "dpmpp_2m", "log_snr", 32),
            Combination(cheap, "dpmpp_2m_ode", "log_snr", 32),
        ]
        if group == "b":  # 8 are 32 with the derivatives; the longest is what they are held against
            chosen += [Combination(cheap, "dpmpp_2m_ode", "log_snr", steps) for steps in (8, 256)]
    else:
        rules = ((ORACLE, (32,)), *RULES)[0 if group == "b" else 1 :]
        chosen = [
            Combination(rule, "dpmpp_2m_ode", "log_snr", n) for rule, steps in rules for n in steps
        ]
        chosen += [Combination(best, "dpmpp_2m", "log_snr", 32)]
        if group == "b":
            # With three derivatives each, 256 steps cost 1024 evaluations.
            chosen += [Combination(MMPS, "dpmpp_2m_ode", "log_snr", LONG // 4)]
        if last:
            chosen += [
                Combination(best, solver, "log_snr", n)
                for solver in ("dpmpp_2m", "dpmpp_2m_ode")
                for n in STEPS
            ]
            chosen += [Combination(best, solver, "log_snr", 32) for solver in SOLVERS]
            chosen += [Combination(best, "dpmpp_2m_ode", grid, 32) for grid in GRIDS]
            # The reference: 512 steps of a predictor and one correction each (Qu et al. 2024).
            chosen += [Combination(SDA, "pc", "uniform", 512)]
    known = ("oracle", *get_args(Rule)), get_args(Solver), get_args(TimeGrid)
    return [
        c
        for c in dict.fromkeys(chosen)
        if c.rule.rule in known[0] and c.solver in known[1] and c.grid in known[2]
    ]


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
        write_text(json.dumps(rows, indent=1, allow_nan=False), folder / "calibration.json")
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
    for group, case, chosen in plan:
        for combination in chosen:
            if row := kept.get(named(group, case, combination)):
                rows.append(row)
                continue
            rows.append({"group": group, **_row(case, combination, members[group])})
            progress(rows[-1], _weight(combination))
            write_text(json.dumps(rows, indent=1, allow_nan=False), folder / "calibration.json")
        write_text(calibration_report.table(rows), folder / "calibration.md")
        calibration_report.draw([r for r in rows if r["case"] == case.name], folder)
        jax.clear_caches()  # every combination compiles a program of its own
    if lorenz := [case for _, case, _ in plan if isinstance(case, LorenzCase)]:
        calibrate_lorenz.ranks(lorenz, RANKED, folder)
    return rows


def _row(case: Case | LorenzCase, combination: Combination, members: int) -> dict[str, Any]:
    rule, solver, grid, steps = combination
    sampler = SamplerConfig(solver=solver, steps=steps, grid=grid)  # pyright: ignore
    run = run_lorenz if isinstance(case, LorenzCase) else run_case
    return run(case, rule, sampler, members, jax.random.key(0), batch=BATCH).as_dict()  # pyright: ignore


def _name(case: Case | LorenzCase, combination: Combination, members: int) -> tuple[Any, ...]:
    """What a row is known by."""
    rule, solver, grid, steps = combination
    return case.name, str(rule), solver, grid, steps, members


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
            "%s, %s, %s %d: %s; %.0f s left", row["case"], row["rule"], row["solver"],
            row["steps"], calibration_report.figures(row), left,
        )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, optional_config=True)
