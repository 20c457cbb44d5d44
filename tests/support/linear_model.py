"""A linear model with noise, x -> A x + q, of which two of three values are observed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

TURN = jnp.array([[0.9, 0.4, 0.0], [-0.4, 0.9, 0.1], [0.0, -0.1, 0.8]])
NOISE = 0.3
ERROR = jnp.array([0.5, 1.0])


def operator(x):
    return x[:2]


@jax.jit
def forecast(members, key):
    noise = NOISE * jax.random.normal(key, members.shape)
    return jnp.einsum("ij,mj->mi", TURN, members) + noise


@functools.cache
def twin(count):
    """A truth and its observations."""
    rng = np.random.default_rng(0)
    states, x = [], np.zeros(3)
    for _ in range(count):
        x = np.asarray(TURN) @ x + NOISE * rng.standard_normal(3)
        states.append(x)
    truth = np.array(states)
    return truth, truth[:, :2] + np.asarray(ERROR) * rng.standard_normal((count, 2))
