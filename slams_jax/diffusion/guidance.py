r"""Guidance: a denoiser of the prior and observations make a denoiser of the posterior.

By Bayes' rule and Tweedie's formula (alpha, sigma of the schedule at t),

    E[x_0 | x_t, y] = E[x_0 | x_t] + sigma^2 / alpha grad_{x_t} log p(y | x_t).

The rules differ in how they approximate log p(y | x_t), whose mean is H(E[x_0 | x_t]) and whose
covariance is that of the observations plus that of what is still unknown of x_0.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from slams_jax.aliases import Denoiser
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.errors import InputError

# x_0, extra dimensionless variance -> whitened innovations (a pytree of arrays).
Innovations = Callable[[Array, Array], PyTree[Array]]
# v, sigma^2 / alpha^2 -> V v with V a model of cov(x_0 | x_t).
Covariance = Callable[[Array, Array], Array]
Rule = Literal["sda", "mmps", "gaussian"]


def guide(
    denoiser: Denoiser,
    innovations: Innovations | None,
    schedule: CosineSchedule,
    *,
    rule: Rule = "mmps",
    gamma: float = 1e-2,
    iterations: int = 3,
    covariance: Covariance | None = None,
) -> Denoiser:
    """The denoiser of the posterior given observations.

    Args:
        denoiser: E[x_0 | x_t] under the prior.
        innovations: W (y - H(x_0)), see `slams_jax.observe.whitened_innovations`; None where there
            is no observation, and the prior's denoiser is returned as it is.
        schedule: the noise schedule of `denoiser`.
        rule: "sda", "mmps" or "gaussian".
        gamma: for "sda", the variance of x_0 given x_t over sigma^2 / alpha^2.
        iterations: for "mmps" and "gaussian", the number of conjugate-gradient iterations.
        covariance: for "gaussian", products with cov(x_0 | x_t) under a Gaussian prior, as
            `slams_jax.observe.PriorCovariance.posterior` gives them.

    Raises:
        InputError: an unknown rule, a negative gamma, no iteration, or no covariance where the
            rule needs one.
    """
    if innovations is None:
        return denoiser
    if rule == "sda":
        if gamma < 0:
            raise InputError(f"guidance gamma must not be negative, got {gamma}")
        return _sda(denoiser, innovations, schedule, gamma)
    if rule not in ("mmps", "gaussian"):
        raise InputError(f"unknown guidance rule {rule!r}: choose 'sda', 'mmps' or 'gaussian'")
    if iterations < 1:
        raise InputError(f"guidance needs at least one iteration, got {iterations}")
    if rule == "mmps":
        return _mmps(denoiser, innovations, schedule, iterations)
    if covariance is None:
        raise InputError("guidance rule 'gaussian' needs the covariance of the prior")
    return _gaussian(denoiser, innovations, schedule, iterations, covariance)


def _sda(denoiser: Denoiser, innovations: Innovations, schedule: CosineSchedule, gamma: float):
    """Rozet & Louppe 2023, eq. 15, the rule of SLAMS: cov(y | x_t) = R + gamma sigma^2/alpha^2."""

    def guided(x_t: Array, t: Array) -> Array:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)

        def misfit(x: Array) -> tuple[Array, Array]:
            x_0 = denoiser(x, t)
            residuals = innovations(x_0, gamma * (sigma / alpha) ** 2)
            return 0.5 * _dot(residuals, residuals), x_0

        gradient, x_0 = jax.grad(misfit, has_aux=True)(x_t)
        return x_0 - sigma**2 / alpha * gradient

    return guided


def _mmps(denoiser: Denoiser, innovations: Innovations, schedule: CosineSchedule, iterations: int):
    """Moment matching (Rozet et al. 2024, "Learning diffusion priors from observations", alg. 2).

    cov(x_0 | x_t) = V = sigma^2 / alpha dE[x_0 | x_t] / dx_t, exactly. A product with V is one with
    the Jacobian's transpose, which is symmetric for the true denoiser.
    """

    def guided(x_t: Array, t: Array) -> Array:
        scale = schedule.sigma(t) ** 2 / schedule.alpha(t)
        x_0, transpose = jax.vjp(lambda x: denoiser(x, t), x_t)
        product = lambda v: scale * transpose(v)[0]
        return x_0 + _increment(innovations, x_0, product, iterations)

    return guided


def _gaussian(
    denoiser: Denoiser,
    innovations: Innovations,
    schedule: CosineSchedule,
    iterations: int,
    covariance: Covariance,
):
    """V = cov(x_0 | x_t) of a Gaussian prior with the covariance of the training data.

    No derivative of the network is needed, and V is a covariance for certain, where the Jacobian
    of a network is not. Peng et al. (2024, "Improving diffusion models for inverse problems using
    optimal posterior covariance") and Rissanen et al. (2025, "Free hunch") start from such V.
    """

    def guided(x_t: Array, t: Array) -> Array:
        ratio = (schedule.sigma(t) / schedule.alpha(t)) ** 2
        x_0 = denoiser(x_t, t)
        return x_0 + _increment(innovations, x_0, lambda v: covariance(v, ratio), iterations)

    return guided


def _increment(innovations: Innovations, x_0: Array, product: Callable[[Array], Array], count: int):
    """V A^T u, where (I + A V A^T) u = r: A the whitened linearised operator, r the innovation."""
    residuals, transpose = jax.vjp(lambda x: innovations(x, jnp.zeros(())), x_0)
    minus_a_transpose = lambda u: transpose(u)[0]
    # The transpose of the transpose: networks need no rule for forward differentiation.
    minus_a = lambda v: jax.vjp(minus_a_transpose, residuals)[1](v)[0]
    step = lambda u: -product(minus_a_transpose(u))
    return _conjugate_gradients(step, minus_a, residuals, x_0, count)


def _conjugate_gradients(increment, minus_a, residuals, like: Array, iterations: int) -> Array:
    """V A^T u, where (I + A V A^T) u = r, after some conjugate-gradient iterations from u = 0.

    V A^T is applied once an iteration and its results are summed, so that neither u nor one more
    product at the end is needed; library solvers return u, and would cost two more products.
    """

    def iterate(_, carry):
        total, r, p, r_dot_r = carry
        step = increment(p)
        q = jax.tree.map(jnp.subtract, p, minus_a(step))  # (I + A V A^T) p
        # With a covariance V, p . q >= p . p. The Jacobian of a network is not quite one: the
        # bound keeps a direction in which it fails from being followed without end.
        length = r_dot_r / (jnp.maximum(_dot(p, q), _dot(p, p)) + jnp.finfo(r_dot_r.dtype).tiny)
        r = jax.tree.map(lambda a, b: a - length * b, r, q)
        next_r_dot_r = _dot(r, r)
        ratio = next_r_dot_r / (r_dot_r + jnp.finfo(r_dot_r.dtype).tiny)
        p = jax.tree.map(lambda a, b: a + ratio * b, r, p)
        return total + length * step, r, p, next_r_dot_r

    start = (jnp.zeros_like(like), residuals, residuals, _dot(residuals, residuals))
    return jax.lax.fori_loop(0, iterations, iterate, start)[0]


def _dot(a: PyTree[Array], b: PyTree[Array]) -> Array:
    return sum(
        (jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)),
        start=jnp.zeros(()),
    )
