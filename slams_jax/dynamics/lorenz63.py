"""The Lorenz-63 system, the smallest chaotic flow for testing data assimilation.

    dx/dt = σ (y - x),   dy/dt = x (ρ - z) - y,   dz/dt = x y - β z

Lorenz (1963), J. Atmos. Sci. 20, 130-141. All quantities are dimensionless.

With noise of strength s, every step of dt adds N(0, s^2 dt) to each variable (s = 1 in Rozet &
Louppe 2023, "Score-based Data Assimilation", arXiv 2306.10574).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.cycling import cycle_step, ensemble_oi
from slams_jax.dynamics.runge_kutta import check_steps, run, runge_kutta
from slams_jax.errors import InputError, require_positive


@dataclasses.dataclass(frozen=True)
class Lorenz63:
    """Parameters; the defaults are those of Lorenz.

    Attributes:
        sigma: Prandtl number σ.
        rho: Rayleigh number relative to its critical value, ρ.
        beta: geometric factor β.
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8.0 / 3.0

    def __post_init__(self):
        require_positive(dataclasses.asdict(self), "Lorenz-63")


IMPERFECT = Lorenz63(rho=30.0)  # the model of the backgrounds of nature runs
CLIMATE = 2000  # its states that describe its climate


def tendency(system: Lorenz63, x: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """dx/dt at `x`."""
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return jnp.stack(
        [system.sigma * (b - a), a * (system.rho - c) - b, a * b - system.beta * c], axis=-1
    )


def step(system: Lorenz63, x: Float[Array, "*n 3"], dt: float) -> Float[Array, "*n 3"]:
    """The state a time `dt` after `x` (`runge_kutta`)."""
    return runge_kutta(functools.partial(tendency, system), x, dt)


def trajectory(
    system: Lorenz63, x: Float[Array, "*n 3"], *, dt: float, length: int, substeps: int = 1
) -> Float[Array, "time *n 3"]:
    """The next `length` states after `x`, each `substeps` steps of `dt` apart.

    Raises:
        InputError: a time step that is not positive, or no steps.
    """
    return run(functools.partial(tendency, system), x, dt=dt, length=length, substeps=substeps)


def noisy_trajectory(
    system: Lorenz63,
    key: PRNGKey,
    x: Float[Array, "*n 3"],
    *,
    noise: float,
    dt: float,
    length: int,
    substeps: int = 1,
) -> Float[Array, "time *n 3"]:
    """As `trajectory`, with noise of strength `noise` added after each step, for each of `x`.

    Raises:
        InputError: as `trajectory`; or noise that is negative or not finite.
    """
    check_noise(noise)
    check_steps(dt=dt, length=length, substeps=substeps)
    scale = noise * dt**0.5

    def advance(x, key):
        for_step = lambda i, x: (
            step(system, x, dt)
            + scale * jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        )
        x = jax.lax.fori_loop(0, substeps, for_step, x)
        return x, x

    return jax.lax.scan(advance, x, jax.random.split(key, length))[1]


def check_noise(noise: float) -> None:
    """Refuse noise that is negative or not finite.

    Raises:
        InputError: such noise.
    """
    if not 0.0 <= noise < math.inf:
        raise InputError(f"noise must be finite and not negative, got {noise}")


def nature_run(
    system: Lorenz63,
    key: PRNGKey,
    *,
    length: int,
    dt: float,
    substeps: int,
    spin_up: int,
    noise: float = 0.0,
    imperfect: Lorenz63 = IMPERFECT,
    error: float = 4.0,
    variance: float = 0.1,
) -> tuple[Float[Array, "time 3"], Float[Array, "time 3"]]:
    """A true run on the attractor and an imperfect background for each of its times.

    The background is the forecast of an imperfect model without noise over one interval. It starts
    from the analysis of the time before: ensemble optimal interpolation of noisy observations of
    the truth.

    Args:
        system: the parameters.
        key: of all draws.
        length: number of times.
        dt: time step.
        substeps: number of time steps between two times.
        spin_up: number of initial times to discard.
        noise: its strength in the truth; 0 for none.
        imperfect: the parameters of the model of the backgrounds.
        error: standard deviation of the observations of each variable.
        variance: of the background's error over that of the climate, in the analysis.

    Raises:
        InputError: lengths, a time step, noise, an error or a variance out of range.
    """
    if length < 3 or spin_up < 0 or not error > 0:
        raise InputError(
            f"a nature run needs length >= 3, spin_up >= 0 and error > 0, got {length}, {spin_up} "
            f"and {error}"
        )
    check_noise(noise)
    key_start, key_error, key_cycle = jax.random.split(key, 3)
    start = 1.0 + jax.random.normal(key_start, (3,))
    steps = {"dt": dt, "substeps": substeps}
    times = spin_up + length + 1
    if noise:
        key_noise = jax.random.fold_in(key, 3)
        run = noisy_trajectory(system, key_noise, start, noise=noise, length=times, **steps)
    else:
        run = trajectory(system, start, length=times, **steps)
    observed = run[1:] + error * jax.random.normal(key_error, run[1:].shape)
    scheme = ensemble_oi(
        trajectory(imperfect, start, length=spin_up + CLIMATE, **steps)[spin_up:],
        lambda x: x[None],
        jnp.full(3, error),
        variance=variance,
        nearness=jnp.ones(1),
        between=jnp.ones((1, 1)),
    )

    def forecast(x, _):
        return trajectory(imperfect, x, length=1, **steps)[0]

    def analyse(background, observed, _):
        return background + scheme.increment((observed - background)[None])

    def step(x, given):
        done = cycle_step(forecast, analyse, x, *given)
        return done.analysis, done.background

    keys = jax.random.split(key_cycle, len(observed))
    backgrounds = jax.lax.scan(step, run[0], (observed, keys))[1]
    return run[spin_up + 1 :], backgrounds[spin_up:]
