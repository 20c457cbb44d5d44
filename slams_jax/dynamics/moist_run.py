"""The moist truth and its backgrounds, day by day and resumable.

Truth and forecast of a day run side by side; at its end the forecast is corrected by radiosondes of
the truth (`cycled`), and the next forecast starts from there. So the background of a day is the
mean over the 24 hours after an analysis, as the truth is a mean over the day.

The static ensemble of that analysis are differences between days of the imperfect model that lie
close together in time: they have the variance of weather and nothing of the seasons.
"""

import concurrent.futures
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from slams_jax.aliases import PRNGKey
from slams_jax.cycling import Analyse, cycle
from slams_jax.dynamics import cycled, moist
from slams_jax.dynamics.moist import Daily, MoistAtmosphere, Nodal, State
from slams_jax.dynamics.nature_config import MoistRun
from slams_jax.observe import simulate
from slams_jax.storage import replacing

CHUNK = 30  # days, the most that a kill can cost
APART = 5  # days between the two states of a difference

Report = Callable[[str, int, int], None]  # (stage, days done, days to do)
AnyArray = jax.Array | np.ndarray


class Days(NamedTuple):
    """Daily means as they are published, along any axes in front."""

    temperature: Float[AnyArray, "*times lat lon level"]  # K
    surface_pressure: Float[AnyArray, "*times lat lon"]  # hPa
    precipitation: Float[AnyArray, "*times lat lon"]  # mm/day
    longwave: Float[AnyArray, "*times lat lon"]  # W/m2


class _Opening(NamedTuple):
    """What the cycle starts from."""

    truth: State
    members: Nodal  # of the static ensemble, which is in front


class _Chunk(NamedTuple):
    """Some days, and the states at their end."""

    truth: State
    analysis: State
    true: Days
    background: Days


class _System(NamedTuple):
    """What a day of the cycle takes."""

    truth: MoistAtmosphere
    imperfect: MoistAtmosphere
    measure: Callable[[State], np.ndarray]  # by the radiosondes
    analyse: Analyse
    publish: Callable[[Daily], Days]


def generate(
    run: MoistRun,
    truth: MoistAtmosphere,
    imperfect: MoistAtmosphere,
    key: PRNGKey,
    parts: Path,
    *,
    report: Report,
) -> tuple[Days, Days]:
    """The truth and the background of each day.

    Args:
        run: the settings.
        truth: the true model.
        imperfect: the model of the backgrounds, on the same grid.
        key: of all draws.
        parts: folder of unfinished work; what an earlier call left there is not computed again, and
            the result is the same, bit for bit.
        report: called with the name of the stage, the days done and the days to do.

    Raises:
        InputError: no room for so many radiosondes.
        RunError: a model became unstable.
    """
    key_open, key_system, key_cycle = jax.random.split(key, 3)
    state = truth.rest(0)
    opening = kept(
        parts / "opening.npz",
        _Opening(state, truth.nodal(state)),
        lambda: _open(run, truth, imperfect, key_open, report),
    )
    system = _system(run, truth, imperfect, opening.members, key_system)
    before = run.forecast.spin_up
    empty = Days(*[np.zeros(0)] * len(Days._fields))
    chunks = []
    states = (opening.truth, opening.truth)
    for first, last in itertools.pairwise(sorted({-before, *range(0, run.days, CHUNK), run.days})):
        work = functools.partial(
            _cycle,
            system,
            states,
            last - first,
            jax.random.fold_in(key_cycle, first % 2**31),
            lambda done, gone=before + first: report(
                "truth and backgrounds", gone + done, before + run.days
            ),
        )
        chunk = kept(parts / f"until{last:06d}.npz", _Chunk(state, state, empty, empty), work)
        states = (chunk.truth, chunk.analysis)
        if first >= 0:
            chunks.append((chunk.true, chunk.background))
    true, background = (
        jax.tree.map(lambda *x: np.concatenate(x), *each) for each in zip(*chunks, strict=True)
    )
    return true, background


def trajectory(
    atmosphere: MoistAtmosphere, state: State, days: int, *, report: Callable[[int], None]
) -> Iterator[tuple[State, Daily]]:
    """(the state at the end, means) of each day after `state`.

    Raises:
        RunError: the run became unstable.
    """
    for done in range(1, days + 1):
        state, means = jax.block_until_ready(atmosphere.day(state))
        if done % 10 == 0 or done == days:
            moist.check_finite(state, f"on or before day {int(state.day)}")
        report(done)
        yield state, means


def publisher(atmosphere: MoistAtmosphere, levels: Sequence[float]) -> Callable[[Daily], Days]:
    """What is published of the means over a day: temperature is on pressure levels."""

    @jax.jit
    def publish(daily: Daily) -> Days:
        pressure = daily.surface_pressure
        temperature = moist.on_pressure(daily.temperature, pressure, atmosphere.sigma, levels)
        return Days(temperature, pressure, daily.precipitation, daily.longwave)

    return publish


def _open(
    run: MoistRun, truth: MoistAtmosphere, imperfect: MoistAtmosphere, key: PRNGKey, report: Report
) -> _Opening:
    """The true state where the cycle begins, and the static ensemble, side by side."""
    config = run.forecast
    key_truth, key_climate = jax.random.split(key)
    settle = run.spin_up - config.spin_up
    count = settle + APART + (config.members - 1) * config.interval

    def spin_up() -> State:
        state = truth.start(key_truth, -run.spin_up)
        told = lambda done: report("spin-up of the truth", done, settle)
        for done in trajectory(truth, state, settle, report=told):
            state = done[0]
        return state

    def climate() -> Nodal:
        state = imperfect.start(key_climate, -run.spin_up)
        told = lambda done: report("climate of the imperfect model", done, count)
        recent: deque[Nodal] = deque([imperfect.nodal(state)], maxlen=APART + 1)
        members = []
        for done, (now, _) in enumerate(trajectory(imperfect, state, count, report=told), 1):
            recent.append(imperfect.nodal(now))
            since = done - settle - APART
            if since >= 0 and since % config.interval == 0:
                members.append(_difference(recent[-1], recent[0]))
        return jax.tree.map(lambda *x: np.stack(x), *members)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(spin_up), pool.submit(climate)
        return _Opening(first.result(), second.result())


def _difference(later: Nodal, earlier: Nodal) -> Nodal:
    """A difference with the variance of one of the two, where they are independent."""
    return jax.tree.map(lambda a, b: np.asarray(a - b) / np.float32(np.sqrt(2.0)), later, earlier)


def _system(
    run: MoistRun,
    truth: MoistAtmosphere,
    imperfect: MoistAtmosphere,
    members: Nodal,
    key: PRNGKey,
) -> _System:
    config = run.forecast
    key_network, key_error = jax.random.split(key)
    network = simulate.station_network(
        key_network, truth.grid, config.soundings, separation=cycled.SEPARATION
    )
    each = [jax.tree.map(lambda x, i=i: x[i], members) for i in range(config.members)]
    scheme = cycled.static_scheme(imperfect, each, network, config)
    sounding = cycled.soundings(truth.grid, network)
    observe = jax.jit(lambda state: sounding(truth.nodal(state)))
    error = cycled.sounding_error(config, imperfect)

    def measure(state: State) -> np.ndarray:
        key_day = jax.random.fold_in(key_error, int(state.day) % 2**31)
        values = np.asarray(observe(state))[None]
        return simulate.measure(key_day, values, error, np.ones(1, dtype=bool))[0]

    publish = publisher(truth, run.levels)
    return _System(
        truth,
        imperfect,
        measure,
        cycled.analysis(imperfect, network, scheme),
        lambda daily: jax.tree.map(np.asarray, publish(daily)),
    )


def _cycle(
    system: _System,
    states: tuple[State, State],
    count: int,
    key: PRNGKey,
    report: Callable[[int], None],
) -> _Chunk:
    """`count` days of truth, and of forecasts that start from analyses."""
    true: list[Days] = []
    background: list[Days] = []
    last: list[State] = [states[0]]

    def a_day() -> np.ndarray:
        state, means = system.truth.day(last[0])
        last[0] = state
        true.append(system.publish(means))
        return system.measure(state)

    def days(pool) -> Iterator[concurrent.futures.Future]:
        for _ in range(count):
            yield pool.submit(a_day)  # while the forecast of the same day runs

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = cycle(
            lambda state, key: system.imperfect.day(state[0]),
            lambda state, observed, key: (
                system.analyse(state[0], observed.result(), key),
                state[1],
            ),
            (states[1], None),
            days(pool),
            key,
        )
        analysis = states[1]
        for number, step in enumerate(done, 1):
            background.append(system.publish(step.background[1]))
            analysis = step.analysis[0]
            if number % 10 == 0 or number == count:
                moist.check_finite(last[0], f"on or before day {int(last[0].day)}")
                moist.check_finite(analysis, f"in the cycle on or before day {int(analysis.day)}")
            report(number)
    stacked = (jax.tree.map(lambda *x: np.stack(x), *each) for each in (true, background))
    return _Chunk(last[0], analysis, *stacked)


def kept(path: Path, like: PyTree, make: Callable[[], Any]) -> Any:
    """What `make` returns, of the structure of `like`; from `path` where an earlier call put it."""
    structure = jax.tree.structure(like)
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            leaves = [jnp.asarray(file[f"arr_{i}"]) for i in range(structure.num_leaves)]
        return structure.unflatten(leaves)
    made = make()
    with replacing(path) as temporary:
        np.savez(temporary, *map(np.asarray, structure.flatten_up_to(made)))
    return made
