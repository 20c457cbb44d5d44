r"""The score filter: a trained prior, a forecast ensemble and observations in a cycle.

With a background ensemble of mean m and localised covariance B, and the Gaussian N(0, C) that
approximates the prior p of standardised states, the members of the analysis are draws from

    p(x) N(x; m, B) / N(x; 0, C) p(y | x).

The prior is the climate, from which the background comes too: the quotient keeps it from counting
twice. For a Gaussian prior, what is left is N(m, B) p(y | x), the target of ensemble Kalman
filters; otherwise the prior adds what is not Gaussian. Without observations, with S_t the
covariance of x_0 given x_t under N(m, B) and D_B, D_C the denoisers of the two Gaussians,

    E[x_0 | x_t] = D_B + S_t (C^-1 + alpha^2 / sigma^2) (D - D_C),
    S_t^-1 = B^-1 + alpha^2 / sigma^2,

if x_0 given x_t has the covariance that it has under N(0, C). That is exact for Gaussians. Where
the prior is much sharper than N(0, C) within the spread of the background, members follow the
background too closely. Observations enter through `slams_jax.diffusion.guide`.

The probability flow starts from the whitened departures of the background, B^(-1/2) (x_i - m),
instead of fresh noise. It carries each member of the background to one of the analysis: for
Gaussians, x_i -> m_a + A^(1/2) B^(-1/2) (x_i - m), with m_a and A of the posterior, which is the
square-root filter and has no sampling error of its own (Tippett et al. 2003, Mon. Wea. Rev. 131,
1485-1490). Transport by noising and denoising is also the idea of DAISI (Andrae et al. 2025).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey, Trajectory
from slams_jax.baselines.ensemble_kalman import Filter, check_errors
from slams_jax.diffusion import SamplerConfig, guide
from slams_jax.diffusion.grids import time_grid
from slams_jax.diffusion.sampler import integrate
from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPosterior
from slams_jax.gaussian.linalg import spectral
from slams_jax.models.state_prior import StatePrior
from slams_jax.products import product

FLOW = SamplerConfig(solver="dpmpp_3m_ode", steps=24)
SMALLEST = 1e-6  # eigenvalue of B, relative to the largest


def score_filter(
    prior: StatePrior,
    operator: Callable[[Array], Float[Array, " observation"]],
    error: Float[Array, " observation"],
    *,
    nearness: Float[Array, "value value"] | None = None,
    inflation: float = 1.0,
    iterations: int = 10,
    sampler: SamplerConfig = FLOW,
) -> Filter:
    """A filter with a trained prior: an analysis for `slams_jax.cycling.cycle`.

    Members are states of any shape whose values, flattened, are those of a trajectory (time, lat,
    lon, channel). Covariances are matrices of them: for states of up to a few hundred values.

    Args:
        prior: p and N(0, C), from `slams_jax.models.train_state_prior` or your own.
        operator: H, of one member in physical units; JAX differentiates it. Where it is a forecast
            followed by what observes it, the analysis is of the time at which that starts, as in
            `slams_jax.baselines.iterative_enkf`.
        error: standard deviations of the observations, independent of one another; not traced.
        nearness: factors of the covariances between values of the flattened state, such as
            `slams_jax.baselines.gaspari_cohn` of their distances; None for no localisation, which
            needs more members than values.
        inflation: factor of the departures of the background from its mean.
        iterations: of conjugate gradients in each step of the sampler, at most.
        sampler: of a probability flow: "dpmpp_2m_ode", "dpmpp_3m_ode", "ddim" with eta 0 or "ode".

    Raises:
        InputError: an error, inflation or standard deviation that is not positive, a sampler with
            noise, or states of another size than those of the prior.
    """
    check_errors(error)
    if not inflation > 0:
        raise InputError(f"inflation must be positive, got {inflation!r}: 1 changes nothing")
    denoiser, climate, schedule, mean, std = prior
    if not np.all(np.asarray(std) > 0):
        raise InputError(f"the standard deviation of the states must be positive, got {std}")
    if sampler.weighted or sampler.solver not in ("dpmpp_2m_ode", "dpmpp_3m_ode", "ddim", "ode"):
        raise InputError(
            f"the score filter carries members by a probability flow, which sampler "
            f"{sampler.solver!r} with noise is not: choose 'dpmpp_3m_ode'"
        )
    shape = (climate.vectors[0].shape[-1], *climate.modes.shape)
    mean, std = (jnp.broadcast_to(jnp.asarray(a, jnp.float32), shape).ravel() for a in (mean, std))
    precision = _precision(climate, shape)
    times = time_grid(schedule, "log_snr" if sampler.adaptive else sampler.grid, sampler.steps)

    def analyse(background: Array, observations: Array, key: PRNGKey) -> Array:
        count, *state = background.shape
        if background[0].size != precision.shape[0]:
            raise InputError(
                f"the score filter has a prior of states of {precision.shape[0]} values, the "
                f"members have {background[0].size}"
            )
        members = (background.reshape(count, -1) - mean[None]) / std[None]
        centre = jnp.mean(members, axis=0)
        departures = inflation * (members - centre[None])
        covariance = product("mi,mj->ij", departures, departures) / (count - 1)
        if nearness is not None:
            covariance = nearness * covariance
        values, vectors = jnp.linalg.eigh(covariance)
        values = jnp.maximum(values, SMALLEST * values[-1])

        def solve(x: Trajectory, ratio: Array) -> Trajectory:  # S_t x
            along = product("ij,i->j", vectors, x.ravel()) * ratio * values / (ratio + values)
            return product("ij,j->i", vectors, along).reshape(shape)

        def before(x_t: Trajectory, t: Array) -> Trajectory:
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            ratio = (sigma / alpha) ** 2
            departure = denoiser(x_t, t) - climate.denoise(x_t, alpha, sigma)
            sharp = product("ij,j->i", precision, departure.ravel()).reshape(shape)
            at = centre.reshape(shape)
            pull = (x_t / alpha - at + departure) / ratio + sharp
            return at + solve(pull, ratio)

        def innovations(x_0: Trajectory, extra: Array) -> Array:
            del extra  # of rules that this filter does not take
            seen = jnp.isfinite(observations)
            predicted = operator((x_0.ravel() * std + mean).reshape(state))
            return jnp.where(seen, observations - predicted, 0.0) / error

        posterior = guide(
            before,
            innovations,
            schedule,
            rule="gaussian",
            iterations=iterations,
            tolerance=1e-3,
            covariance=solve,
        )
        white = product("mi,ij->mj", departures, spectral(vectors, values**-0.5))
        last = jnp.ones(())
        start = schedule.alpha(last) * centre[None] + schedule.sigma(last) * white

        def carry(x: Array) -> Array:
            x = x.reshape(shape)
            return integrate(key, x, times, posterior, schedule, sampler)[0].ravel()

        return (jax.vmap(carry)(start) * std[None] + mean[None]).reshape(background.shape)

    return analyse


def _precision(climate: GaussianPosterior, shape: tuple[int, ...]) -> Float[Array, "value value"]:
    """C^-1 as a matrix."""
    columns = jnp.eye(math.prod(shape)).reshape(-1, *shape)
    root = jax.lax.map(climate.sample_root, columns).reshape(len(columns), -1)
    return jnp.linalg.inv(product("ij,kj->ik", root, root))
