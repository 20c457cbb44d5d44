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
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, PyTree

from slams_jax.aliases import Denoiser
from slams_jax.diffusion.conditional import Local, moved, perturbed
from slams_jax.diffusion.increments import (
    Increment,
    Innovations,
    Linear,
    Loops,
    Product,
    direct,
    dot,
    dual,
    linearised,
    primal,
)
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.diffusion.split_gibbs import DrawGiven
from slams_jax.errors import InputError

# x_0 -> innovations that equal the true ones there and are cheap to differentiate.
Tangent = Callable[[Array], Innovations]
# v, sigma^2 / alpha^2 -> C v, where C is a model of cov(x_0 | x_t).
Covariance = Callable[[Array, Array], Array]
_Linearise = Callable[[Array], Linear]
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
        draw: of x_0 given x_t and the observations, for split Gibbs sampling; None where a rule
            has no model of cov(x_0 | x_t) that it can be drawn from.
    """

    estimate: Callable[[Array, Array], Estimate]
    draw: DrawGiven | None = None

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
    root: Covariance | None = None,
    tangent: Tangent | None = None,
) -> Denoiser:
    """The denoiser of the posterior given observations.

    That of the rules `GUIDED` is a `Guided`.

    Args:
        denoiser: E[x_0 | x_t] under the prior.
        innovations: W (y - H(x_0)), see `slams_jax.observe.whitened_innovations`; None without
            observations, which leaves the estimates of the prior unchanged.
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
        root: for "gaussian", products with the symmetric square root of that covariance, such as
            `slams_jax.gaussian.GaussianPosterior.sample_root`; given, the denoiser can `draw`.
        tangent: what is linearised in place of `innovations`, such as those of a decoder without
            its small nonlinear part. "sda" and "dps" differentiate the innovations themselves.

    Raises:
        InputError: an unknown rule, a negative gamma, no iteration, a tolerance outside [0, 1), or
            a missing covariance.
    """
    if innovations is None:
        return denoiser if root is None else _unobserved(denoiser, schedule, root)
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
    linearise = lambda x_0: linearised(tangent(x_0) if tangent else innovations, x_0)
    truly = lambda x_0: innovations(x_0, jnp.zeros(()))
    if rule == "pigdm":
        return _pigdm(denoiser, linearise, schedule, iterations, jacobian, covariance)
    if rule == "tmpd":
        return _tmpd(denoiser, linearise, schedule, covariance)
    loops = Loops(iterations, tolerance, outer)
    if rule == "mmps":
        model = functools.partial(_denoised, denoiser, schedule, covariance)
        return Guided(_matched(model, linearise, truly, functools.partial(dual, loops=loops)))
    assert covariance is not None
    model = functools.partial(_gaussian, denoiser, schedule, covariance)
    if rule == "exact":
        return Guided(_matched(model, linearise, truly, direct))
    estimate = _matched(model, linearise, truly, functools.partial(primal, loops=loops))
    if root is None:
        return Guided(estimate)
    return Guided(estimate, _drawn(model, schedule, root, linearise, truly, loops))


def _estimate(denoiser: Denoiser, x_t: Array, t: Array) -> Estimate:
    """Before the observations of a rule: of the prior, or of one that others already guide."""
    if isinstance(denoiser, Guided):
        return denoiser.estimate(x_t, t)
    x_0 = denoiser(x_t, t)
    return Estimate(x_0, x_0, jnp.zeros((), x_0.dtype))


def _unobserved(denoiser: Denoiser, schedule: CosineSchedule, root: Covariance) -> Guided:
    """The prior itself, with draws of x_0 given x_t alone."""

    def draw(key, x_t, t, *_):
        x_0 = _estimate(denoiser, x_t, t).x_0
        ratio = (schedule.sigma(t) / schedule.alpha(t)) ** 2
        return x_0 + root(jax.random.normal(key, x_0.shape, x_0.dtype), ratio), jnp.zeros(())

    return Guided(functools.partial(_estimate, denoiser), draw)


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
            return 0.5 * dot(residuals, residuals), x_0

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
        _, residuals, forward, transpose = linearise(x_0)
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
        _, residuals, forward, transpose = linearise(x_0)
        sums = forward(product(transpose(jax.tree.map(jnp.ones_like, residuals))))
        weights = jax.tree.map(lambda r, d: r / (1.0 + jnp.maximum(d, 0.0)), residuals, sums)
        return x_0 + product(transpose(weights))

    return guided


def _matched(
    model: Callable[[Array, Array], tuple[Estimate, Product]],
    linearise: _Linearise,
    innovations: Callable[[Array], PyTree[Array]],
    solve: Callable[..., Increment],
) -> Callable[[Array, Array], Estimate]:
    """C itself carries the increment to the state: moment matching.

    `model` gives E[x_0 | x_t] and products with C. C = V (`_denoised`) is the rule of Rozet et al.
    2024, "Learning diffusion priors from observations", alg. 2; C of a Gaussian prior (`_gaussian`)
    needs no derivative of the network.
    """

    def guided(x_t: Array, t: Array) -> Estimate:
        before, product = model(x_t, t)
        misfit = lambda d: innovations(before.x_0 + d)
        found = solve(linearise(before.x_0), product, misfit=misfit)
        return Estimate(before.x_0 + found.step, before.prior, found.left)

    return guided


def _drawn(
    model: Callable[[Array, Array], tuple[Estimate, Product]],
    schedule: CosineSchedule,
    root: Covariance,
    linearise: _Linearise,
    innovations: Callable[[Array], PyTree[Array]],
    loops: Loops,
) -> DrawGiven:
    """x_0 from N(E[x_0 | x_t], C) and the observations."""

    def draw(key, x_t, t, x_0, fresh, slices):
        before, product = model(x_t, t)
        ratio = (schedule.sigma(t) / schedule.alpha(t)) ** 2
        local = Local(before.x_0, product, lambda v: root(v, ratio), innovations, linearise)
        if not slices:
            return perturbed(key, local, loops)
        return moved(key, x_0, fresh, local, loops, slices)

    return draw


def _gaussian(
    denoiser: Denoiser, schedule: CosineSchedule, covariance: Covariance, x_t: Array, t: Array
):
    """E[x_0 | x_t], and cov(x_0 | x_t) of a Gaussian prior with the covariance of training data.

    This is guaranteed to be a covariance, unlike the Jacobian of a network. Peng et al. (2024,
    "Improving diffusion models for inverse problems using optimal posterior covariance") and
    Rissanen et al. (2025, "Free hunch") start from such a C.
    """
    ratio = (schedule.sigma(t) / schedule.alpha(t)) ** 2
    # What depends on the noise level alone is computed once, not in every iteration of a solver.
    _, product = jax.linearize(lambda v: covariance(v, ratio), jnp.zeros_like(x_t))
    return _estimate(denoiser, x_t, t), product


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
