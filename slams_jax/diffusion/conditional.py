r"""Draws of x_0 given x_t and observations, where x_0 given x_t is taken for Gaussian.

The target is N(x_0; m, C) exp(-|r(x_0)|^2 / 2), with the whitened innovations r. It costs no
evaluation of the network that says m.

- `perturbed`: the mean and the observations are perturbed by draws of their errors, and analysed.
  A draw of the target where r is linear (Papandreou & Yuille 2010, "Gaussian sampling by local
  perturbations"), an approximation elsewhere ("randomised maximum likelihood", Oliver et al. 1996).
- `moved`: a Markov chain that leaves the target invariant whatever r is: a proposal from the
  Gaussian that it is near the mean, accepted or rejected as an independence sampler, and elliptical
  slices about that Gaussian (Murray, Adams & MacKay 2010, "Elliptical slice sampling"; Nishihara,
  Murray & Adams 2014, J. Mach. Learn. Res. 15, for ellipses about another Gaussian than the
  prior). They need no step size, and where r is linear every point of an ellipse is accepted.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from slams_jax.aliases import PRNGKey
from slams_jax.diffusion.increments import Linear, Loops, Product, dot, primal

SHRINKS = 40  # of the bracket of a slice: angles below 1e-9 are as good as none


class Local(NamedTuple):
    """The Gaussian of x_0 given x_t, and what is observed of x_0.

    Attributes:
        mean: m.
        product: products with C.
        root: products with its symmetric square root.
        innovations: x_0 -> r.
        linearise: x_0 -> r and its derivatives there.
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
    found = primal(linear, misfit, local.product, loops)
    return start + found.step, found.left


def moved(
    key: PRNGKey,
    x_0: Array,
    fresh: Bool[Array, ""],
    local: Local,
    loops: Loops,
    moves: int,
) -> tuple[Array, Float[Array, ""]]:
    """The state of the chain after `x_0`, and what is left of the equations.

    Args:
        key: of the chain.
        x_0: its state.
        fresh: whether to forget that: the first proposal is then accepted.
        local: the target.
        loops: of the solver of increments.
        moves: number of slices.
    """
    key_proposal, key_accept, key_slices = jax.random.split(key, 3)
    linear = local.linearise(local.mean)
    misfit = lambda d: local.innovations(local.mean + d)
    found = primal(linear, misfit, local.product, loops)
    centre = local.mean + found.step

    def departure(key: PRNGKey) -> Array:
        """A draw of N(0, (C^-1 + A^T A)^-1): an error less what observations correct of it."""
        key_state, key_error = jax.random.split(key)
        error = local.root(_white(key_state, local.mean))
        noise = _white(key_error, linear.residual)
        innovation = linear._replace(
            residual=jax.tree.map(jnp.add, linear.forward(error), noise), state=error
        )
        once = loops._replace(outer=1)
        return error - primal(innovation, misfit, local.product, once).step

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
        across = departure(key_departure)
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
        *_, angle, found = jax.lax.while_loop(outside, shrink, (*begin, log_weight(point(first))))
        inside = found > height
        return (jnp.where(inside, point(angle), x), jnp.where(inside, found, weight)), None

    proposal, weight = centre + departure(key_proposal), log_weight(x_0)
    proposed = log_weight(proposal)
    accepted = fresh | (jnp.log(jax.random.uniform(key_accept)) < proposed - weight)
    start = jnp.where(accepted, proposal, x_0), jnp.where(accepted, proposed, weight)
    (x_0, _), _ = jax.lax.scan(slice_, start, jax.random.split(key_slices, moves))
    return x_0, found.left


def _white(key: PRNGKey, like: PyTree[Array]) -> PyTree[Array]:
    """Standard normal noise in the form of `like`."""
    leaves, form = jax.tree.flatten(like)
    keys = jax.random.split(key, max(len(leaves), 1))
    noise = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(form, noise)
