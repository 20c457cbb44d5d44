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
from slams_jax.models.saved import demo_model, load_model, save_model
from slams_jax.models.score import ScoreConfig
from slams_jax.models.train import StageConfig, networks_for, train_model

__all__ = [
    "AutoencoderConfig",
    "Model",
    "ModelArrays",
    "Networks",
    "ScoreConfig",
    "StageConfig",
    "decode",
    "demo_model",
    "encode",
    "load_model",
    "networks_for",
    "residual",
    "save_model",
    "train_model",
    "trajectory_prior",
]
