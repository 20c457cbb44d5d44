"""Classical methods on the same observations, for comparison."""

from slams_jax.baselines.climatology import climatological_ensemble
from slams_jax.baselines.kalman import Smoothed, kalman_smoother
from slams_jax.baselines.optimal_interpolation import (
    optimal_interpolation,
    optimal_interpolation_ensemble,
)
from slams_jax.baselines.particle_filter import Particles, particle_filter, systematic_resampling

__all__ = [
    "Particles",
    "Smoothed",
    "climatological_ensemble",
    "kalman_smoother",
    "optimal_interpolation",
    "optimal_interpolation_ensemble",
    "particle_filter",
    "systematic_resampling",
]
