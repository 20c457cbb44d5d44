"""Ensembles as a cycle carries them: members in front, or particles and their weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from slams_jax.products import product


class WeightedEnsemble(NamedTuple):
    """Particles and their weights; a forecast takes the states alone.

    Attributes:
        states: of the particles.
        log_weights: of the particles, up to a constant.
    """

    states: Float[Array, "particle state"]
    log_weights: Float[Array, " particle"]

    @classmethod
    def of(cls, states: Float[Array, "particle state"]) -> "WeightedEnsemble":
        """With equal weights."""
        return cls(states, jnp.zeros(len(states), states.dtype))

    def mean(self) -> Float[Array, " state"]:
        """Of the particles, weighted."""
        return product("p,ps->s", jax.nn.softmax(self.log_weights), self.states)


def weighted(ensemble: PyTree) -> tuple[PyTree, Float[Array, " member"]]:
    """The members of an ensemble and their weights, which sum to one."""
    if isinstance(ensemble, WeightedEnsemble):
        return ensemble.states, jax.nn.softmax(ensemble.log_weights)
    count = len(jax.tree.leaves(ensemble)[0])
    return ensemble, jnp.full(count, 1.0 / count)


def moments(
    values: Float[Array, "member ..."], weights: Float[Array, " member"]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Mean and variance of members; the variance is unbiased for weights that are known."""
    mean = product("m,m...->...", weights, values)
    square = product("m,m...->...", weights, (values - mean[None]) ** 2)
    return mean, square / jnp.maximum(1.0 - jnp.sum(weights**2), 1.0 / len(weights))


def broken_members(state: PyTree, *, ensemble: bool) -> Int[Array, ""]:
    """The number of members, or of single states, with a value or weight that is not finite."""
    if ensemble:
        states, weights = weighted(state)
        leaves = [*jax.tree.leaves(states), weights]
    else:
        leaves = [jnp.asarray(leaf)[None] for leaf in jax.tree.leaves(state)]
    finite = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in leaves]
    return jnp.sum(~jnp.stack(finite).all(axis=0))
