"""A global atmosphere for nature runs: the Held-Suarez test on the `dinosaur` dynamical core.

Dry primitive equations on the sphere without orography or seasons: temperature relaxes towards a
zonally symmetric equilibrium and low-level wind towards rest (Held & Suarez 1994, Bull. Amer.
Meteor. Soc. 75, 1825-1830). The result has baroclinic eddies, two jets and waves in the
stratosphere.

The core is spectral in the horizontal (truncation T on its Gaussian grid) with layers of
sigma = p / p_surface. Time steps are implicit-explicit Runge-Kutta (Whitaker & Kar 2013), followed
by a scale-selective diffusion as in Held & Suarez, but weaker, so that T21 keeps its eddies.
"""

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.dynamics.promotion import relaxed_promotion
from slams_jax.errors import (
    InputError,
    RunError,
    check_at_least,
    missing_package,
    require_positive,
)
from slams_jax.grid import Grid
from slams_jax.mesh import cores

# Sixteen layers, thin at the top, so that 10 and 50 hPa lie between layers and not above them.
_UPPER_BOUNDARIES = (0.0, 0.012, 0.03, 0.06, 0.095, 0.14, 0.2, 0.27)
_LOWER_BOUNDARIES = (0.35, 0.44, 0.54, 0.64, 0.74, 0.83, 0.9, 0.955, 1.0)
SIGMA_BOUNDARIES = _UPPER_BOUNDARIES + _LOWER_BOUNDARIES

SECONDS_PER_DAY = 86400.0

# A state of the core: a pytree of dimensionless spectral coefficients of vorticity, divergence,
# temperature and the logarithm of surface pressure.
State = Any
Report = Callable[[int, int], None]  # (days done, days to do)


@dataclasses.dataclass(frozen=True)
class Forcing:
    """Parameters of the forcing; the defaults are those of Held & Suarez (1994).

    Attributes:
        friction_days: time scale of the friction of wind at the surface, days.
        cooling_days: time scale of the relaxation of temperature in the free atmosphere, days.
        surface_cooling_days: the same at the surface on the equator, days.
        meridional_contrast: difference of equilibrium temperature between equator and poles, K.
        vertical_contrast: increase of equilibrium potential temperature with height in the
            tropics, K over a factor e of pressure.

    Raises:
        InputError: a value that is not positive.
    """

    friction_days: float = 1.0
    cooling_days: float = 40.0
    surface_cooling_days: float = 4.0
    meridional_contrast: float = 60.0
    vertical_contrast: float = 10.0

    def __post_init__(self):
        require_positive(dataclasses.asdict(self), "the forcing")


@dataclasses.dataclass(frozen=True)
class HeldSuarezConfig:
    """Parameters of the model.

    Attributes:
        truncation: largest wavenumber T; T21 has a grid of 32 x 64 points.
        boundaries: of the layers in sigma, from 0 to 1, top first.
        steps_per_day: number of time steps; 12 (of two hours) is stable at T21 with some margin.
        diffusion_days: e-folding time of the smallest scale, days.
        diffusion_order: power of the Laplacian in the diffusion; 4 is ∇^8.
        forcing: relaxation of temperature and friction.

    Raises:
        InputError: a value out of range.
    """

    truncation: int = 21
    boundaries: tuple[float, ...] = SIGMA_BOUNDARIES
    steps_per_day: int = 12
    diffusion_days: float = 1.0
    diffusion_order: int = 4
    forcing: Forcing = dataclasses.field(default_factory=Forcing)

    def __post_init__(self):
        if not 5 <= self.truncation <= 213:
            raise InputError(f"truncation must be 5 to 213, got {self.truncation}: 21 is T21")
        edges = np.asarray(self.boundaries, dtype=np.float64)
        if edges.ndim != 1 or edges.size < 4 or np.any(np.diff(edges) <= 0):
            raise InputError(
                f"boundaries must ascend over at least 3 layers, got {self.boundaries}"
            )
        if edges[0] != 0.0 or edges[-1] != 1.0:
            raise InputError(
                f"boundaries must go from sigma 0 to 1, got {edges[0]:g} to {edges[-1]:g}"
            )
        check_at_least(self, steps_per_day=1)
        if not (math.isfinite(self.diffusion_days) and self.diffusion_days > 0):
            raise InputError(f"diffusion_days must be positive, got {self.diffusion_days}")
        if not 1 <= self.diffusion_order <= 8:
            raise InputError(f"diffusion_order must be 1 to 8, got {self.diffusion_order}")


class Nodal(NamedTuple):
    """A state on the grid, in physical units."""

    temperature: Float[Array, "layer lat lon"]  # K
    zonal_wind: Float[Array, "layer lat lon"]  # m/s
    meridional_wind: Float[Array, "layer lat lon"]  # m/s
    surface_pressure: Float[Array, "lat lon"]  # hPa


@dataclasses.dataclass(frozen=True, eq=False)
class Atmosphere:
    """The model as compiled functions; build it once, with `held_suarez`.

    Attributes:
        config: the parameters.
        grid: the Gaussian grid.
        sigma: centres of the layers, top first.
        initial: from a key to an atmosphere at rest, whose layers have the mean temperature of the
            equilibrium, with a ripple in surface pressure; from an isothermal start, the
            stratosphere would still be cooling after half a year.
        day: from a state to the state 24 hours later.
        nodal: from a state to its fields on the grid.
        add: from a state and an increment of its fields on the grid to a state.
    """

    config: HeldSuarezConfig
    grid: Grid
    sigma: tuple[float, ...]
    initial: Callable[[PRNGKey], State]
    day: Callable[[State], State]
    nodal: Callable[[State], Nodal]
    add: Callable[[State, Nodal], State]


def held_suarez(config: HeldSuarezConfig) -> Atmosphere:
    """Build the model.

    Raises:
        InputError: the package `dinosaur` is not installed.
    """
    core = _dinosaur()
    units, sh = core.scales.units, core.spherical_harmonic
    horizontal = sh.Grid.construct(
        max_wavenumber=config.truncation,
        # The smallest number of latitudes that represents quadratic products without aliasing.
        gaussian_nodes=-(-(3 * config.truncation + 1) // 4),
    )
    vertical = core.sigma_coordinates.SigmaCoordinates(np.asarray(config.boundaries))
    coords = core.coordinate_systems.CoordinateSystem(horizontal=horizontal, vertical=vertical)
    specs = core.primitive_equations.PrimitiveEquationsSpecs.from_si()
    with relaxed_promotion():
        start, features = core.primitive_equations_states.isothermal_rest_atmosphere(
            coords, specs, p0=1e5 * units.pascal, p1=5e3 * units.pascal
        )
        forcing, step = _forced_step(config, core, coords, specs, features)
        warmth = forcing.equilibrium_temperature(specs.nondimensionalize(1e5 * units.pascal))
    reference = jnp.asarray(features[core.xarray_utils.REF_TEMP_KEY], jnp.float32)
    area = np.cos(np.arcsin(horizontal.nodal_axes[1]))
    layers = np.average(np.asarray(warmth).mean(axis=1), axis=-1, weights=area)
    kelvin, metre_per_second, hectopascal = (
        float(specs.nondimensionalize(1.0 * unit))
        for unit in (units.degK, units.meter / units.second, 100.0 * units.pascal)
    )

    def day(state):
        with relaxed_promotion():
            return jax.lax.scan(lambda x, _: (step(x), None), state, length=config.steps_per_day)[0]

    def nodal(state):
        with relaxed_promotion():
            u, v = sh.vor_div_to_uv_nodal(horizontal, state.vorticity, state.divergence, clip=False)
            variation = horizontal.to_nodal(state.temperature_variation)
            fields = (
                (variation + reference[:, None, None]) / kelvin,
                u / metre_per_second,
                v / metre_per_second,
                jnp.exp(horizontal.to_nodal(state.log_surface_pressure))[0] / hectopascal,
            )
        # The core has longitude before latitude.
        return Nodal(*(jnp.swapaxes(field, -1, -2) for field in fields))

    def add(state, increment):
        t, u, v, p = (jnp.swapaxes(field, -1, -2) for field in increment)
        with relaxed_promotion():
            pressure = jnp.exp(horizontal.to_nodal(state.log_surface_pressure)) / hectopascal
            vorticity, divergence = sh.uv_nodal_to_vor_div_modal(
                horizontal, u * metre_per_second, v * metre_per_second
            )
            warming, growth = (
                horizontal.clip_wavenumbers(horizontal.to_modal(x))
                for x in (t * kelvin, jnp.log1p(p / pressure))
            )
            return state.replace(
                vorticity=state.vorticity + vorticity,
                divergence=state.divergence + divergence,
                temperature_variation=state.temperature_variation + warming,
                log_surface_pressure=state.log_surface_pressure + growth,
            )

    def initial(key):
        with relaxed_promotion():
            uniform = jnp.ones((1, *horizontal.nodal_shape)) * (layers - reference)[:, None, None]
            return start(key).replace(temperature_variation=horizontal.to_modal(uniform))

    longitude, sin_latitude = horizontal.nodal_axes
    grid = Grid.of(np.rad2deg(np.arcsin(sin_latitude)), np.rad2deg(longitude))
    sigma = tuple(float(s) for s in vertical.centers)
    compiled = (jax.jit(f) for f in (initial, day, nodal, add))
    return Atmosphere(config, grid, sigma, *compiled)


def trajectory(
    atmosphere: Atmosphere, state: State, days: int, *, report: Report | None = None
) -> Iterator[State]:
    """The states 1, 2, ..., `days` days after `state`, one by one.

    Raises:
        RunError: the run became unstable.
    """
    for done in range(1, days + 1):
        state = atmosphere.day(state)
        if done % 10 == 0 or done == days:
            check_finite(atmosphere, state, f"on or before day {done}")
        if report is not None:
            report(done, days)
        yield state


def forecasts(
    atmosphere: Atmosphere, states: Sequence[State], *, report: Report | None = None
) -> list[State]:
    """Each of `states` 24 hours later.

    The forecasts are independent. As many run in parallel as there are cores, which on a CPU is
    faster than batches (`vmap`), since one run cannot use two cores.

    Raises:
        RunError: a forecast became unstable.
    """
    results: list[State] = []
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        for state in pool.map(lambda s: jax.block_until_ready(atmosphere.day(s)), states):
            check_finite(atmosphere, state, f"in forecast {len(results)}")
            results.append(state)
            if report is not None:
                report(len(results), len(states))
    return results


def on_pressure(
    field: Float[Array, "layer lat lon"],
    surface_pressure: Float[Array, "lat lon"],
    sigma: Sequence[float],
    levels: Sequence[float],
) -> Float[Array, "lat lon level"]:
    """A field on pressure `levels` (hPa), linear in log-pressure between the centres of layers.

    It is constant above the uppermost centre; below the lowest centre, and below ground, it is
    extrapolated from the two lowest layers.
    """
    nodes = jnp.log(jnp.asarray(sigma, jnp.float32))
    pressure = jnp.asarray(levels, jnp.float32)[None, None, :]
    target = jnp.log(pressure / surface_pressure[..., None])
    upper = jnp.clip(jnp.searchsorted(nodes, target) - 1, 0, len(sigma) - 2)
    weight = (target - nodes[upper]) / (nodes[upper + 1] - nodes[upper])
    weight = jnp.maximum(weight, 0.0)
    columns = jnp.moveaxis(field, 0, -1)
    above = jnp.take_along_axis(columns, upper, axis=-1)
    below = jnp.take_along_axis(columns, upper + 1, axis=-1)
    return above + weight * (below - above)


def temperature(
    atmosphere: Atmosphere, states: Sequence[State], levels: Sequence[float]
) -> Float[np.ndarray, "time lat lon level"]:
    """Temperature (K) of `states` on pressure `levels` (hPa)."""

    @jax.jit
    def one(state):
        fields = atmosphere.nodal(state)
        return on_pressure(fields.temperature, fields.surface_pressure, atmosphere.sigma, levels)

    return np.stack([np.asarray(one(state)) for state in states])


def _forced_step(config: HeldSuarezConfig, core, coords, specs, features) -> tuple[Any, Callable]:
    """The forcing, and one step of the forced equations followed by diffusion."""
    units, integration = core.scales.units, core.time_integration
    reference = features[core.xarray_utils.REF_TEMP_KEY]
    orography = core.primitive_equations.truncated_modal_orography(
        features[core.xarray_utils.OROGRAPHY], coords
    )
    dynamics = core.primitive_equations.PrimitiveEquationsSigma(reference, orography, coords, specs)
    chosen = config.forcing
    forcing = core.held_suarez.HeldSuarezForcingSigma(
        coords,
        specs,
        reference,
        kf=1 / (chosen.friction_days * units.day),
        ka=1 / (chosen.cooling_days * units.day),
        ks=1 / (chosen.surface_cooling_days * units.day),
        dTy=chosen.meridional_contrast * units.degK,
        dThz=chosen.vertical_contrast * units.degK,
    )
    equation = integration.compose_equations([dynamics, forcing])
    dt, tau = (
        float(specs.nondimensionalize(seconds * units.second))
        for seconds in (
            SECONDS_PER_DAY / config.steps_per_day,
            SECONDS_PER_DAY * config.diffusion_days,
        )
    )
    diffusion = integration.horizontal_diffusion_step_filter(
        coords.horizontal, dt, tau, order=config.diffusion_order
    )
    step = integration.step_with_filters(integration.imex_rk_sil3(equation, dt), [diffusion])
    return forcing, step


def check_finite(atmosphere: Atmosphere, state: State, when: str) -> None:
    """Refuse a state that is not finite.

    Raises:
        RunError: the model became unstable.
    """
    if not np.isfinite(np.asarray(state.vorticity)).all():
        raise RunError(
            f"the atmosphere became unstable {when}, with {atmosphere.config.steps_per_day} steps "
            "per day: raise steps_per_day or lower diffusion_days"
        )


def _dinosaur() -> Any:
    try:
        import dinosaur
    except ImportError as error:
        raise missing_package("the Held-Suarez atmosphere", "dinosaur", "osse", error) from None
    return dinosaur
