"""Kolmogorov flow: two-dimensional turbulence on a torus, driven by a force that varies as a sine.

    dw/dt + u dw/dx + v dw/dy = nu (d²w/dx² + d²w/dy²) - r w - A k cos(k y),   w = dv/dx - du/dy

for the vorticity w of a velocity (u, v) without divergence, on [0, 2 pi)². The force A sin(k y)
acts along x. Chandler & Kerswell (2013), J. Fluid Mech. 722; the defaults are those of Kochkov et
al. (2021), PNAS 118, a Reynolds number of 1,000 with drag, which Rozet & Louppe (2023), NeurIPS 36,
observe every 0.2 time units. All quantities are dimensionless.

The solver is that of `exponax`: pseudo-spectral, with exponential time differencing of order 2.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.dynamics.promotion import relaxed_promotion
from slams_jax.dynamics.runge_kutta import repeated
from slams_jax.errors import InputError, missing_package, require_positive
from slams_jax.observe import Coarsen

Vorticity = Float[Array, "*n y x"]


@dataclasses.dataclass(frozen=True)
class Kolmogorov:
    """Parameters of the flow and of its solver.

    Attributes:
        points: of the grid along each side; 64 do not resolve the default viscosity.
        viscosity: nu.
        drag: r.
        amplitude: A, of the force.
        wavenumber: k, of the force.
        interval: between two states of a trajectory.
        substeps: time steps in an interval; too few end in values that are not finite, as
            50 do after 60 intervals with the other defaults.

    Raises:
        InputError: a value that is not positive, or an odd number of points.
    """

    points: int = 128
    viscosity: float = 1e-3
    drag: float = 0.1
    amplitude: float = 1.0
    wavenumber: int = 4
    interval: float = 0.2
    substeps: int = 80

    def __post_init__(self):
        positive = {n: v for n, v in dataclasses.asdict(self).items() if n != "drag"}
        require_positive(positive, "a Kolmogorov flow")
        if not (self.drag >= 0 and math.isfinite(self.drag)):
            raise InputError(f"drag of a Kolmogorov flow must not be negative, got {self.drag}")
        if self.points % 2:
            raise InputError(f"points of a Kolmogorov flow must be even, got {self.points}")


def trajectory(
    system: Kolmogorov, vorticity: Vorticity, *, length: int
) -> Float[Array, "time *n y x"]:
    """The next `length` states, each `system.interval` apart; pure.

    Raises:
        InputError: another grid, no steps, or `exponax` is not installed.
    """
    points = system.points
    if vorticity.shape[-2:] != (points, points):
        raise InputError(
            f"the flow has {points} x {points} points, the vorticity {vorticity.shape[-2:]}"
        )
    if length < 1:
        raise InputError(f"length must be at least 1, got {length}")
    stepper = _stepper(system)
    # Its axes are (channel, x, y), its vorticity is du/dy - dv/dx, and its force is ours then.
    step = jax.vmap(lambda w: -stepper(-w.T[None])[0].T)
    flat = vorticity.reshape(-1, points, points)
    with relaxed_promotion():
        run = repeated(step, flat, length=length, substeps=system.substeps)
    return run.reshape(length, *vorticity.shape)


def random_vorticity(system: Kolmogorov, key: PRNGKey) -> Float[Array, "y x"]:
    """Smooth noise to start from, with a mean speed of 1; turbulence takes some 20 time units.

    Its spectrum peaks at the wavenumber of the force.
    """
    k_y, k_x = _wavenumbers(system.points)
    square = (k_x**2 + k_y**2) / system.wavenumber**2
    noise = jax.random.normal(key, (system.points, system.points))
    smooth = _multiplied(noise, square * np.exp(-square))
    speed = jnp.sqrt(jnp.mean(jnp.sum(velocity(smooth) ** 2, axis=-1)))
    return smooth / speed


def velocity(vorticity: Vorticity) -> Float[Array, "*n y x component"]:
    """(u, v) of a vorticity on the torus, whose mean is left out."""
    k_y, k_x = _derivatives(vorticity.shape[-1])
    square = k_x**2 + k_y**2
    # (u, v) = (-d/dy, d/dx) of the stream function, whose Laplacian is the vorticity.
    inverse = 1.0 / np.where(square > 0, square, np.inf)
    parts = (_multiplied(vorticity, factor) for factor in (1j * k_y * inverse, -1j * k_x * inverse))
    return jnp.stack(list(parts), axis=-1)


def vorticity(velocity: Float[Array, "*n y x component"]) -> Vorticity:
    """dv/dx - du/dy of (u, v) on the torus, which undoes `velocity`."""
    k_y, k_x = _derivatives(velocity.shape[-2])
    of = lambda component, k: _multiplied(velocity[..., component], 1j * k)
    return of(1, k_x) - of(0, k_y)


def refined(coarse: Float[Array, "*n coarse_y coarse_x component"], points: int) -> Vorticity:
    """The vorticity on a finer grid whose velocity has the means `coarse` (`coarsened`).

    It has no scales that the coarse grid does not represent.

    Raises:
        InputError: a number of points that is no multiple of that of the field.
    """
    size = coarse.shape[-2]
    if points % size:
        raise InputError(f"{size} points cannot be refined to {points}: choose a multiple")
    along_y, along_x = _wavenumbers(size)
    # Means over cells are sums over their points, each a shift of the finer field.
    shifts = np.arange(points // size) * (2.0 * math.pi / points)
    mean = lambda k: np.exp(1j * k[..., None] * shifts).mean(axis=-1)
    below = (np.abs(along_y) < size // 2) & (along_x < size // 2)
    factor = np.where(below, (points / size) ** 2 / (mean(along_y) * mean(along_x)), 0.0)
    spectrum = _scaled(jnp.fft.rfft2(vorticity(coarse)), factor)
    half = size // 2
    wide = jnp.zeros((*spectrum.shape[:-2], points, points // 2 + 1), spectrum.dtype)
    wide = wide.at[..., :half, : half + 1].set(spectrum[..., :half, :])
    wide = wide.at[..., -half:, : half + 1].set(spectrum[..., -half:, :])
    return jnp.fft.irfft2(wide, s=(points, points))


def coarsened(
    field: Float[Array, "*n y x component"], points: int
) -> Float[Array, "*n coarse_y coarse_x component"]:
    """Means over squares of grid cells.

    Raises:
        InputError: a number of points that does not divide that of the field.
    """
    *front, size, _, components = field.shape
    if points < 1 or size % points:
        raise InputError(f"{size} points cannot be averaged to {points}: choose a divisor")
    means = Coarsen(size // points)(field.reshape(-1, size, size, components))
    return means.reshape(*front, points, points, components)


def _multiplied(field: Vorticity, factor: np.ndarray) -> Vorticity:
    """With the coefficients of `rfft2` multiplied by `factor`."""
    return jnp.fft.irfft2(_scaled(jnp.fft.rfft2(field), factor), s=field.shape[-2:])


def _scaled(spectrum: Array, factor: np.ndarray) -> Array:
    return spectrum * jnp.asarray(factor, spectrum.dtype)[(None,) * (spectrum.ndim - 2)]


def _wavenumbers(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Along y and x, of the coefficients of `rfft2`."""
    along_y = np.fft.fftfreq(points, 1.0 / points)[:, None]
    return along_y, np.fft.rfftfreq(points, 1.0 / points)[None, :]


def _derivatives(points: int) -> tuple[np.ndarray, np.ndarray]:
    """As `_wavenumbers`, without the last ones, whose waves have no derivative on the grid."""
    along = lambda k: np.where(np.abs(k) < points // 2, k, 0.0)
    k_y, k_x = _wavenumbers(points)
    return along(k_y), along(k_x)


@functools.lru_cache(maxsize=8)
def _stepper(system: Kolmogorov) -> Any:
    try:
        from exponax.stepper import KolmogorovFlowVorticity  # slow to import
    except ImportError as error:
        raise missing_package("the Kolmogorov flow", "exponax", "kolmogorov", error) from None
    with relaxed_promotion(), jax.ensure_compile_time_eval():
        return KolmogorovFlowVorticity(
            2,
            2.0 * math.pi,
            system.points,
            system.interval / system.substeps,
            diffusivity=system.viscosity,
            drag=-system.drag,
            injection_mode=system.wavenumber,
            injection_scale=-system.amplitude,
        )
