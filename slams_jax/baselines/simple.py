"""Baselines that estimate one or two moments: persistence, climatology, optimal interpolation."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slams_jax.aliases import PRNGKey
from slams_jax.baselines.climatology import climatological_ensemble
from slams_jax.baselines.optimal_interpolation import (
    BackgroundCovariance,
    optimal_interpolation,
    optimal_interpolation_ensemble,
)
from slams_jax.baselines.protocol import BACKGROUND, Ensemble, Sees, Window
from slams_jax.observe import Stream

FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
BATCH = 4  # members of optimal interpolation at a time
LINEARISATIONS = 2


@dataclasses.dataclass(frozen=True)
class Persistence:
    """The background of the first time, as a departure from the climatology, kept for all times.

    Attributes:
        bias: mean error of the background, physical units.
    """

    bias: Float[np.ndarray, "lat lon channel"]
    sees: Sees = "past"
    uses: tuple[str, ...] = (BACKGROUND,)

    def __call__(self, key: PRNGKey, window: Window, *, members: int) -> Ensemble:
        """One member."""
        departure = window.background[0] - self.bias - window.climate[0]
        return (window.climate + departure)[None]


@dataclasses.dataclass(frozen=True)
class Background:
    """The background itself, as it comes."""

    sees: Sees = "past"
    uses: tuple[str, ...] = (BACKGROUND,)

    def __call__(self, key: PRNGKey, window: Window, *, members: int) -> Ensemble:
        """One member."""
        return window.background[None]


@dataclasses.dataclass(frozen=True)
class Climatology:
    """Anomalies of random training days about the climatology of each time.

    Attributes:
        anomalies: departures from the climatology on training days, physical units.
    """

    anomalies: Float[np.ndarray, "day lat lon channel"]
    sees: Sees = "past"
    uses: tuple[str, ...] = ()

    def __call__(self, key: PRNGKey, window: Window, *, members: int) -> Ensemble:
        """Each time on its own."""
        seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
        return climatological_ensemble(self.anomalies, window.climate, members=members, seed=seed)


@dataclasses.dataclass(frozen=True)
class OptimalInterpolation:
    """Optimal interpolation of the background and all streams, each time on its own.

    Attributes:
        covariance: B.
        bias: mean error of the background, physical units.
        ensemble: analyses of perturbed backgrounds and observations; False for the one analysis of
            the unperturbed ones, which has the smaller error.
    """

    covariance: BackgroundCovariance
    bias: Float[np.ndarray, "lat lon channel"]
    ensemble: bool = False
    sees: Sees = "past"
    uses: tuple[str, ...] = (BACKGROUND, "streams")

    def __call__(self, key: PRNGKey, window: Window, *, members: int) -> Ensemble:
        """One member, or the ensemble."""
        background = jnp.asarray(window.background - self.bias, jnp.float32)
        if not self.ensemble:
            return np.asarray(_analysis(background, window.streams, self.covariance))[None]
        return np.asarray(
            _analyses(key, background, window.streams, self.covariance, members=members)
        )


def tuned(
    baseline: OptimalInterpolation,
    window: Window,
    truth: Float[np.ndarray, "time lat lon channel"],
    weights: Float[np.ndarray, "lat lon"],
    *,
    covariances: Sequence[BackgroundCovariance] | None = None,
    factors: Sequence[float] = FACTORS,
) -> OptimalInterpolation:
    """The baseline with the B and the factor of it whose analyses have the smallest error.

    Args:
        baseline: deterministic or not; its deterministic analysis is tuned.
        window: times of the validation period.
        truth: at these times, physical units; NaN where unknown.
        weights: areas.
        covariances: to choose from; None for that of the baseline.
        factors: to choose from.
    """
    background = jnp.asarray(window.background - baseline.bias, jnp.float32)
    choices = [
        covariance.inflated(jnp.float32(factor))
        for covariance in covariances or (baseline.covariance,)
        for factor in factors
    ]

    def error(covariance: BackgroundCovariance) -> float:
        misfit = np.asarray(_analysis(background, window.streams, covariance)) - truth
        square = np.nanmean(np.square(misfit / window.std), axis=(0, 3))
        return float(np.average(square, weights=weights))

    best = int(np.argmin([error(c) for c in choices]))
    return dataclasses.replace(baseline, covariance=choices[best])


@jax.jit
def _analysis(background: jax.Array, streams: tuple[Stream, ...], covariance: BackgroundCovariance):
    return optimal_interpolation(background, streams, covariance, outer=LINEARISATIONS)


@functools.partial(jax.jit, static_argnames="members")
def _analyses(key, background, streams, covariance, *, members: int):
    return optimal_interpolation_ensemble(
        key,
        background,
        streams,
        covariance,
        members=members,
        batch=BATCH,
        outer=LINEARISATIONS,
    )
