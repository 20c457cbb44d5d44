"""Diffusion: schedule, guidance, solvers and the sampler."""

from slams_jax.diffusion.schedule import CosineSchedule, target, to_denoised, to_score

__all__ = ["CosineSchedule", "target", "to_denoised", "to_score"]
