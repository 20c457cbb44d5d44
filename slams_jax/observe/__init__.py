"""Observations: operators, error covariances, streams and their likelihood."""

from slams_jax.observe.correlated import Dense, LowRank
from slams_jax.observe.covariance import Covariance, Diagonal, Separable, fit_separable
from slams_jax.observe.operators import (
    Chain,
    Coarsen,
    Identity,
    Points,
    Select,
    Stride,
    standard_pressure,
)
from slams_jax.observe.robust import Robust
from slams_jax.observe.streams import (
    Stream,
    innovation,
    log_likelihood,
    make_stream,
    pad_points,
    pad_times,
    whitened_innovations,
    without_gross_errors,
)

__all__ = [
    "Chain",
    "Coarsen",
    "Covariance",
    "Dense",
    "Diagonal",
    "Identity",
    "LowRank",
    "Points",
    "Robust",
    "Select",
    "Separable",
    "Stream",
    "Stride",
    "fit_separable",
    "innovation",
    "log_likelihood",
    "make_stream",
    "pad_points",
    "pad_times",
    "standard_pressure",
    "whitened_innovations",
    "without_gross_errors",
]
