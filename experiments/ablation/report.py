"""Tables and pictures of experiments.ablation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ablation.gains import gains
from experiments.ablation.gains import table as table_of_gains
from slams_jax.verify.figures import (
    label_axis,
    legend_below,
    new_figure,
    palette,
    pressure_axis,
    save,
)
from slams_jax.verify.report import Table, markdown
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
            for score in ("RMSE", "CRPS"):
                parts += [
                    f"### corrected: {score} / climatological std minus that of OI",
                    "",
                    f"With the half-width of the 95 % interval, from {FEWEST} cases on.",
                    "",
                    _differences(mine, score),
                    "",
                ]
            if found := gains(rows):
                parts += [
                    f"### corrected: CRPS below that of {found.best}, %, by level",
                    "",
                    f"{found.best} is the best classical method; mean over "
                    f"{', '.join(found.settings)}; with the half-width of the 95 % interval.",
                    "",
                    table_of_gains(found),
                    "",
                ]
    return "\n".join(parts)


def _ratio(row: Row) -> float | None:
    return float(np.mean(row["spread_skill"])) if "spread_skill" in row else None


def _table(rows: Sequence[Row], score: Callable[[Row], float | None], *, best: bool = True) -> str:
    """Scores; the lowest of each setting in bold, where lower is better."""
    values = {(r["model"], r["name"]): score(r) for r in rows}

    def cell(model: str, setting: str) -> tuple[str, bool]:
        value = values.get((model, setting))
        if value is None:
            return "", False
        others = [v for (_, name), v in values.items() if name == setting and v is not None]
        return f"{value:.3f}", best and value == min(others)

    return _crossed(rows, list(dict.fromkeys(r["model"] for r in rows)), cell)


def _differences(rows: Sequence[Row], score: str, reference: str = "OI") -> str:
    """Differences from a reference on the same cases; bold where they are not chance."""
    root = score == "RMSE"
    part = "scaled_mse_of_cases" if root else "scaled_crps_of_cases"
    mean = lambda of_levels: np.mean(of_levels, axis=1, keepdims=True)
    scores = {(r["model"], r["name"]): mean(r[part]) for r in rows}
    times = np.array(rows[0]["times_of_cases"], "datetime64")

    def cell(model: str, setting: str) -> tuple[str, bool]:
        own, other = (scores.get((m, setting)) for m in (model, reference))
        if own is None or other is None:
            return "", False
        if len(own) < FEWEST:  # too few for an interval
            means = np.stack([own.mean(), other.mean()])
            first, second = np.sqrt(means) if root else means
            return f"{first - second:+.3f}", False
        found = paired_difference(own, other, times=times, root=root)
        text = f"{found.value[0]:+.3f} ± {found.high[0] - found.value[0]:.3f}"
        return text, bool(found.low[0] * found.high[0] > 0)

    models = list(dict.fromkeys(r["model"] for r in rows if r["model"] != reference))
    return _crossed(rows, models, cell)


def _crossed(
    rows: Sequence[Row], models: Sequence[str], cell: Callable[[str, str], tuple[str, bool]]
) -> str:
    """Settings across, models down; a cell is (text, whether in bold)."""
    settings = list(dict.fromkeys(r["name"] for r in rows))
    cells = lambda model: [
        f"**{text}**" if bold else text for text, bold in (cell(model, s) for s in settings)
    ]
    rows_of = [[model, *cells(model)] for model in models]
    return markdown(Table("", ["model", *settings], rows_of)).rstrip()


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
        for model, look in zip(models, palette(len(models)), strict=True):
            own = sorted((r for r in chosen if r["model"] == model), key=lambda r: r[varied])
            look |= {"ms": 4.5, "lw": 1.5, "label": model}
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
        pressure_axis(axes[1, 0], np.array(levels))
    legend_below(figure, axes[0, 0])
    return save(figure, path)
