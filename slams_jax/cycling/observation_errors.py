"""The errors of observations, estimated by a cycle and fed back until they settle.

The product of innovations and residuals, E[d_a d_b], is the variance of the errors where the
analysis gave the observations their right weight (`slams_jax.cycling.diagnostics`). Elsewhere it is
nearer to it than what was assumed, so that the cycle is run again with it (Desroziers, Berre,
Chapnik & Poli 2005, Q. J. R. Meteorol. Soc. 131, section 4).
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from slams_jax.aliases import Forecast, PRNGKey
from slams_jax.cycling.cycle import Analyse, Cycled, cycle
from slams_jax.cycling.diagnostics import Observed, departure
from slams_jax.errors import InputError, RunError


class ErrorEstimate(NamedTuple):
    """Estimated errors of observations.

    Attributes:
        error: standard deviations.
        ratios: of the estimated variance to the assumed one, in each round, for each group.
        settled: whether those of the last round are all one, within the tolerance.
    """

    error: Float[np.ndarray, " observation"]
    ratios: Float[np.ndarray, "round group"]
    settled: bool


def estimate_errors(
    forecast: Forecast,
    analysis_with: Callable[[Float[Array, " observation"]], Analyse],
    start: PyTree,
    observations: Float[np.ndarray, "cycle observation"],
    key: PRNGKey,
    *,
    observed: Observed,
    groups: np.ndarray | None = None,
    spin_up: int = 20,
    tolerance: float = 0.05,
    rounds: int = 10,
) -> ErrorEstimate:
    """Run the same cycle again and again, each time with the errors that the last one implies.

    The estimate is right if the spread of the background is: what an ensemble is too narrow by
    counts as error of the observations. `chi_squared` of a cycle tells whether both together fit.

    Args:
        forecast: from an analysis to the time of the next observations.
        analysis_with: from standard deviations of the errors to the analysis that assumes them.
        start: the state before the first observations, as for `run_cycle`.
        observations: of each cycle, NaN where missing.
        key: of everything random, the same in each round.
        observed: what is observed, with a first guess of the errors.
        groups: the number, from zero, of the group of each observation, such as that of its
            instrument; a group has one ratio. None for one group.
        spin_up: number of first cycles that are not averaged.
        tolerance: of the ratios.
        rounds: largest number of them.

    Raises:
        InputError: no cycles after the spin-up, groups that do not fit, a group without
            observations, or no round.
        RunError: a departure that is not finite, or an estimated variance that is not positive.
    """
    groups = np.zeros(observations.shape[1], int) if groups is None else np.asarray(groups)
    counted = observations[spin_up:]
    _check(groups, counted, spin_up, tolerance, rounds)
    seen = np.isfinite(counted)
    error, found, settled = np.asarray(observed.error), [], False
    while len(found) < rounds and not settled:
        observed = dataclasses.replace(observed, error=jnp.asarray(error))
        done = cycle(forecast, analysis_with(observed.error), start, observations, key)
        products = _products(observed, done, observations)[spin_up:]
        share = np.where(seen, products / error**2, 0.0).sum(axis=0)
        ratios = np.bincount(groups, share) / np.bincount(groups, seen.sum(axis=0))
        if not np.all(ratios > 0):  # nor where it is not a number
            raise RunError(
                f"the estimated over the assumed error variance of the groups is {ratios.tolist()} "
                f"in round {len(found) + 1}: start from larger errors, or look for a filter that "
                "diverges"
            )
        found.append(ratios)
        settled = bool(np.all(np.abs(ratios - 1.0) < tolerance))
        error = (error * np.sqrt(ratios)[groups]).astype(error.dtype)
    return ErrorEstimate(error, np.asarray(found), settled)


def _products(
    observed: Observed,
    done: Iterable[Cycled],
    observations: Float[np.ndarray, "cycle observation"],
) -> Float[np.ndarray, "cycle observation"]:
    """d_a d_b of each cycle."""

    @jax.jit
    def one(background, analysis, values):
        innovation, residual = (departure(observed, x, values)[0] for x in (background, analysis))
        return innovation * residual

    pairs = zip(done, observations, strict=True)
    return np.stack([one(*states, jnp.asarray(values)) for states, values in pairs])


def _check(
    groups: np.ndarray,
    counted: Float[np.ndarray, "cycle observation"],
    spin_up: int,
    tolerance: float,
    rounds: int,
) -> None:
    size = counted.shape[1]
    if rounds < 1 or not tolerance > 0:
        raise InputError(f"rounds and tolerance must be positive, got {rounds} and {tolerance}")
    if groups.shape != (size,) or set(groups.tolist()) != set(range(max(groups) + 1)):
        raise InputError(
            f"groups must give each of {size} observations a number, from zero and without gaps"
        )
    seen = np.bincount(groups, np.isfinite(counted).sum(axis=0))
    if not np.all(seen):
        raise InputError(
            f"groups {np.flatnonzero(seen == 0).tolist()} are never observed after a spin-up of "
            f"{spin_up} cycles: give more cycles, or leave them out"
        )
