"""The report of an evaluation: what was analysed, how good it is, how to reproduce it."""

import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from experiments.configuration.inputs import Inputs
from experiments.configuration.settings import Settings
from experiments.evaluation.pictures import Drawn
from experiments.evaluation.scores import LABELS, OCCURRENCE, names_of
from slams_jax.grid import Grid
from slams_jax.schema import VARIABLES
from slams_jax.verify.maps import degrees_east, degrees_north
from slams_jax.verify.report import Listing, Picture, Report, Section, Table, render

PHRASES = {
    "background": "the background",
    "persistence": "persistence",
    "climatology": "the climatology",
    "oi": "optimal interpolation",
    "oi_analysis": "deterministic optimal interpolation",
    "analysis": "the analysis",
}
PACKAGES = ("slams-jax", "jax", "jaxlib", "flax", "diffrax", "optax", "numpy", "scipy", "xarray")


def page(
    settings: Settings,
    data: Inputs,
    frames: np.ndarray,
    analysis: xr.Dataset,
    scores: dict[str, Any],
    tables: list[Table],
    drawn: list[Drawn],
    command: str,
) -> str:
    """The report as HTML."""
    topics = lambda *names: [
        Picture(d.path.read_bytes(), d.alt, d.caption) for d in drawn if d.topic in names
    ]
    table = lambda *captions: [t for t in tables if t.caption in captions]
    sections = [
        Section("Summary", summary(scores), [headline(scores)]),
        Section(
            "Scores",
            (),
            table("Scores by level", "Scores by region", "Whole profiles")
            + [t for t in tables if t.caption.startswith(OCCURRENCE)],
            topics("scores"),
        ),
        Section("Significance", (), table("RMSE of the analysis minus that of each reference")),
        Section("Maps and sections", (), (), topics("maps")),
        Section("Spread and reliability", (), table("Parts of the CRPS"), topics("spread")),
        Section("Scales", (), (), topics("spectra")),
        Section("Observations", (), table("Innovation statistics"), topics("stations")),
        Section("Training", (), (), topics("training")),
        _reproduce(settings, analysis, command),
    ]
    full = [s for s in sections if s.text or s.tables or s.pictures or s.listings]
    variables = _and(
        VARIABLES[v].long_name.lower() if v in VARIABLES else v
        for v in dict.fromkeys(scores["variables"])
    )
    times = [str(t)[:10] for t in data.archive.times[frames][[0, -1]]]
    title = f"Analysis of {variables}, {times[0]} to {times[1]}"
    return render(Report(title, facts(settings, data, frames, analysis, scores), full))


def facts(
    settings: Settings,
    data: Inputs,
    frames: np.ndarray,
    analysis: xr.Dataset,
    scores: dict[str, Any],
) -> list[tuple[str, str]]:
    """What was analysed, as (name, value) pairs."""
    source = settings.data.root
    if settings.nature is not None:
        source = f"nature run: {settings.nature.system.replace('_', '-')}"
    levels = [f"{v:g}" for v in scores["levels"] if v is not None]
    background = "none"
    if settings.assimilation.background and settings.data.background is not None:
        path = settings.data.background.path
        background = path if isinstance(path, str) else ", ".join(path)
    sampler, guidance = settings.sampler, settings.guidance
    encoded = settings.assimilation.latent_inputs
    return [
        ("Data", source),
        ("Variables", ", ".join(dict.fromkeys(scores["variables"]))),
        *([("Levels", f"{', '.join(levels)} hPa")] if levels else []),
        ("Grid", _grid(data.archive.grid)),
        ("Times", f"{len(frames)}, of the period {settings.assimilation.period}"),
        ("Background", background),
        ("Observations", _and(s["name"] for s in scores["streams"] if s["name"] != "background")),
        *([("Through the encoder", _and(encoded))] if encoded else []),
        ("Ensemble", f"{analysis.sizes['member']} members"),
        (
            "Method",
            f"guidance {guidance.rule}, solver {sampler.solver} with {sampler.steps} steps, "
            f"{scores['evaluations']} network evaluations a member",
        ),
        ("Cost", f"{scores['seconds']:.0f} s, {scores['peak_memory_bytes'] / 2**30:.1f} GiB"),
        ("Inflation", f"{settings.assimilation.inflation:g}"),
    ]


def summary(scores: dict[str, Any]) -> list[str]:
    """The scores in sentences."""
    found = []
    against = scores["significance"]["against"]
    for name in (n for n in names_of(scores) if n != "analysis"):
        change = _change(scores, name, "rmse")
        text = (
            f"The RMSE of the analysis is {abs(change):.0%} "
            f"{'lower' if change < 0 else 'higher'} than that of {PHRASES[name]}, "
            "averaged over levels"
        )
        if name in against:
            better, worse, number = _verdicts(against[name]["rmse"])
            text += (
                f"; it is significantly better at {better} of {number} levels and worse at {worse}"
            )
        found.append(text + ".")
    ratio = np.array(scores["analysis"]["spread_skill"], np.float64)
    found.append(
        f"The spread of the ensemble is {np.nanmin(ratio):.2f} to {np.nanmax(ratio):.2f} of its "
        "error (1: calibrated; below 1: overconfident)."
    )
    if "stations" in scores:
        stations = scores["stations"]
        sizes = _and(f"{stations[n]['rmse']:.2f} for {PHRASES[n]}" for n in names_of(scores))
        found.append(
            f"At withheld stations ({stations['analysis']['count']} values) the RMSE is {sizes}, "
            "observation error included."
        )
    return found


def headline(scores: dict[str, Any]) -> Table:
    """One row for each reference."""
    against = scores["significance"]["against"]
    header = [
        "Analysis against",
        "RMSE %",
        "CRPS %",
        "levels better",
        "levels worse",
        "no difference",
    ]
    rows = []
    for name in (n for n in names_of(scores) if n != "analysis"):
        row: list[Any] = [LABELS[name]]
        row += [round(100 * _change(scores, name, k), 1) for k in ("rmse", "crps")]
        verdict: list[Any] = [None, None, None]
        if name in against:
            better, worse, number = _verdicts(against[name]["rmse"])
            verdict = [better, worse, number - better - worse]
        rows.append([f"{v:+.1f}" if isinstance(v, float) else v for v in row] + verdict)
    confidence = scores["significance"]["confidence"]
    return Table(
        "Headline scores",
        header,
        rows,
        f"Change of the score relative to the reference, mean over levels; negative is better. A "
        f"level counts as better or worse where the {confidence:.0%} interval of the difference "
        "in RMSE excludes zero (for correlated times, no correction for the number of levels). "
        f"Fewer than {scores['significance']['fewest']} times have no intervals.",
    )


def _change(scores: dict[str, Any], name: str, key: str) -> float:
    """Relative change of a score from a reference to the analysis, mean over channels."""
    ours, theirs = (np.array(scores[n][key], np.float64) for n in ("analysis", name))
    return float(np.nanmean(ours / theirs - 1.0))


def _verdicts(difference: dict[str, Any]) -> tuple[int, int, int]:
    """Number of channels where the analysis is better, where worse, and of all."""
    low, high = (np.array(difference[k], np.float64) for k in ("low", "high"))
    return int((high < 0).sum()), int((low > 0).sum()), len(low)


def _reproduce(settings: Settings, analysis: xr.Dataset, command: str) -> Section:
    raw = json.dumps(settings.raw, indent=1, default=str)
    used = json.dumps(json.loads(analysis.attrs.get("configuration", "{}")), indent=1)
    versions = [[name, version(name)] for name in PACKAGES]
    listings = [Listing("Command", command), Listing("Configuration", raw)]
    if used not in (raw, "{}"):
        listings.append(Listing("Configuration of the analysis", used))
    return Section(
        "How to reproduce it",
        ["The command and configuration below reproduce these scores."],
        [
            Table(
                "Versions",
                ["Package", "version"],
                [["Python", platform.python_version()], *versions],
            )
        ],
        (),
        listings,
    )


def _grid(grid: Grid) -> str:
    rows, columns = grid.shape
    if grid.periodic:
        return f"{rows} latitudes, {columns} longitudes around the globe"
    if rows * columns == 1:
        return "one point"
    return (
        f"{rows} latitudes from {degrees_north(grid.latitude[0])} to "
        f"{degrees_north(grid.latitude[-1])}, {columns} longitudes from "
        f"{degrees_east(grid.longitude[0])} to {degrees_east(grid.longitude[-1])}"
    )


def _and(names: Iterable[str]) -> str:
    words = list(names)
    if len(words) < 2:
        return words[0] if words else "none"
    return f"{', '.join(words[:-1])} and {words[-1]}"
