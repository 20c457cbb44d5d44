"""All scores of an evaluation as plain dictionaries, ready for JSON.

docs/verification.md explains each score and its place in the dictionary.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from slams_jax.aliases import PRNGKey
from slams_jax.verify import metrics
from slams_jax.verify.significance import FEWEST

Ensemble = Float[np.ndarray, "member time lat lon channel"]


def field_scores(
    truth: Float[np.ndarray, "time lat lon channel"],
    systems: Mapping[str, Ensemble],
    weights: Float[np.ndarray, "lat lon"],
    std: Float[np.ndarray, " channel"] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Scores per channel, for each system.

    RMSE and bias of the mean and fair CRPS of the members; spread and its ratio to the error of
    ensembles; with `std` also W1.

    Args:
        truth: physical units, NaN where unknown.
        systems: ensembles by name; a single member is a deterministic system, whose CRPS is its
            mean absolute error.
        weights: areas.
        std: climatological standard deviations; W1 is of values divided by them, as in SLAMS.
    """
    return {name: _field(truth, members, weights, std) for name, members in systems.items()}


def _field(truth, members, weights, std) -> dict[str, list[float]]:
    mean = members.mean(axis=0)
    scores = {
        "rmse": _list(metrics.rmse(mean, truth, weights)),
        "bias": _list(metrics.bias(mean, truth, weights)),
        "crps": _list(metrics.crps(members, truth, weights)),
    }
    if len(members) > 1:
        scores["spread"] = _list(metrics.spread(members, truth, weights))
        scores["spread_skill"] = _list(metrics.spread_skill(members, truth, weights))
    if std is not None:
        scores["w1"] = _list(metrics.wasserstein(members / std, truth / std))
    return scores


def in_climatological_std(scores: Sequence[float], std: Float[np.ndarray, " channel"]) -> float:
    """The mean over channels of a score in their units, each divided by its standard deviation."""
    return float((np.asarray(scores, np.float64) / std).mean())


def ensemble_scores(
    key: PRNGKey,
    truth: Float[np.ndarray, "time lat lon channel"],
    members: Ensemble,
    weights: Float[np.ndarray, "lat lon"],
    std: Float[np.ndarray, " channel"],
    climate: Float[np.ndarray, "time lat lon channel"],
) -> dict[str, Any]:
    """What only an ensemble has: bins of spread, ranks, parts of its CRPS, energy distances.

    Args:
        key: for ties of ranks.
        truth: physical units.
        members: physical units.
        weights: areas.
        std: climatological standard deviations; the energy score and distance are of profiles
            divided by them.
        climate: climatology at the times of the truth; the parts of the CRPS and the energy
            distance are of departures from it.
    """
    counts = metrics.rank_histogram(key, members, truth)
    spread, error = metrics.binned_spread_skill(members, truth, weights)
    parts = metrics.crps_decomposition(members - climate, truth - climate, weights)
    return {
        "spread_skill_bins": {"spread": _nested(spread.T), "rmse": _nested(error.T)},
        "rank_histogram": np.asarray(counts).tolist(),
        "crps_parts": {name: _list(part) for name, part in parts._asdict().items()},
        "energy_score": float(metrics.energy_score(members / std, truth / std, weights)),
        "energy_distance": metrics.energy_distance(
            (members - climate) / std, (truth - climate) / std
        ),
    }


def regional_scores(
    truth: Float[np.ndarray, "time lat lon channel"],
    systems: Mapping[str, Ensemble],
    weights: Float[np.ndarray, "lat lon"],
    regions: Mapping[str, Bool[np.ndarray, "lat lon"]],
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """`field_scores` in each region.

    Args:
        truth: physical units, NaN where unknown.
        systems: ensembles by name.
        weights: areas.
        regions: masks by name, of `metrics.regions_of`.
    """
    return {
        region: field_scores(truth, systems, weights * mask) for region, mask in regions.items()
    }


def spectral_scores(
    truth: Float[np.ndarray, "time lat lon channel"],
    systems: Mapping[str, Ensemble],
    weights: Float[np.ndarray, "lat lon"],
    climate: Float[np.ndarray, "time lat lon channel"],
    *,
    periodic: bool,
) -> dict[str, Any]:
    """Zonal spectra of departures from the climatology, errors of the mean, and spread.

    Args:
        truth: physical units, NaN where unknown.
        systems: ensembles by name.
        weights: areas.
        climate: climatology at the times of the truth.
        periodic: whether the grid goes around the globe.

    Returns:
        `wavenumber`; `power` of `truth` and each system (the mean over its members), `error` of
        each system, and `spread` of ensembles, each (channel, wavenumber). The spread includes the
        factor (M + 1)/M that makes it equal to the error of a calibrated ensemble.
    """
    spectrum = lambda x: metrics.zonal_spectrum(x, weights, periodic=periodic)
    power = spectrum(truth - climate)
    spectra: dict[str, Any] = {
        "wavenumber": list(range(len(power))),
        "truth": {"power": _nested(power.T)},
    }
    for name, members in systems.items():
        mean, size = members.mean(axis=0), len(members)
        spectra[name] = {
            "power": _nested(spectrum(members - climate).T),
            "error": _nested(spectrum(mean - truth).T),
        }
        if size > 1:
            spread = spectrum(members - mean) * (size + 1) / (size - 1)
            spectra[name]["spread"] = _nested(spread.T)
    return spectra


def event_reliability(
    truth: Float[np.ndarray, "time lat lon channel"],
    systems: Mapping[str, Ensemble],
    weights: Float[np.ndarray, "lat lon"],
    threshold: Float[np.ndarray, "time lat lon channel"],
) -> dict[str, dict[str, Any]]:
    """Reliability curve of each ensemble for the event that the truth exceeds a threshold.

    Returns:
        For each ensemble of more than one member: `probability` (M + 1,), `frequency` and `share`
        (channel, M + 1).
    """
    curves = {}
    for name, members in systems.items():
        if len(members) > 1:
            curve = metrics.reliability_curve(members, truth, threshold, weights)
            curves[name] = {
                "probability": _list(curve.probability),
                "frequency": _nested(np.asarray(curve.frequency).T),
                "share": _nested(np.asarray(curve.share).T),
            }
    return curves


def occurrence_scores(
    truth: Float[np.ndarray, "time lat lon"],
    systems: Mapping[str, Float[np.ndarray, "member time lat lon"]],
    weights: Float[np.ndarray, "lat lon"],
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """How often an amount, such as that of rain, exceeds thresholds, and how well that is foretold.

    Args:
        truth: physical units, NaN where unknown.
        systems: ensembles by name.
        weights: areas.
        thresholds: likewise in physical units.

    Returns:
        `thresholds`; `frequency` of the truth; `frequency` and fair `brier` score of each system,
        each (threshold,).
    """
    wide = lambda x: np.repeat(x[..., None], len(thresholds), axis=-1)
    level, known = np.asarray(thresholds, np.float32), np.isfinite(truth)
    area = np.broadcast_to(weights, truth.shape) * known
    often = lambda x: [float(np.average((x > t).mean(axis=0), weights=area)) for t in level]
    y = wide(truth)
    scores: dict[str, Any] = {
        "thresholds": list(thresholds),
        "truth": {"frequency": often(truth[None])},
    }
    for name, members in systems.items():
        brier = metrics.brier(wide(members), y, np.broadcast_to(level, y.shape), weights)
        scores[name] = {"frequency": often(members), "brier": _list(brier)}
    return scores


def significance(
    truth: Float[np.ndarray, "time lat lon channel"],
    systems: Mapping[str, Ensemble],
    weights: Float[np.ndarray, "lat lon"],
    *,
    times: np.ndarray | None = None,
    of: str = "analysis",
    confidence: float = 0.95,
) -> dict[str, Any]:
    """RMSE and CRPS of one system minus those of the others, with intervals and p-values.

    Times with a missing score are ignored. If fewer than `fewest` remain, there is no interval and
    `against` is empty.

    Args:
        truth: physical units, NaN where unknown.
        systems: ensembles by name.
        weights: areas.
        times: as `paired_difference` takes them.
        of: the system that is compared with the others.
        confidence: of the intervals.

    Returns:
        `confidence`, `fewest`, and `against`: for each reference and "rmse" or "crps",
        `difference`, `low`, `high`, `p_value` and `independent`, the effective number of
        independent times (channel,).
    """
    square = lambda x, y: jnp.square(metrics.rmse(x.mean(axis=0), y, weights))
    crps = lambda x, y: metrics.crps(x, y, weights)
    against: dict[str, dict[str, Any]] = {}
    for name, score, root in (("rmse", square, True), ("crps", crps, False)):
        each = {
            system: np.asarray(jax.vmap(score, in_axes=(1, 0))(members, truth), np.float64)
            for system, members in systems.items()
        }
        for reference in (r for r in systems if r != of):
            keep = np.isfinite(each[of] + each[reference]).all(axis=1)
            if keep.sum() < FEWEST:
                continue
            value = metrics.paired_difference(
                each[of][keep],
                each[reference][keep],
                times=None if times is None else times[keep],
                root=root,
                confidence=confidence,
            )
            against.setdefault(reference, {})[name] = listed(value)
    return {"confidence": confidence, "fewest": FEWEST, "against": against}


def listed(difference: metrics.Difference) -> dict[str, list[float]]:
    """A difference of scores for JSON, its value under the name `difference` (channel,)."""
    fields = {name: _list(values) for name, values in difference._asdict().items()}
    return {"difference": fields.pop("value"), **fields}


def station_scores(
    values: Float[np.ndarray, "time station"],
    forecasts: Mapping[str, Float[np.ndarray, "time station"]],
) -> dict[str, dict[str, Any]]:
    """RMSE and number of values at stations, in total and for each, by system."""
    count = np.isfinite(values).sum(axis=0)
    result = {}
    for name, forecast in forecasts.items():
        each = metrics.rmse(forecast, values)
        overall = metrics.rmse(forecast.reshape(-1, 1), values.reshape(-1, 1))
        result[name] = {
            "rmse": float(overall[0]),
            "count": int(count.sum()),
            "station_rmse": _list(each),
            "station_count": count.tolist(),
        }
    return result


def without_nan(value: Any) -> Any:
    """Nested dictionaries and lists with None in place of NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nested(values: np.ndarray) -> list[list[float]]:
    return [_list(row) for row in values]


def _list(values: jax.Array | np.ndarray | Sequence[float]) -> list[float]:
    return [float(v) for v in np.asarray(values)]
