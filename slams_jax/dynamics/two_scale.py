"""The two-scale Lorenz-96 system: a ring of slow variables, each with a row of fast ones.

    dx_k/dt = (x_{k+1} - x_{k-2}) x_{k-1} - x_k + F - (h c / b) sum_j y_{j,k}
    dy_j/dt = c b (y_{j-1} - y_{j+2}) y_{j+1} - c y_j + (h c / b) x_k

The fast variables form one ring, row after row. Forecasts that know of the slow variables alone are
those of an imperfect model, `Lorenz96` with a closure.

Lorenz (1996), "Predictability: a problem partly solved", Proc. Seminar on Predictability, ECMWF,
eqs. 2 and 3. Wilks (2005), Q. J. R. Meteorol. Soc. 131, for the closure.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.dynamics import lorenz96
from slams_jax.dynamics.lorenz96 import Lorenz96
from slams_jax.dynamics.runge_kutta import run
from slams_jax.errors import InputError, require_positive

# Each slow variable, followed by its fast ones.
State = Float[Array, "*n variable part"]


@dataclasses.dataclass(frozen=True)
class TwoScale:
    """Parameters; the defaults are those of Lorenz, usual with 36 slow variables.

    Attributes:
        forcing: F.
        fast: number of fast variables of a slow one.
        coupling: h.
        rate: c, how many times as fast the fast variables are.
        amplitude: b, how many times as small they are.
    """

    forcing: float = 10.0
    fast: int = 10
    coupling: float = 1.0
    rate: float = 10.0
    amplitude: float = 10.0

    def __post_init__(self):
        for name in ("forcing", "coupling"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(
                    f"{name} of Lorenz-96 must be a finite number, got {getattr(self, name)}"
                )
        positive = {name: getattr(self, name) for name in ("fast", "rate", "amplitude")}
        require_positive(positive, "Lorenz-96")

    @property
    def exchange(self) -> float:
        """h c / b, between the two scales."""
        return self.coupling * self.rate / self.amplitude


def rested(system: TwoScale, slow: Float[Array, "*n variable"]) -> State:
    """The state whose fast variables are all at rest."""
    return jnp.concatenate(
        [slow[..., None], jnp.zeros((*slow.shape, system.fast), slow.dtype)], axis=-1
    )


def unresolved(system: TwoScale, state: State) -> Float[Array, "*n variable"]:
    """What the fast variables add to the tendencies of the slow ones."""
    return -system.exchange * jnp.sum(state[..., 1:], axis=-1)


def tendency(system: TwoScale, state: State) -> State:
    """The time derivative of a state, of four slow variables or more."""
    slow, fast = state[..., 0], state[..., 1:]
    resolved = lorenz96.tendency(Lorenz96(system.forcing), slow)
    ring = fast.reshape(*fast.shape[:-2], -1)
    before, after, second = (jnp.roll(ring, shift, axis=-1) for shift in (1, -1, -2))
    advection = system.amplitude * (before - second) * after
    moved = system.rate * (advection - ring)
    return jnp.concatenate(
        [
            (resolved + unresolved(system, state))[..., None],
            moved.reshape(fast.shape) + system.exchange * slow[..., None],
        ],
        axis=-1,
    )


def trajectory(
    system: TwoScale, state: State, *, dt: float, length: int, substeps: int = 1
) -> Float[Array, "time *n variable part"]:
    """The next `length` states, each `substeps` steps of `dt` apart; 0.005 is usual.

    Raises:
        InputError: fewer than four slow variables, another number of fast ones, a time step that is
            not positive, or no steps.
    """
    if state.shape[-2] < 4:
        raise InputError(f"Lorenz-96 needs four slow variables or more, got {state.shape[-2]}")
    if state.shape[-1] != 1 + system.fast:
        raise InputError(
            f"a state has {state.shape[-1]} parts, not a slow variable and {system.fast} fast ones"
        )
    return run(functools.partial(tendency, system), state, dt=dt, length=length, substeps=substeps)


def closed(system: TwoScale, states: State, *, degree: int = 4) -> Lorenz96:
    """The model of the slow variables that stands for the fast ones by a polynomial of its own.

    The polynomial is the least-squares fit to what the fast variables add in `states`.

    Args:
        system: with both scales.
        states: of a run.
        degree: of the polynomial; Wilks (2005) has 4.

    Raises:
        InputError: a negative degree, or no more values than coefficients.
    """
    slow = np.asarray(states[..., 0], np.float64).ravel()
    if degree < 0 or len(slow) <= degree + 1:
        raise InputError(
            f"a polynomial of degree {degree} cannot be fitted to {len(slow)} slow variables"
        )
    added = np.asarray(unresolved(system, states), np.float64).ravel()
    coefficients = np.polynomial.polynomial.polyfit(slow, added, degree)
    return Lorenz96(system.forcing, tuple(float(c) for c in coefficients))
