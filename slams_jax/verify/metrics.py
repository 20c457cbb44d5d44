"""Scores of analyses and ensembles against a truth: pure functions of arrays.

Fields and stations follow the same convention. The *last* axis is kept (channels, levels or
stations) and all axes before it are averaged over; an ensemble has its members in front:

    forecast, truth   (..., channel)           e.g. (time, lat, lon, channel) or (time, station)
    members           (member, ..., channel)
    weights           the axes just before the last, e.g. (lat, lon): areas of cells, any scale

A score is the weighted mean  ⟨s⟩ = Σ wᵢ sᵢ / Σ wᵢ  over the points i at which the truth is finite.
Missing truth (NaN) is ignored; a *forecast* that is missing where the truth is known makes the
score NaN, as does a channel without any truth. Scores have the units of the truth; divided by
`climatological_std` they are in climatological standard deviations.

Only errors are summed, never the values themselves, so that float32 suffices for any length: 250 K
is not squared and subtracted again. Averages over time and area are taken before the root (Fortin
et al. 2014), not after.

The scores are defined in `deterministic`, `probabilistic`, `reliability`, `distances`, `spectra`,
`regions` and `significance`; import them from here.
"""

from slams_jax.verify.deterministic import bias, climatological_std, count, mae, rmse
from slams_jax.verify.distances import energy_distance, wasserstein
from slams_jax.verify.points import AnyArray, Members, Points, Score, Weights
from slams_jax.verify.probabilistic import (
    asymptotic_rmse,
    brier,
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
    "asymptotic_rmse",
    "bias",
    "binned_spread_skill",
    "brier",
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
