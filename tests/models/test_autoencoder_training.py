"""A small autoencoder learns what it is trained for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slams_jax.models import autoencoder
from slams_jax.models.autoencoder import AutoencoderConfig

pytestmark = [pytest.mark.slow, pytest.mark.optimised]  # the training computes for long


def test_training_reconstructs_every_level_and_uses_the_observations():
    config = AutoencoderConfig(
        state_channels=3,
        inputs=(("state", 3), ("background", 3), ("stations", 1)),
        latent_channels=6,
        compression=1,
        width=16,
        blocks=1,
    )
    init = jax.jit(lambda key: autoencoder.init(config, key, (4, 8))[0])
    params = init(jax.random.key(0))
    optimiser = optax.adam(5e-3)

    @jax.jit
    def step(carry, key):
        params, state = carry
        key_data, key_loss = jax.random.split(key)
        x = jax.random.normal(key_data, (16, 4, 8, 3))
        batch = {"state": x, "background": jnp.zeros_like(x), "stations": x[..., :1]}
        f = lambda p: autoencoder.loss(config, p, {}, key_loss, batch)
        gradient, (_, info) = jax.grad(f, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), info

    with jax.numpy_dtype_promotion("standard"):
        start = (params, optimiser.init(params))
    (params, _), info = jax.lax.scan(step, start, jax.random.split(jax.random.key(3), 160))
    assert float(info["reconstruction_worst"][-50:].mean()) < 0.1

    @jax.jit
    def reconstructed(params, x):
        seen = {"background": jnp.zeros_like(x), "stations": x[..., :1]}
        z = autoencoder.encode(config, params, {}, seen)
        return autoencoder.decode(config, params, {}, z, (4, 8))

    x = jax.random.normal(jax.random.key(5), (16, 4, 8, 3))
    y = reconstructed(params, x)
    rmse = np.sqrt(np.mean(np.square(y - x), axis=(0, 1, 2)))
    assert rmse[0] < 0.3  # observed
    assert rmse[1:].min() > 0.9  # independent of everything observed
