"""Analyse trajectories of a Kolmogorov flow with each system, and compare them: tables, picture."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from experiments.compare import flow
from experiments.compare.flow import (
    LEARNED,
    PROBLEMS,
    SDA,
    Analysed,
    FlowSettings,
    Problem,
    World,
    open_world,
)
from experiments.compare.kept import Record, digest_of, keep, kept
from experiments.configuration import inputs
from experiments.configuration.models import open_model
from experiments.configuration.settings import Settings
from slams_jax.dynamics import kolmogorov
from slams_jax.records import arrays_digest
from slams_jax.storage import locked, write_text
from slams_jax.training.metrics import duration
from slams_jax.verify import metrics, summary
from slams_jax.verify.figures import label_axis, legend_below, new_figure, palette, save
from slams_jax.verify.report import Table, chapters, difference_cells
from slams_jax.verify.significance import FEWEST

SMALL = 8  # zonal wavenumber from which on scales are small: what blocks of 8 points cannot show
# What of the comparison an analysis is of, by system.
COMMON = ("every", "period", "frames")
OF_SYSTEM = {
    "letkf": ("members", "inflation", "radius"),
    "4dvar": ("growing", "outer", "iterations"),
    "gaussian": ("draws",),
    "score": ("draws",),
    "sda": ("sda_draws",),
}


def compare_flow(
    settings: Settings, options: FlowSettings, folder: Path, *, source: str | None = None
) -> str:
    """Analyse, score and compare; returns the tables, in Markdown.

    Args:
        settings: the configuration.
        options: its comparison.
        folder: for scores and finished analyses.
        source: of the model, if not its work directory (`open_model`).

    Raises:
        InputError: data that are of no flow, a period that is too short, or a folder in use.
    """
    data = inputs.load(settings)
    learned = set(options.systems) - {"letkf"}
    world = open_world(
        settings, options, data, open_model(settings, data, source) if learned else None
    )
    with locked(folder):
        found = _records(world, folder / "trajectories")
        scores = compared(world, found)
        write_text(json.dumps(summary.without_nan(scores), indent=1) + "\n", folder / "flow.json")
        text = chapters(tables(scores))
        write_text(text, folder / "flow.md")
        draw(scores, folder / "flow.png")
    logging.info("scores in %s", folder / "flow.json")
    return text


def _records(world: World, folder: Path) -> dict[tuple[str, str], list[Record]]:
    """The records of each problem and system, kept or new."""
    options, starts = world.flow, flow.starts(world)
    found: dict[tuple[str, str, int], Record] = {}
    # Trajectory by trajectory, so that what there is at any time can be compared.
    wanted = [
        (problem, system, number)
        for number in range(len(starts))
        for problem in options.problems
        for system in options.systems
    ]
    path_of = lambda problem, system, number: folder / f"{problem}-{system}-{number}.json"
    models = _model_digests(world)
    digests = {each: _digest(world, models, *each) for each in wanted}
    for each in wanted:
        record = kept(path_of(*each), digests[each])
        if record is not None:
            found[each] = record
    missing = [each for each in wanted if each not in found]
    logging.info("%d of %d analyses are there", len(found), len(wanted))
    systems = {}
    begun = time.monotonic()
    for done, each in enumerate(missing, start=1):
        problem, system, number = each
        if (problem, system) not in systems:
            systems[problem, system] = flow.system_of(world, system, PROBLEMS[problem])
        record = _analysed(world, systems[problem, system], PROBLEMS[problem], starts[number], each)
        found[each] = record
        keep(path_of(*each), digests[each], record)
        left = (time.monotonic() - begun) / done * (len(missing) - done)
        logging.info(
            "%s, %s, trajectory %d: RMSE %.3f, CRPS %.3f, %.0f s; %s left",
            *each,
            np.sqrt(np.mean(record["square"])),
            np.mean(record["crps"]),
            record["seconds"],
            duration(left),
        )
    return {
        (p, s): [found[p, s, n] for n in range(len(starts))]
        for p in options.problems
        for s in options.systems
    }


def _model_digests(world: World) -> dict[str, str]:
    """Of what each system takes from the model."""
    if world.model is None:
        return {}
    arrays = world.model.arrays
    whole = dict.fromkeys(LEARNED, arrays_digest(arrays))
    return {**whole, "4dvar": arrays_digest(arrays.prior)}


def _digest(world: World, models: dict[str, str], problem: str, system: str, number: int) -> str:
    """Of everything that a record follows from."""
    raw, values = world.settings.raw, dataclasses.asdict(world.flow)
    of = PROBLEMS[problem]
    about: list[Any] = [problem, of.every, of.error, system, number, raw["seed"], raw["nature"]]
    about += [values[name] for name in (*COMMON, *OF_SYSTEM[system])]
    about.append(models.get(system, ""))
    if system in LEARNED:
        own = ("sampler", "guidance", "refinement")
        about += [str(SDA)] if system == "sda" else [raw.get(name) for name in own]
    return digest_of(about)


def _analysed(
    world: World,
    analyse: flow.Analyse,
    problem: Problem,
    frames: np.ndarray,
    each: tuple[str, str, int],
) -> Record:
    """The scores of one analysis of one trajectory."""
    name, _, number = each
    truth = world.states(frames)
    key = jax.random.fold_in(jax.random.key(world.settings.seed), number)
    key_error, key_draw = jax.random.split(jax.random.fold_in(key, list(PROBLEMS).index(name)))
    values = flow.observed(problem, truth, key_error)
    begun = time.perf_counter()
    found = analyse(frames, values, key_draw)
    seconds = time.perf_counter() - begun
    return _scores(world, problem, found, truth, values) | {"seconds": seconds}


def _scores(
    world: World,
    problem: Problem,
    found: Analysed,
    truth: Float[np.ndarray, "time y x component"],
    values: Float[np.ndarray, "time y x value"],
) -> Record:
    """By state: square errors, variance and CRPS; and of all: misfit, W1 of the vorticity, spectra.

    Errors are of the velocity, in its standard deviations.
    """
    members = found.members
    scale = world.climate.std(axis=(0, 1, 2))
    weights = np.ones(truth.shape[1:3], np.float32)
    by_state: dict[str, list[float]] = {"square": [], "variance": [], "crps": []}
    for drawn, true in zip(members.swapaxes(0, 1) / scale, truth / scale, strict=True):
        by_state["square"].append(_mean(jnp.square(metrics.rmse(drawn.mean(axis=0), true))))
        spread = jnp.square(metrics.spread(drawn, true)) if len(drawn) > 1 else jnp.zeros(1)
        by_state["variance"].append(_mean(spread))
        by_state["crps"].append(_mean(metrics.crps(drawn, true)))
    seen = np.isfinite(values)
    shown = np.stack([np.asarray(problem.operator(jnp.asarray(m))) for m in members])
    misfit = np.square((shown - np.where(seen, values, 0.0)) / problem.error)
    vorticity = lambda x: np.asarray(kolmogorov.vorticity(jnp.asarray(x)))
    return {
        **by_state,
        "members": len(members),
        "misfit": float(misfit[:, seen].mean()),
        "w1": _mean(
            metrics.wasserstein(vorticity(members)[..., None], vorticity(truth)[..., None])
        ),
        "spectrum": metrics.zonal_spectrum(members, weights).sum(axis=-1).tolist(),
        "true_spectrum": metrics.zonal_spectrum(truth, weights).sum(axis=-1).tolist(),
        "evaluations": found.evaluations,
        "derivatives": found.derivatives,
        "forecasts": found.forecasts,
    }


def compared(world: World, records: dict[tuple[str, str], list[Record]]) -> dict[str, Any]:
    """Averages over trajectories, and differences of the trained model from the others."""
    found: dict[str, Any] = {}
    for (problem, system), of in records.items():
        found.setdefault(problem, {})[system] = _of_system(of)
    for problem, systems in found.items():
        if "score" not in systems:
            continue
        ours = _per_trajectory(records[problem, "score"])
        for system in systems:
            if system == "score" or len(ours) < FEWEST:
                continue
            theirs = _per_trajectory(records[problem, system])
            between = metrics.paired_difference(ours, theirs)
            systems[system]["score_less_this"] = summary.listed(between)
    return {"trajectories": world.flow.trajectories, "problems": found}


def _per_trajectory(records: list[Record]) -> Float[np.ndarray, "trajectory 2"]:
    """CRPS of all states and of the last one."""
    return np.array([[np.mean(r["crps"]), r["crps"][-1]] for r in records], np.float64)


def _of_system(records: list[Record]) -> dict[str, Any]:
    size = records[0]["members"]
    at = {"": slice(None), "last_": slice(-1, None)}
    row: dict[str, Any] = {"members": size}
    for name, states in at.items():
        part = lambda score, states=states: float(np.mean([r[score][states] for r in records]))
        square, variance = part("square"), part("variance")
        row[f"{name}rmse"] = max(square - variance / size, 0.0) ** 0.5
        row[f"{name}crps"] = part("crps")
        if size > 1:
            row[f"{name}spread_skill"] = ((size + 1) / size * variance / square) ** 0.5
    spectra = [np.mean([r[k] for r in records], axis=0) for k in ("spectrum", "true_spectrum")]
    mean = lambda name: float(np.mean([r[name] for r in records]))
    return row | {
        "misfit": mean("misfit"),
        "w1": mean("w1"),
        "small_scales": float(spectra[0][SMALL:].sum() / spectra[1][SMALL:].sum()),
        "spectrum": spectra[0].tolist(),
        "true_spectrum": spectra[1].tolist(),
        **{name: records[0][name] for name in ("evaluations", "derivatives", "forecasts")},
        "seconds": float(np.median([r["seconds"] for r in records])),
    }


def tables(scores: dict[str, Any]) -> list[Table]:
    """One for each problem, and one of the cost."""
    found = []
    note = (
        f"{scores['trajectories']} trajectories; velocity, in its standard deviations. RMSE of "
        "infinitely many members. Misfit: mean square departure from the observations, over their "
        "error; 1 is that of the truth. Small scales: energy of zonal wavenumbers from "
        f"{SMALL} on, over the truth's. W1: of the values of the vorticity."
    )
    header = ["System", "members", "RMSE", "CRPS", "spread/skill", "RMSE, last state"]
    header += ["CRPS, last state", "misfit", "small scales", "W1"]
    for problem, systems in scores["problems"].items():
        names = ("members", "rmse", "crps", "spread_skill", "last_rmse", "last_crps")
        names = (*names, "misfit", "small_scales", "w1")
        rows = [[system, *(of.get(n) for n in names)] for system, of in systems.items()]
        found.append(Table(problem.capitalize(), header, rows, note))
        clear = {s: of["score_less_this"] for s, of in systems.items() if "score_less_this" in of}
        if clear:
            rows = [[system, *difference_cells(of)] for system, of in clear.items()]
            title = f"{problem.capitalize()}: CRPS of score, less that of others"
            columns = ["System", "all states", "last state"]
            why = "Half-widths of 95 % intervals, bold beyond chance."
            found.append(Table(title, columns, rows, why))
    first = next(iter(scores["problems"].values()))
    names = ("evaluations", "derivatives", "forecasts", "seconds")
    rows = [[system, *(of[n] for n in names)] for system, of in first.items()]
    header = ["System", "network evaluations", "their derivatives", "model intervals", "seconds"]
    why = "Evaluations and derivatives for a member, intervals for all. Of the first problem."
    return [*found, Table("Cost of an analysis", header, rows, why)]


def draw(scores: dict[str, Any], path: Path) -> None:
    """Spectra of the draws beside those of the truth, a panel for each problem."""
    problems = scores["problems"]
    figure = new_figure(3.2 * len(problems), 3.6)
    axes = figure.subplots(1, len(problems), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (problem, systems) in zip(axes, problems.items(), strict=True):
        true = next(iter(systems.values()))["true_spectrum"][1:]
        wavenumber = np.arange(1, len(true) + 1)
        axis.loglog(wavenumber, true, color="black", lw=2.0, label="truth")
        for (system, of), look in zip(systems.items(), palette(len(systems)), strict=True):
            style = {"color": look["color"], "ls": look["ls"], "lw": 1.2}
            axis.loglog(wavenumber, of["spectrum"][1:], label=system, **style)
        label_axis(axis, problem, "Zonal wavenumber", "Energy" if axis is axes[0] else "")
    legend_below(figure, axes[0])
    save(figure, path)


def _mean(values: Any) -> float:
    return float(np.mean(np.asarray(values, np.float64)))
