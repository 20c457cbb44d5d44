"""Scores over all windows, differences with their intervals, and the tables."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.compare.systems import System
from experiments.evaluation.references import Study, physical_statistics
from experiments.evaluation.scores import channel_names
from slams_jax.verify import summary
from slams_jax.verify.metrics import paired_difference
from slams_jax.verify.report import Table, chapters, difference_cells
from slams_jax.verify.significance import FEWEST

Record = dict[str, Any]


def scores(
    study: Study,
    systems: dict[str, System],
    times: list[str],
    records: dict[str, list[Record]],
) -> dict[str, Any]:
    """All scores, by system and region, and differences of the network from other systems.

    A classical method is the best if its RMSE, corrected for the number of members, is the smallest
    on average over levels in climatological standard deviations. A network is compared with the
    best of those that are given no more than it (a filter with filters), with the model's Gaussian
    surrogate of the same kind, and with itself given fewer of its latent inputs.
    """
    std = np.asarray(physical_statistics(study.model, study.data).std, np.float64)
    found = {name: _of_system(system, records[name]) for name, system in systems.items()}
    mean = lambda name: float(np.mean(whole(found[name])["rmse"] / std))
    differences = []
    for name in (n for n, s in systems.items() if not s.baseline):
        for other, opponent in _opponents(systems, name, mean):
            between = _differences(records[name], records[other], np.array(times, "datetime64[m]"))
            differences.append({"system": name, "from": other, "opponent": opponent, **between})
    listed = {
        name: {
            **of,
            "regions": {
                region: {k: _list(v) for k, v in values.items()}
                for region, values in of["regions"].items()
            },
        }
        for name, of in found.items()
    }
    return {
        "times": times,
        "fewest": FEWEST,
        "channels": channel_names(study.model),
        "climatological_std": std.tolist(),
        "systems": listed,
        "differences": differences,
    }


def _opponents(
    systems: dict[str, System], name: str, error: Callable[[str], float]
) -> list[tuple[str, str]]:
    """What a network is compared with, and as what."""
    own = systems[name]
    surrogate = f"surrogate {own.sees}"
    fair = [
        other
        for other, s in systems.items()
        if s.baseline and own.knows(s) and not s.kind.startswith("surrogate")
    ]
    found = [(min(fair, key=error), "the best classical method")] if fair else []
    for other, s in systems.items():
        if s.kind == surrogate and s.inputs == own.inputs:
            found.append((other, "its Gaussian surrogate"))
        elif s.kind == own.kind and s.inputs < own.inputs:
            found.append((other, f"itself without {' and '.join(sorted(own.inputs - s.inputs))}"))
    return found


def _of_system(system: System, records: list[Record]) -> dict[str, Any]:
    """Averages over windows before roots; the RMSE is that of infinitely many members."""
    size = records[0]["members"]
    regions = {}
    for region in records[0]["regions"]:
        square, crps = (_series(records, region, k).mean(axis=0) for k in ("square", "crps"))
        error = _corrected(records, region).mean(axis=0)
        regions[region] = {
            "rmse": np.sqrt(np.maximum(error, 0.0)),
            "rmse_of_mean": np.sqrt(square),
            "crps": crps,
        }
        if size > 1:
            variance = _series(records, region, "variance").mean(axis=0)
            regions[region] |= {
                "spread": np.sqrt(variance),
                "spread_skill": np.sqrt((size + 1) / size * variance / square),
            }
    errors = np.array([r["stations"] for r in records], np.float64)
    count = int(np.isfinite(errors).sum())
    stations = float(np.sqrt(np.nanmean(errors**2))) if count else None
    return {
        "sees": system.sees,
        "baseline": system.baseline,
        "members": size,
        "regions": regions,
        "stations": {"rmse_of_mean": stations, "count": count},
    }


def _series(records: list[Record], region: str, score: str) -> np.ndarray:
    """One score in a region (window, channel)."""
    return np.array([r["regions"][region][score] for r in records], np.float64)


def _corrected(records: list[Record], region: str) -> np.ndarray:
    """Square errors of the mean less its sampling variance (`metrics.asymptotic_rmse`)."""
    square, size = _series(records, region, "square"), records[0]["members"]
    return square if size == 1 else square - _series(records, region, "variance") / size


def _differences(ours: list[Record], theirs: list[Record], times: np.ndarray) -> dict[str, Any]:
    """By channel on the complete grid, with intervals if there are enough windows."""
    region = next(iter(ours[0]["regions"]))
    found = {}
    for name, root in (("rmse", True), ("crps", False)):
        one, two = (
            _corrected(r, region) if root else _series(r, region, "crps") for r in (ours, theirs)
        )
        if len(one) >= FEWEST:
            found[name] = summary.listed(paired_difference(one, two, times=times, root=root))
        else:
            means = [np.maximum(x.mean(axis=0), 0.0) for x in (one, two)]
            means = [np.sqrt(m) for m in means] if root else means
            found[name] = {"difference": _list(means[0] - means[1])}
    return found


def text(study: Study, scores: dict[str, Any]) -> str:
    """All tables in Markdown."""
    return chapters(tables(scores))


def tables(scores: dict[str, Any]) -> list[Table]:
    """By level, by region, at stations, and the differences from other systems."""
    std = np.array(scores["climatological_std"])
    systems, channels = scores["systems"], scores["channels"]
    days = f"{len(scores['times'])} analyses from {scores['times'][0]} to {scores['times'][-1]}."
    found = []
    for title, score, note in (
        ("RMSE by level", "rmse", "Of infinitely many members; the mean in standard deviations."),
        ("CRPS by level", "crps", "Fair; the mean in standard deviations."),
        ("Spread/skill by level", "spread_skill", "1 when calibrated."),
    ):
        rows = []
        for name, of in systems.items():
            values = whole(of).get(score)
            if values is not None:
                scale = 1.0 if score == "spread_skill" else std
                mean = float(np.mean(np.array(values, np.float64) / scale))
                rows.append([name, of["sees"], *values, mean])
        found.append(Table(title, ["System", "sees", *channels, "mean"], rows, f"{note} {days}"))
    found.append(_regions(scores, std))
    if any(of["stations"]["count"] for of in systems.values()):
        rows = [
            [name, of["sees"], of["stations"]["rmse_of_mean"], of["stations"]["count"]]
            for name, of in systems.items()
        ]
        note = "RMSE of the mean of the members, observation error included."
        found.append(Table("Withheld stations", ["System", "sees", "RMSE", "values"], rows, note))
    return found + [_difference_table(scores, k) for k in ("rmse", "crps") if scores["differences"]]


def _regions(scores: dict[str, Any], std: np.ndarray) -> Table:
    systems = scores["systems"]
    names = list(next(iter(systems.values()))["regions"])
    rms = lambda values: float(np.sqrt(np.mean(np.square(np.array(values, np.float64) / std))))
    rows = [
        [name, of["sees"], *(rms(of["regions"][r]["rmse"]) for r in names)]
        for name, of in systems.items()
    ]
    return Table(
        "RMSE by region",
        ["System", "sees", *names],
        rows,
        "Root mean square over levels, in climatological standard deviations.",
    )


def _difference_table(scores: dict[str, Any], score: str) -> Table:
    rows = []
    for of in scores["differences"]:
        rows.append([of["system"], of["from"], *difference_cells(of[score])])
    enough = len(scores["times"]) >= scores["fewest"]
    note = (
        "Negative: the network is better. Compared with the best classical method that is given no "
        "more, with the model's Gaussian surrogate and with itself given less; half-widths of 95 % "
        "intervals, bold where zero lies outside."
        if enough
        else f"Fewer than {scores['fewest']} analyses have no intervals."
    )
    return Table(
        f"Differences in {score.upper()}",
        ["System", "from", *scores["channels"]],
        rows,
        note,
    )


def whole(of: dict[str, Any]) -> dict[str, Any]:
    """The scores of the complete grid."""
    return next(iter(of["regions"].values()))


def _list(values: Any) -> list[float]:
    return [float(v) for v in np.asarray(values)]
