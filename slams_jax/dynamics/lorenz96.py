"""The Lorenz-96 system, a chaotic ring of variables for testing data assimilation.

    dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F + p(x_i),   i modulo the number of variables

The polynomial p, zero unless given, stands for scales that are not resolved (`two_scale`).

Lorenz (1996), "Predictability: a problem partly solved", Proc. Seminar on Predictability, ECMWF. A
unit of time is about five days; all quantities are dimensionless.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.dynamics.runge_kutta import run, runge_kutta
from slams_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Lorenz96:
    """Parameters; the default is that of Lorenz, chaotic for 40 variables.

    Attributes:
        forcing: F.
        closure: coefficients of p, by ascending power.
    """

    forcing: float = 8.0
    closure: tuple[float, ...] = ()

    def __post_init__(self):
        if not math.isfinite(self.forcing):
            raise InputError(f"forcing of Lorenz-96 must be a finite number, got {self.forcing}")
        if not all(map(math.isfinite, self.closure)):
            raise InputError(f"closure of Lorenz-96 must be finite numbers, got {self.closure}")


def tendency(system: Lorenz96, x: Float[Array, "*n variable"]) -> Float[Array, "*n variable"]:
    """dx/dt at `x`, for four variables or more."""
    back, before, after = (jnp.roll(x, shift, axis=-1) for shift in (2, 1, -1))
    resolved = (after - back) * before - x + system.forcing
    for power, coefficient in enumerate(system.closure):
        resolved = resolved + coefficient * x**power
    return resolved


def step(
    system: Lorenz96, x: Float[Array, "*n variable"], dt: float
) -> Float[Array, "*n variable"]:
    """The state a time `dt` after `x` (`runge_kutta`); 0.05 is usual."""
    return runge_kutta(functools.partial(tendency, system), x, dt)


def trajectory(
    system: Lorenz96, x: Float[Array, "*n variable"], *, dt: float, length: int, substeps: int = 1
) -> Float[Array, "time *n variable"]:
    """The next `length` states after `x`, each `substeps` steps of `dt` apart.

    Raises:
        InputError: fewer than four variables, a time step that is not positive, or no steps.
    """
    if x.shape[-1] < 4:
        raise InputError(f"Lorenz-96 needs four variables or more, got {x.shape[-1]}")
    return run(functools.partial(tendency, system), x, dt=dt, length=length, substeps=substeps)
