r"""The increments that observations ask for: linear equations of guidance.

With the whitened innovations r at x_0, the linearised operator A there and a covariance C, the
increment d is the solution of either of

    d = C A^T u,  (I + A C A^T) u = r        (`dual`, `direct`: in the space of the observations)
    (C^-1 + A^T A) d = A^T r                 (`primal`: in that of the state).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

# x_0, extra dimensionless variance -> whitened innovations (a pytree of arrays).
Innovations = Callable[[Array, Array], PyTree[Array]]
# v -> C v.
Product = Callable[[Array], Array]
# d -> whitened innovations at the state plus d.
Misfit = Callable[[Array], PyTree[Array]]


class Loops(NamedTuple):
    """How long the equations are solved.

    Attributes:
        count: largest number of iterations of a loop.
        tolerance: where a loop stops: the norm of the residual, relative to the first of all.
        outer: number of loops, each for what is left after the last one.
    """

    count: int
    tolerance: float
    outer: int


class Linear(NamedTuple):
    """Innovations near a state.

    Attributes:
        state: x_0.
        residual: r there.
        forward: products with A; A v is the decrease of r along v.
        transpose: products with its transpose.
    """

    state: Array
    residual: PyTree[Array]
    forward: Callable[[Array], PyTree[Array]]
    transpose: Callable[[PyTree[Array]], Array]

    def misfit(self, d: Array) -> PyTree[Array]:
        """r - A d."""
        return jax.tree.map(jnp.subtract, self.residual, self.forward(d))


class Increment(NamedTuple):
    """A solution, as far as its iterations go.

    Attributes:
        step: d.
        left: norm of the residual of the equations, relative to the first.
        pull: C^-1 d of `primal`, as exact as d is inexact; u of `dual`; None of `direct`.
    """

    step: Array
    left: Array
    pull: PyTree[Array] | None = None


def linearised(innovations: Innovations, x_0: Array) -> Linear:
    """Innovations near `x_0`."""
    residual, pull = jax.vjp(lambda x: innovations(x, jnp.zeros(())), x_0)
    transpose = lambda u: -pull(u)[0]
    # The transpose of the transpose, so that networks need no forward-mode rule.
    return Linear(x_0, residual, lambda v: jax.vjp(transpose, residual)[1](v)[0], transpose)


def direct(linear: Linear, product: Product, misfit: Misfit | None = None) -> Increment:
    """By a dense solve, for small problems; arguments as for `primal`. Nothing is left."""
    _, residual, forward, transpose = linear
    flat, unravel = ravel_pytree(residual)
    column = lambda e: e + ravel_pytree(forward(product(transpose(unravel(e)))))[0]
    # The matrix is symmetric: its columns are its rows.
    matrix = jax.lax.map(column, jnp.eye(flat.size, dtype=flat.dtype))
    weights = jax.scipy.linalg.solve(matrix, flat, assume_a="pos")
    return Increment(product(transpose(unravel(weights))), jnp.zeros(()))


def dual(linear: Linear, product: Product, loops: Loops, misfit: Misfit | None = None) -> Increment:
    """By conjugate gradients in the space of the observations; arguments as for `primal`.

    Each iteration applies C A^T once and sums the results, so that no final product is needed;
    library solvers would cost two more products. The norm of `_solved` is |r|.
    """
    _, residual, forward, transpose = linear

    def iterate(carry):
        i, total, u, r, p, r_dot_r = carry
        step = product(transpose(p))
        q = jax.tree.map(jnp.add, p, forward(step))  # (I + A C A^T) p
        # A covariance C gives p . q >= p . p. The Jacobian of a network is not quite a covariance:
        # the bound limits the step along directions in which it fails.
        length = r_dot_r / (jnp.maximum(dot(p, q), dot(p, p)) + jnp.finfo(r_dot_r.dtype).tiny)
        u = jax.tree.map(lambda a, b: a + length * b, u, p)
        r = jax.tree.map(lambda a, b: a - length * b, r, q)
        next_r_dot_r = dot(r, r)
        ratio = next_r_dot_r / (r_dot_r + jnp.finfo(r_dot_r.dtype).tiny)
        p = jax.tree.map(lambda a, b: a + ratio * b, r, p)
        return i + 1, total + length * step, u, r, p, next_r_dot_r

    misfit = misfit or linear.misfit
    begin = lambda r: (r, r, dot(r, r))
    return _solved(begin, iterate, misfit, residual, linear.state, loops)


def primal(
    linear: Linear, product: Product, loops: Loops, misfit: Misfit | None = None
) -> Increment:
    """d that minimises d^T C^-1 d + |r - A d|^2, by conjugate gradients in the space of the state.

    They are preconditioned by C: each iteration comes closer to the minimum, while the first ones
    of `dual` can end further away than they begin (El Akkraoui et al. 2008, Q. J. R. Meteorol.
    Soc. 134, 1003). C has to be a covariance, which the Jacobian of a network is not quite.
    w = C^-1 d follows by recurrence, without C^-1. The norm of `_solved` is |C^(1/2) gradient|.

    Args:
        linear: innovations near the state.
        product: products with C.
        loops: how long.
        misfit: innovations at the state plus d, which loops after the first take; None for those
            of the line, r - A d.
    """
    _, residual, forward, transpose = linear

    def iterate(carry):
        i, d, w, gradient, p, w_p, square = carry
        curved = w_p + transpose(forward(p))  # (C^-1 + A^T A) p
        length = square / (dot(p, curved) + jnp.finfo(square.dtype).tiny)
        gradient = gradient - length * curved
        z = product(gradient)
        next_square = dot(gradient, z)
        share = next_square / (square + jnp.finfo(square.dtype).tiny)
        done = (i + 1, d + length * p, w + length * w_p, gradient)
        return *done, z + share * p, gradient + share * w_p, next_square

    def begin(gradient):
        z = product(gradient)
        return gradient, z, gradient, dot(gradient, z)

    misfit = misfit or linear.misfit
    pulled = lambda d: transpose(misfit(d))
    # An operator may fail where its derivatives are zero: that is not to pass for a solution.
    finite = jnp.isfinite(dot(residual, residual))
    gradient = jnp.where(finite, transpose(residual), jnp.nan)
    return _solved(begin, iterate, pulled, gradient, linear.state, loops)


def _solved(
    begin: Callable[[PyTree[Array]], tuple],
    iterate: Callable[[tuple], tuple],
    misfit: Callable[[Array], PyTree[Array]],
    residual: PyTree[Array],
    state: Array,
    loops: Loops,
) -> Increment:
    """The loops, from d = 0, and the norm that they leave.

    The first solves L d = w for the first `residual`, which is all where it is linear; each further
    one solves for what is then left, misfit(d) - w.

    Args:
        begin: from a residual to the vectors of the first iteration, the square of its norm last.
        iterate: (i, d, w, *vectors) -> those of the next iteration.
        misfit: the residual for an increment d, were w zero.
        residual: at first.
        state: from which d departs.
        loops: how long.
    """
    count, tolerance, outer = loops
    begun = begin(residual)
    first = begun[-1]
    # What is not a number is unsolved: it is to show in the increment.
    unsolved = lambda carry: (carry[0] < count) & ~(carry[-1] <= tolerance**2 * first)

    def solve(d, w, begun):
        start = (jnp.zeros((), jnp.int32), d, w, *begun)
        _, d, w, *_, left = jax.lax.while_loop(unsolved, iterate, start)
        return d, w, left

    def again(_, carry):
        d, w, _ = carry
        return solve(d, w, begin(jax.tree.map(jnp.subtract, misfit(d), w)))

    solution = solve(jnp.zeros_like(state), jax.tree.map(jnp.zeros_like, residual), begun)
    if outer > 1:
        solution = jax.lax.fori_loop(1, outer, again, solution)
    d, w, left = solution
    left = jnp.sqrt(jnp.maximum(left, 0.0) / (first + jnp.finfo(first.dtype).tiny))
    return Increment(d, left, w)


def dot(a: PyTree[Array], b: PyTree[Array]) -> Array:
    """Of all arrays of two trees."""
    return sum(
        (jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)),
        start=jnp.zeros(()),
    )
