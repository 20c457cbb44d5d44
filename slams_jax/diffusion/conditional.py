r"""Draws of x_0 given x_t and observations, where x_0 given x_t is taken for Gaussian.

The target is N(x_0; m, C) exp(-|r(x_0)|^2 / 2), with the whitened innovations r. It costs no
evaluation of the network that says m.

- `perturbed`: the mean and the observations are perturbed by draws of their errors, and analysed.
  A draw of the target where r is linear (Papandreou & Yuille 2010, "Gaussian sampling by local
  perturbations"), an approximation elsewhere (Oliver, He & Reynolds 1996, "Conditioning
  permeability fields to pressure data").
- `moved`: a Markov chain that leaves the target invariant whatever r is: a proposal from a Gaussian
  that is near the target, as an independence sampler, and elliptical slices about that Gaussian
  (Murray, Adams & MacKay 2010, "Elliptical slice sampling"; about another Gaussian than the prior,
  Nishihara, Murray & Adams 2014, J. Mach. Learn. Res. 15). They need no step size, and where r is
  linear every point of an ellipse is accepted.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from slams_jax.aliases import PRNGKey
from slams_jax.diffusion.increments import (
    Increment,
    Linear,
    Loops,
    Product,
    dot,
    linearised,
    primal,
)

POINTS = 16  # that a line goes through
SHRINKS = 40  # of the bracket of a slice: angles below 1e-9 are as good as none


class Local(NamedTuple):
    """The Gaussian of x_0 given x_t, and what is observed of x_0.

    Attributes:
        mean: m.
        product: products with C.
        root: products with its symmetric square root.
        innovations: x_0 -> r.
        linearise: x_0 -> r and its derivatives there, for `perturbed`.
    """

    mean: Array
    product: Product
    root: Product
    innovations: Callable[[Array], PyTree[Array]]
    linearise: Callable[[Array], Linear]


def perturbed(key: PRNGKey, local: Local, loops: Loops) -> tuple[Array, Float[Array, ""]]:
    """x_0, and what is left of the equations."""
    key_state, key_error = jax.random.split(key)
    start = local.mean + local.root(_white(key_state, local.mean))
    linear = local.linearise(start)
    error = _white(key_error, linear.residual)
    shifted = lambda r: jax.tree.map(jnp.subtract, r, error)
    misfit = lambda d: shifted(local.innovations(start + d))
    linear = linear._replace(residual=shifted(linear.residual))
    found = primal(linear, local.product, loops, misfit)
    return start + found.step, found.left


def moved(
    key: PRNGKey,
    x_0: Array,
    fresh: Bool[Array, ""],
    local: Local,
    loops: Loops,
    slices: int,
) -> tuple[Array, Float[Array, ""]]:
    """The state of the chain after `x_0`, and what is left of the equations.

    Args:
        key: of the chain.
        x_0: its state.
        fresh: whether to forget that: the first proposal is then accepted.
        local: the target.
        loops: of the solver of increments.
        slices: number of them.
    """
    key_line, key_proposal, key_accept, key_slices = jax.random.split(key, 4)
    linear, found = _approximated(key_line, local, loops)
    centre = local.mean + found.step

    def log_weight(x: Array) -> Float[Array, ""]:
        """log of the target over N(centre, (C^-1 + A^T A)^-1), up to a constant.

        C^-1 cancels but for C^-1 (centre - mean), which the solver keeps.
        """
        away = x - centre
        r, seen = local.innovations(x), linear.forward(away)
        return 0.5 * (dot(seen, seen) - dot(r, r)) - dot(found.pull, away)

    def slice_(carry, key):
        x, weight = carry
        key_departure, key_height, key_angle = jax.random.split(key, 3)
        across = _departure(key_departure, linear, local, loops)
        height = weight + jnp.log(jax.random.uniform(key_height))
        point = lambda angle: centre + (x - centre) * jnp.cos(angle) + across * jnp.sin(angle)

        def shrink(carry):
            i, low, high, angle, *_ = carry
            low = jnp.where(angle < 0.0, angle, low)
            high = jnp.where(angle < 0.0, high, angle)
            share = jax.random.uniform(jax.random.fold_in(key_angle, i))
            angle = low + (high - low) * share
            return i + 1, low, high, angle, log_weight(point(angle))

        outside = lambda carry: ~(carry[-1] > height) & (carry[0] < SHRINKS)
        first = 2.0 * jnp.pi * jax.random.uniform(jax.random.fold_in(key_angle, SHRINKS))
        begin = jnp.zeros((), jnp.int32), first - 2.0 * jnp.pi, first, first
        *_, angle, reached = jax.lax.while_loop(outside, shrink, (*begin, log_weight(point(first))))
        inside = reached > height
        return (jnp.where(inside, point(angle), x), jnp.where(inside, reached, weight)), None

    proposal = centre + _departure(key_proposal, linear, local, loops)
    weight, proposed = log_weight(x_0), log_weight(proposal)
    accepted = fresh | (jnp.log(jax.random.uniform(key_accept)) < proposed - weight)
    start = jnp.where(accepted, proposal, x_0), jnp.where(accepted, proposed, weight)
    (x_0, _), _ = jax.lax.scan(slice_, start, jax.random.split(key_slices, slices))
    return x_0, found.left


def _approximated(key: PRNGKey, local: Local, loops: Loops) -> tuple[Linear, Increment]:
    """The Gaussian near the target: innovations as a line through those of some points.

    The slope is that of their mean over the points, drawn about the mean of x_0 at first, and then
    about the minimum that this gives (Garcia-Fernandez et al. 2015, "Posterior linearization
    filter", IEEE Trans. Signal Process. 63): where an operator is flat at one point, others tell
    what it does. What the line misses counts as error of the observations.

    Returns:
        The line, its `state` and `residual` those at the mean of x_0, and the minimum.
    """
    key_first, key_second = jax.random.split(key)
    normal = lambda k: local.root(_white(k, local.mean))
    line = _line(local, local.mean, jax.vmap(normal)(jax.random.split(key_first, POINTS)))
    found = primal(line, local.product, loops)
    posterior = lambda k: _departure(k, line, local, loops)
    departures = jax.vmap(posterior)(jax.random.split(key_second, POINTS))
    line = _line(local, local.mean + found.step, departures)
    return line, primal(line, local.product, loops)


def _line(local: Local, centre: Array, departures: Float[Array, "point ..."]) -> Linear:
    """Innovations as a line through those of `centre` plus each of the `departures`."""
    every = jax.vmap(lambda x, e: local.innovations(x + e), in_axes=(None, 0))
    mean = lambda r: jax.tree.map(lambda a: jnp.mean(a, axis=0), r)
    smooth = linearised(lambda x, _: mean(every(x, departures)), centre)
    along = jax.vmap(smooth.forward)(departures)
    missed = jax.tree.map(lambda r, a: jnp.var(r + a, axis=0), every(centre, departures), along)
    weighted = lambda r: jax.tree.map(lambda a, v: a / jnp.sqrt(1.0 + v), r, missed)
    back = smooth.forward(centre - local.mean)
    return Linear(
        local.mean,
        weighted(jax.tree.map(jnp.add, smooth.residual, back)),
        lambda v: weighted(smooth.forward(v)),
        lambda u: smooth.transpose(weighted(u)),
    )


def _departure(key: PRNGKey, linear: Linear, local: Local, loops: Loops) -> Array:
    """A draw of N(0, (C^-1 + A^T A)^-1): an error less what observations correct of it."""
    key_state, key_error = jax.random.split(key)
    error = local.root(_white(key_state, local.mean))
    noise = _white(key_error, linear.residual)
    told = jax.tree.map(jnp.add, linear.forward(error), noise)
    return error - primal(linear._replace(residual=told), local.product, loops).step


def _white(key: PRNGKey, like: PyTree[Array]) -> PyTree[Array]:
    """Standard normal noise in the form of `like`."""
    leaves, form = jax.tree.flatten(like)
    keys = jax.random.split(key, max(len(leaves), 1))
    noise = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(form, noise)
