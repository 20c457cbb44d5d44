"""Streams that a model makes: the background, and encoded fields as a latent observation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from slams_jax.errors import InputError
from slams_jax.mesh import DATA, SPACE, analysis_mesh, in_bands, place, split, to_host, whole
from slams_jax.models.model import Model, ModelArrays, Networks, encode, residual
from slams_jax.networks import compiler_options
from slams_jax.observe import Identity, Stream, make_stream

COMPILED = 8  # programs kept, of the models lately used in this process


def background_stream(
    model: Model, background: Float[np.ndarray, "time lat lon channel"]
) -> Stream:
    """The background as an observation of the state with correlated errors.

    Args:
        model: with the error covariance of its background.
        background: in the units of the channels of `model`, on its grid.

    Raises:
        InputError: a model without background error covariance.
    """
    if model.background_error is None:
        raise InputError("this model was trained without a background: it has no error covariance")
    covariance, bias = model.background_error
    ratio = np.mean((model.increment_error / np.asarray(covariance.std)) ** 2)
    covariance = dataclasses.replace(covariance, nugget=jnp.asarray(ratio, jnp.float32))
    std = np.broadcast_to(np.asarray(model.arrays.std), covariance.std.shape)
    return make_stream("background", background - bias, Identity(), covariance, scale=std)


def unresolved(
    model: Model,
    background: Float[np.ndarray, "time lat lon channel"],
    climate: Float[np.ndarray, "time lat lon channel"],
    mesh: Mesh,
) -> Float[np.ndarray, "time lat lon channel"]:
    """The part of the background that no latent can represent; zero where it is missing.

    Observations correct the part that the latent represents. The rest is the best estimate there
    is, and is added to the decoder's output, as in an incremental analysis.
    """
    if model.networks.autoencoder is None:
        return np.zeros_like(climate)
    scaled = (background - climate) / np.asarray(model.arrays.std)
    missing = ~np.isfinite(scaled)
    rest = _on_frames(residual, model, np.where(missing, 0.0, scaled), mesh)
    return np.where(missing, 0.0, rest)


def latent_stream(
    model: Model, inputs: Mapping[str, np.ndarray], mesh: Mesh | None = None
) -> Stream:
    """z_y = E(inputs) as an observation of the latent, its error estimated at training.

    It is computed on the devices of `mesh`, on one unless given.

    Raises:
        InputError: a model without latent error covariance, or other inputs than it was made for.
    """
    if model.latent_error is None or model.networks.autoencoder is None:
        raise InputError("this model has no latent observations: it has no latent error covariance")
    if set(inputs) != set(model.latent_inputs):
        raise InputError(
            f"latent inputs are {sorted(inputs)}, but the error of the latent was estimated for "
            f"{sorted(model.latent_inputs)}: give these"
        )
    covariance, bias = model.latent_error
    mesh = analysis_mesh(1, devices=jax.local_devices()[:1]) if mesh is None else mesh
    z = _on_frames(encode, model, dict(inputs), mesh)
    return make_stream("latent", z - bias, Identity(), covariance, space="latent")


def _on_frames(
    function: Callable[[Networks, ModelArrays, Any], Array],
    model: Model,
    frames: Any,
    mesh: Mesh,
) -> Float[np.ndarray, "time lat lon channel"]:
    """`function` of networks, arrays and standardised fields, on the devices of `mesh`."""
    frames = place(frames, mesh, in_bands(mesh, model.grid.shape))
    with jax.set_mesh(mesh):
        return to_host(
            _compiled_function(function, model.networks)(place(model.arrays, mesh, whole), frames)
        )


@functools.lru_cache(maxsize=COMPILED)
def _compiled_function(function: Callable, networks: Networks):
    """`function` of one model, compiled; the `COMPILED` used last are kept."""

    def run(arrays: ModelArrays, frames: Any) -> Array:
        frames = jax.tree.map(lambda x: split(x, DATA, SPACE), frames)
        return function(networks, arrays, frames)

    return jax.jit(run, compiler_options=compiler_options() or None)
