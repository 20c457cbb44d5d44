r"""Solvers of the reverse SDE, for diffrax, in the time s = 1 - t, from noise to data.

The drift and noise of the reverse SDE (Song et al. 2021, eq. 6), in s:

    dx = [-f x + g^2 score] ds + g dW,  f = d log(alpha) / dt,  g^2 = d sigma^2 / dt - 2 f sigma^2.

`ExponentialTwoStep` solves its linear part exactly. Its terms are not drift and diffusion: the
first gives E[x_0 | x_t], the second only the increments of the noise.
"""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array

from slams_jax.aliases import Denoiser
from slams_jax.diffusion.schedule import CosineSchedule, to_score


class ExponentialTwoStep(diffrax.AbstractItoSolver):
    """DPM-Solver++(2M), stochastic or not (Lu et al. 2022, section 5 and appendix A).

    Between two times the denoised estimate is extrapolated linearly in the log-SNR from the last
    two; the first step uses one. One evaluation a step, second order in the log-SNR.

    Attributes:
        schedule: the noise schedule.
        stochastic: solve the reverse SDE; otherwise the probability-flow ODE.
    """

    schedule: CosineSchedule
    stochastic: bool = True

    term_structure: ClassVar = diffrax.MultiTerm[tuple[diffrax.AbstractTerm, diffrax.AbstractTerm]]
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = (
        diffrax.LocalLinearInterpolation
    )

    def order(self, terms):
        """Order of the solver for the ODE."""
        return 2

    def strong_order(self, terms):
        """Order of the solver for the SDE."""
        return 0.5

    def init(self, terms, t0, t1, y0, args):
        """No denoised estimate yet: its log-SNR is marked by an infinite distance."""
        return jnp.zeros_like(y0), jnp.full((), -jnp.inf, dtype=jnp.result_type(y0))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from s = `t0` to `t1`; the state is the last estimate and its log-SNR."""
        drift, noise = terms.terms
        last, last_log_snr = solver_state
        now, then = jnp.asarray(1.0 - t0), jnp.asarray(1.0 - t1)
        log_snr = self.schedule.log_snr(now)
        h = self.schedule.log_snr(then) - log_snr
        denoised = drift.vf(t0, y0, args)
        # Lu et al. 2022, eq. 13: r = (last step) / (this step), infinite in the first one.
        slope = (denoised - last) * (h / (log_snr - last_log_snr))
        estimate = denoised + 0.5 * slope
        decay = jnp.exp(-h) * self.schedule.sigma(then) / self.schedule.sigma(now)
        if self.stochastic:
            gain = -jnp.expm1(-2.0 * h)
            white = noise.contr(t0, t1) / jnp.sqrt(t1 - t0)
            y1 = decay * y0 + self.schedule.alpha(then) * gain * estimate
            y1 = y1 + self.schedule.sigma(then) * jnp.sqrt(gain) * white
        else:
            y1 = jnp.exp(h) * decay * y0 - self.schedule.alpha(then) * jnp.expm1(-h) * estimate
        state = (denoised, log_snr)
        return y1, None, dict(y0=y0, y1=y1), state, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        """The denoised estimate."""
        return terms.terms[0].vf(t0, y0, args)


def exponential_terms(denoiser: Denoiser, noise: diffrax.AbstractBrownianPath):
    """The terms of `ExponentialTwoStep`."""
    return diffrax.MultiTerm(
        diffrax.ODETerm(lambda s, x, args: denoiser(x, jnp.asarray(1.0 - s))),
        diffrax.ControlTerm(lambda s, x, args: jnp.ones_like(x), noise),
    )


def reverse_sde_terms(
    denoiser: Denoiser, schedule: CosineSchedule, noise: diffrax.AbstractBrownianPath
):
    """Drift and diffusion of the reverse SDE, for diffrax's own SDE solvers."""

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
