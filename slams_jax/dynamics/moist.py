"""A moist global atmosphere for nature runs: SPEEDY physics on the `dinosaur` core, through `jcm`.

Primitive equations on the sphere with orography, over land and a sea surface whose temperature,
ice and snow follow the seasons of a climatology; convection, large-scale condensation, clouds,
radiation, surface fluxes and vertical diffusion (Molteni 2003, Climate Dynamics 20, 175-191). Rain
and outgoing longwave radiation come from the same physics that makes the temperature: nothing here
is an observation operator.

The core is spectral in the horizontal (truncation T on its Gaussian grid) with eight layers of
sigma = p / p_surface and half-hourly steps. Sunlight has seasons and no daily cycle.
"""

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slams_jax.aliases import PRNGKey
from slams_jax.dynamics import held_suarez
from slams_jax.dynamics.datasets import FIRST_DAY
from slams_jax.dynamics.promotion import relaxed_promotion
from slams_jax.errors import InputError, RunError, missing_package, require_positive
from slams_jax.grid import Grid

LEVELS = (30.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0)  # hPa, between the layers
TRUNCATIONS = (21, 31)
# States of a 1 December: of T21 after 23 months from rest; of T31 after 45 days from that of T21.
RESTARTS = Path(__file__).with_name("moist_restart.npz")
RIPPLE = 0.5  # K, of the noise that tells one seed from another

_REFERENCE_PRESSURE = 1000.0  # hPa, of the model's normalised surface pressure
_MM_PER_DAY = 86.4  # of a flux of water of 1 g m-2 s-1
# R Γ / g of dry air for the standard lapse rate of 6.5 K/km.
_LAPSE = 287.05 * 6.5e-3 / 9.80665


@dataclasses.dataclass(frozen=True)
class Convection:
    """Parameters of deep convection; the defaults are those of SPEEDY.

    Attributes:
        relaxation_hours: time scale of the relaxation towards the reference profile, hours.
        entrainment: largest entrainment, as a share of the mass flux at cloud base.

    Raises:
        InputError: a value that is not positive.
    """

    relaxation_hours: float = 6.0
    entrainment: float = 0.5

    def __post_init__(self):
        require_positive(dataclasses.asdict(self), "convection")


@dataclasses.dataclass(frozen=True)
class MoistConfig:
    """Parameters of the model.

    Attributes:
        truncation: largest wavenumber T: 21 (a grid of 32 x 64 points) or 31 (48 x 96).
        convection: the parameters of convection.

    Raises:
        InputError: another truncation.
    """

    truncation: int = 21
    convection: Convection = dataclasses.field(default_factory=Convection)

    def __post_init__(self):
        if self.truncation not in TRUNCATIONS:
            raise InputError(f"truncation must be 21 or 31, got {self.truncation}")


class State(NamedTuple):
    """A state of the model at the beginning of a day.

    Attributes:
        spectral: a pytree of the core's dimensionless spectral coefficients.
        carry: a pytree of what the physics passes on from step to step.
        day: days since 2000-01-01, which may be negative; it sets the season.
    """

    spectral: Any
    carry: Any
    day: Int[Array, ""]


class Daily(NamedTuple):
    """Means over a day, on the grid."""

    temperature: Float[Array, "layer lat lon"]  # K
    surface_pressure: Float[Array, "lat lon"]  # hPa
    precipitation: Float[Array, "lat lon"]  # mm/day
    longwave: Float[Array, "lat lon"]  # W/m2, upward at the top of the atmosphere


class Nodal(NamedTuple):
    """A state on the grid, in physical units."""

    temperature: Float[Array, "layer lat lon"]  # K
    zonal_wind: Float[Array, "layer lat lon"]  # m/s
    meridional_wind: Float[Array, "layer lat lon"]  # m/s
    specific_humidity: Float[Array, "layer lat lon"]  # kg/kg
    surface_pressure: Float[Array, "lat lon"]  # hPa


@dataclasses.dataclass(frozen=True, eq=False)
class MoistAtmosphere:
    """The model as compiled functions; build it once, with `moist_atmosphere`.

    Attributes:
        config: the parameters.
        grid: the Gaussian grid.
        sigma: centres of the layers, top first.
        land: share of land in each cell, 0 to 1.
        orography: height of the surface, m.
        rest: from a day to an isothermal atmosphere at rest; the troposphere forgets it in two
            months, the stratosphere in a year.
        start: from a key and a day to a spun-up state, those of two keys a ripple apart.
        day: from a state to the state 24 hours later and the means over these hours.
        nodal: from a state to its fields on the grid.
        add: from a state and an increment of its fields on the grid to a state.
    """

    config: MoistConfig
    grid: Grid
    sigma: tuple[float, ...]
    land: Float[np.ndarray, "lat lon"]
    orography: Float[np.ndarray, "lat lon"]
    rest: Callable[[int], State]
    start: Callable[[PRNGKey, int], State]
    day: Callable[[State], tuple[State, Daily]]
    nodal: Callable[[State], Nodal]
    add: Callable[[State, Nodal], State]


@functools.lru_cache(maxsize=4)
def moist_atmosphere(config: MoistConfig) -> MoistAtmosphere:
    """Build the model, or return the one that an earlier call built: it takes half a minute.

    Raises:
        InputError: the package `jcm` is not installed.
    """
    model, forcing = _model(config)
    horizontal = model.coords.horizontal

    def rest(day: int) -> State:
        with relaxed_promotion():
            spectral, carry = model.bootstrap_state()
        return _typed(State(spectral, carry, jnp.int32(day)))

    def start(key: PRNGKey, day: int) -> State:
        state = rest(day)
        spectral = _restart(config.truncation, state.spectral)
        state = state._replace(spectral=spectral)
        zero = jax.tree.map(jnp.zeros_like, nodal(state))
        noise = RIPPLE * jax.random.normal(key, zero.temperature.shape)
        return add(state, zero._replace(temperature=noise))

    @jax.jit
    def day(state: State, forcing) -> tuple[State, Daily]:
        clock = model.start_time + importlib.import_module("jax_datetime").Timedelta(days=state.day)
        with relaxed_promotion():
            done, made = model.run_from_state_with_carry(
                model.dycore.with_sim_time(state.spectral, 0.0),
                forcing,
                save_interval=1.0,
                total_time=1.0,
                output_averages=True,
                initial_physics_state=state.carry,
                initial_time=clock,
                # Shortwave radiation is computed at every third step, the first of a day included.
                initial_step=jnp.int32(0),
            )
            dynamics, physics = made.dynamics, made.physics
            rain = physics["_convection"].precnv + physics["_condensation"].precls
            daily = Daily(
                dynamics.temperature,
                _REFERENCE_PRESSURE * dynamics.normalized_surface_pressure,
                _MM_PER_DAY * rain,
                physics["_longwave_rad"].ftop,
            )
        means = jax.tree.map(lambda x: jnp.swapaxes(x[0], -1, -2), daily)
        return _typed(State(done.dynamics, done.physics, state.day + 1)), means

    @jax.jit
    def nodal(state: State) -> Nodal:
        with relaxed_promotion():
            on_grid = model.dycore.to_physics_state(state.spectral)
        fields = Nodal(
            on_grid.temperature,
            on_grid.u_wind,
            on_grid.v_wind,
            on_grid.specific_humidity,
            _REFERENCE_PRESSURE * on_grid.normalized_surface_pressure,
        )
        # The core has longitude before latitude.
        return jax.tree.map(lambda x: jnp.swapaxes(x, -1, -2), fields)

    @jax.jit
    def add(state: State, increment: Nodal) -> State:
        change = jax.tree.map(lambda x: jnp.swapaxes(x, -1, -2), increment)
        with relaxed_promotion():
            before = model.dycore.to_physics_state(state.spectral)
            after = before.copy(
                temperature=before.temperature + change.temperature,
                u_wind=before.u_wind + change.zonal_wind,
                v_wind=before.v_wind + change.meridional_wind,
                specific_humidity=before.specific_humidity + change.specific_humidity,
                normalized_surface_pressure=before.normalized_surface_pressure
                + change.surface_pressure / _REFERENCE_PRESSURE,
            )
            # Differences of projections: no increment changes nothing.
            moved = jax.tree.map(
                jnp.subtract, model.initial_state(after), model.initial_state(before)
            )
            spectral = jax.tree.map(jnp.add, state.spectral, horizontal.clip_wavenumbers(moved))
        return state._replace(spectral=spectral)

    return MoistAtmosphere(
        config,
        Grid.of(np.rad2deg(horizontal.latitudes), np.rad2deg(horizontal.longitudes)),
        tuple(float(s) for s in model.coords.vertical.centers),
        np.asarray(model.terrain.fmask, np.float32).T,
        np.asarray(model.terrain.orog, np.float32).T,
        rest,
        start,
        # The forcing is an argument, as a constant it would be compiled in.
        functools.partial(_with, day, forcing),
        nodal,
        add,
    )


def on_pressure(
    temperature: Float[Array, "layer lat lon"],
    surface_pressure: Float[Array, "lat lon"],
    sigma: Sequence[float],
    levels: Sequence[float],
) -> Float[Array, "lat lon level"]:
    """Temperature (K) on pressure `levels` (hPa), linear in log-pressure between the layers.

    It is constant above the uppermost centre. Below the lowest centre, and below ground, it rises
    from that of the lowest layer by the standard lapse rate of 6.5 K/km, T ∝ p^0.19.
    """
    lowest = sigma[-1] * surface_pressure[..., None]
    pressure = jnp.asarray(levels, jnp.float32)[None, None, :]
    within = held_suarez.on_pressure(temperature, surface_pressure, sigma, levels)
    below = temperature[-1][..., None] * (pressure / lowest) ** _LAPSE
    return jnp.where(pressure > lowest, below, within)


def check_finite(state: State, when: str) -> None:
    """Refuse a state that is not finite.

    Raises:
        RunError: the model became unstable.
    """
    if not np.isfinite(np.asarray(state.spectral.vorticity)).all():
        raise RunError(
            f"the moist atmosphere became unstable {when}: take the defaults of nature.model, or "
            "milder changes"
        )


def save_restart(states: dict[int, State], path: Path = RESTARTS) -> None:
    """Write the spun-up states of each truncation for `MoistAtmosphere.start`."""
    arrays: dict[str, Any] = {
        f"T{truncation}_{name}": np.asarray(x, np.float32)
        for truncation, state in states.items()
        for name, x in _coefficients(state.spectral).items()
    }
    np.savez_compressed(path, **arrays)


def _restart(truncation: int, like: Any) -> Any:
    """The spun-up spectral state."""
    with np.load(RESTARTS, allow_pickle=False) as file:
        stored = {
            name: jnp.asarray(file[f"T{truncation}_{name}"], jnp.float32)
            for name in _coefficients(like)
        }
    tracers = {"specific_humidity": stored.pop("specific_humidity")}
    return like.replace(**stored, tracers=tracers)


def _coefficients(spectral: Any) -> dict[str, Any]:
    names = ("vorticity", "divergence", "temperature_variation", "log_surface_pressure")
    fields = {name: getattr(spectral, name) for name in names}
    return {**fields, "specific_humidity": spectral.tracers["specific_humidity"]}


def _typed(state: State) -> State:
    """Without weak types, as it is read from a file: one compiled program serves both."""
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)


def _with(day: Callable, forcing: Any, state: State) -> tuple[State, Daily]:
    return day(state, forcing)


def _model(config: MoistConfig) -> tuple[Any, Any]:
    """The model of `jcm` and its boundary conditions."""
    try:
        forcing, models, terrain = map(_module, ("forcing", "model", "terrain"))
        speedy = _module("physics.speedy.params")
        grids = _module("physics.speedy.speedy_coords")
        terms = _module("physics.speedy.speedy_terms")
    except ImportError as error:
        raise missing_package("the moist atmosphere", "jcm", "moist", error) from None
    files = resources.files("jcm.data.bc.t30.clim")
    parameters = speedy.Parameters.default()
    chosen = dataclasses.replace(
        parameters.convection,
        trcnv=jnp.asarray(config.convection.relaxation_hours, jnp.float32),
        entmax=jnp.asarray(config.convection.entrainment, jnp.float32),
    )
    with relaxed_promotion(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of xarray, about calls that jcm makes
        coords = grids.get_speedy_coords(layers=8, spectral_truncation=config.truncation)
        model = models.Model(
            coords=coords,
            terrain=terrain.TerrainData.from_file(files / "terrain.nc", coords=coords),
            physics=terms.speedy_physics(
                parameters=dataclasses.replace(parameters, convection=chosen)
            ),
            time_step=30.0,
            start_time=str(FIRST_DAY)[:10],
        )
        boundary = forcing.ForcingData.from_file(
            files / "forcing.nc", coords=coords, align_mode="wrap_year"
        )
    return model, boundary


def _module(name: str) -> Any:
    return importlib.import_module(f"jcm.{name}")
