"""Diffusion: noise schedule, guidance, solvers and the sampler."""

from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.diffusion.grids import time_grid
from slams_jax.diffusion.guidance import guide
from slams_jax.diffusion.presets import GuidanceConfig, Preset, preset
from slams_jax.diffusion.refinement import Refined, RefinementConfig, refine
from slams_jax.diffusion.sampler import (
    DrawInfo,
    SamplerConfig,
    equal_parts,
    evaluations,
    sample,
    sample_ensemble,
    sample_with_info,
)
from slams_jax.diffusion.schedule import CosineSchedule, target, to_denoised, to_score
from slams_jax.diffusion.solvers import ExponentialSolver, PredictorCorrector
from slams_jax.diffusion.weights import Certificate, certify, resample

__all__ = [
    "Certificate",
    "CosineSchedule",
    "DrawInfo",
    "ExponentialSolver",
    "GuidanceConfig",
    "PredictorCorrector",
    "Preset",
    "Refined",
    "RefinementConfig",
    "SamplerConfig",
    "certify",
    "equal_parts",
    "evaluations",
    "guide",
    "preset",
    "refine",
    "resample",
    "sample",
    "sample_ensemble",
    "sample_with_info",
    "target",
    "time_grid",
    "to_denoised",
    "to_score",
    "trajectory_denoiser",
]
