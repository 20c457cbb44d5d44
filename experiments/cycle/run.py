"""Run a twin experiment, and say how it goes: progress, summary, picture."""

import dataclasses
import functools
import json
import time as clocks
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from absl import logging

from experiments.cycle.picture import draw
from experiments.cycle.twin import CycleSettings, Twin, scheme, twin
from slams_jax.cycling import Cycled, observation_series, run_cycle, summary
from slams_jax.cycling.ensembles import moments, weighted
from slams_jax.cycling.files import RECORDS
from slams_jax.cycling.timeline import Clock
from slams_jax.errors import Diverged
from slams_jax.storage import read_records, write_dataset, write_text
from slams_jax.training.metrics import duration

Record = dict[str, Any]
PICTURE = "cycle.png"
FREE = ("cycles", "spin_up", "every")  # what may change when a run resumes
SAID_EVERY = 10.0  # seconds between two lines of progress
# Fields of the summary, and their names in its table.
NAMES = {
    "rmse": "RMSE of the mean",
    "state_spread": "spread",
    "chi_squared": "chi-squared",
    "error_ratio": "estimated over assumed error variance",
}
# The same of a fixed-lag smoother, of the state that no later observation changes.
LATER_NAMES = {
    "smoothed_rmse": "RMSE of the mean, {lag} cycles later",
    "smoothed_spread": "spread, {lag} cycles later",
}


def run(settings: CycleSettings, folder: Path, draw_every: int, prior: Path | None = None) -> str:
    """Cycle through the twin experiment, or what is left of it; returns the summary, in Markdown.

    Args:
        settings: of the experiment.
        folder: for all files.
        draw_every: cycles between two pictures.
        prior: folder of the training of the prior of "score"; None for `score` in `folder`.

    Raises:
        InputError: settings that the method does not take, or a folder of another run.
        RunError: the filter diverged; the summary and the picture show how.
    """
    key_start, key = jax.random.split(jax.random.key(settings.seed + 1))
    world = twin(settings)
    method = scheme(settings, world.first, key_start, prior or folder / "score")
    progress = _Progress(settings, folder, draw_every)

    def observations(time: Any) -> Iterator[tuple[Any, Any]]:
        # Asked for once the folder is known to be this run's.
        _write_twin(settings, world, folder)
        with xr.open_dataset(folder / "observations.nc", engine="h5netcdf") as stored:
            yield from observation_series(stored["state"])(time)

    @jax.jit
    def moments_of(state: Any) -> tuple[Any, Any]:
        return moments(*weighted(state)) if method.observed.ensemble else (state, None)

    def scores(state: Any, cycle: int) -> tuple[float | None, float | None]:
        """RMSE of the mean, and spread; of the start, before all cycles, none."""
        if cycle < 0:
            return None, None
        mean, variance = jax.device_get(moments_of(state))
        rms = lambda square: float(np.sqrt(np.mean(square)))
        misfit = mean - world.truth[cycle]
        return rms(misfit**2), None if variance is None else rms(variance)

    def verify(time: Any, done: Cycled) -> dict[str, float | None]:
        cycle = round(time / settings.interval) - 1
        rmse, spread = scores(method.latest(done.analysis), cycle)
        record = {"rmse": rmse, "state_spread": spread}
        if settings.lag:
            rmse, spread = scores(method.oldest(done.analysis), cycle - settings.lag)
            record |= {"smoothed_rmse": rmse, "smoothed_spread": spread}
        return record

    def keep(state: Any) -> xr.Dataset:
        of = functools.partial(summary, ensemble=method.observed.ensemble)
        kept = of(method.latest(state))
        if not settings.lag:
            return kept
        smoothed = of(method.oldest(state))
        return kept.merge(smoothed.rename({name: f"smoothed_{name}" for name in smoothed}))

    # More cycles extend a run, and a summary of others is of the same run.
    same = {k: v for k, v in dataclasses.asdict(settings).items() if k not in FREE}
    try:
        run_cycle(
            method.forecast,
            method.analyse,
            method.start,
            observations,
            key,
            directory=folder,
            observed=method.observed,
            begin=0.0,
            interval=settings.interval,
            about=same,
            keep=keep,
            verify=verify,
            report=progress,
            every=settings.every,
        )
    except Diverged:
        finish(settings, folder)
        raise
    return finish(settings, folder)


def finish(settings: CycleSettings, folder: Path) -> str:
    """Write summary and picture of the records; returns the table."""
    records = read_records(folder / RECORDS)
    found = summarise(settings, records)
    write_text(json.dumps(found, indent=1) + "\n", folder / "summary.json")
    rows = [f"| {name} | {_shown(found[field])} |" for field, name in _names(settings).items()]
    title = f"| {settings.method}, {settings.system} | {found['cycles']} cycles |"
    text = "\n".join([title, "|---|---|", *rows]) + "\n"
    write_text(text, folder / "summary.md")
    if records:
        draw(records, settings.error, folder / PICTURE)
    return text


def summarise(settings: CycleSettings, records: list[Record]) -> Record:
    """Means over the cycles after the spin-up; None for what is not known.

    The RMSE is the mean of those of the cycles, as it is published for these systems.
    """
    counted = [r for r in records if r["cycle"] >= settings.spin_up]

    def mean(name: str) -> float | None:
        values = [r[name] for r in counted if r[name] is not None]
        return sum(values) / len(values) if values else None

    found = {"cycles": len(counted), **{name: mean(name) for name in _names(settings)}}
    # It is an average of the cycles before already.
    return found | {"error_ratio": records[-1]["error_ratio"] if records else None}


def _names(settings: CycleSettings) -> dict[str, str]:
    """Fields of the summary, and their names."""
    smoothed = {field: name.format(lag=settings.lag) for field, name in LATER_NAMES.items()}
    return NAMES | (smoothed if settings.lag else {})


class _Progress:
    """Says every few seconds how far a run is, and draws it every so many cycles."""

    def __init__(self, settings: CycleSettings, folder: Path, draw_every: int):
        self._settings, self._folder, self._draw_every = settings, folder, draw_every
        self._begun: tuple[float, int] | None = None
        self._said = self._draw_after = 0.0

    def __call__(self, record: Record) -> None:
        now, done, total = clocks.monotonic(), record["cycle"] + 1, self._settings.cycles
        if self._begun is None:  # the first cycle compiles
            self._begun, self._said = (now, done), now
        elif now - self._said >= SAID_EVERY or done == total:
            self._said = now
            begun, before = self._begun
            logging.info(
                "cycle %d/%d  RMSE %.3g  chi-squared %s  %s left",
                done,
                total,
                record["rmse"],
                _shown(record["chi_squared"]),
                duration((total - done) * (now - begun) / (done - before)),
            )
        if done % self._draw_every == 0 and now >= self._draw_after:
            draw(read_records(self._folder / RECORDS), self._settings.error, self._folder / PICTURE)
            # All records are drawn: in a long run, not more often than it takes 5 % of the time.
            self._draw_after = now + 20.0 * (clocks.monotonic() - now)


def _write_twin(settings: CycleSettings, world: Twin, folder: Path) -> None:
    clock = Clock(0.0, settings.interval)
    times = np.array([clock.time(k) for k in range(settings.cycles)])
    for name, along, values in (
        ("truth", "variable", world.truth),
        ("observations", "observation", world.observations),
    ):
        dataset = xr.Dataset({"state": (("time", along), values)}, {"time": times})
        write_dataset(dataset, folder / f"{name}.nc")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
