"""A cycle that runs for months: recorded, checkpointed, resumed, and stopped when it diverges."""

import contextlib
import dataclasses
import functools
import math
import os
import time as clocks
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from slams_jax.aliases import Forecast, PRNGKey
from slams_jax.cycling.cycle import Analyse, Cycled, cycle_step
from slams_jax.cycling.diagnostics import Observed, diagnosis
from slams_jax.cycling.ensembles import broken_members
from slams_jax.cycling.files import Progress, RunFiles, describe_run, shapes, summary
from slams_jax.cycling.timeline import Clock, Observations, Time, by_cycle, shown
from slams_jax.errors import Diverged, InputError
from slams_jax.records import first_difference
from slams_jax.storage import locked

Record = dict[str, Any]
# Analyses in a row whose chi-squared is above its limit; the mean of the ratio of errors, and the
# number of analyses in it, of which it forgets all but about the last `MEMORY`.
COUNTERS = {"inconsistent": 0, "error_ratio": 0.0, "averaged": 0}
MEMORY = 100


def run_cycle(
    forecast: Forecast,
    analyse: Analyse,
    start: PyTree,
    observations: Observations,
    key: PRNGKey,
    *,
    directory: str | os.PathLike[str],
    observed: Observed,
    begin: Any,
    interval: Any,
    about: Mapping[str, Any] | None = None,
    keep: Callable[[PyTree], xr.Dataset] | None = None,
    verify: Callable[[Time, Cycled], Mapping[str, Any]] | None = None,
    report: Callable[[Record], None] | None = None,
    every: int = 100,
    limit: float = 10.0,
    patience: int = 5,
) -> PyTree:
    """Cycle through all observations, or through those left since the last call.

    Each cycle adds a line to `cycle.jsonl` (`diagnosis`, with `cycle`, `time`, `analysed` and
    `seconds`) and a time to `analyses.zarr`, which `xarray.open_zarr(..., consolidated=False)`
    opens. Every `every` cycles, and when the run ends for whatever reason, a checkpoint is written.
    The same call resumes from it, bit for bit; with more observations it goes on. Memory does not
    grow with the number of cycles.

    Args:
        forecast: from an analysis to the state an interval later. It need not be JAX.
        analyse: from a background and the observations (NaN where missing) to an analysis; not
            called where there are none: the forecast is the analysis, and `analysed` false.
        start: the state of the time `begin`, a pytree of arrays: one state, an ensemble with its
            members in front, or a `WeightedEnsemble`.
        observations: (time, values) in the order of time, or a function from a time to those after
            it, such as `observation_series` of a file. A time left out has no observations.
        key: of everything random; cycle k has `jax.random.fold_in(key, k)`.
        directory: of the files; one run's alone.
        observed: what is observed, for the diagnostics.
        begin: the time of `start`, a number or a date.
        interval: between two cycles, a number or a timedelta.
        about: of the run, what else must not change when it resumes (its configuration), as JSON.
        keep: from an analysis to what is written of it; None takes mean and spread, or the single
            state (`summary`).
        verify: values that are added to the record of a cycle, such as the error of a twin
            experiment.
        report: called with each record once it is written.
        every: number of cycles between two checkpoints.
        limit: of chi-squared; above it, or not finite, `patience` times in a row, a filter counts
            as diverged.
        patience: see `limit`; cycles without observations do not count.

    Returns:
        The last analysis.

    Raises:
        InputError: observations out of order, too late, or of no cycle; a forecast or analysis of
            another shape than `start`; a directory of another run, or in use.
        Diverged: a forecast or analysis is not finite, or chi-squared stays above its limit; all
            cycles up to then are on disk.
        RunError: the checkpoint is damaged.
    """
    if every < 1 or patience < 1 or not limit > 0:
        raise InputError(
            f"every, patience and limit must be positive, got {every}, {patience} and {limit}"
        )
    scheme = _Scheme(
        forecast,
        analyse,
        jax.tree.map(_array, start),
        observed,
        Clock(begin, interval),
        jax.jit(functools.partial(diagnosis, observed)),
    )
    keep = keep or functools.partial(summary, ensemble=observed.ensemble)
    run = describe_run(scheme.start, key, scheme.clock, about or {})
    first = Progress(0, scheme.start, dict(COUNTERS))
    size = jnp.size(observed.error)
    with (
        locked(directory) as folder,
        contextlib.closing(RunFiles(folder, run, every, first)) as files,
    ):
        progress = files.begun
        try:
            for values in by_cycle(observations, scheme.clock, progress.done, size):
                begun = clocks.perf_counter()
                time = scheme.clock.time(progress.done)
                done, found = scheme.advance(progress, values, key)
                counters = _counted(progress.counters, found, limit)
                record = {
                    "cycle": progress.done,
                    "time": time if isinstance(time, float) else shown(time),
                    "analysed": values is not None,
                    **found,
                    "error_ratio": counters["error_ratio"] if counters["averaged"] else None,
                    **(verify(time, done) if verify else {}),
                    "seconds": round(clocks.perf_counter() - begun, 6),
                }
                files.add(record, time, keep(done.analysis))
                progress = Progress(progress.done + 1, done.analysis, counters)
                if progress.done % every == 0:
                    files.save(progress)
                if report:
                    report(record)
                _check_consistent(record, counters, limit, patience)
        except Diverged as error:
            raise Diverged(f"{error}; {progress.done} cycles are in {folder}") from None
        finally:
            files.save(progress)
    return progress.state


@dataclasses.dataclass(frozen=True)
class _Scheme:
    """What every cycle of a run has in common."""

    forecast: Forecast
    analyse: Analyse
    start: PyTree
    observed: Observed
    clock: Clock
    diagnose: Callable[..., dict[str, Any]]

    def advance(
        self, progress: Progress, values: Any, key: PRNGKey
    ) -> tuple[Cycled, dict[str, float | int | None]]:
        """The next cycle and its diagnostics; no analysis where `values` is None."""
        time = shown(self.clock.time(progress.done))
        error = self.observed.error
        y = jnp.full_like(error, jnp.nan) if values is None else jnp.asarray(values, error.dtype)

        def forecast(state, key):
            return self._sound(self.forecast(state, key), f"the forecast to {time}")

        def analyse(background, y, key):
            if values is None:
                return background
            return self._sound(self.analyse(background, y, key), f"the analysis of {time}")

        key = jax.random.fold_in(key, progress.done)
        done = cycle_step(forecast, analyse, progress.state, y, key)
        return done, {name: _number(v) for name, v in self.diagnose(*done, y).items()}

    def _sound(self, state: PyTree, what: str) -> PyTree:
        """A state as arrays, if it has the shape of the first and is finite."""
        state = jax.tree.map(_array, state)
        theirs, ours = shapes(state), shapes(self.start)
        if jax.tree.structure(state) != jax.tree.structure(self.start) or theirs != ours:
            raise InputError(
                f"{what} is no state like the first: {first_difference(theirs, ours) or 'it is'}"
                f" a {type(state).__name__}, not a {type(self.start).__name__}"
            )
        broken = int(_broken(state, ensemble=self.observed.ensemble))
        if broken:
            count = len(jax.tree.leaves(state)[0])
            members = f" in {broken} of {count} members" if self.observed.ensemble else ""
            raise Diverged(f"{what} is not finite{members}")
        return state


_broken = jax.jit(broken_members, static_argnames="ensemble")


def _array(leaf: Any) -> jax.Array | np.ndarray:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _number(value: Any) -> float | int | None:
    """A scalar for JSON, None if it is not finite."""
    number = np.asarray(value).item()
    return number if math.isfinite(number) else None


def _counted(
    counters: Mapping[str, float | int], found: Mapping[str, Any], limit: float
) -> dict[str, float | int]:
    """The counters after a cycle with the diagnostics `found`; without observations, as before."""
    if not found["observations"]:
        return dict(counters)
    chi, ratio = found["chi_squared"], found["error_ratio"]
    consistent = chi is not None and chi <= limit
    averaged = counters["averaged"] + 1
    weight = 1.0 / min(averaged, MEMORY)
    mean = counters["error_ratio"]
    return {
        "inconsistent": 0 if consistent else counters["inconsistent"] + 1,
        "error_ratio": mean + weight * ((mean if ratio is None else ratio) - mean),
        "averaged": averaged,
    }


def _check_consistent(
    record: Record, counters: Mapping[str, float | int], limit: float, patience: int
) -> None:
    if counters["inconsistent"] >= patience:
        spread = "" if record["spread"] is None else f" for a spread of {record['spread']:.3g}"
        raise Diverged(
            f"the filter diverged: up to {record['time']}, chi-squared per observation was above "
            f"{limit:g} in {patience} analyses in a row (innovations of "
            f"{record['innovation_rms']:.3g}{spread}): try more inflation or members"
        )
