"""References for an analysis: background, climatology, optimal interpolation."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.settings import Settings
from slams_jax.assimilation.observations import Observations, to_stream
from slams_jax.baselines import climatological_ensemble, optimal_interpolation_ensemble
from slams_jax.data import climatology
from slams_jax.data.channels import stack_channels
from slams_jax.errors import InputError
from slams_jax.models.model import Model

CLIMATE_MEMBERS = 50


def climate_of(model: Model, data: Inputs, frames: np.ndarray) -> np.ndarray:
    """Climatology at the times of the analysis (time, lat, lon, channel)."""
    shape = data.archive.fields[STATE].array.shape[1:]
    climate = climatology(model.statistics[STATE], data.archive.times[frames])
    return np.broadcast_to(climate, (len(frames), *shape))


def training_anomalies(data: Inputs, count: int) -> np.ndarray:
    """Departures from the climatology on about `count` training days, physical units."""
    train = data.frames("train")
    some = train[:: max(1, len(train) // count)]
    return data.standardised(STATE, some) * data.statistics[STATE].std


def references(
    settings: Settings,
    model: Model,
    data: Inputs,
    frames: np.ndarray,
    observations: list[Observations],
    climate: np.ndarray,
) -> dict[str, np.ndarray]:
    """Background, climatology and optimal interpolation, as ensembles by name."""
    anomalies = training_anomalies(data, 500)
    systems = {
        "climatology": climatological_ensemble(
            anomalies,
            climate,
            members=min(CLIMATE_MEMBERS, len(anomalies)),
            seed=settings.seed,
        )
    }
    if not settings.assimilation.background or model.background_error is None:
        return systems
    background = stack_channels(data.background(frames), model.channels)
    oi = optimal_interpolation_of(settings, model, data, frames, observations, climate)
    return {"background": background[None], **systems, "oi": oi}


def optimal_interpolation_of(
    settings: Settings,
    model: Model,
    data: Inputs,
    frames: np.ndarray,
    observations: list[Observations],
    climate: np.ndarray,
) -> np.ndarray:
    """Members (member, time, lat, lon, channel), with the model's background covariance.

    Raises:
        InputError: a model without background.
    """
    if model.background_error is None:
        raise InputError("optimal interpolation needs a background: set data.background")
    covariance, bias = model.background_error
    background = stack_channels(data.background(frames), model.channels) - bias
    streams = [
        to_stream(
            o,
            model.grid,
            model.channels,
            data.archive.times[frames],
            climate=climate.mean(axis=0),
            std=np.asarray(model.arrays.std),
        )
        for o in observations
    ]
    interpolate = jax.jit(
        lambda key, background, streams: optimal_interpolation_ensemble(
            key,
            background,
            streams,
            covariance,
            members=settings.assimilation.members,
            batch=4,
            outer=2,
        )
    )
    key = jax.random.key(settings.seed)
    return np.asarray(interpolate(key, jnp.asarray(background), streams))
