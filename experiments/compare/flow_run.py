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
from experiments.compare.flow import LEARNED, PROBLEMS, FlowSettings, Problem, World
from experiments.compare.kept import Record, keep, kept
from experiments.configuration import inputs
from experiments.configuration.models import open_model
from experiments.configuration.settings import Settings
from slams_jax.dynamics import kolmogorov
from slams_jax.records import arrays_digest, record_digest
from slams_jax.storage import locked, write_text
from slams_jax.training.metrics import duration
from slams_jax.verify import metrics, summary
from slams_jax.verify.figures import label_axis, legend_below, new_figure, palette, save
from slams_jax.verify.report import Table, chapters, difference_cells
from slams_jax.verify.significance import FEWEST

SMALL = 8  # zonal wavenumber from which on scales are small: waves no longer than 8 points
FILTERS = ("letkf",)  # which see the past of each state alone
# What of the comparison an analysis is of, by system.
COMMON = ("every", "period", "frames")
OF_SYSTEM = {
    "letkf": ("members", "inflation", "radius"),
    "4dvar": ("growing", "outer", "iterations"),
    **dict.fromkeys(LEARNED, ("draws",)),
}
# What of the configuration the trained model's analyses are of, but for how they are computed.
OF_LEARNED = ("assimilation", "sampler", "guidance", "refinement")
COMPUTED = ("member_batch", "window_chunk", "remat", "window_devices", "space_devices")


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
    system = flow.nature_of(settings).model
    data = inputs.load(settings)
    learned = set(options.systems) & set(LEARNED)
    model = open_model(settings, data, source) if learned else None
    world = World(settings, options, system, data, model)
    with locked(folder):
        found = _records(world, folder / "trajectories")
        scores = compared(world, found)
        write_text(json.dumps(summary.without_nan(scores), indent=1) + "\n", folder / "flow.json")
        text = chapters(tables(scores))
        write_text(text, folder / "flow.md")
        draw_spectra(scores, folder / "spectra.png")
        draw_maps(found, folder / "maps.png")
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
    model = "" if world.model is None else arrays_digest(world.model.arrays)
    digests = {each: digest(world, model, *each) for each in wanted}
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
            "%s, %s, trajectory %d: CRPS %.3f, %.0f s; %s left",
            *each,
            np.mean(record.get("crps", np.nan)),
            record["seconds"],
            duration(left),
        )
    return {
        (p, s): [found[p, s, n] for n in range(len(starts))]
        for p in options.problems
        for s in options.systems
    }


def digest(world: World, model: str, problem: str, system: str, number: int) -> str:
    """Of everything that a record follows from; `model` is that of the trained model."""
    raw, values = world.settings.raw, dataclasses.asdict(world.flow)
    less = lambda group, names: {k: v for k, v in raw[group].items() if k not in names}
    about: list[Any] = [problem, repr(PROBLEMS[problem]), system, number, raw["seed"]]
    about += [less("nature", ("cache",)), less("data", ("cache",))]
    about += [values[name] for name in (*COMMON, *OF_SYSTEM[system])]
    if system in LEARNED:
        about.append(model)
    if system == "sda":
        about.append(repr(flow.SDA))
    elif system in LEARNED:
        about += [less(name, COMPUTED) for name in OF_LEARNED if raw.get(name)]
    return record_digest(about)[:16]


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
    cost = {n: getattr(found, n) for n in ("evaluations", "derivatives", "forecasts")}
    record = {
        "members": len(found.members),
        "observations": arrays_digest(values)[:16],
        "diverged": not np.isfinite(found.members).all(),
        "seconds": seconds,
        **cost,
    }
    if record["diverged"]:
        logging.warning("%s, %s, trajectory %d: members are not finite", *each)
        return record
    record |= _scores(world, problem, found.members, truth, values)
    if number == 0:  # to be looked at
        last = {"map": found.members[0, -1], "true_map": truth[-1]}
        record |= {name: np.round(_vorticity(x), 2).tolist() for name, x in last.items()}
    return record


def _scores(
    world: World,
    problem: Problem,
    members: Float[np.ndarray, "member time y x component"],
    truth: Float[np.ndarray, "time y x component"],
    values: Float[np.ndarray, "time y x value"],
) -> Record:
    """By state: square errors, variance and CRPS; and of all: misfit, W1 of the vorticity, spectra.

    Errors are of the velocity, in its standard deviations.
    """
    scale = world.scale
    weights = np.ones(truth.shape[1:3], np.float32)
    by_state: dict[str, list[float]] = {"square": [], "variance": [], "crps": []}
    for ensemble, state in zip(members.swapaxes(0, 1) / scale, truth / scale, strict=True):
        by_state["square"].append(_mean(jnp.square(metrics.rmse(ensemble.mean(axis=0), state))))
        several = len(ensemble) > 1
        spread = jnp.square(metrics.spread(ensemble, state)) if several else jnp.zeros(1)
        by_state["variance"].append(_mean(spread))
        by_state["crps"].append(_mean(metrics.crps(ensemble, state)))
    seen = np.isfinite(values)
    shown = np.stack([np.asarray(problem.operator(jnp.asarray(m))) for m in members])
    misfit = np.square((shown - np.where(seen, values, 0.0)) / problem.error)
    drawn, true = (_vorticity(x)[..., None] for x in (members, truth))
    return {
        **by_state,
        "misfit": float(misfit[:, seen].mean()),
        "w1": _mean(metrics.wasserstein(drawn, true)),
        "spectrum": metrics.zonal_spectrum(members, weights).sum(axis=-1).tolist(),
        "true_spectrum": metrics.zonal_spectrum(truth, weights).sum(axis=-1).tolist(),
    }


def compared(world: World, records: dict[tuple[str, str], list[Record]]) -> dict[str, Any]:
    """Averages over trajectories, and differences of the trained model from the others."""
    count = world.flow.trajectories
    if count < FEWEST:
        logging.warning("%d trajectories have no intervals: it takes %d", count, FEWEST)
    found: dict[str, Any] = {}
    for (problem, system), of in records.items():
        found.setdefault(problem, {})[system] = _of_system(system, of)
    for problem, systems in found.items():
        if count < FEWEST or systems.get("score", {"diverged": 1})["diverged"]:
            continue
        ours = _per_trajectory(records[problem, "score"])
        for system, of in systems.items():
            if system != "score" and not of["diverged"]:
                theirs = _per_trajectory(records[problem, system])
                between = metrics.paired_difference(ours, theirs)
                of["score_less_this"] = summary.listed(between)
    return {"trajectories": count, "problems": found}


def _per_trajectory(records: list[Record]) -> Float[np.ndarray, "trajectory 2"]:
    """CRPS of all states and of the last one."""
    return np.array([[np.mean(r["crps"]), r["crps"][-1]] for r in records], np.float64)


def _of_system(system: str, records: list[Record]) -> dict[str, Any]:
    """Averages over the trajectories; none where members diverged on one of them."""
    size = records[0]["members"]
    row: dict[str, Any] = {
        "members": size,
        "sees": "past" if system in FILTERS else "all",
        "diverged": sum(r["diverged"] for r in records),
        **{name: records[0][name] for name in ("evaluations", "derivatives", "forecasts")},
        "seconds": float(np.median([r["seconds"] for r in records])),
    }
    if row["diverged"]:
        return row
    for name, states in {"": slice(None), "last_": slice(-1, None)}.items():
        part = lambda score, states=states: float(np.mean([r[score][states] for r in records]))
        square, variance = part("square"), part("variance")
        # The mean of the LETKF's members is its analysis, that of draws a sample's.
        error = square - (variance / size if system in LEARNED else 0.0)
        row[f"{name}rmse"] = max(error, 0.0) ** 0.5
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
    }


NOTE = (
    "Errors of the velocity, in its standard deviations, of all states and of the last. A system "
    "sees the whole trajectory, or the past of each state. RMSE: of draws, extrapolated to "
    "infinitely many. CRPS: of a single state, its mean absolute error. Misfit: mean square "
    "departure from the observations over that of their errors; 1 is the truth's. Small scales: "
    f"energy of zonal wavenumbers from {SMALL} on, over the truth's. W1: of the vorticity, "
    "in its units."
)
COLUMNS = {
    "members": "members",
    "sees": "sees",
    "rmse": "RMSE",
    "crps": "CRPS",
    "spread_skill": "spread/skill",
    "last_rmse": "RMSE, last",
    "last_crps": "CRPS, last",
    "misfit": "misfit",
    "small_scales": "small scales",
    "w1": "W1",
}
COST = {
    "evaluations": "network evaluations",
    "derivatives": "their derivatives",
    "forecasts": "intervals of the model",
    "seconds": "seconds",
}


def tables(scores: dict[str, Any]) -> list[Table]:
    """Scores, differences and cost of each problem."""
    found = []
    for problem, systems in scores["problems"].items():
        title, count = problem.capitalize(), scores["trajectories"]
        rows = []
        for system, of in systems.items():
            row = [of.get(name) for name in COLUMNS]
            if of["diverged"]:
                row[2] = f"diverged on {of['diverged']}"
            rows.append([system, *row])
        note = f"{count} trajectories. {NOTE}"
        found.append(Table(title, ["System", *COLUMNS.values()], rows, note))
        rows = []
        for system, of in systems.items():
            if "score_less_this" in of:
                every, last = difference_cells(of["score_less_this"])
                rows.append([system, "" if of["sees"] == "past" else every, last])
        if rows:
            note = (
                "Negative: the trained model is better. Half-widths of 95 % intervals, bold beyond "
                "chance; filters are compared where they have seen as much."
            )
            header = ["System", "all states", "last state"]
            found.append(Table(f"{title}: CRPS of score, less that of others", header, rows, note))
        rows = [[system, *(of[name] for name in COST)] for system, of in systems.items()]
        note = (
            "Evaluations of a trajectory, each of all its windows, for a draw; intervals between "
            "two states for all members, tangents and adjoints included."
        )
        found.append(Table(f"{title}: cost of an analysis", ["System", *COST.values()], rows, note))
    return found


def draw_spectra(scores: dict[str, Any], path: Path) -> None:
    """Spectra of the draws beside those of the truth, a panel for each problem."""
    problems = scores["problems"]
    figure = new_figure(3.2 * len(problems), 3.6)
    axes = figure.subplots(1, len(problems), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (problem, systems) in zip(axes, problems.items(), strict=True):
        looks = dict(zip(systems, palette(len(systems)), strict=True))
        finite = {name: of for name, of in systems.items() if not of["diverged"]}
        for number, (system, of) in enumerate(finite.items()):
            wavenumber, look = np.arange(1, len(of["spectrum"])), looks[system]
            if not number:
                true = of["true_spectrum"][1:]
                axis.loglog(wavenumber, true, color="black", lw=2.0, label="truth")
            style = {"color": look["color"], "ls": look["ls"], "lw": 1.2}
            axis.loglog(wavenumber, of["spectrum"][1:], label=system, **style)
        label_axis(axis, problem, "Zonal wavenumber", "Energy" if axis is axes[0] else "")
    legend_below(figure, axes[0])
    save(figure, path)


def draw_maps(records: dict[tuple[str, str], list[Record]], path: Path) -> None:
    """Vorticity of the last state of the first trajectory: the truth's, and of a draw of each."""
    problems, systems = ([*dict.fromkeys(k[i] for k in records)] for i in (0, 1))
    figure = new_figure(1.5 * (1 + len(systems)), 1.6 * len(problems))
    axes = figure.subplots(len(problems), 1 + len(systems), squeeze=False)
    for row, problem in zip(axes, problems, strict=True):
        first = {system: records[problem, system][0] for system in systems}
        shown = {name: r["map"] for name, r in first.items() if not r["diverged"]}
        true = [r["true_map"] for r in first.values() if not r["diverged"]][:1]
        largest = np.abs(true).max() if true else 1.0
        for axis, name in zip(row, ("truth", *systems), strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(name, fontsize=8)
            field = true[0] if name == "truth" and true else shown.get(name)
            if field is not None:
                axis.imshow(field, origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest)
        row[0].set_ylabel(problem, fontsize=8)
    save(figure, path)


def _vorticity(velocity: Float[np.ndarray, "*n y x 2"]) -> Float[np.ndarray, "*n y x"]:
    return np.asarray(kolmogorov.vorticity(jnp.asarray(velocity)))


def _mean(values: Any) -> float:
    return float(np.mean(np.asarray(values, np.float64)))
