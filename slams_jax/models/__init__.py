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
from slams_jax.models.state_prior import StatePrior, gaussian_state_prior, train_state_prior
from slams_jax.models.train import StageConfig, networks_for, train_model

__all__ = [
    "AutoencoderConfig",
    "Model",
    "ModelArrays",
    "Networks",
    "ScoreConfig",
    "StageConfig",
    "StatePrior",
    "decode",
    "demo_model",
    "encode",
    "gaussian_state_prior",
    "load_model",
    "networks_for",
    "residual",
    "save_model",
    "train_model",
    "train_state_prior",
    "trajectory_prior",
]
