r"""The bootstrap particle filter: posteriors of any state space, as exact as there are particles.

    x_{k+1} = M(x_k, q_k),      y_k ~ p(y_k | x_k),

with x_0 from an ensemble of the prior. Particles follow the dynamics, are weighted by the
likelihood, and are resampled where few of them carry the weight (Gordon, Salmond & Smith 1993,
IEE Proc. F 140, 107-113). Resampling is systematic (Kitagawa 1996, J. Comput. Graph. Stat. 5).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from slams_jax.aliases import PRNGKey
from slams_jax.errors import InputError

# key, states at a time -> states at the next one.
Advance = Callable[[PRNGKey, Float[Array, "particle state"]], Float[Array, "particle state"]]
# states, what was observed at their time -> log p(y_k | x_k), up to a constant.
LogLikelihood = Callable[[Float[Array, "particle state"], PyTree], Float[Array, " particle"]]


class Particles(NamedTuple):
    """A weighted ensemble of trajectories: p(x_0 .. x_T | y_0 .. y_T).

    At the last time it is the filter's. Earlier states are the ancestors of the last ones, a
    smoother that is exact in the limit too, but that rests on fewer and fewer ancestors the more
    often there was resampling; without any resampling all times are alike.

    Attributes:
        trajectories: the particles with their ancestors.
        weights: of the particles; their sum is one.
        effective: 1 / sum_i w_i^2 at every time, before resampling: so many equally weighted
            particles are worth as much.
        ancestors: number of particles of the first time that have descendants at the last.
        log_evidence: log p(y_0 .. y_T), up to the constant of the likelihood.
    """

    trajectories: Float[Array, "particle time state"]
    weights: Float[Array, " particle"]
    effective: Float[Array, " time"]
    ancestors: Int[Array, ""]
    log_evidence: Float[Array, ""]

    def draw(self, key: PRNGKey, count: int) -> Float[Array, "draw time state"]:
        """`count` independent trajectories, each a particle chosen by its weight."""
        index = jax.random.choice(key, self.weights.shape[0], (count,), p=self.weights)
        return self.trajectories[index]


def particle_filter(
    key: PRNGKey,
    first: Float[Array, "particle state"],
    advance: Advance,
    log_likelihood: LogLikelihood,
    observations: PyTree,
    *,
    resample_below: float = 0.5,
) -> Particles:
    """The posterior of trajectories given observations at their times. Pure, and may be jitted.

    Args:
        key: of the dynamics' noise and of the resampling.
        first: an ensemble of the prior at the first time.
        advance: the dynamics with their noise, drawn for every particle by itself. Without noise
            what resampling doubles stays double: then `resample_below` = 0 is right, and particles
            that are enough for all observations together.
        log_likelihood: of the observations at one time.
        observations: a pytree; the leading axis of its leaves is time, as many as `observations`
            has are filtered. What is missing is for `log_likelihood` to leave out.
        resample_below: resample where fewer than this share of the particles is effective; 0 never,
            1 always.

    Raises:
        InputError: a share outside [0, 1], or observations without times.
    """
    if not 0.0 <= resample_below <= 1.0:
        raise InputError(f"resample_below must lie in [0, 1], got {resample_below}")
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(observations)}
    if len(lengths) != 1 or not all(lengths):
        raise InputError(
            f"observations must have one leading axis of times, at least 1, got {sorted(lengths)}"
        )
    (times,), count = lengths, first.shape[0]
    trajectories = jnp.zeros((count, times, first.shape[1]), first.dtype)
    even = jnp.full((count,), -jnp.log(count), first.dtype)

    def filter_time(carry, inputs):
        states, trajectories, roots, log_weights, evidence = carry
        k, y = inputs
        key_resample, key_advance = jax.random.split(jax.random.fold_in(key, k))
        trajectories = trajectories.at[:, k].set(states)
        log_weights = log_weights + log_likelihood(states, y)
        total = jax.nn.logsumexp(log_weights)
        log_weights = log_weights - total
        effective = 1.0 / jnp.sum(jnp.exp(2.0 * log_weights))

        def resample(_):
            index = systematic_resampling(key_resample, jnp.exp(log_weights))
            return states[index], trajectories[index], roots[index], even

        def keep(_):
            return states, trajectories, roots, log_weights

        # The last weights say more than copies would.
        few = (effective <= resample_below * count) & (k < times - 1)
        states, trajectories, roots, log_weights = jax.lax.cond(few, resample, keep, None)
        states = advance(key_advance, states)
        return (states, trajectories, roots, log_weights, evidence + total), effective

    start = (first, trajectories, jnp.arange(count), even, jnp.zeros((), first.dtype))
    (_, trajectories, roots, log_weights, evidence), effective = jax.lax.scan(
        filter_time, start, (jnp.arange(times), observations)
    )
    seen = jnp.zeros((count,), bool).at[roots].set(True)
    return Particles(trajectories, jnp.exp(log_weights), effective, jnp.sum(seen), evidence)


def systematic_resampling(
    key: PRNGKey, weights: Float[Array, " particle"]
) -> Int[Array, " particle"]:
    """As many indices as weights, ascending; i comes n w_i times, rounded up or down at random.

    One random number places n equidistant points on the sums of the weights, so that the expected
    number of copies is n w_i exactly.
    """
    count = weights.shape[0]
    sums = jnp.cumsum(weights)
    offset = jax.random.uniform(key, (), weights.dtype)
    points = (jnp.arange(count, dtype=weights.dtype) + offset) / count
    # In single precision the sums may end a little beside one.
    index = jnp.searchsorted(sums, points * sums[-1], side="right")
    return jnp.minimum(index, count - 1)
