"""The scores of an evaluation, as one dictionary and as tables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configuration.inputs import Inputs
from experiments.configuration.observations import Withheld
from experiments.configuration.settings import Settings
from experiments.evaluation.references import physical_statistics
from slams_jax.data import Censored
from slams_jax.models.denoising import GAUSSIAN, NETWORK, errors_on
from slams_jax.models.model import Model
from slams_jax.verify import metrics, summary
from slams_jax.verify.denoising import LOG_SNR, denoising_table
from slams_jax.verify.report import Table

SYSTEMS = ("background", "persistence", "climatology", "oi_analysis", "oi", "analysis")
LABELS = {
    "background": "background",
    "persistence": "persistence",
    "climatology": "climatology",
    "oi_analysis": "OI, deterministic",
    "oi": "OI",
    "analysis": "analysis",
}
COLUMNS = 4  # fewest longitudes for a spectrum
OCCURRENCE = "Occurrence of"  # begins the captions of such tables
EVENT = "warmer than the climatology by more than one climatological standard deviation"


def score(
    settings: Settings,
    model: Model,
    data: Inputs,
    times: np.ndarray,
    truth: np.ndarray,
    systems: dict[str, np.ndarray],
    withheld: list[Withheld],
    climate: np.ndarray,
) -> dict[str, Any]:
    """All scores of all systems: docs/verification.md explains each."""
    grid = data.archive.grid
    weights, std = grid.area_weights(), np.asarray(physical_statistics(model, data).std)
    scores: dict[str, Any] = {
        "levels": [c.level for c in model.channels],
        "variables": [c.variable for c in model.channels],
        **summary.field_scores(truth, systems, weights, std),
        "reconstruction_rmse": _reconstruction_rmse(model, weights).tolist(),
        "climatological_std": std.tolist(),
    }
    key = jax.random.key(settings.seed)
    ensembles = {n: systems[n] for n in ("oi", "analysis") if n in systems}
    for name, members in ensembles.items():
        scores[name] |= summary.ensemble_scores(key, truth, members, weights, std, climate)
    regions = metrics.regions_of(grid)
    scores["regions"] = summary.regional_scores(truth, systems, weights, regions)
    scores["significance"] = summary.significance(truth, systems, weights, times=times)
    scores["events"] = {
        "event": EVENT,
        **summary.event_reliability(truth, ensembles, weights, climate + std),
    }
    if model.transforms:
        scores["occurrence"] = {
            str(channel): summary.occurrence_scores(
                truth[..., i],
                {name: members[..., i] for name, members in systems.items()},
                weights,
                thresholds,
            )
            for i, channel in enumerate(model.channels)
            if (thresholds := _thresholds(model.transforms[i]))
        }
    if grid.shape[1] >= COLUMNS:
        scores["spectra"] = summary.spectral_scores(
            truth, systems, weights, climate, periodic=grid.periodic
        )
    scores["denoising"] = {"log_snr": list(LOG_SNR)} | {
        name: np.asarray(values).tolist()
        for name, values in errors_on(
            model.networks, model.arrays, data, settings.assimilation.period
        ).items()
    }
    if withheld:
        scores["stations"] = _at_stations(systems, withheld)
    return scores


def _thresholds(transform: Censored | None) -> tuple[float, ...]:
    """Amounts whose exceedance is scored: none at all, and two in the units of its scale."""
    if transform is None:
        return ()
    return tuple(sorted({transform.trace, transform.scale, 10.0 * transform.scale}))


def _reconstruction_rmse(model: Model, weights: np.ndarray) -> np.ndarray:
    """Of each channel, in standard deviations of its climate."""
    square = np.square(model.state_error / np.asarray(model.arrays.std)) * weights[None, ..., None]
    return np.sqrt(square.mean(axis=(0, 1, 2)))


def _at_stations(systems: dict[str, np.ndarray], withheld: list[Withheld]) -> dict[str, Any]:
    values = np.concatenate([w.values for w in withheld], axis=1)
    forecasts = {
        name: np.concatenate(
            [np.asarray(w.operator(jnp.asarray(members.mean(axis=0)))) for w in withheld],
            axis=1,
        )
        for name, members in systems.items()
    }
    return summary.station_scores(values, forecasts)


def level_rows(model: Model, columns: list[list[Any]]) -> list[list[Any]]:
    """A row for each channel."""
    return [[name, *values] for name, *values in zip(channel_names(model), *columns, strict=True)]


def channel_names(model: Model) -> list[str]:
    """Each channel by its level alone if there is one variable."""
    single = len({c.variable for c in model.channels}) == 1
    return [
        f"{c.level:g} hPa" if single and c.level is not None else str(c) for c in model.channels
    ]


def names_of(scores: dict[str, Any]) -> list[str]:
    """The systems that were scored, the analysis last."""
    return [n for n in SYSTEMS if n in scores]


def score_table(model: Model, scores: dict[str, Any]) -> Table:
    """A row for each channel and one for the withheld stations."""
    names = names_of(scores)
    ensembles = [n for n in names if n in ("oi", "analysis")]
    header = ["Level", *(f"RMSE {LABELS[n]}" for n in names)]
    columns: list[list[float]] = [scores[n]["rmse"] for n in names]
    for label, key in (("CRPS", "crps"), ("spread/skill", "spread_skill")):
        header += [f"{label} {n}" for n in ensembles]
        columns += [scores[n][key] for n in ensembles]
    header += ["bias", "W1", "reconstruction"]
    columns += [scores["analysis"][k] for k in ("bias", "w1")] + [scores["reconstruction_rmse"]]
    rows, note = level_rows(model, columns), ""
    if "stations" in scores:
        stations = scores["stations"]
        note = f" The stations have {stations['analysis']['count']} values."
        values = [stations[n]["rmse"] for n in names]
        rows.append(["withheld stations", *values, *[None] * (len(header) - 1 - len(names))])
    if not scores["significance"]["against"]:
        note += (
            f" Fewer than {scores['significance']['fewest']} times: differences have no interval."
        )
    return Table(
        "Scores by level",
        header,
        rows,
        "RMSE of the ensemble mean and fair CRPS, in the units of the variable; bias and W1 of the "
        f"analysis, W1 and the autoencoder's reconstruction in standard deviations.{note}",
    )


def region_table(model: Model, scores: dict[str, Any]) -> Table:
    """Scores over all channels in each region: root mean squares, in standard deviations."""
    header = ["Region", *(f"RMSE {LABELS[n]}" for n in names_of(scores))]
    header += ["CRPS analysis", "spread/skill analysis"]
    std = np.asarray(scores["climatological_std"])
    rms = lambda values: float(np.sqrt(np.mean(np.square(np.asarray(values) / std))))
    rows = []
    for region, found in scores["regions"].items():
        analysis = found["analysis"]
        rows.append(
            [
                region,
                *(rms(found[n]["rmse"]) for n in names_of(scores)),
                float(np.mean(np.asarray(analysis["crps"]) / std)),
                float(np.mean(analysis["spread_skill"])),
            ]
        )
    return Table(
        "Scores by region",
        header,
        rows,
        "Over all levels, each in standard deviations of its climate; spread/skill is the mean "
        "over the levels of the ratio of spread to error, 1 when calibrated.",
    )


def parts_table(model: Model, scores: dict[str, Any]) -> Table:
    """The decomposition of the CRPS by channel."""
    names = [n for n in names_of(scores) if "crps_parts" in scores[n]]
    kinds = ("reliability", "resolution")
    header = ["Level", "uncertainty", *(f"{kind} {n}" for kind in kinds for n in names)]
    columns = [scores["analysis"]["crps_parts"]["uncertainty"]]
    columns += [scores[n]["crps_parts"][kind] for kind in kinds for n in names]
    return Table(
        "Parts of the CRPS",
        header,
        level_rows(model, columns),
        "CRPS = reliability − resolution + uncertainty (Hersbach 2000), of departures from the "
        "climatology; smaller reliability and larger resolution are better.",
    )


def profile_table(scores: dict[str, Any]) -> Table:
    """Scores of whole profiles, all channels at once."""
    names = [n for n in names_of(scores) if "energy_score" in scores[n]]
    return Table(
        "Whole profiles",
        ["Ensemble", "energy score", "energy distance"],
        [[LABELS[n], scores[n]["energy_score"], scores[n]["energy_distance"]] for n in names],
        "All channels together, in standard deviations of the climate: the energy score is the "
        "CRPS of a profile; the energy distance compares all profiles of the ensemble with all "
        "true ones, regardless of location.",
    )


def occurrence_table(model: Model, scores: dict[str, Any], channel: str) -> Table:
    """Frequencies and Brier scores of a censored variable by system."""
    found = scores["occurrence"][channel]
    units = model.units.get(channel, "")
    index = channel_names(model).index(channel)
    above = [f"{t:g} {units}".strip() for t in found["thresholds"]]
    header = ["System", *(f"share above {t}" for t in above), *(f"Brier {t}" for t in above)]
    rows: list[list[Any]] = [["truth", *found["truth"]["frequency"], *[None] * (len(above) + 1)]]
    for name in names_of(scores):
        of = found[name]
        rows.append([LABELS[name], *of["frequency"], *of["brier"], scores[name]["crps"][index]])
    return Table(
        f"{OCCURRENCE} {channel}",
        [*header, f"CRPS ({units})"],
        rows,
        "Share of area and time above an amount, over all members, and fair Brier score of that "
        "event; what is not above the smallest amount is dry. CRPS is fair.",
    )


def significance_table(model: Model, scores: dict[str, Any]) -> Table:
    """Analysis minus each reference by channel, with intervals and p-values."""
    found = scores["significance"]
    header, columns = ["Level"], []
    for name, of in found["against"].items():
        header += [f"from {LABELS[name]}", "low", "high", "p"]
        columns += [of["rmse"][k] for k in ("difference", "low", "high")]
        columns.append([f"{p:.4f}" for p in of["rmse"]["p_value"]])
    independent = [n for of in found["against"].values() for n in of["rmse"]["independent"]]
    return Table(
        "RMSE of the analysis minus that of each reference",
        header,
        level_rows(model, columns),
        f"Negative: the analysis is better. {found['confidence']:.0%} intervals and two-sided "
        "p-values of the mean of a correlated series; the times count as "
        f"{min(independent):.0f} to {max(independent):.0f} independent ones.",
    )


def stream_table(scores: dict[str, Any]) -> Table:
    """Fit of the analysis to each stream of observations."""
    keys = (
        "count",
        "innovation_rms",
        "residual_rms",
        "innovation_mean",
        "residual_mean",
        "chi_squared",
        "degrees_of_freedom",
        "fit",
        "spread",
    )
    header = [
        "Stream",
        "values",
        "RMS before",
        "RMS after",
        "mean before",
        "mean after",
        "χ² / n",
        "degrees of freedom",
        "fit",
        "spread",
    ]
    streams = [
        s | {"degrees_of_freedom": round(s["degrees_of_freedom"])} for s in scores["streams"]
    ]
    return Table(
        "Innovation statistics",
        header,
        [[s["name"], *(s[k] for k in keys)] for s in streams],
        "Observation minus background (before) and minus analysis mean (after), in the units of "
        "the observations; fit is χ² over its expected value, and spread is the ensemble's over "
        "that implied by innovations (Desroziers et al. 2005): both are 1 for correct errors.",
    )


def tables(model: Model, scores: dict[str, Any]) -> list[Table]:
    """All tables, the scores by level first; significance only with enough times."""
    found = [score_table(model, scores), region_table(model, scores)]
    found += [profile_table(scores), parts_table(model, scores)]
    found += [occurrence_table(model, scores, c) for c in scores.get("occurrence", {})]
    errors = {name: scores["denoising"][name] for name in (NETWORK, GAUSSIAN)}
    found.append(denoising_table(errors))
    if scores["significance"]["against"]:
        found.append(significance_table(model, scores))
    return [*found, stream_table(scores)] if scores["streams"] else found
