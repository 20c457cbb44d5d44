r"""The bootstrap particle filter: posteriors of any state space, exact for many particles.

    x_{k+1} = M(x_k, q_k),      y_k ~ p(y_k | x_k),

with x_0 from an ensemble of the prior. Particles follow the dynamics, are weighted by the
likelihood, and are resampled when few of them carry most of the weight (Gordon, Salmond & Smith
1993, IEE Proc. F 140, 107-113), systematically (Kitagawa 1996, J. Comput. Graph. Stat. 5).

`backward_simulation` draws trajectories from the filters of all times, where the density of the
dynamics' noise is known.

`regularised_filter` is one for long cycles of dynamics without noise: copies of a particle are
parted by noise of the ensemble's own covariance (Musso, Oudjane & Le Gland 2001, in Sequential
Monte Carlo Methods in Practice, section 12.2.2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from slams_jax.aliases import PRNGKey
from slams_jax.cycling import WeightedEnsemble
from slams_jax.diffusion.weights import systematic_resampling
from slams_jax.errors import InputError
from slams_jax.products import product

# key, states at one time -> states at the next time.
Advance = Callable[[PRNGKey, Float[Array, "particle state"]], Float[Array, "particle state"]]
# states, observations at their time -> log p(y_k | x_k), up to a constant.
LogLikelihood = Callable[[Float[Array, "particle state"], PyTree], Float[Array, " particle"]]
# states at one time, states at the next -> log p(x_{k+1} | x_k) of every pair, up to a constant.
LogTransition = Callable[
    [Float[Array, "particle state"], Float[Array, "draw state"]], Float[Array, "draw particle"]
]

GROUP = 128  # particles of `backward_simulation`, whose sum is cheaper than all partial sums


class Particles(NamedTuple):
    """A weighted ensemble of trajectories: p(x_0 .. x_T | y_0 .. y_T).

    At the last time this is the filter. Earlier states are the ancestors of the last ones: a
    smoother that is also exact in the limit, but rests on fewer ancestors the more often particles
    are resampled. Without resampling, all times have equal quality.

    Attributes:
        trajectories: the particles with their ancestors.
        weights: of the particles; they sum to one.
        effective: effective number of particles, 1 / sum_i w_i^2, at every time before resampling.
        ancestors: number of particles at the first time that have descendants at the last.
        log_evidence: log p(y_0 .. y_T), up to the constant of the likelihood.
        filtered: the particles at each time, before resampling: p(x_k | y_0 .. y_k).
        log_weights: those of `filtered`, normalised.
    """

    trajectories: Float[Array, "particle time state"]
    weights: Float[Array, " particle"]
    effective: Float[Array, " time"]
    ancestors: Int[Array, ""]
    log_evidence: Float[Array, ""]
    filtered: Float[Array, "time particle state"]
    log_weights: Float[Array, "time particle"]

    def draw(self, key: PRNGKey, count: int) -> Float[Array, "draw time state"]:
        """`count` independent trajectories, particles drawn by weight."""
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
    """The posterior of trajectories given observations at their times. Pure; can be jitted.

    Args:
        key: of the noise of the dynamics and of resampling.
        first: ensemble of the prior at the first time.
        advance: the dynamics with their noise, drawn independently for every particle. Without
            noise, resampled copies stay identical: use `resample_below` = 0 and enough particles
            for all observations together.
        log_likelihood: of the observations at one time.
        observations: a pytree whose leaves have time as leading axis. `log_likelihood` must ignore
            missing values.
        resample_below: resample when the effective share of particles is below this; 0 never, 1
            always.

    Raises:
        InputError: a share outside [0, 1], or observations without times.
    """
    _check_share(resample_below)
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(observations)}
    if len(lengths) != 1 or not all(lengths):
        raise InputError(
            f"observations must share a leading axis of at least one time, got {sorted(lengths)}"
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
        told = (effective, states, log_weights)

        def resample(_):
            index = systematic_resampling(key_resample, jnp.exp(log_weights))
            return states[index], trajectories[index], roots[index], even

        def keep(_):
            return states, trajectories, roots, log_weights

        # At the last time, weights are more accurate than copies.
        few = (effective <= resample_below * count) & (k < times - 1)
        states, trajectories, roots, log_weights = jax.lax.cond(few, resample, keep, None)
        states = advance(key_advance, states)
        return (states, trajectories, roots, log_weights, evidence + total), told

    start = (first, trajectories, jnp.arange(count), even, jnp.zeros((), first.dtype))
    (_, trajectories, roots, log_weights, evidence), told = jax.lax.scan(
        filter_time, start, (jnp.arange(times), observations)
    )
    effective, *filtered = told
    ancestors = jnp.sum(jnp.zeros((count,), bool).at[roots].set(True))
    return Particles(trajectories, jnp.exp(log_weights), effective, ancestors, evidence, *filtered)


def backward_simulation(
    key: PRNGKey, found: Particles, log_transition: LogTransition, count: int, *, batch: int = 128
) -> Float[Array, "draw time state"]:
    """`count` draws from p(x_0 .. x_T | y_0 .. y_T). Pure; can be jitted.

    x_T comes from the last filter, and each x_k before it from the particles of its time, weighted
    by w_k p(x_{k+1} | x_k) (Godsill, Doucet & West 2004, J. Am. Stat. Assoc. 99, 156-168). So early
    states do not rest on the few ancestors that resampling leaves. It takes one transition density
    for each draw, particle and time.

    Args:
        key: of the draws.
        found: result of `particle_filter`.
        log_transition: density of the noise of the dynamics.
        count: number of draws.
        batch: number of draws at a time.

    Raises:
        InputError: no draws, or none at a time.
    """
    if count < 1 or batch < 1:
        raise InputError(f"count and batch must be positive, got {count} and {batch}")
    times = len(found.filtered)

    def some(key: PRNGKey) -> Array:
        keys = jax.random.split(key, times)
        last = found.filtered[-1][_choose(keys[-1], jnp.tile(found.log_weights[-1:], (batch, 1)))]

        def back(later, inputs):
            key, states, log_weights = inputs
            index = _choose(key, log_weights[None] + log_transition(states, later))
            return states[index], states[index]

        inputs = (keys[:-1], found.filtered[:-1], found.log_weights[:-1])
        earlier = jax.lax.scan(back, last, inputs, reverse=True)[1]
        return jnp.concatenate([earlier, last[None]]).swapaxes(0, 1)

    draws = jax.lax.map(some, jax.random.split(key, -(-count // batch)))
    return draws.reshape(-1, *draws.shape[2:])[:count]


def _choose(key: PRNGKey, log_weights: Float[Array, "draw particle"]) -> Int[Array, " draw"]:
    """One particle for each draw, by its weights: first its group, then which of the group."""
    weights = jnp.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    groups = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % GROUP)))
    groups = groups.reshape(len(weights), -1, GROUP)
    key_group, key_member = jax.random.split(key)
    group = _choose_few(key_group, groups.sum(axis=2))
    member = _choose_few(key_member, groups[jnp.arange(len(weights)), group])
    return group * GROUP + member


def _choose_few(key: PRNGKey, weights: Float[Array, "draw few"]) -> Int[Array, " draw"]:
    reach = jnp.cumsum(weights, axis=1)
    level = reach[:, -1:] * jax.random.uniform(key, (len(weights), 1), weights.dtype)
    # The number of weights that end below the level; rounding may lift it to the very end.
    return jnp.sum(reach <= jnp.minimum(level, reach[:, -1:] * (1 - 1e-6)), axis=1)


def regularised_filter(
    log_likelihood: LogLikelihood, *, regularisation: float = 1.0, resample_below: float = 0.5
) -> Callable[[WeightedEnsemble, Any, PRNGKey], WeightedEnsemble]:
    """A particle filter as an analysis for `slams_jax.cycling.cycle`.

    Particles that are resampled get noise of the covariance h^2 C, where C is that of the weighted
    particles and h `regularisation` times the bandwidth (n (d + 2) / 4)^(-1 / (d + 4)) that is best
    for n particles of a Gaussian in d dimensions (Silverman 1986, eq. 4.14). It widens the
    ensemble, the less the more particles there are.

    Args:
        log_likelihood: of the observations of one time; it must ignore missing values.
        regularisation: factor of the bandwidth; 0 for dynamics with noise of their own.
        resample_below: as for `particle_filter`.

    Raises:
        InputError: a negative regularisation, or a share outside [0, 1].
    """
    _check_share(resample_below)
    if regularisation < 0.0:
        raise InputError(f"regularisation must not be negative, got {regularisation}")

    def analyse(background: WeightedEnsemble, observations: Any, key: PRNGKey) -> WeightedEnsemble:
        key_resample, key_noise = jax.random.split(key)
        states = background.states
        count, size = states.shape
        log_weights = background.log_weights + log_likelihood(states, observations)
        weights = jax.nn.softmax(log_weights)
        kept = WeightedEnsemble(states, jnp.log(weights))

        def resampled() -> WeightedEnsemble:
            departures = states - kept.mean()[None]
            # Unbiased for weights that are known.
            scaled = weights / jnp.maximum(1.0 - jnp.sum(weights**2), 1.0 / count)
            root = jnp.sqrt(scaled)[:, None] * departures
            if size < count:  # a smaller one of the same covariance
                values, vectors = jnp.linalg.eigh(product("pi,pj->ij", root, root))
                root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]).T
            bandwidth = (count * (size + 2) / 4) ** (-1 / (size + 4))
            white = jax.random.normal(key_noise, (count, len(root)), states.dtype)
            noise = regularisation * bandwidth * product("pq,qs->ps", white, root)
            index = systematic_resampling(key_resample, weights)
            return WeightedEnsemble.of(states[index] + noise)

        few = jnp.sum(weights**2) * count * resample_below >= 1.0
        return jax.lax.cond(few, resampled, lambda: kept)

    return analyse


def _check_share(resample_below: float) -> None:
    if not 0.0 <= resample_below <= 1.0:
        raise InputError(f"resample_below must lie in [0, 1], got {resample_below}")
