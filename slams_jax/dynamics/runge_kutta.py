"""Runs of ordinary differential equations by the classical Runge-Kutta method of order 4."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from slams_jax.errors import InputError

Tendency = Callable[[Array], Array]  # dx/dt at x


def runge_kutta(tendency: Tendency, x: Float[Array, "..."], dt: float) -> Float[Array, "..."]:
    """The state a time `dt` after `x`."""
    k1 = tendency(x)
    k2 = tendency(x + dt / 2 * k1)
    k3 = tendency(x + dt / 2 * k2)
    k4 = tendency(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def run(
    tendency: Tendency, x: Float[Array, "..."], *, dt: float, length: int, substeps: int = 1
) -> Float[Array, "time ..."]:
    """The next `length` states after `x`, each `substeps` steps of `dt` apart.

    Raises:
        InputError: a time step that is not positive, or no steps.
    """
    check_steps(dt=dt, length=length, substeps=substeps)
    return repeated(lambda x: runge_kutta(tendency, x, dt), x, length=length, substeps=substeps)


def check_steps(*, dt: float, length: int, substeps: int) -> None:
    """Refuse what is no run.

    Raises:
        InputError: a time step that is not positive, or no steps.
    """
    if not dt > 0 or length < 1 or substeps < 1:
        raise InputError(
            f"dt, length and substeps must be positive, got {dt}, {length} and {substeps}"
        )


def repeated(
    step: Callable[[Array], Array], x: Float[Array, "..."], *, length: int, substeps: int
) -> Float[Array, "time ..."]:
    """The next `length` states after `x`, each `substeps` steps apart."""

    def advance(x, _):
        x = jax.lax.fori_loop(0, substeps, lambda _, x: step(x), x)
        return x, x

    return jax.lax.scan(advance, x, length=length)[1]
