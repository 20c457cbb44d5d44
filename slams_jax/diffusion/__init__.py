"""Diffusion: schedule, guidance, solvers and the sampler."""

from slams_jax.diffusion.guidance import guide
from slams_jax.diffusion.sampler import SamplerConfig, sample, sample_ensemble, time_grid
from slams_jax.diffusion.schedule import CosineSchedule, target, to_denoised, to_score
from slams_jax.diffusion.solvers import ExponentialTwoStep

__all__ = [
    "CosineSchedule",
    "ExponentialTwoStep",
    "SamplerConfig",
    "guide",
    "sample",
    "sample_ensemble",
    "target",
    "time_grid",
    "to_denoised",
    "to_score",
]
