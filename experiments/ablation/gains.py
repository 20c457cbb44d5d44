"""What each model gains over the best classical method, by level: a table and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slams_jax.verify.figures import label_axis, legend_below, new_figure, palette, save
from slams_jax.verify.report import Table, markdown
from slams_jax.verify.significance import FEWEST, Difference, paired_difference

Row = dict[str, Any]


class Gains(NamedTuple):
    """How much smaller the CRPS of models is than that of the best classical method.

    Attributes:
        best: name of that method: the smallest CRPS of all without a network.
        settings: over which scores are averaged: those that all systems were tried with.
        levels: of the channels.
        of: percentage of the CRPS of the best, by model; positive is better (channel,).
    """

    best: str
    settings: list[str]
    levels: list[float | None]
    of: Mapping[str, Difference]


def gains(rows: Sequence[Row]) -> Gains | None:
    """The gains in the corrected protocol.

    None without a model, a classical method, or a setting that all were tried with, and with too
    few cases for an interval.
    """
    rows = [r for r in rows if r["protocol"] == "corrected"]
    networks = {r["model"] for r in rows if "evaluations" in r}
    systems = list(dict.fromkeys(r["model"] for r in rows))
    scores = {(r["model"], r["name"]): r["scaled_crps_of_cases"] for r in rows}
    names = dict.fromkeys(r["name"] for r in rows)
    settings = [n for n in names if all((system, n) in scores for system in systems)]
    classical = [system for system in systems if system not in networks]
    if not networks or not classical or not settings:
        return None
    if len(rows[0]["times_of_cases"]) < FEWEST:
        return None
    # All settings have the cases of one truth: the mean over settings is a score of the case.
    crps = {
        system: np.mean([scores[system, setting] for setting in settings], axis=0)
        for system in systems
    }
    best = min(classical, key=lambda system: crps[system].mean())
    times = np.array(rows[0]["times_of_cases"], "datetime64")
    percent = 100.0 / crps[best].mean(axis=0)
    of = {
        system: paired_difference(crps[best] * percent, crps[system] * percent, times=times)
        for system in systems
        if system in networks
    }
    return Gains(best, settings, rows[0]["levels"], of)


def table(found: Gains) -> str:
    """By model and level, in Markdown; bold where zero lies outside the interval."""
    rows = []
    for model, gain in found.of.items():
        reach = gain.high - gain.value
        texts = [f"{v:+.1f} ± {r:.1f}" for v, r in zip(gain.value, reach, strict=True)]
        bold = gain.low * gain.high > 0
        rows.append([model, *(f"**{t}**" if b else t for t, b in zip(texts, bold, strict=True))])
    return markdown(Table("", ["model", *_names(found)], rows)).rstrip()


def draw(found: Gains, path: Path) -> Path:
    """The same as bars with intervals: levels down, to the right is better."""
    names, count = _names(found), len(found.of)
    place, height = np.arange(len(names)), 0.8 / count
    figure = new_figure(8.5, 1.6 + 0.5 * len(names))
    axis = figure.subplots()
    looks = palette(count)
    for number, ((model, gain), look) in enumerate(zip(found.of.items(), looks, strict=True)):
        axis.barh(
            place + (number - 0.5 * (count - 1)) * height,
            gain.value,
            0.9 * height,
            xerr=gain.high - gain.value,
            color=look["color"],
            error_kw={"lw": 0.9, "ecolor": "0.25"},
            label=model,
        )
    axis.axvline(0.0, color="black", lw=1.0)
    axis.set_yticks(place, labels=names)
    axis.invert_yaxis()  # models from above, like the legend
    label_axis(
        axis,
        f"Better than {found.best}, the best classical method →",
        f"CRPS below that of {found.best}, %, with 95 % intervals",
        "",
    )
    legend_below(figure, axis)
    return save(figure, path)


def _names(found: Gains) -> list[str]:
    return [f"{v:g} hPa" if v is not None else str(i) for i, v in enumerate(found.levels)]
