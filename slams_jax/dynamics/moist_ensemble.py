"""Ensembles of the moist atmosphere in a cycle: forecasts of a day, and analyses by columns.

What is published and observed of a day are means over it; the next forecast starts from its end. An
analysis combines both alike: what observations of the means tell of the end is in the covariance of
the two over the members (Sakov, Evensen & Bertino 2010, Tellus A 62, asynchronous observations). So
a filter sees columns of numbers, one for each point of the grid: the state at the end, and the
means. Increments go into the spectral state; what the physics carries along stays as it is.
"""

import concurrent.futures
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Forecast, PRNGKey
from slams_jax.dynamics import moist_run
from slams_jax.dynamics.moist import MoistAtmosphere, Nodal, State
from slams_jax.dynamics.moist_run import Days
from slams_jax.errors import InputError

SETTLE = 365  # days before the first member of the climate: the stratosphere forgets its start


class Members(NamedTuple):
    """An ensemble after a day, its members in front of every array.

    Attributes:
        states: at the end of the day.
        means: over the day.
    """

    states: State
    means: Days

    @classmethod
    def like(cls, atmosphere: MoistAtmosphere) -> "Members":
        """Of the structure of every ensemble, its arrays of another shape."""
        return cls(atmosphere.rest(0), Days(*[np.zeros(0, np.float32)] * len(Days._fields)))

    @property
    def count(self) -> int:
        """Number of members."""
        return len(self.states.day)


Columns = Float[Array, "member place value"]


def climate(
    atmosphere: MoistAtmosphere,
    levels: Sequence[float],
    key: PRNGKey,
    *,
    day: int,
    count: int,
    apart: int = 1,
    report: Callable[[int], None] = lambda done: None,
) -> Members:
    """States of the season around a day, all dated by it: an ensemble that knows the climate alone.

    They come from one run of the model, in the order of time; a day takes a third of a second.

    Args:
        atmosphere: the model.
        levels: of the temperature of the means, hPa.
        key: of the start of the run.
        day: days since 2000-01-01.
        count: of members.
        apart: days between two of them.
        report: called with the days done.

    Raises:
        InputError: fewer than two members.
        RunError: the run became unstable.
    """
    if count < 2 or apart < 1:
        raise InputError(
            f"an ensemble of the climate needs at least 2 members, each at least a day from the "
            f"last, got {count=}, {apart=}"
        )
    before = SETTLE + count * apart // 2
    run = moist_run.trajectory(
        atmosphere, atmosphere.start(key, day - before), SETTLE + count * apart, report=report
    )
    publish = moist_run.publisher(atmosphere, levels)
    kept = [
        Members(state._replace(day=jnp.full_like(state.day, day)), publish(means))
        for number, (state, means) in enumerate(run)
        if number >= SETTLE and (number - SETTLE) % apart == 0
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *kept)


def forecasts(
    atmosphere: MoistAtmosphere, levels: Sequence[float], *, workers: int | None = None
) -> Forecast:
    """The forecast of `Members` over a day, member by member on `workers` threads.

    Args:
        atmosphere: the model.
        levels: of the temperature of the means, hPa.
        workers: threads, of which each has one member at a time; None for one for each core.
    """
    publish = moist_run.publisher(atmosphere, levels)

    def one(state: State) -> Members:
        done, means = jax.block_until_ready(atmosphere.day(state))
        return Members(done, publish(means))

    def forecast(members: Members, key: PRNGKey) -> Members:
        each = [jax.tree.map(lambda x, i=i: x[i], members.states) for i in range(members.count)]
        with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            return jax.tree.map(lambda *x: jnp.stack(x), *pool.map(one, each))

    return forecast


def columns_of(atmosphere: MoistAtmosphere, members: Members) -> Columns:
    """The members as a filter takes them: the state on the grid, and the means; rain as log(1 + r).

    Rain is in mm; `fields_of` has the other units.
    """
    state, means = jax.vmap(atmosphere.nodal)(members.states), members.means
    inner = lambda x: jnp.moveaxis(x, 1, -1)
    parts = [
        *map(inner, (state.temperature, state.zonal_wind, state.meridional_wind)),
        inner(state.specific_humidity),
        state.surface_pressure[..., None],
        means.temperature,
        means.surface_pressure[..., None],
        jnp.log1p(means.precipitation)[..., None],
        means.longwave[..., None],
    ]
    columns = jnp.concatenate(parts, axis=-1)
    return columns.reshape(members.count, -1, columns.shape[-1])


def fields_of(
    atmosphere: MoistAtmosphere, columns: Float[Array, "*members place value"]
) -> tuple[Nodal, Days]:
    """The state on the grid and the means of the columns of one member, or of several."""
    layers = len(atmosphere.sigma)
    levels = columns.shape[-1] - 4 * layers - 4
    sizes = [layers] * 4 + [1, levels, 1, 1, 1]
    fields = columns.reshape(*columns.shape[:-2], *atmosphere.grid.shape, columns.shape[-1])
    parts = jnp.split(fields, np.cumsum(sizes)[:-1], axis=-1)
    thermal, zonal, meridional, humidity = (jnp.moveaxis(x, -1, -3) for x in parts[:4])
    pressure, mean_pressure, rain, longwave = (x[..., 0] for x in (parts[4], *parts[6:]))
    wet = jnp.maximum(jnp.expm1(rain), 0.0)
    state = Nodal(thermal, zonal, meridional, humidity, pressure)
    return state, Days(parts[5], mean_pressure, wet, longwave)


def moved(
    atmosphere: MoistAtmosphere, members: Members, before: Columns, after: Columns
) -> Members:
    """The members whose columns have changed from `before` to `after`.

    Humidity is cut off at zero on the grid, before it is projected.
    """
    state, _ = fields_of(atmosphere, before)
    analysed, means = fields_of(atmosphere, after)
    analysed = analysed._replace(specific_humidity=jnp.maximum(analysed.specific_humidity, 0.0))
    increment = jax.tree.map(jnp.subtract, analysed, state)
    return Members(jax.vmap(atmosphere.add)(members.states, increment), means)
