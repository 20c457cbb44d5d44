"""The cycle of data assimilation.

    x_b(k) = M(x_a(k - 1)),   x_a(k) = A(x_b(k), y(k))

M is a forecast to the time of the next observations y, A an analysis. A state is any pytree: one
state, or an ensemble of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import PyTree

from slams_jax.aliases import Forecast, PRNGKey


@runtime_checkable
class Analyse(Protocol):
    """An analysis: from a background and the observations of its time to a state."""

    def __call__(self, background: PyTree, observations: Any, key: PRNGKey, /) -> PyTree:
        """Return the analysis."""
        ...


class Cycled(NamedTuple):
    """One step of a cycle."""

    background: PyTree
    analysis: PyTree


def cycle_step(
    forecast: Forecast, analyse: Analyse, state: PyTree, observations: Any, key: PRNGKey
) -> Cycled:
    """The background that follows from the analysis `state`, and its own analysis.

    It is pure: `jax.lax.scan` may repeat it where `forecast` and `analyse` can be traced.
    """
    key_forecast, key_analysis = jax.random.split(key)
    background = forecast(state, key_forecast)
    return Cycled(background, analyse(background, observations, key_analysis))


def cycle(
    forecast: Forecast,
    analyse: Analyse,
    start: PyTree,
    observations: Iterable[Any],
    key: PRNGKey,
) -> Iterator[Cycled]:
    """Backgrounds and analyses, one by one.

    Args:
        forecast: from an analysis to the time of the next observations.
        analyse: from a background and observations to an analysis.
        start: the state from which the first forecast starts.
        observations: those of each time, in turn, as `analyse` takes them.
        key: of everything random; step k has `jax.random.fold_in(key, k)`.
    """
    state = start
    for k, observed in enumerate(observations):
        done = cycle_step(forecast, analyse, state, observed, jax.random.fold_in(key, k))
        state = done.analysis
        yield done
