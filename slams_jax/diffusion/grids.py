"""Time grids: the times at which a sampler evaluates its denoiser."""

import functools
from typing import Literal

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.diffusion.schedule import CosineSchedule

TimeGrid = Literal["log_snr", "uniform", "edm"]

EDM_RHO = 7.0  # Karras et al. 2022, section 3: the value that they recommend


def time_grid(
    schedule: CosineSchedule, grid: TimeGrid, steps: int, *, first: float = 1.0
) -> Float[Array, " steps_and_1"]:
    """Times s = 1 - t of the steps, from 1 - `first` (0 from pure noise) to 1.

    They are constants of the compiled program: the noise is keyed by the bits of the times, which
    must not depend on how a program computes them.

    Args:
        schedule: the noise schedule.
        grid: equidistant in the log-SNR ("log_snr"), in t ("uniform"), or in the seventh root of
            sigma / alpha ("edm"; Karras et al. 2022, eq. 5, between the ends of the schedule, the
            last of which takes the place of their zero).
        steps: number of steps.
        first: t of the noise that is started from, in (0, 1].
    """
    with jax.ensure_compile_time_eval():
        return jnp.asarray(_times(schedule, grid, steps, first))


@functools.lru_cache(maxsize=32)
def _times(
    schedule: CosineSchedule, grid: TimeGrid, steps: int, first: float
) -> Float[np.ndarray, " steps_and_1"]:
    """`time_grid`, once for each grid: every operation here is a program of its own."""
    if grid == "uniform":
        return np.asarray(jnp.linspace(1.0 - first, 1.0, steps + 1), np.float32)
    ends = schedule.log_snr(jnp.array([first, 0.0]))
    if grid == "log_snr":
        log_snr = jnp.linspace(ends[0], ends[1], steps + 1)
    else:
        roots = jnp.exp(-ends / EDM_RHO)
        log_snr = -EDM_RHO * jnp.log(jnp.linspace(roots[0], roots[1], steps + 1))
    s = 1.0 - schedule.time(log_snr)
    return np.asarray(s.at[jnp.array([0, -1])].set(jnp.array([1.0 - first, 1.0])), np.float32)


class GridSteps(diffrax.StepTo):
    """Steps to the times of a grid, which `time_grid` guarantees to ascend.

    The checks of `StepTo` would put a callback to Python into the compiled program, which then
    could be neither cached nor exported.
    """

    def wrap(self, direction):
        """Time runs forward."""
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """The end of the first step, and the index of the end of the second."""
        return self.ts[1], 2
