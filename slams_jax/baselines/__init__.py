"""Classical methods on the same observations, for comparison."""

from slams_jax.baselines.climatology import climatological_ensemble
from slams_jax.baselines.ensemble_kalman import (
    etkf,
    gaspari_cohn,
    iterative_enkf,
    letkf,
    stochastic_enkf,
)
from slams_jax.baselines.kalman import Smoothed, kalman_smoother
from slams_jax.baselines.linear import LinearAnalysis, LinearModel, fit_linear
from slams_jax.baselines.optimal_interpolation import (
    BackgroundCovariance,
    NonSeparable,
    fit_background,
    optimal_interpolation,
    optimal_interpolation_ensemble,
)
from slams_jax.baselines.particle_filter import (
    Particles,
    backward_simulation,
    particle_filter,
    regularised_filter,
    systematic_resampling,
)
from slams_jax.baselines.protocol import Baseline, Window
from slams_jax.baselines.simple import (
    Background,
    Climatology,
    OptimalInterpolation,
    Persistence,
    tuned,
)
from slams_jax.baselines.variational import hybrid, variational
from slams_jax.cycling import WeightedEnsemble

__all__ = [
    "Background",
    "BackgroundCovariance",
    "Baseline",
    "Climatology",
    "LinearAnalysis",
    "LinearModel",
    "NonSeparable",
    "OptimalInterpolation",
    "Particles",
    "Persistence",
    "Smoothed",
    "WeightedEnsemble",
    "Window",
    "backward_simulation",
    "climatological_ensemble",
    "etkf",
    "fit_background",
    "fit_linear",
    "gaspari_cohn",
    "hybrid",
    "iterative_enkf",
    "kalman_smoother",
    "letkf",
    "optimal_interpolation",
    "optimal_interpolation_ensemble",
    "particle_filter",
    "regularised_filter",
    "stochastic_enkf",
    "systematic_resampling",
    "tuned",
    "variational",
]
