r"""Guidance: from a denoiser of the prior and observations to a denoiser of the posterior.

By Bayes' rule and Tweedie's formula (alpha, sigma of the schedule at t; J the Jacobian of the
denoiser with respect to x_t),

    E[x_0 | x_t, y] = E[x_0 | x_t] + sigma^2 / alpha grad_{x_t} log p(y | x_t),
    grad_{x_t} log p(y | x_t) = J^T A^T (I + A C A^T)^-1 r,

where r = W (y - H(E[x_0 | x_t])) are the whitened innovations, A = W H' is the linearised operator
and C a model of cov(x_0 | x_t), whose true value is V = sigma^2 / alpha J. The rules differ in C
and in the operator that carries the increment from the observations to the state: V or a model of
it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, PyTree

from slams_jax.aliases import Denoiser
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.errors import InputError

# x_0, extra dimensionless variance -> whitened innovations (a pytree of arrays).
Innovations = Callable[[Array, Array], PyTree[Array]]
# x_0 -> innovations that equal the true ones there and are cheap to differentiate.
Tangent = Callable[[Array], Innovations]
# v, sigma^2 / alpha^2 -> C v, where C is a model of cov(x_0 | x_t).
Covariance = Callable[[Array, Array], Array]
# x_0 -> the innovations r there, and products with A and with its transpose.
_Linearise = Callable[[Array], tuple[PyTree[Array], Callable, Callable]]
Rule = Literal["sda", "dps", "pigdm", "tmpd", "mmps", "gaussian", "exact"]
GUIDED: tuple[Rule, ...] = ("mmps", "gaussian", "exact")  # rules whose denoiser is a `Guided`


class Estimate(NamedTuple):
    """What a guided denoiser tells of x_0.

    Attributes:
        x_0: E[x_0 | x_t, y].
        prior: E[x_0 | x_t].
        residual: how much of the equations of the increment is left, as `guide` measures it for
            `tolerance`.
    """

    x_0: Array
    prior: Array
    residual: Array


@dataclasses.dataclass(frozen=True)
class Guided:
    """A denoiser of the posterior that also tells what it departs from, and how well it solves.

    Attributes:
        estimate: (x_t, t) -> `Estimate`.
    """

    estimate: Callable[[Array, Array], Estimate]

    def __call__(self, x_t: Array, t: Array) -> Array:
        """The estimate alone."""
        return self.estimate(x_t, t).x_0


def guide(
    denoiser: Denoiser,
    innovations: Innovations | None,
    schedule: CosineSchedule,
    *,
    rule: Rule = "mmps",
    gamma: float = 1e-2,
    iterations: int = 3,
    tolerance: float = 0.0,
    outer: int = 1,
    jacobian: bool = True,
    covariance: Covariance | None = None,
    tangent: Tangent | None = None,
) -> Denoiser:
    """The denoiser of the posterior given observations.

    That of the rules `GUIDED` is a `Guided`.

    Args:
        denoiser: E[x_0 | x_t] under the prior.
        innovations: W (y - H(x_0)), see `slams_jax.observe.whitened_innovations`; None without
            observations, which returns the denoiser of the prior unchanged.
        schedule: the noise schedule of `denoiser`.
        rule: one of `Rule`; `docs/method.md` explains when to use which.
        gamma: for "sda", the variance of x_0 given x_t relative to sigma^2 / alpha^2.
        iterations: largest number of conjugate-gradient iterations of "pigdm", "mmps" and
            "gaussian".
        tolerance: of "mmps" and "gaussian": stop when the residual of their equations is below this
            share of what it was at first; 0 takes all iterations. "mmps" solves them in the space
            of the observations, and measures it there: |r - (I + A C A^T) u|; "gaussian" in that of
            the state: |C^(1/2) (A^T r - (C^-1 + A^T A) d)|.
        outer: for "mmps" and "gaussian", how often they are solved: each time after the first
            takes the innovations themselves where the last one ended (the outer loops of
            incremental 4D-Var, Courtier et al. 1994, Q. J. R. Meteorol. Soc. 120).
        jacobian: for "pigdm"; False replaces V by r_t^2, which avoids derivatives of the network.
        covariance: for "gaussian" and "exact", products with cov(x_0 | x_t) under a Gaussian prior,
            such as `slams_jax.gaussian.GaussianPosterior.solve`; "pigdm", "tmpd" and "mmps" use
            them, if given, where there is more noise than signal.
        tangent: what is linearised in place of `innovations`, such as those of a decoder without
            its small nonlinear part. "sda" and "dps" differentiate the innovations themselves.

    Raises:
        InputError: an unknown rule, a negative gamma, no iteration, a tolerance outside [0, 1), or
            a missing covariance.
    """
    if innovations is None:
        return denoiser
    if rule not in get_args(Rule):
        raise InputError(f"unknown guidance rule {rule!r}: choose from {get_args(Rule)}")
    if gamma < 0:
        raise InputError(f"guidance gamma must not be negative, got {gamma}")
    if iterations < 1:
        raise InputError(f"guidance needs at least one iteration, got {iterations}")
    if outer < 1:
        raise InputError(f"guidance needs at least one outer loop, got {outer}")
    if not 0.0 <= tolerance < 1.0:
        raise InputError(f"guidance tolerance must lie in [0, 1), got {tolerance}")
    if rule in ("gaussian", "exact") and covariance is None:
        raise InputError(f"guidance rule {rule!r} needs the covariance of the prior: give it")
    if rule in ("sda", "dps"):
        return _likelihood(denoiser, innovations, schedule, gamma if rule == "sda" else 0.0)
    linearise = functools.partial(_linearised, tangent or (lambda _: innovations))
    if rule == "pigdm":
        return _pigdm(denoiser, linearise, schedule, iterations, jacobian, covariance)
    if rule == "tmpd":
        return _tmpd(denoiser, linearise, schedule, covariance)
    loops = dict(count=iterations, tolerance=tolerance, outer=outer)
    if rule == "mmps":
        model = functools.partial(_denoised, denoiser, schedule, covariance)
        return _matched(model, functools.partial(_dual, linearise, innovations, **loops))
    assert covariance is not None
    model = functools.partial(_gaussian, denoiser, schedule, covariance)
    if rule == "exact":
        return _matched(model, functools.partial(_direct, linearise))
    return _matched(model, functools.partial(_primal, linearise, innovations, **loops))


def _estimate(denoiser: Denoiser, x_t: Array, t: Array) -> Estimate:
    """Before the observations of a rule: of the prior, or of one that others already guide."""
    if isinstance(denoiser, Guided):
        return denoiser.estimate(x_t, t)
    x_0 = denoiser(x_t, t)
    return Estimate(x_0, x_0, jnp.zeros((), x_0.dtype))


def _likelihood(denoiser: Denoiser, innovations: Innovations, schedule: CosineSchedule, gamma):
    """cov(y | x_t) = R + gamma sigma^2 / alpha^2, by the gradient of the log-likelihood.

    "sda": Rozet & Louppe 2023, eq. 15, the rule of SLAMS. "dps", gamma = 0: p(y | x_t) is
    approximated by p(y | x_0 = E[x_0 | x_t]), Chung et al. 2023, "Diffusion posterior sampling for
    general noisy inverse problems", arXiv 2209.14687, without their rescaling by the misfit.
    """

    def guided(x_t: Array, t: Array) -> Array:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)

        def misfit(x: Array) -> tuple[Array, Array]:
            x_0 = denoiser(x, t)
            residuals = innovations(x_0, gamma * (sigma / alpha) ** 2)
            return 0.5 * _dot(residuals, residuals), x_0

        gradient, x_0 = jax.grad(misfit, has_aux=True)(x_t)
        return x_0 - sigma**2 / alpha * gradient

    return guided


def _pigdm(
    denoiser: Denoiser,
    linearise: _Linearise,
    schedule: CosineSchedule,
    iterations: int,
    jacobian: bool,
    covariance: Covariance | None,
):
    """C = r_t^2 I, r_t^2 = sigma^2 / (alpha^2 + sigma^2): cov(x_0 | x_t) if x_0 ~ N(0, I).

    Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems", eq. 7. Without
    the Jacobian, it is the proximal data step of Zhu et al. 2023 (DiffPIR, arXiv 2305.08995).
    """

    def guided(x_t: Array, t: Array) -> Array:
        r2 = schedule.sigma(t) ** 2 / (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
        if jacobian:
            (x_0, *_), product = _denoised(denoiser, schedule, covariance, x_t, t)
        else:
            x_0, product = denoiser(x_t, t), lambda v: r2 * v
        residuals, forward, transpose = linearise(x_0)
        system = lambda u: jax.tree.map(jnp.add, u, forward(r2 * transpose(u)))
        weights, _ = cg(system, residuals, maxiter=iterations, tol=0.0)
        return x_0 + product(transpose(weights))

    return guided


def _tmpd(
    denoiser: Denoiser,
    linearise: _Linearise,
    schedule: CosineSchedule,
    covariance: Covariance | None,
):
    """A C A^T = diag(A V A^T 1), the row sums of A V A^T: two products with V.

    Boys et al. 2024, "Tweedie moment projected diffusions for inverse problems", arXiv 2310.06721,
    with its diagonal approximation (negative sums, where anticorrelations prevail, count as 0).
    """

    def guided(x_t: Array, t: Array) -> Array:
        (x_0, *_), product = _denoised(denoiser, schedule, covariance, x_t, t)
        residuals, forward, transpose = linearise(x_0)
        sums = forward(product(transpose(jax.tree.map(jnp.ones_like, residuals))))
        weights = jax.tree.map(lambda r, d: r / (1.0 + jnp.maximum(d, 0.0)), residuals, sums)
        return x_0 + product(transpose(weights))

    return guided


def _matched(
    model: Callable[[Array, Array], tuple[Estimate, Callable[[Array], Array]]],
    increment: Callable[[Array, Callable[[Array], Array]], tuple[Array, Array]],
) -> Guided:
    """C itself carries the increment to the state: moment matching.

    `model` gives E[x_0 | x_t] and products with C. C = V (`_denoised`) is the rule of Rozet et al.
    2024, "Learning diffusion priors from observations", alg. 2; C of a Gaussian prior (`_gaussian`)
    needs no derivative of the network.
    """

    def guided(x_t: Array, t: Array) -> Estimate:
        before, product = model(x_t, t)
        added, residual = increment(before.x_0, product)
        return Estimate(before.x_0 + added, before.prior, residual)

    return Guided(guided)


def _gaussian(
    denoiser: Denoiser, schedule: CosineSchedule, covariance: Covariance, x_t: Array, t: Array
):
    """E[x_0 | x_t], and cov(x_0 | x_t) of a Gaussian prior with the covariance of training data.

    This is guaranteed to be a covariance, unlike the Jacobian of a network. Peng et al. (2024,
    "Improving diffusion models for inverse problems using optimal posterior covariance") and
    Rissanen et al. (2025, "Free hunch") start from such a C.
    """
    ratio = (schedule.sigma(t) / schedule.alpha(t)) ** 2
    return _estimate(denoiser, x_t, t), lambda v: covariance(v, ratio)


def _denoised(
    denoiser: Denoiser,
    schedule: CosineSchedule,
    covariance: Covariance | None,
    x_t: Array,
    t: Array,
):
    """E[x_0 | x_t] and products with V = sigma^2 / alpha J.

    The transpose of J is used, which for the true denoiser is J. At high noise the true J is about
    alpha, and the factor sigma^2 / alpha amplifies the error of a network's J to many times the
    variance of the prior: there V comes from `covariance`, if given.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)

    def told(x: Array) -> tuple[Array, Estimate]:
        found = _estimate(denoiser, x, t)
        return found.x_0, found

    _, transpose, found = jax.vjp(told, x_t, has_aux=True)
    network = lambda v: sigma**2 / alpha * transpose(v)[0]
    if covariance is None:
        return found, network
    model = lambda v: covariance(v, (sigma / alpha) ** 2)
    return found, lambda v: jax.lax.cond(sigma > alpha, model, network, v)


def _linearised(tangent: Tangent, x_0: Array):
    """r at x_0, and products with A and its transpose (A v is the decrease of r along v)."""
    innovations = tangent(x_0)
    residuals, pull = jax.vjp(lambda x: innovations(x, jnp.zeros(())), x_0)
    transpose = lambda u: -pull(u)[0]
    # The transpose of the transpose, so that networks need no forward-mode rule.
    forward = lambda v: jax.vjp(transpose, residuals)[1](v)[0]
    return residuals, forward, transpose


def _direct(
    linearise: _Linearise, x_0: Array, product: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """C A^T u, where (I + A C A^T) u = r, by a dense solve: for small problems. Nothing is left."""
    residuals, forward, transpose = linearise(x_0)
    flat, unravel = ravel_pytree(residuals)
    column = lambda e: e + ravel_pytree(forward(product(transpose(unravel(e)))))[0]
    # The matrix is symmetric: its columns are its rows.
    matrix = jax.lax.map(column, jnp.eye(flat.size, dtype=flat.dtype))
    weights = jax.scipy.linalg.solve(matrix, flat, assume_a="pos")
    return product(transpose(unravel(weights))), jnp.zeros(())


def _dual(
    linearise: _Linearise,
    innovations: Innovations,
    x_0: Array,
    product: Callable[[Array], Array],
    **loops: Any,
) -> tuple[Array, Array]:
    """d = C A^T u, where (I + A C A^T) u = r, by conjugate gradients.

    Each iteration applies C A^T once and sums the results, so that no final product is needed;
    library solvers would cost two more products. `_loops` says what is returned; the norm is |r|.
    """
    residuals, forward, transpose = linearise(x_0)

    def iterate(carry):
        i, total, u, r, p, r_dot_r = carry
        step = product(transpose(p))
        q = jax.tree.map(jnp.add, p, forward(step))  # (I + A C A^T) p
        # A covariance C gives p . q >= p . p. The Jacobian of a network is not quite a covariance:
        # the bound limits the step along directions in which it fails.
        length = r_dot_r / (jnp.maximum(_dot(p, q), _dot(p, p)) + jnp.finfo(r_dot_r.dtype).tiny)
        u = jax.tree.map(lambda a, b: a + length * b, u, p)
        r = jax.tree.map(lambda a, b: a - length * b, r, q)
        next_r_dot_r = _dot(r, r)
        ratio = next_r_dot_r / (r_dot_r + jnp.finfo(r_dot_r.dtype).tiny)
        p = jax.tree.map(lambda a, b: a + ratio * b, r, p)
        return i + 1, total + length * step, u, r, p, next_r_dot_r

    begin = lambda r: (r, r, _dot(r, r))
    misfit = lambda d: innovations(x_0 + d, jnp.zeros(()))
    return _loops(begin, iterate, misfit, residuals, x_0, **loops)


def _primal(
    linearise: _Linearise,
    innovations: Innovations,
    x_0: Array,
    product: Callable[[Array], Array],
    **loops: Any,
) -> tuple[Array, Array]:
    """d that minimises d^T C^-1 d + |r(x_0 + d)|^2.

    Conjugate gradients for (C^-1 + A^T A) d = A^T r, preconditioned by C: each iteration comes
    closer to the minimum, while the first ones of `_dual` can end further away than they begin
    (El Akkraoui et al. 2008, Q. J. R. Meteorol. Soc. 134, 1003). C has to be a covariance, which
    the Jacobian of a network is not quite. w = C^-1 d follows by recurrence, without C^-1.
    `_loops` says what is returned; the norm is |C^(1/2) gradient|.
    """
    residuals, forward, transpose = linearise(x_0)
    tiny = jnp.finfo(x_0.dtype).tiny

    def iterate(carry):
        i, d, w, gradient, p, w_p, square = carry
        curved = w_p + transpose(forward(p))  # (C^-1 + A^T A) p
        length = square / (_dot(p, curved) + tiny)
        gradient = gradient - length * curved
        z = product(gradient)
        next_square = _dot(gradient, z)
        share = next_square / (square + tiny)
        done = (i + 1, d + length * p, w + length * w_p, gradient)
        return *done, z + share * p, gradient + share * w_p, next_square

    def begin(gradient):
        z = product(gradient)
        return gradient, z, gradient, _dot(gradient, z)

    misfit = lambda d: transpose(innovations(x_0 + d, jnp.zeros(())))
    return _loops(begin, iterate, misfit, transpose(residuals), x_0, **loops)


def _loops(
    begin: Callable[[PyTree[Array]], tuple],
    iterate: Callable[[tuple], tuple],
    misfit: Callable[[Array], PyTree[Array]],
    residual: PyTree[Array],
    x_0: Array,
    *,
    count: int,
    tolerance: float,
    outer: int,
) -> tuple[Array, Array]:
    """`outer` loops of at most `count` iterations, from d = 0, and their norm left over the first.

    The first loop solves L d = w for the `residual` at `x_0`, which is all where it is linear; each
    further one solves for what is then left, misfit(d) - w. They stop when the norm of the residual
    is below `tolerance` times the first.

    Args:
        begin: from a residual to the vectors of the first iteration, the square of its norm last.
        iterate: (i, d, w, *vectors) -> those of the next iteration.
        misfit: the residual at x_0 + d, were w zero.
        residual: at x_0.
        x_0: where the increment d starts.
        count: largest number of iterations of a loop.
        tolerance: relative to the first residual.
        outer: number of loops.
    """
    begun = begin(residual)
    first = begun[-1]
    unsolved = lambda carry: (carry[0] < count) & (carry[-1] > tolerance**2 * first)

    def solve(d, w, begun):
        start = (jnp.zeros((), jnp.int32), d, w, *begun)
        _, d, w, *_, left = jax.lax.while_loop(unsolved, iterate, start)
        return d, w, left

    def again(_, carry):
        d, w, _ = carry
        return solve(d, w, begin(jax.tree.map(jnp.subtract, misfit(d), w)))

    solution = solve(jnp.zeros_like(x_0), jax.tree.map(jnp.zeros_like, residual), begun)
    if outer > 1:
        solution = jax.lax.fori_loop(1, outer, again, solution)
    d, _, left = solution
    return d, jnp.sqrt(jnp.maximum(left, 0.0) / (first + jnp.finfo(first.dtype).tiny))


def _dot(a: PyTree[Array], b: PyTree[Array]) -> Array:
    return sum(
        (jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)),
        start=jnp.zeros(()),
    )
