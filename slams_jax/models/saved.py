"""Trained models on disk."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.data import Statistics
from slams_jax.diffusion import CosineSchedule
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.model import Model, ModelArrays, Networks
from slams_jax.models.score import ScoreConfig
from slams_jax.observe import PriorCovariance, Separable
from slams_jax.schema import Channel
from slams_jax.training import restore_model

SCORE, AUTOENCODER = "score", "autoencoder"  # the folders of the two stages in a work directory


def describe(
    networks: Networks, grid: Grid, channels: Sequence[Channel], latent_inputs: Sequence[str]
) -> dict[str, Any]:
    """The static half of a model as JSON, from which `load_model` makes it again."""
    return {
        "schedule": dataclasses.asdict(networks.schedule),
        "score": dataclasses.asdict(networks.score),
        "autoencoder": networks.autoencoder and dataclasses.asdict(networks.autoencoder),
        "grid": dataclasses.asdict(grid),
        "channels": [[c.variable, c.level] for c in channels],
        "latent_inputs": list(latent_inputs),
    }


def load_model(directory: str | Path) -> Model:
    """Read what `experiments.train` left in `directory`.

    Raises:
        InputError: no trained model there.
    """
    directory = Path(directory)
    if not (directory / "score").is_dir():
        raise InputError(
            f"no trained model in {directory}: train one (python -m experiments.train "
            "--config=...), or check the path"
        )
    params, _, statistics, metadata = restore_model(directory / "score")
    about = metadata["model"]
    arrays = ModelArrays(
        std=statistics["fields"]["state"]["std"], score=params, prior=_prior(statistics["prior"])
    )
    encoder = None
    if about["autoencoder"] is not None:
        encoder = AutoencoderConfig(**_tuples(about["autoencoder"]))
        weights, model_state, _, _ = restore_model(directory / AUTOENCODER)
        arrays = arrays._replace(
            autoencoder=weights,
            model_state=model_state,
            latent_mean=statistics["latent_mean"],
            latent_std=statistics["latent_std"],
        )
    grid = Grid.of(about["grid"]["latitude"], about["grid"]["longitude"])
    networks = Networks(
        CosineSchedule(**about["schedule"]),
        ScoreConfig(**_tuples(about["score"])),
        encoder,
        grid.shape,
    )
    return Model(
        networks,
        grid,
        tuple(Channel(v, p) for v, p in about["channels"]),
        jax.tree.map(jnp.asarray, arrays),
        {n: Statistics(**s) for n, s in statistics["fields"].items()},
        np.asarray(statistics["state_error"]),
        np.asarray(statistics.get("increment_error", statistics["state_error"])),
        _error(statistics.get("background_error")),
        _error(statistics.get("latent_error")),
        tuple(about["latent_inputs"]),
    )


def _error(saved: Mapping[str, Any] | None) -> tuple[Separable, np.ndarray] | None:
    if not saved:
        return None
    return _separable(saved), np.asarray(saved["bias"])


def _prior(saved: Mapping[str, Any]) -> PriorCovariance:
    return PriorCovariance(_separable(saved["frame"]), jnp.asarray(saved["lags"]))


def _separable(saved: Mapping[str, Any]) -> Separable:
    return Separable(**{f.name: jnp.asarray(saved[f.name]) for f in dataclasses.fields(Separable)})


def _tuples(values: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(values, dict):
        return {k: _tuples(v) for k, v in values.items()}
    return tuple(_tuples(v) for v in values) if isinstance(values, list) else values
