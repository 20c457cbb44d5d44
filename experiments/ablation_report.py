"""Tables and pictures of experiments.ablation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slams_jax.verify.figures import label_axis, legend_below, new_figure, save
from slams_jax.verify.significance import FEWEST, paired_difference

Row = dict[str, Any]
Axis = tuple[str, str, str]  # start of the names of its settings, what varies, label

AXES: tuple[Axis, ...] = (
    ("coarsening", "factor", "Coarsening factor"),
    ("noise", "error", "Noise / climatological std"),
    ("stride", "factor", "Stride"),
)
# Of each protocol: the score of a row, its name, and the same of each level.
SCORE = {
    "released": (lambda r: float(np.mean(r["w1"])), "W1", lambda r: r["w1"]),
    "corrected": (lambda r: r["scaled_rmse"], "RMSE / climatological std", lambda r: r["rmse"]),
}
STYLES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"),
    ("#56B4E9", "X"), ("#000000", "P"),
)  # fmt: skip


def tables(rows: Sequence[Row]) -> str:
    """One table a protocol: settings across, models down, the best in bold; then who wins where."""
    parts = []
    for protocol in dict.fromkeys(r["protocol"] for r in rows):
        mine = [r for r in rows if r["protocol"] == protocol]
        score, name, _ = SCORE[protocol]
        parts += [f"### {protocol}: {name}, mean over levels", "", _table(mine, score), ""]
        if protocol == "corrected":
            crps = lambda r: r["scaled_crps"]
            parts += ["### corrected: CRPS / climatological std", "", _table(mine, crps), ""]
            parts += ["### corrected: spread/skill", "", _table(mine, _ratio, best=False), ""]
            parts += [
                "### corrected: RMSE / climatological std, less that of OI",
                "",
                "With the half width of its 95 % interval by a paired block bootstrap over times.",
                "",
                _differences(mine),
                "",
            ]
    return "\n".join(parts)


def _ratio(row: Row) -> float | None:
    return float(np.mean(row["spread_skill"])) if "spread_skill" in row else None


def _table(rows: Sequence[Row], score, *, best: bool = True) -> str:
    settings = list(dict.fromkeys(r["name"] for r in rows))
    models = list(dict.fromkeys(r["model"] for r in rows))
    values = {(r["model"], r["name"]): score(r) for r in rows}
    lines = ["| model | " + " | ".join(settings) + " |", "|---" * (len(settings) + 1) + "|"]
    lowest = {
        s: min(v for (_, n), v in values.items() if n == s and v is not None)
        for s in settings
        if any(v is not None for (_, n), v in values.items() if n == s)
    }
    for model in models:
        cells = []
        for setting in settings:
            value = values.get((model, setting))
            text = "" if value is None else f"{value:.3f}"
            cells.append(f"**{text}**" if best and value == lowest[setting] else text)
        lines.append("| " + " | ".join([model, *cells]) + " |")
    return "\n".join(lines)


def _differences(rows: Sequence[Row], reference: str = "OI") -> str:
    """Differences from a reference on the same times; bold where they are not chance."""
    settings = list(dict.fromkeys(r["name"] for r in rows))
    errors = {(r["model"], r["name"]): np.array(r["mse_of_times"])[:, None] for r in rows}
    lines = ["| model | " + " | ".join(settings) + " |", "|---" * (len(settings) + 1) + "|"]
    for model in dict.fromkeys(r["model"] for r in rows if r["model"] != reference):
        cells = []
        for setting in settings:
            pair = [errors.get((m, setting)) for m in (model, reference)]
            if pair[0] is None or pair[1] is None or len(pair[0]) < FEWEST:
                cells.append("")
                continue
            found = paired_difference(pair[0], pair[1], root=True)
            text = f"{found.value[0]:+.3f} ± {found.high[0] - found.value[0]:.3f}"
            cells.append(f"**{text}**" if found.low[0] * found.high[0] > 0 else text)
        lines.append("| " + " | ".join([model, *cells]) + " |")
    return "\n".join(lines)


def draw(rows: Sequence[Row], protocol: str, path: Path) -> Path:
    """Scores against what is varied, and below the profile at the hardest setting of each."""
    mine = [r for r in rows if r["protocol"] == protocol]
    score, name, profile = SCORE[protocol]
    models = list(dict.fromkeys(r["model"] for r in mine))
    figure = new_figure(8.5, 6.6)
    axes = figure.subplots(2, len(AXES), sharey="row")
    for column, (start, varied, label) in enumerate(AXES):
        chosen = [r for r in mine if r["name"].startswith(start)]
        if not chosen:
            continue
        hardest = max(r[varied] for r in chosen)
        for model, (color, marker) in zip(models, STYLES, strict=False):
            own = sorted((r for r in chosen if r["model"] == model), key=lambda r: r[varied])
            look = {"color": color, "marker": marker, "ms": 4.5, "lw": 1.5, "label": model}
            x = [r[varied] for r in own]
            axes[0, column].plot(x, [score(r) for r in own], **look)
            for row in own:
                if row[varied] == hardest and row.get("levels", [None])[0] is not None:
                    axes[1, column].plot(profile(row), row["levels"], **look)
        axes[0, column].set_xscale("log", base=2)
        axes[0, column].set_xticks(
            sorted({r[varied] for r in chosen}),
            labels=[f"{v:g}" for v in sorted({r[varied] for r in chosen})],
        )
        label_axis(axes[0, column], start.capitalize(), label, name if column == 0 else "")
        unit = "RMSE, K" if protocol == "corrected" else name
        title = f"At {start} {hardest:g}"
        label_axis(axes[1, column], title, unit, "Pressure, hPa" if column == 0 else "")
        axes[1, column].set_xlim(left=0)
    axes[0, 0].set_ylim(bottom=0)  # once all is drawn: the panels share the axis
    levels = next((r["levels"] for r in mine if r.get("levels")), None)
    if levels is not None and levels[0] is not None:
        axes[1, 0].set_yscale("log")
        axes[1, 0].set_ylim(max(levels), min(levels))
        ticks = [v for v in (1000, 700, 500, 300, 200, 100, 50, 10) if min(levels) <= v]
        axes[1, 0].set_yticks(ticks, labels=[str(t) for t in ticks])
        axes[1, 0].minorticks_off()
    legend_below(figure, axes[0, 0])
    return save(figure, path)
