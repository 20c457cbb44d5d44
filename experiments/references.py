"""Classical analyses of the same observations, to hold a model against."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.inputs import STATE, Inputs
from experiments.settings import Settings
from slams_jax.baselines import optimal_interpolation_ensemble
from slams_jax.data import climatology
from slams_jax.data.fields import stack_channels
from slams_jax.data.observations import Observations, to_stream
from slams_jax.errors import InputError
from slams_jax.model import Model


def optimal_interpolation_of(
    settings: Settings,
    model: Model,
    data: Inputs,
    frames: np.ndarray,
    observations: Sequence[Observations],
) -> Float[np.ndarray, "member time lat lon channel"]:
    """Optimal interpolation from the background and its covariance that the model was given.

    Raises:
        InputError: a model without background.
    """
    if model.background_error is None:
        raise InputError("optimal interpolation needs a background: set data.background")
    covariance, bias = model.background_error
    times = data.archive.times[frames]
    climate = np.asarray(climatology(model.statistics[STATE], times)).mean(axis=0)
    shape = data.archive.fields[STATE].array.shape[1:]
    streams = [
        to_stream(
            o, model.grid, model.channels, times,
            climate=np.broadcast_to(climate, shape), std=np.asarray(model.arrays["std"]),
        )
        for o in observations
    ]  # fmt: skip
    background = stack_channels(data.background(frames), model.channels) - bias
    interpolate = jax.jit(
        lambda key, background, streams: optimal_interpolation_ensemble(
            key, background, streams, covariance, members=settings.assimilation.members,
            batch=4, outer=2,
        )
    )  # fmt: skip
    return np.asarray(interpolate(jax.random.key(settings.seed), jnp.asarray(background), streams))
