"""The twin experiment: model, truth, observations, and the filter of the settings."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments.cycle.score_prior import trained_prior
from slams_jax.aliases import Forecast, PRNGKey
from slams_jax.assimilation import score_filter
from slams_jax.baselines import (
    etkf,
    gaspari_cohn,
    hybrid,
    iterative_enkf,
    letkf,
    regularised_filter,
    stochastic_enkf,
    variational,
)
from slams_jax.cycling import Analyse, Observed, WeightedEnsemble, fixed_lag, with_past
from slams_jax.dynamics import Lorenz63, Lorenz96, TwoScale, lorenz63, lorenz96, two_scale
from slams_jax.errors import InputError, check_at_least, check_known, check_positive
from slams_jax.products import product

METHODS = (
    *("etkf", "letkf", "enkf", "iterative", "particle filter"),
    *("3dvar", "hybrid", "score"),
)
# Methods that may analyse the state of the cycle before.
SMOOTHED = ("iterative", "hybrid", "score")
# Methods that may go on improving states of cycles before.
LAGGED = ("etkf", "letkf", "enkf")
# H of all variables, and how many variables apart it observes them.
OPERATORS: dict[str, tuple[Callable[[Array], Array], int]] = {
    "identity": (lambda x: x, 1),
    "arctan": (lambda x: 4.0 * jnp.arctan(x / 4.0), 2),
    "square": (lambda x: x**2 / 10.0, 2),
}
SYSTEMS = ("lorenz63", "lorenz96", "two-scale")
SPIN_UP, CLIMATE = 1000, 2000  # cycles: to the attractor, and on it
FAST_STEPS = 10  # time steps of both scales in one of the slow variables alone
CLOSURE_SEED = 2005  # of the run that the closure is fitted to, which is no truth


@dataclasses.dataclass(frozen=True)
class CycleSettings:
    """A twin experiment.

    Attributes:
        system: "lorenz63", "lorenz96", or "two-scale", the slow variables of Lorenz-96 with both
            scales, of which forecasts have no more than a closure.
        variables: of Lorenz-96, the slow ones.
        seed: of everything random.
        cycles: number of analyses.
        spin_up: number of the first ones that the summary leaves out.
        dt: time step.
        substeps: time steps in a cycle.
        operator: what is observed: "identity", every variable; "arctan", 4 arctan(x / 4), or
            "square", x² / 10, of every second one.
        error: standard deviation of each observation.
        missing: share of the observations that are missing.
        method: one of `METHODS`.
        members: of the ensemble.
        inflation: factor of the departures of an analysis, or "adaptive" (see `letkf`).
        radius: where the localisation of "letkf", and of "hybrid" and "score" on the ring of
            Lorenz-96, reaches zero, in variables.
        variance: of the background of "3dvar", and of the static part of that of "hybrid", over
            that of the climate.
        weight: of the ensemble in the covariance of "hybrid".
        smooth: for "iterative", "hybrid" and "score", whether observations are those of a forecast
            from the state of the cycle before, which is analysed and forecast again.
        lag: for "etkf", "letkf" and "enkf", number of cycles of which later observations still
            change the state: a fixed-lag smoother, whose inflation is that of the newest forecast.
        training: steps of training the prior of "score"; 0 leaves the Gaussian it departs from.
        every: cycles between two checkpoints.
    """

    system: str = "lorenz96"
    variables: int = 40
    seed: int = 0
    cycles: int = 1460
    spin_up: int = 200
    dt: float = 0.05
    substeps: int = 1
    operator: str = "identity"
    error: float = 1.0
    missing: float = 0.0
    method: str = "etkf"
    members: int = 20
    inflation: float | str = 1.0
    radius: float = 14.0
    variance: float = 0.05
    weight: float = 0.5
    smooth: bool = False
    lag: int = 0
    training: int = 3000
    every: int = 100

    def __post_init__(self):
        check_known(self, system=SYSTEMS, method=METHODS, operator=tuple(OPERATORS))
        check_at_least(
            self,
            variables=4,
            cycles=1,
            spin_up=0,
            substeps=1,
            members=2,
            lag=0,
            training=0,
            every=1,
        )
        if not 0.0 <= self.weight <= 1.0:
            raise InputError(f"weight must lie in [0, 1], got {self.weight}")
        check_positive(self, "dt", "error", "radius", "variance")
        if self.smooth and self.method not in SMOOTHED:
            raise InputError(f"smooth is for {SMOOTHED}, not for method {self.method!r}")
        if self.lag and self.method not in LAGGED:
            raise InputError(f"lag is for {LAGGED}, not for method {self.method!r}")
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
    """A truth and its observations, after each cycle; and where it starts."""

    truth: Float[np.ndarray, "time variable"]
    observations: Float[np.ndarray, "time observation"]
    first: Float[np.ndarray, " variable"]


class Scheme(NamedTuple):
    """What `run_cycle` takes, and the states or ensembles in an analysis.

    Attributes:
        forecast: as `run_cycle` takes it, as are the next three.
        analyse: see there.
        start: see there.
        observed: see there.
        latest: from an analysis to the state of its time.
        oldest: to that of `lag` cycles before.
    """

    forecast: Forecast
    analyse: Analyse
    start: PyTree
    observed: Observed
    latest: Callable[[PyTree], PyTree] = lambda state: state
    oldest: Callable[[PyTree], PyTree] = lambda state: state


def observed_of(settings: CycleSettings) -> Callable[[Array], Array]:
    """H, from the variables (..., variable) to what is observed of them."""
    function, apart = OPERATORS[settings.operator]
    return lambda x: function(x[..., ::apart])


def trajectory(settings: CycleSettings) -> Callable[..., Array]:
    """The model of the forecasts: from states to those of the next `length` cycles."""
    steps = {"dt": settings.dt, "substeps": settings.substeps}
    if settings.system == "lorenz63":
        return functools.partial(lorenz63.trajectory, Lorenz63(), **steps)
    model = Lorenz96()
    if settings.system == "two-scale":
        start = start_of(settings, jax.random.key(CLOSURE_SEED))
        run = _both_scales(settings, start, length=SPIN_UP + CLIMATE)[SPIN_UP:]
        model = two_scale.closed(TwoScale(), run)
    return functools.partial(lorenz96.trajectory, model, **steps)


def nature(settings: CycleSettings) -> Callable[..., Array]:
    """What is true: as `trajectory`, which it is unless the model is imperfect."""
    if settings.system != "two-scale":
        return trajectory(settings)
    return lambda x, *, length: _both_scales(settings, x, length=length)[..., 0]


def start_of(settings: CycleSettings, key: PRNGKey) -> Float[Array, " variable"]:
    """A state to spin up from."""
    size = 3 if settings.system == "lorenz63" else settings.variables
    return 1.0 + jax.random.normal(key, (size,))


def _both_scales(settings: CycleSettings, slow: Array, *, length: int) -> Array:
    """States of both scales after some of the slow variables, whose fast ones are at rest."""
    return two_scale.trajectory(
        TwoScale(),
        two_scale.rested(TwoScale(), slow),
        dt=settings.dt / FAST_STEPS,
        substeps=settings.substeps * FAST_STEPS,
        length=length,
    )


def twin(settings: CycleSettings) -> Twin:
    """A truth on the attractor, and what is observed of it."""
    key_start, key_error, key_missing = jax.random.split(jax.random.key(settings.seed), 3)
    start = start_of(settings, key_start)
    run = nature(settings)(start, length=SPIN_UP + settings.cycles)[SPIN_UP - 1 :]
    truth = run[1:]

    @jax.vmap
    def observe(time, exact):
        # A key for each time, so that a longer run begins with the same observations.
        at = lambda key: jax.random.fold_in(key, time)
        gone = jax.random.bernoulli(at(key_missing), settings.missing, exact.shape)
        noisy = exact + settings.error * jax.random.normal(at(key_error), exact.shape)
        return jnp.where(gone, jnp.nan, noisy)

    observed = observe(jnp.arange(len(truth)), observed_of(settings)(truth))
    return Twin(np.asarray(truth), np.asarray(observed), np.asarray(run[0]))


def scheme(
    settings: CycleSettings, first: Float[np.ndarray, " variable"], key: PRNGKey, folder: Path
) -> Scheme:
    """The filter of the settings, which starts from states about `first` with its error.

    Args:
        settings: of the experiment.
        first: the truth at the start.
        key: of the error of the first states.
        folder: of the training of the prior of "score".

    Raises:
        InputError: an inflation that the method does not take, or a folder of another prior.
    """
    model, size = trajectory(settings), len(first)
    operator = observed_of(settings)
    error = jnp.full(operator(jnp.asarray(first)).shape, settings.error, jnp.float32)
    advance = lambda x, key: model(x, length=1)[0]
    if settings.method == "3dvar":
        climate, root = _climate(settings, jnp.asarray(first))
        analyse = variational(operator, error, root, outer=_outer(settings))
        background_error = settings.variance**0.5 * jnp.std(operator(climate), axis=0, ddof=1)
        observed = Observed(operator, error, ensemble=False, background_error=background_error)
        start = jnp.asarray(first) + settings.error * jax.random.normal(key, first.shape)
        return Scheme(jax.jit(advance), jax.jit(analyse), start, observed)
    noise = settings.error * jax.random.normal(key, (settings.members, size))
    members, observed = jnp.asarray(first)[None] + noise, Observed(operator, error)
    if settings.method == "particle filter":

        def log_likelihood(states: Array, y: Array) -> Array:
            misfit = y[None] - operator(states)
            misfit = jnp.where(jnp.isfinite(y)[None], misfit / settings.error, 0.0)
            return -0.5 * jnp.sum(misfit**2, axis=-1)

        moved = lambda x, key: x._replace(states=advance(x.states, key))
        analyse = jax.jit(regularised_filter(log_likelihood))
        start = WeightedEnsemble.of(members)
        return Scheme(jax.jit(moved), analyse, start, observed)
    if settings.lag:
        # A factor is that of the forecast; an adaptive one is estimated by the filter.
        given = settings.inflation
        factor, own = (1.0, given) if isinstance(given, str) else (given, 1.0)
        newest, of_filter = lambda x: operator(x[0]), dataclasses.replace(settings, inflation=own)
        analyse = _ensemble_filter(of_filter, newest, error, jnp.asarray(first), folder)
        shifted = fixed_lag(advance, settings.lag, inflation=factor)
        return Scheme(
            jax.jit(shifted),
            jax.jit(analyse),
            with_past(members, settings.lag),
            Observed(newest, error),
            lambda x: x[:, 0],
            lambda x: x[:, -1],
        )
    if not settings.smooth:
        analyse = _ensemble_filter(settings, operator, error, jnp.asarray(first), folder)
        return Scheme(jax.jit(advance), jax.jit(analyse), members, observed)
    # A state has two times: that of the cycle before, which is analysed, and that of the forecast.
    then = lambda x: jnp.stack([x, model(x, length=1)[0]], axis=1)
    forecast_of = lambda x: operator(model(x, length=1)[0])
    analyse = _ensemble_filter(settings, forecast_of, error, jnp.asarray(first), folder)
    latest = lambda x: x[:, 1]
    return Scheme(
        jax.jit(lambda x, key: then(latest(x))),
        jax.jit(lambda x, y, key: then(analyse(x[:, 0], y, key))),
        jnp.stack([members, members], axis=1),
        Observed(lambda x: operator(x[1]), error),
        latest,
    )


def _outer(settings: CycleSettings) -> int:
    """Linearisations of a variational analysis."""
    return 1 if settings.operator == "identity" and not settings.smooth else 3


def _climate(
    settings: CycleSettings, first: Float[Array, " variable"]
) -> tuple[Float[Array, "time variable"], Callable[[Array], Array]]:
    """States of the climate, and from them B^(1/2) of a background that does not change."""
    climate = nature(settings)(first, length=CLIMATE)
    departures = climate - jnp.mean(climate, axis=0, keepdims=True)
    covariance = product("ti,tj->ij", departures, departures) / (len(climate) - 1)
    root = jnp.linalg.cholesky(settings.variance * covariance)
    return climate, lambda v: product("ij,j->i", root, v)


def _ensemble_filter(
    settings: CycleSettings,
    operator: Callable[[Array], Array],
    error: Array,
    first: Float[Array, " variable"],
    folder: Path,
) -> Any:
    """One of the filters whose members weigh the same."""
    size = len(first)
    if settings.method in ("etkf", "enkf", "iterative"):
        filters = {"etkf": etkf, "enkf": stochastic_enkf, "iterative": iterative_enkf}
        return filters[settings.method](operator, error, inflation=settings.inflation)
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    taper = gaspari_cohn(np.minimum(apart, size - apart), settings.radius)
    nearness = jnp.asarray(taper, jnp.float32)
    localised = settings.system != "lorenz63"
    _, stride = OPERATORS[settings.operator]
    near = jnp.tile(nearness[:, ::stride], (1 + settings.lag, 1))
    local = lambda: letkf(operator, error, near, inflation=settings.inflation)
    if settings.method == "letkf":
        return local()
    if settings.method == "hybrid":
        _, static = _climate(settings, first)
        values, vectors = jnp.linalg.eigh(nearness if localised else jnp.ones_like(nearness))
        taper_root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]
        return hybrid(
            local() if localised else etkf(operator, error, inflation=settings.inflation),
            operator,
            error,
            static,
            lambda v: product("ij,j->i", taper_root, v),
            weight=settings.weight,
            outer=_outer(settings),
        )
    if isinstance(settings.inflation, str):
        raise InputError(f"inflation of 'score' must be a number, got {settings.inflation!r}")
    prior = trained_prior(nature(settings), size, settings.training, folder)
    return score_filter(
        prior,
        operator,
        error,
        nearness=nearness if localised else None,
        inflation=settings.inflation,
    )
