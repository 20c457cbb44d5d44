"""From a trained model, a background and observations to an ensemble of analyses."""

from slams_jax.assimilation.analysis import ComputeConfig, assimilate
from slams_jax.assimilation.ensembles import HybridConfig, InversionConfig
from slams_jax.assimilation.inflation import Inflation, fit_inflation
from slams_jax.assimilation.observations import Observations
from slams_jax.assimilation.score_filter import score_filter

__all__ = [
    "ComputeConfig",
    "HybridConfig",
    "Inflation",
    "InversionConfig",
    "Observations",
    "assimilate",
    "fit_inflation",
    "score_filter",
]
