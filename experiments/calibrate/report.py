"""The results of `experiments.calibrate` as tables and figures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.calibrate.methods import BUDGET, LARGER
from slams_jax.verify.figures import FONT, label_axis, new_figure, save
from slams_jax.verify.report import Cell, Table, markdown

Row = dict[str, Any]

MEAN, RATIO, W1 = 0.05, 1.05, 1.1  # the targets
NARROW = ("h", "i")  # groups with a target relative to exact draws
OVER_EXACT = 1.2  # theirs: W1 over that of exact draws
# Okabe and Ito's colours, which the colour-blind tell apart; beyond eight the markers differ.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#999999")
MARKERS = "os^vDPX*<>hp"
LARGEST = 10.0  # above, nothing is drawn: the table has it
SMALLEST = 3e-3  # below, a mean error or a log ratio is drawn at this line

HEADER = (
    "case",
    "rule",
    "solver",
    "grid",
    "steps",
    "evaluations",
    "derivatives",
    "mean error",
    "variance ratio",
    "covariance error",
    "W1 (exact draws)",
    "mode error",
    "accepted",
    "seconds",
)
BEST_HEADER = (
    "case",
    "rule",
    "solver",
    "grid",
    "evaluations",
    "derivatives",
    "mean error",
    "variance ratio",
    "W1 (exact draws)",
    "W1 over that of the longest run",
    "W1 over the best of all",
    "target",
)
OVER_EXACT_HEADER = (
    "case",
    "rule",
    "solver",
    "evaluations",
    "derivatives",
    "mean error",
    "variance ratio",
    "W1",
    "W1 over that of exact draws",
    "target",
    "seconds",
)


def cost(row: Row) -> int:
    """Evaluations, a product with the Jacobian counting as one more."""
    return row["forward_evaluations"] + row["derivative_evaluations"]


def figures(row: Row) -> str:
    """The scores in words."""
    if row["not_finite"]:
        return f"{row['not_finite']} draws are not finite"
    return (
        f"mean error {_with_error(row, 'mean_error')}, variance ratio "
        f"{_with_error(row, 'variance_ratio')}, W1 {_short(row['w1'])} ({row['w1_exact']:.3f})"
    )


def table(rows: Sequence[Row]) -> str:
    """The best row of each case, then every row, under a line that explains the columns."""
    return "\n".join(
        [
            "# Calibration tables",
            "",
            "Errors are in units of the posterior's standard deviation, with their standard "
            "errors. The error that a sample of exact draws would show is subtracted from mean "
            "and covariance errors, and given in brackets for W1. Accepted is the share of the "
            "moves that were. Seconds are for all members.",
            "",
            *(_section(rows, budget) for budget in (BUDGET, *LARGER)),
            *([over_exact(rows)] if any(row["group"] in NARROW for row in rows) else []),
            "## All runs",
            "",
            markdown(Table("", HEADER, [_cells(row) for row in rows])),
        ]
    )


def _section(rows: Sequence[Row], budget: int) -> str:
    """The best rows within a budget; with a larger one, of the cases that were refined."""
    if budget > BUDGET:
        refined = {row["case"] for row in rows if row["accepted"] is not None}
        rows = [row for row in rows if row["case"] in refined]
    title = f"## Best within {budget} evaluations and derivatives combined"
    return f"{title}\n\n{best(rows, budget)}" if rows else ""


def over_exact(rows: Sequence[Row]) -> str:
    """The rows of `NARROW` groups, whose target is relative to exact draws."""
    lines: list[list[Cell]] = []
    for row in rows:
        if row["group"] not in NARROW:
            continue
        counts = (row["forward_evaluations"], row["derivative_evaluations"])
        cells: list[Cell] = [row["case"], row["rule"], f"{row['solver']} {row['steps']}", *counts]
        if row["not_finite"]:
            cells += [figures(row), "", "", "", "not met"]
        else:
            cells += [_with_error(row, name) for name in ("mean_error", "variance_ratio", "w1")]
            cells += [f"{row['w1'] / row['w1_exact']:.2f}", _verdict(row, None)]
        lines.append([*cells, f"{row['seconds']:.0f}"])
    text = markdown(Table("", OVER_EXACT_HEADER, lines))
    return f"## Long trajectories with next to no noise\n\n{text}"


def best(rows: Sequence[Row], budget: int = BUDGET) -> str:
    """For each case the best row within the budget, and whether it meets the targets."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [r for r in rows if r["case"] == case and not r["not_finite"]]
        allowed = [r for r in mine if cost(r) <= budget and r["rule"] != "oracle"]
        if not allowed:
            continue
        row = min(allowed, key=_badness)
        ratio = _w1_ratio(row, mine)
        least = min(r["w1"] for r in mine if r["rule"] != "oracle")
        verdict = _verdict(row, ratio)
        lines.append(
            [
                case,
                row["rule"],
                row["solver"],
                row["grid"],
                row["forward_evaluations"],
                row["derivative_evaluations"],
                _with_error(row, "mean_error"),
                _with_error(row, "variance_ratio"),
                f"{row['w1']:.3f} ({row['w1_exact']:.3f})",
                "" if ratio is None else f"{ratio:.2f}",
                f"{row['w1'] / least:.2f}",
                verdict,
            ]
        )
    return markdown(Table("", BEST_HEADER, lines))


def _verdict(row: Row, ratio: float | None) -> str:
    """Whether a row meets its target; nothing where there is no longer run to hold it against."""
    if row["group"] in NARROW:
        met = row["w1"] <= OVER_EXACT * row["w1_exact"]
    elif row["group"] not in ("b", "d"):
        met = row["mean_error"] <= MEAN and 0.95 <= row["variance_ratio"] <= RATIO
    elif ratio is None:
        return ""
    else:
        met = ratio <= W1
    return "met" if met else "not met"


def _badness(row: Row) -> float:
    if row["group"] in ("b", "d", *NARROW):
        return row["w1"]
    return math.hypot(row["mean_error"], math.log(row["variance_ratio"]))


def _w1_ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """W1 over that of the longest run of the same rule and solver, if there is a longer one."""
    same = ("rule", "solver", "grid")
    long = max((r for r in rows if all(r[k] == row[k] for k in same)), key=lambda r: r["steps"])
    return row["w1"] / long["w1"] if long["steps"] > row["steps"] else None


def _cells(row: Row) -> list[Cell]:
    front = (
        row["case"],
        row["rule"],
        row["solver"],
        row["grid"],
        row["steps"],
        row["forward_evaluations"],
        row["derivative_evaluations"],
    )
    if row["not_finite"]:
        return [*front, figures(row), "", "", "", "", "", f"{row['seconds']:.1f}"]
    return [
        *front,
        *(_with_error(row, k) for k in ("mean_error", "variance_ratio", "covariance_error")),
        f"{_short(row['w1'])} ({row['w1_exact']:.3f})",
        "" if row["mode_error"] is None else _with_error(row, "mode_error"),
        "" if row["accepted"] is None else f"{row['accepted']:.2f}",
        f"{row['seconds']:.1f}",
    ]


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.1e}"


def _with_error(row: Row, name: str) -> str:
    value, error = row[name], row[f"{name}_se"]
    if abs(value) >= 100:  # far from anything: how far, not exactly
        return f"{value:.1e}"
    return f"{value:.3f} ± {error:.3f}"


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Pictures of one case: rules against each other, and solvers, where there are several.

    Mean error and |log variance ratio| against the evaluations of one draw, derivatives counted.
    """
    finite = [row for row in rows if not row["not_finite"]]
    name = rows[0]["case"].replace(" ", "-").replace("=", "")
    paths = []
    plain = [r for r in finite if r["solver"].startswith("dpmpp") and r["grid"] == "log_snr"]
    if plain:
        figure = _figure(plain, "rule", "solver", rows[0]["case"])
        paths.append(save(figure, folder / f"{name}-rules.png"))
    # Solvers are compared with one rule, which is the one that all grids are tried with.
    others = {r["rule"] for r in finite if r["grid"] == "edm"}
    some = [r for r in finite if r["rule"] in others and r["steps"] <= 128]
    if some:
        figure = _figure(some, "solver", "grid", f"{rows[0]['case']}, {some[0]['rule']}")
        paths.append(save(figure, folder / f"{name}-solvers.png"))
    return paths


def _figure(rows: Sequence[Row], line: str, column: str, title: str):
    """One column of panels for each value of `column`, one line for each value of `line`."""
    columns = list(dict.fromkeys(row[column] for row in rows))
    lines = list(dict.fromkeys(row[line] for row in rows))
    figure = new_figure(1.0 + 3.4 * len(columns), 5.8)
    axes = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
    for j, value in enumerate(columns):
        for i, style in enumerate(lines):
            mine = [r for r in rows if r[column] == value and r[line] == style]
            mine.sort(key=cost)
            look = {
                "color": COLOURS[i % len(COLOURS)],
                "marker": MARKERS[i % len(MARKERS)],
                "label": style,
                "lw": 1.3,
                "ms": 4.5,
                "ls": "-" if i < len(COLOURS) else "--",
            }
            x = [cost(r) for r in mine]
            means = [max(r["mean_error"], SMALLEST) for r in mine]
            ratios = [max(abs(math.log(r["variance_ratio"])), SMALLEST) for r in mine]
            errors = [r["mean_error_se"] for r in mine]
            axes[0, j].errorbar(x, means, [_below(means, errors), errors], **look)
            errors = [r["variance_ratio_se"] / r["variance_ratio"] for r in mine]
            axes[1, j].errorbar(x, ratios, [_below(ratios, errors), errors], **look)
        label_axis(
            axes[0, j],
            f"{title}\n{value}" if j == 0 else f"\n{value}",
            "",
            "" if j else "Mean error [std]",
        )
        label_axis(
            axes[1, j], "", "Evaluations and derivatives", "" if j else "|log variance ratio|"
        )
        for axis, target in ((axes[0, j], MEAN), (axes[1, j], math.log(RATIO))):
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:.0f}")
            axis.set_yscale("log")
            axis.axhspan(SMALLEST / 2, target, color="0.92", zorder=0)
            axis.set_ylim(SMALLEST * 0.8, min(axis.get_ylim()[1], LARGEST))
            axis.axvline(BUDGET, color="0.6", lw=0.8, ls=":", zorder=1)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=4,
        fontsize=FONT - 1,
        frameon=False,
    )
    return figure


def _below(values: Sequence[float], errors: Sequence[float]) -> list[float]:
    """Lower bars that end on a logarithmic axis."""
    return [min(e, v - 0.8 * SMALLEST) for v, e in zip(values, errors, strict=True)]
