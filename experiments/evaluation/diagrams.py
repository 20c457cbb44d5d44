"""Figures drawn from the scores alone."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.evaluation.scores import LABELS, names_of
from slams_jax.schema import VARIABLES, Channel
from slams_jax.verify import diagrams as figures
from slams_jax.verify import plots

if TYPE_CHECKING:
    import matplotlib.figure

PANELS = 4  # levels drawn side by side
Made = tuple[str, "matplotlib.figure.Figure", str, str, str]  # stem, figure, topic, alt, caption


def diagrams(
    channels: Sequence[Channel], scores: dict[str, Any], *, periodic: bool
) -> Iterator[Made]:
    """Profiles, differences, spread, reliability and spectra of the first variable."""
    variable = channels[0].variable
    index = [i for i, c in enumerate(channels) if c.variable == variable]
    units = VARIABLES[variable].units
    levels = np.array([channels[i].level for i in index], np.float64)
    some = [index[i] for i in np.unique(np.linspace(0, len(index) - 1, PANELS).round().astype(int))]
    names = [f"{channels[i].level:g} hPa" for i in some]
    yield from _profiles(levels, index, scores, units)
    yield from _spread(levels, index, scores, units)
    yield from _by_level(some, names, scores, units)
    if "spectra" in scores:
        yield _spectra(some, names, scores["spectra"], units, periodic)


def _profiles(
    levels: np.ndarray, index: list[int], scores: dict[str, Any], units: str
) -> Iterator[Made]:
    pick = lambda name, score: np.array(scores[name][score], np.float64)[index]
    names = names_of(scores)
    yield (
        "profiles",
        plots.profiles(
            levels,
            {
                label: {name: pick(name, label.lower()) for name in names}
                for label in ("RMSE", "CRPS", "Bias")
            },
            spread=pick("analysis", "spread"),
            units=units,
        ),
        "scores",
        f"Profiles over pressure of RMSE, CRPS and bias of {_and(names)}, and of the spread of the "
        "analysis.",
        "Scores by level, averaged over time and area. The CRPS of the background, a single field, "
        "is its mean absolute error.",
    )
    against = scores["significance"]["against"]
    if against:
        near = {n: of for n, of in against.items() if n != "climatology"} or against
        differences = {
            score.upper(): {
                name: {
                    k: 100.0 * np.array(of[score][k], np.float64)[index] / pick(name, score)
                    for k in ("difference", "low", "high")
                }
                for name, of in near.items()
            }
            for score in ("rmse", "crps")
        }
        yield (
            "differences",
            figures.score_differences(levels, differences, units="%"),
            "scores",
            f"Differences of RMSE and CRPS of the analysis from {_and(list(near))} by level, with "
            "confidence intervals.",
            "Analysis minus reference, in per cent of the reference, with "
            f"{scores['significance']['confidence']:.0%} intervals for correlated times: the "
            "analysis is better left of zero.",
        )


def _spread(
    levels: np.ndarray, index: list[int], scores: dict[str, Any], units: str
) -> Iterator[Made]:
    pick = lambda name, score: np.array(scores[name][score], np.float64)[index]
    yield (
        "spread_skill",
        plots.spread_skill(
            levels,
            rmse=pick("analysis", "rmse"),
            spread=pick("analysis", "spread"),
            ratio=pick("analysis", "spread_skill"),
            units=units,
        ),
        "spread",
        "Spread and RMSE of the analysis by level, and their ratio.",
        "Spread and error of the analysis by level; the ratio is 1 for a calibrated ensemble.",
    )
    regions = {}
    for region, found in scores["regions"].items():
        regions[region] = {
            name: {
                "rmse": np.array(found[name]["rmse"])[index],
                # The spread as the ratio has it, with the factor for the number of members.
                "spread": np.array(found[name]["spread_skill"])[index]
                * np.array(found[name]["rmse"])[index],
            }
            for name in _ensembles(scores)
        }
    yield (
        "spread_regions",
        figures.spread_by_region(levels, regions, units=units),
        "spread",
        f"Spread and error by level of {_and(_ensembles(scores))} in {len(regions)} regions: "
        f"{', '.join(regions)}.",
        "Error of the ensemble mean (solid) and spread (dashed, with the factor for the number of "
        "members) by region: the lines coincide for a calibrated ensemble. The tropics extend to "
        "20 degrees.",
    )


def _by_level(
    some: list[int], names: list[str], scores: dict[str, Any], units: str
) -> Iterator[Made]:
    ensembles = _ensembles(scores)
    take = lambda rows: np.array(rows, np.float64)[some].T
    binned = {n: scores[n]["spread_skill_bins"] for n in ensembles}
    bins = {n: (take(found["spread"]), take(found["rmse"])) for n, found in binned.items()}
    yield (
        "spread_bins",
        figures.binned_spread(names, bins, units=units),
        "spread",
        f"RMSE against spread in ten bins of spread at {', '.join(names)}.",
        "Points sorted by spread, in bins of equal area: on the line, spread equals error. A small "
        "ensemble flattens the ends of the curve.",
    )
    yield (
        "rank_histogram",
        plots.rank_histograms(
            np.array([scores["analysis"]["rank_histogram"][i] for i in some]), names
        ),
        "spread",
        f"Rank histograms of the truth among the members of the analysis at {', '.join(names)}.",
        "Flat for a calibrated ensemble, U-shaped where it is too narrow. The band assumes "
        "independent points; neighbours are correlated, so some bars fall outside it.",
    )
    events = scores["events"]
    curves = {n: (take(events[n]["frequency"]), take(events[n]["share"])) for n in ensembles}
    probability = np.array(events["analysis"]["probability"])
    yield (
        "reliability",
        figures.reliability_diagram(names, probability, curves),
        "spread",
        f"Reliability diagrams at {', '.join(names)}: frequency of an event against its forecast "
        "probability.",
        f"The event: {events['event']}. On the line, probabilities are reliable; the area of a "
        "marker shows how often its probability was forecast.",
    )


def _spectra(
    some: list[int], names: list[str], found: dict[str, Any], units: str, periodic: bool
) -> Made:
    drawn = [n for n in ("truth", "background", "oi", "analysis") if n in found]
    curves = {
        name: {kind: np.array(power, np.float64)[some].T for kind, power in found[name].items()}
        for name in drawn
    }
    figure = figures.spectra(
        names,
        np.array(found["wavenumber"]),
        curves,
        units=units,
        xlabel="Zonal wavenumber" if periodic else "Half waves along a row",
    )
    return (
        "spectra",
        figure,
        "spectra",
        f"Spectra by zonal scale at {', '.join(names)}: truth and analyses above, errors and "
        "spread below.",
        "Above: power of departures from the climatology, in truth and members. Below: power of "
        "the error of the mean (solid) and of the spread (dashed), which coincide at every "
        "scale for a calibrated ensemble. Summed over scales, the error is the square of the RMSE.",
    )


def _ensembles(scores: dict[str, Any]) -> list[str]:
    return [n for n in names_of(scores) if "spread_skill_bins" in scores[n]]


def _and(names: Sequence[str]) -> str:
    labels = [LABELS[n] for n in names]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
