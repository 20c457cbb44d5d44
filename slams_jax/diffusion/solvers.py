r"""Solvers of the reverse SDE for diffrax, in the time s = 1 - t from noise to data.

The drift and noise of the reverse SDE (Song et al. 2021, eq. 6), in s:

    dx = [-f x + g^2 score] ds + g dW,  f = d log(alpha) / dt,  g^2 = d sigma^2 / dt - 2 f sigma^2,

and those of the ODE with the same marginal distributions, the probability flow (eq. 13):

    dx = -[d alpha / dt D + d sigma / dt eps] ds,  D = E[x_0 | x_t],  eps = (x - alpha D) / sigma.

`ExponentialSolver` and `PredictorCorrector` solve the linear part exactly. Their terms are not
drift and diffusion: the first gives E[x_0 | x_t] and what else is told of it (`Told`), the second
the increments of the noise.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array

from slams_jax.aliases import Denoiser
from slams_jax.diffusion.guidance import Guided
from slams_jax.diffusion.schedule import CosineSchedule, to_score
from slams_jax.errors import InputError

FAR = 1e9  # log-SNR of absent estimates; actual values are of order ten
UNTOLD = -1.0  # residual of a denoiser that tells none; NaN would set off `jax_debug_nans`
UNWEIGHTED = float("inf")  # log dP/dQ of a path without a weight


class Told(NamedTuple):
    """What a denoiser tells of an estimate.

    Attributes:
        shift: of the estimate from that of the prior; None from a denoiser that is not `Guided`.
        residual: of the equations of guidance; `UNTOLD` likewise.
    """

    shift: Array | None
    residual: Array


class DenoiserSolver(diffrax.AbstractItoSolver):
    """Base of both solvers: the terms of `denoiser_terms`, steps without an error estimate.

    Their state is the largest residual of the denoiser so far (`UNTOLD`), log dP/dQ of the path
    (`slams_jax.diffusion.weights`; `UNWEIGHTED` where none is told), and what else they keep.
    """

    term_structure: ClassVar = diffrax.MultiTerm[tuple[diffrax.AbstractTerm, diffrax.AbstractTerm]]
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = (
        diffrax.LocalLinearInterpolation
    )

    def strong_order(self, terms):
        """Order of the solver for the SDE."""
        return 0.5

    def func(self, terms, t0, y0, args):
        """The denoised estimate."""
        return terms.terms[0].vf(t0, y0, args)[0]


class ExponentialSolver(DenoiserSolver):
    r"""DDIM and DPM-Solver++ (2M, 3M), from the probability-flow ODE to the reverse SDE.

    With h the step in the log-SNR, D the denoised estimate and a prime for the end of the step,

        x' = alpha' D + c (x - alpha D) / sigma + s z,
        s = eta sigma' sqrt(1 - exp(-2 h)),  c = sqrt(sigma'^2 - s^2),

    which are eqs. 12 and 16 of DDIM (Song, Meng & Ermon 2021) for any alpha and sigma; `eta` = 1 is
    the ancestral step of DDPM. At order 1, D is the estimate at the beginning of the step. At order
    2, it is extrapolated linearly in the log-SNR from the last two estimates to the middle of the
    step: DPM-Solver++(2M) for `eta` = 0, SDE-DPM-Solver++(2M) for `eta` = 1 (Lu et al. 2022,
    section 5 and appendix A). At order 3, for `eta` = 0, the parabola through the last three
    estimates is integrated exactly over the step: the exponential Adams-Bashforth method (Hochbruck
    & Ostermann 2010, "Exponential integrators", Acta Numerica 19). The first steps use the
    estimates available so far. Each step takes one evaluation; the order is that of the ODE.

    Attributes:
        schedule: the noise schedule.
        eta: share of fresh noise: 0 for the ODE, 1 for the reverse SDE.
        estimates: number of denoised estimates per step, 1, 2 or 3, which is the order.
        weighted: whether log dP/dQ of the path is kept, for a `Guided` denoiser and fresh noise.

    Raises:
        InputError: other numbers, three estimates with fresh noise, or weights without it.
    """

    schedule: CosineSchedule
    eta: float = 1.0
    estimates: int = 2
    weighted: bool = False

    def __check_init__(self):
        if self.estimates not in (1, 2, 3) or not 0.0 <= self.eta <= 1.0:
            raise InputError(
                "an exponential solver takes 1, 2 or 3 estimates and eta in [0, 1], got "
                f"{self.estimates} and {self.eta}"
            )
        if self.estimates == 3 and self.eta > 0.0:
            raise InputError(f"three estimates need the ODE: set eta to 0, got {self.eta}")
        if self.weighted and self.eta == 0.0:
            raise InputError("paths without fresh noise have no weights: set eta above 0")

    def order(self, terms):
        """Order of the solver for the ODE."""
        return self.estimates

    def init(self, terms, t0, t1, y0, args):
        """No residual, no weight, and placeholders for earlier estimates, too far away to count."""
        far = [jnp.full((), -FAR * (k + 1), jnp.result_type(y0)) for k in range(self.estimates - 1)]
        before = tuple((jnp.zeros_like(y0), log_snr) for log_snr in far)
        weight = _constant(y0, 0.0 if self.weighted else UNWEIGHTED)
        return _constant(y0, UNTOLD), weight, before, before if self.weighted else ()

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from s = `t0` to `t1`; the state holds the last estimates and their log-SNRs."""
        drift, noise = terms.terms
        now, then = jnp.asarray(1.0 - t0), jnp.asarray(1.0 - t1)
        alpha, sigma = self.schedule.alpha(then), self.schedule.sigma(then)
        log_snr = self.schedule.log_snr(now)
        h = self.schedule.log_snr(then) - log_snr
        worst, weight, before, shifts = solver_state
        denoised, told = drift.vf(t0, y0, args)
        past = ((denoised, log_snr), *before)
        # log(c / sigma'), and alpha' - c alpha / sigma without cancellation.
        log_kept = 0.5 * jnp.log1p(self.eta**2 * jnp.expm1(-2.0 * h))
        y1 = jnp.exp(log_kept) * sigma / self.schedule.sigma(now) * y0
        if self.estimates == 3:
            y1 = y1 + alpha * _integral_of_parabola(past, h)
        else:
            gain = -alpha * jnp.expm1(log_kept - h)
            y1 = y1 + gain * _middle(past, h)
        if self.eta > 0.0:
            white = noise.contr(t0, t1) / jnp.sqrt(t1 - t0)
            spread = self.eta * sigma * jnp.sqrt(-jnp.expm1(-2.0 * h))
            y1 = y1 + spread * white
            if self.weighted:
                shifts = ((told.shift, log_snr), *shifts)
                shifted = gain / spread * _middle(shifts, h)
                weight = weight - jnp.sum(shifted * (white + 0.5 * shifted))
                shifts = shifts[:-1]
        state = (jnp.maximum(worst, told.residual), weight, past[:-1], shifts)
        return y1, None, dict(y0=y0, y1=y1), state, diffrax.RESULTS.successful


Estimates = tuple[tuple[Array, Array], ...]  # denoised estimates and their log-SNRs, latest first


def _middle(past: Estimates, h: Array) -> Array:
    """The estimate in the middle of a step of h, extrapolated linearly from two if possible."""
    (latest, log_snr), *before = past
    if not before:
        return latest
    last, last_log_snr = before[0]
    # Lu et al. 2022, eq. 13: 1 / (2 r) with r = (last step) / (this step), at first infinite.
    return latest + 0.5 * (h / (log_snr - last_log_snr)) * (latest - last)


def _integral_of_parabola(past: Estimates, h: Array) -> Array:
    """The integral of exp(u - h) D(u) over [0, h], with D the parabola through three estimates.

    u is the log-SNR since the beginning of the step; D is in Newton's form (divided differences).
    """
    (d_0, l_0), (d_1, l_1), (d_2, l_2) = past
    slope = (d_0 - d_1) / (l_0 - l_1)
    curvature = (slope - (d_1 - d_2) / (l_1 - l_2)) / (l_0 - l_2)
    # Integrals of exp(u - h) times 1, u and u^2.
    zeroth = -jnp.expm1(-h)
    first = h - zeroth
    second = h**2 - 2.0 * first
    return zeroth * d_0 + first * slope + (second + (l_0 - l_1) * first) * curvature


class PredictorCorrector(DenoiserSolver):
    r"""The predictor and the Langevin corrector of Rozet & Louppe (2023, algorithm 4) and SLAMS.

    The predictor is the DDIM step without noise; each correction then evaluates eps again at the
    end of the step and updates the draw by

        x <- x - sigma (delta eps + sqrt(2 delta) z),  delta = tau / mean(eps^2),

    with the mean over all elements of the draw. The predictor and each correction take one
    evaluation.

    The Langevin steps are not adjusted, so that no number of them makes the draws exact: in the
    limit they multiply the variance of a direction by 1 / (1 - delta w / 2), where w is the mean of
    eps^2 in this direction. delta w = tau if all directions are alike, but it is much larger in
    directions of small variance: for variances between 1 and 1e-3 and tau = 0.5, the variance 1e-3
    becomes 4 times as large.

    Attributes:
        schedule: the noise schedule.
        tau: length of the Langevin steps, in (0, 2).
    """

    schedule: CosineSchedule
    tau: float = 0.5

    def order(self, terms):
        """Order of the predictor for the ODE."""
        return 1

    def init(self, terms, t0, t1, y0, args):
        """No residual and no weight."""
        return _constant(y0, UNTOLD), _constant(y0, UNWEIGHTED)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from s = `t0` to `t1`; the noise has the axis of the corrections in front."""
        drift, noise = terms.terms

        def eps(s, x):
            t = jnp.asarray(1.0 - s)
            denoised, told = drift.vf(s, x, args)
            return (x - self.schedule.alpha(t) * denoised) / self.schedule.sigma(t), told.residual

        now, then = jnp.asarray(1.0 - t0), jnp.asarray(1.0 - t1)
        sigma = self.schedule.sigma(then)
        r = self.schedule.alpha(then) / self.schedule.alpha(now)
        direction, residual = eps(t0, y0)
        x = r * y0 + (sigma - r * self.schedule.sigma(now)) * direction

        def correct(carry, white):
            x, worst = carry
            direction, residual = eps(t1, x)
            delta = self.tau / jnp.mean(direction**2)
            x = x - sigma * (delta * direction + jnp.sqrt(2.0 * delta) * white)
            return (x, jnp.maximum(worst, residual)), None

        start = (x, jnp.maximum(solver_state[0], residual))
        (y1, worst), _ = jax.lax.scan(correct, start, noise.contr(t0, t1) / jnp.sqrt(t1 - t0))
        return y1, None, dict(y0=y0, y1=y1), (worst, solver_state[1]), diffrax.RESULTS.successful


class _Estimate(diffrax.AbstractTerm):
    """The denoised estimate and what is told of it, which `diffrax.ODETerm` would refuse.

    Attributes:
        vector_field: (s, x, args) -> both.
    """

    vector_field: Callable[..., tuple[Array, Told]]

    def vf(self, t, y, args):
        """The estimate and what is told of it."""
        return self.vector_field(t, y, args)

    def contr(self, t0, t1, **kwargs):
        """The length of the step."""
        return t1 - t0

    def prod(self, vf, control):
        """Of the estimate alone."""
        return control * vf[0]


def _constant(x: Array, value: float) -> Array:
    return jnp.full((), value, jnp.result_type(x))


def denoiser_terms(denoiser: Denoiser, noise: diffrax.AbstractBrownianPath):
    """The terms of `ExponentialSolver` and `PredictorCorrector`.

    Args:
        denoiser: of the distribution to draw from.
        noise: with the shape of x, or (corrections, *shape of x) for `PredictorCorrector`.
    """

    def estimate(s, x: Array, args) -> tuple[Array, Told]:
        t = jnp.asarray(1.0 - s)
        if not isinstance(denoiser, Guided):
            return denoiser(x, t), Told(None, _constant(x, UNTOLD))
        found = denoiser.estimate(x, t)
        return found.x_0, Told(found.x_0 - found.prior, found.residual.astype(x.dtype))

    return diffrax.MultiTerm(
        _Estimate(estimate),
        diffrax.ControlTerm(lambda s, x, args: jnp.ones_like(x), noise),
    )


def reverse_sde_terms(
    denoiser: Denoiser, schedule: CosineSchedule, noise: diffrax.AbstractBrownianPath
):
    """Drift and diffusion of the reverse SDE, for diffrax's own SDE solvers.

    The noise is additive, so that the Ito and Stratonovich senses agree.
    """

    def rates(t: Array) -> tuple[Array, Array]:
        log_alpha = lambda t: jnp.log(schedule.alpha(t))
        f = jax.grad(log_alpha)(t)
        variance, growth = jax.value_and_grad(lambda t: schedule.sigma(t) ** 2)(t)
        return f, growth - 2.0 * f * variance

    def drift(s, x: Array, args) -> Array:
        t = jnp.asarray(1.0 - s)
        f, g2 = rates(t)
        return -f * x + g2 * to_score(schedule, denoiser(x, t), x, t)

    def diffusion(s, x: Array, args) -> lineax.DiagonalLinearOperator:
        g = jnp.sqrt(rates(jnp.asarray(1.0 - s))[1])
        return lineax.DiagonalLinearOperator(jnp.broadcast_to(g, x.shape))

    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, noise))


def probability_flow_term(denoiser: Denoiser, schedule: CosineSchedule) -> diffrax.ODETerm:
    """Right-hand side of the probability-flow ODE in s, for diffrax's ODE solvers.

    Written with the denoised estimate and eps, it is bounded at both ends; written with the score,
    terms of order 1 / alpha would cancel near t = 1.
    """

    def rate(s, x: Array, args) -> Array:
        t = jnp.asarray(1.0 - s)
        alpha, alpha_rate = jax.value_and_grad(schedule.alpha)(t)
        sigma, sigma_rate = jax.value_and_grad(schedule.sigma)(t)
        denoised = denoiser(x, t)
        return -(alpha_rate * denoised + sigma_rate * (x - alpha * denoised) / sigma)

    return diffrax.ODETerm(rate)
