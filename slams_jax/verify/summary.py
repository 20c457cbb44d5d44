"""All scores of an evaluation as one plain dictionary, ready to be written as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from slams_jax.aliases import PRNGKey
from slams_jax.verify import metrics

Ensemble = Float[np.ndarray, "member time lat lon channel"]


def field_scores(
    truth: Float[np.ndarray, "time lat lon channel"],
    systems: Mapping[str, Ensemble],
    weights: Float[np.ndarray, "lat lon"],
) -> dict[str, dict[str, list[float]]]:
    """RMSE and bias of the mean, fair CRPS of the members: per channel, for each system.

    Args:
        truth: physical units, NaN where unknown.
        systems: ensembles by name; one member is a deterministic system, whose CRPS is its mean
            absolute error.
        weights: areas.
    """
    return {
        name: {
            "rmse": _list(metrics.rmse(members.mean(axis=0), truth, weights)),
            "bias": _list(metrics.bias(members.mean(axis=0), truth, weights)),
            "crps": _list(metrics.crps(members, truth, weights)),
        }
        for name, members in systems.items()
    }


def ensemble_scores(
    key: PRNGKey,
    truth: Float[np.ndarray, "time lat lon channel"],
    members: Ensemble,
    weights: Float[np.ndarray, "lat lon"],
    std: Float[np.ndarray, " channel"],
) -> dict[str, Any]:
    """What only an ensemble has: spread, spread-skill ratio, rank histogram, W1 per channel.

    Args:
        key: breaks ties of ranks.
        truth: physical units.
        members: likewise.
        weights: areas.
        std: climatological standard deviations: W1 is of values divided by them, as in SLAMS.
    """
    counts = metrics.rank_histogram(key, members, truth)
    return {
        "spread": _list(metrics.spread(members, truth, weights)),
        "spread_skill": _list(metrics.spread_skill(members, truth, weights)),
        "rank_histogram": np.asarray(counts).tolist(),
        "w1": _list(metrics.wasserstein(members / std, truth / std)),
    }


def station_scores(
    values: Float[np.ndarray, "time station"],
    forecasts: Mapping[str, Float[np.ndarray, "time station"]],
) -> dict[str, dict[str, Any]]:
    """RMSE and number of values at stations: over all, and of each, for each system."""
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


def _list(values: jax.Array | Sequence[float]) -> list[float]:
    return [float(v) for v in np.asarray(values)]
