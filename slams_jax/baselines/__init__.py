"""Classical methods on the same observations, to compare with."""

from slams_jax.baselines.optimal_interpolation import (
    optimal_interpolation,
    optimal_interpolation_ensemble,
)

__all__ = ["optimal_interpolation", "optimal_interpolation_ensemble"]
