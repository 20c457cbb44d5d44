"""Scores of analyses and ensembles against a truth: pure functions of arrays.

One convention serves fields and stations alike. The *last* axis is kept (a channel, a level or a
station) and every axis before it is averaged over; an ensemble has its members in front:

    forecast, truth   (..., channel)           e.g. (time, lat, lon, channel) or (time, station)
    members           (member, ..., channel)
    weights           the axes just before the last, e.g. (lat, lon): areas of cells, any scale

A score is the weighted mean  ⟨s⟩ = Σ wᵢ sᵢ / Σ wᵢ  over the points i where the truth is finite:
missing truth (NaN) is left out, a missing *forecast* at such a point makes the score NaN, and a
channel with no truth at all scores NaN. Scores carry the units of the truth; divided by
`climatological_std` they are in standard deviations of the climate.

Sums are of errors, never of the values themselves, so that float32 is enough for any length: 250 K
is not squared and subtracted again. Averages over time and area come before the root (Fortin et
al. 2014), not after.

The scores stand in `deterministic`, `probabilistic`, `reliability`, `distances`, `spectra`,
`regions` and `significance`; this is the one place to import them from.
"""

from slams_jax.verify.deterministic import bias, climatological_std, count, mae, rmse
from slams_jax.verify.distances import energy_distance, wasserstein
from slams_jax.verify.points import AnyArray, Members, Points, Score, Weights
from slams_jax.verify.probabilistic import (
    crps,
    energy_score,
    flatness,
    rank_histogram,
    spread,
    spread_skill,
)
from slams_jax.verify.regions import regions_of
from slams_jax.verify.reliability import (
    CrpsParts,
    Reliability,
    binned_spread_skill,
    crps_decomposition,
    reliability_curve,
)
from slams_jax.verify.significance import Difference, paired_difference
from slams_jax.verify.spectra import zonal_spectrum

__all__ = [
    "AnyArray",
    "CrpsParts",
    "Difference",
    "Members",
    "Points",
    "Reliability",
    "Score",
    "Weights",
    "bias",
    "binned_spread_skill",
    "climatological_std",
    "count",
    "crps",
    "crps_decomposition",
    "energy_distance",
    "energy_score",
    "flatness",
    "mae",
    "paired_difference",
    "rank_histogram",
    "regions_of",
    "reliability_curve",
    "rmse",
    "spread",
    "spread_skill",
    "wasserstein",
    "zonal_spectrum",
]
