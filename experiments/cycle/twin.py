"""The twin experiment: model, truth, observations, and the filter of the settings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from slams_jax.aliases import Forecast, PRNGKey
from slams_jax.baselines import (
    etkf,
    gaspari_cohn,
    iterative_enkf,
    letkf,
    regularised_filter,
    stochastic_enkf,
    variational,
)
from slams_jax.cycling import Analyse, Observed, WeightedEnsemble
from slams_jax.dynamics import Lorenz63, Lorenz96, lorenz63, lorenz96
from slams_jax.errors import InputError
from slams_jax.products import product

METHODS = ("etkf", "letkf", "enkf", "iterative", "particle filter", "3dvar")
SYSTEMS = ("lorenz63", "lorenz96")
SPIN_UP, CLIMATE = 1000, 2000  # cycles: to the attractor, and on it


@dataclasses.dataclass(frozen=True)
class CycleSettings:
    """A twin experiment.

    Attributes:
        system: "lorenz63" or "lorenz96".
        variables: of Lorenz-96.
        seed: of everything random.
        cycles: number of analyses.
        spin_up: number of the first ones that the summary leaves out.
        dt: time step.
        substeps: time steps in a cycle.
        error: standard deviation of the observations of each variable.
        missing: share of the observations that are missing.
        method: one of `METHODS`.
        members: of the ensemble.
        inflation: factor of the departures of an analysis, or "adaptive" (see `letkf`).
        radius: where the localisation of "letkf" reaches zero, in variables.
        variance: of the background of "3dvar", over that of the climate.
        every: cycles between two checkpoints.
    """

    system: str = "lorenz96"
    variables: int = 40
    seed: int = 0
    cycles: int = 1460
    spin_up: int = 200
    dt: float = 0.05
    substeps: int = 1
    error: float = 1.0
    missing: float = 0.0
    method: str = "etkf"
    members: int = 20
    inflation: float | str = 1.0
    radius: float = 14.0
    variance: float = 0.05
    every: int = 100

    def __post_init__(self):
        for name, known in (("system", SYSTEMS), ("method", METHODS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown: choose from {known}")
        for name, low in (
            ("variables", 4),
            ("cycles", 1),
            ("spin_up", 0),
            ("substeps", 1),
            ("members", 2),
            ("every", 1),
        ):
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("dt", "error", "radius", "variance"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0.0 <= self.missing < 1.0:
            raise InputError(f"missing must be a share in [0, 1), got {self.missing}")
        if self.spin_up >= self.cycles:
            raise InputError(
                f"spin_up must be below the number of cycles, got {self.spin_up} and {self.cycles}"
            )

    @property
    def interval(self) -> float:
        """Of a cycle, in units of time."""
        return self.dt * self.substeps


class Twin(NamedTuple):
    """A truth and its observations (time, variable), after each cycle; and where it starts."""

    truth: Float[np.ndarray, "time variable"]
    observations: Float[np.ndarray, "time variable"]
    first: Float[np.ndarray, " variable"]


class Scheme(NamedTuple):
    """What `run_cycle` takes, and the mean of an analysis."""

    forecast: Forecast
    analyse: Analyse
    start: PyTree
    observed: Observed
    mean: Callable[[PyTree], Array]


def trajectory(settings: CycleSettings) -> Callable[..., Array]:
    """The model: from states to those of the next `length` cycles."""
    steps = {"dt": settings.dt, "substeps": settings.substeps}
    if settings.system == "lorenz63":
        return functools.partial(lorenz63.trajectory, Lorenz63(), **steps)
    return functools.partial(lorenz96.trajectory, Lorenz96(), **steps)


def twin(settings: CycleSettings) -> Twin:
    """A truth on the attractor, and what is observed of it."""
    key_start, key_error, key_missing = jax.random.split(jax.random.key(settings.seed), 3)
    size = 3 if settings.system == "lorenz63" else settings.variables
    start = 1.0 + jax.random.normal(key_start, (size,))
    run = trajectory(settings)(start, length=SPIN_UP + settings.cycles)[SPIN_UP - 1 :]
    truth = run[1:]

    @jax.vmap
    def observe(time, x):
        # A key for each time, so that a longer run begins with the same observations.
        at = lambda key: jax.random.fold_in(key, time)
        gone = jax.random.bernoulli(at(key_missing), settings.missing, x.shape)
        noisy = x + settings.error * jax.random.normal(at(key_error), x.shape)
        return jnp.where(gone, jnp.nan, noisy)

    observed = observe(jnp.arange(len(truth)), truth)
    return Twin(np.asarray(truth), np.asarray(observed), np.asarray(run[0]))


def scheme(settings: CycleSettings, first: Float[np.ndarray, " variable"], key: PRNGKey) -> Scheme:
    """The filter of the settings, which starts from states about `first` with its error.

    Raises:
        InputError: an inflation that the method does not take.
    """
    model, size = trajectory(settings), len(first)
    error = jnp.full(size, settings.error, jnp.float32)
    advance = lambda x, key: model(x, length=1)[0]
    identity = lambda x: x
    if settings.method == "3dvar":
        climate = model(jnp.asarray(first), length=CLIMATE)
        departures = climate - jnp.mean(climate, axis=0, keepdims=True)
        covariance = product("ti,tj->ij", departures, departures) / (CLIMATE - 1)
        root = jnp.linalg.cholesky(settings.variance * covariance)
        analyse = variational(identity, error, lambda v: product("ij,j->i", root, v), outer=1)
        background_error = jnp.sqrt(settings.variance * jnp.diag(covariance))
        observed = Observed(identity, error, ensemble=False, background_error=background_error)
        start = jnp.asarray(first) + settings.error * jax.random.normal(key, first.shape)
        return Scheme(jax.jit(advance), jax.jit(analyse), start, observed, identity)
    noise = settings.error * jax.random.normal(key, (settings.members, size))
    members, observed = jnp.asarray(first)[None] + noise, Observed(identity, error)
    if settings.method == "particle filter":

        def log_likelihood(states: Array, y: Array) -> Array:
            misfit = jnp.where(jnp.isfinite(y)[None], (y[None] - states) / settings.error, 0.0)
            return -0.5 * jnp.sum(misfit**2, axis=-1)

        moved = lambda x, key: x._replace(states=advance(x.states, key))
        analyse = jax.jit(regularised_filter(log_likelihood))
        start = WeightedEnsemble.of(members)
        return Scheme(jax.jit(moved), analyse, start, observed, WeightedEnsemble.mean)
    analyse = _ensemble_filter(settings, error)
    mean = functools.partial(jnp.mean, axis=0)
    return Scheme(jax.jit(advance), jax.jit(analyse), members, observed, mean)


def _ensemble_filter(settings: CycleSettings, error: Array) -> Any:
    """One of the ensemble Kalman filters."""
    filters = {"etkf": etkf, "enkf": stochastic_enkf, "iterative": iterative_enkf}
    if settings.method != "letkf":
        return filters[settings.method](lambda x: x, error, inflation=settings.inflation)
    apart = np.abs(np.subtract.outer(np.arange(len(error)), np.arange(len(error))))
    nearness = gaspari_cohn(np.minimum(apart, len(error) - apart), settings.radius)
    near = jnp.asarray(nearness, jnp.float32)
    return letkf(lambda x: x, error, near, inflation=settings.inflation)
