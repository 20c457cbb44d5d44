"""Trained models: networks as pure functions, parameters, statistics, and how they are saved."""

from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.model import (
    Model,
    ModelArrays,
    Networks,
    decode,
    encode,
    residual,
    trajectory_prior,
)
from slams_jax.models.saved import load_model
from slams_jax.models.score import ScoreConfig

__all__ = [
    "AutoencoderConfig",
    "Model",
    "ModelArrays",
    "Networks",
    "ScoreConfig",
    "decode",
    "encode",
    "load_model",
    "residual",
    "trajectory_prior",
]
