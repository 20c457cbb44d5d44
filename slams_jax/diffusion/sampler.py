"""Draws from a denoiser's distribution: diffrax integrates the reverse SDE from noise to data.

The sampler knows a `Denoiser` and nothing else, so that it works alike for prior and posterior.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.aliases import Denoiser, PRNGKey
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.diffusion.solvers import ExponentialTwoStep, exponential_terms, reverse_sde_terms
from slams_jax.errors import InputError

Solver = Literal["dpmpp_2m", "dpmpp_2m_ode", "euler_maruyama"]
TimeGrid = Literal["log_snr", "uniform"]


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How the reverse SDE is solved.

    Attributes:
        solver: "dpmpp_2m" (exponential two-step, stochastic), "dpmpp_2m_ode" (the same for the
            probability-flow ODE) or "euler_maruyama".
        steps: number of steps, each with one evaluation of the denoiser.
        grid: times equidistant in the log-SNR, or in t ("uniform").
    """

    solver: Solver = "dpmpp_2m"
    steps: int = 32
    grid: TimeGrid = "log_snr"

    def __post_init__(self):
        for name, choices in (("solver", get_args(Solver)), ("grid", get_args(TimeGrid))):
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"sampler {name} {value!r} is unknown: choose from {choices}")
        if self.steps < 1:
            raise InputError(f"sampler steps must be at least 1, got {self.steps}")


def time_grid(schedule: CosineSchedule, grid: TimeGrid, steps: int) -> Float[Array, " steps_and_1"]:
    """Times s = 1 - t of the steps, from 0 to 1."""
    if grid == "uniform":
        return jnp.linspace(0.0, 1.0, steps + 1)
    ends = schedule.log_snr(jnp.array([1.0, 0.0]))
    s = 1.0 - schedule.time(jnp.linspace(ends[0], ends[1], steps + 1))
    return s.at[jnp.array([0, -1])].set(jnp.array([0.0, 1.0]))


def sample(
    key: PRNGKey,
    denoiser: Denoiser,
    shape: Sequence[int],
    schedule: CosineSchedule,
    config: SamplerConfig = SamplerConfig(),
) -> Float[Array, "..."]:
    """One draw of x_0 of the given shape.

    Nothing here raises on a draw that is not finite (a Denoiser that diverges): callers check.
    """
    key_start, key_noise = jax.random.split(key)
    start = schedule.sigma(jnp.ones(())) * jax.random.normal(key_start, tuple(shape))
    noise = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(tuple(shape), start.dtype), key_noise)
    if config.solver == "euler_maruyama":
        solver = diffrax.Euler()
        terms = reverse_sde_terms(denoiser, schedule, noise)
    else:
        solver = ExponentialTwoStep(schedule, stochastic=config.solver == "dpmpp_2m")
        terms = exponential_terms(denoiser, noise)
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=start,
        stepsize_controller=diffrax.StepTo(time_grid(schedule, config.grid, config.steps)),
        # One forward pass without gradients: no checkpoints, and noise that is never asked twice.
        adjoint=diffrax.DirectAdjoint(),
        max_steps=config.steps + 1,
    )
    assert solution.ys is not None
    return solution.ys[0]


def sample_ensemble(
    key: PRNGKey,
    draw: Callable[[PRNGKey], Array],
    members: int,
    *,
    batch: int | None = None,
) -> Float[Array, "member ..."]:
    """`members` independent draws, `batch` of them at a time (all at once where None).

    Member i uses `fold_in(key, i)`, whatever the number of members and batches.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(members))
    if batch is None or batch >= members:
        return jax.vmap(draw)(keys)
    return jax.lax.map(draw, keys, batch_size=batch)
