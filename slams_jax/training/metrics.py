"""Metrics of a run: means, a file of JSON lines, TensorBoard, the progress line."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slams_jax.errors import Diverged
from slams_jax.storage import open_records, read_records, write_record
from slams_jax.training.devices import is_writer

LOG = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Running:
    """Sums of scalars since the last record; their state fits into JSON, exactly."""

    def __init__(self, state: Mapping[str, Any] | None = None):
        self.count: int = state["count"] if state else 0
        self.sums: dict[str, float] = dict(state["sums"]) if state else {}

    def add(self, step: int, infos: Sequence[Mapping[str, Any]], *, limit: float) -> None:
        """Add the infos of the steps up to and with `step`, one a step, oldest first.

        Raises:
            Diverged: the norm of a gradient is not finite, or a loss not or above `limit`; names
                the first such step.
        """
        for i, info in enumerate(infos):
            values = {name: float(np.asarray(value)) for name, value in info.items()}
            for name, most in (("loss", limit), ("grad_norm", math.inf)):
                if not (math.isfinite(values[name]) and values[name] <= most):
                    raise Diverged(f"{name} is {values[name]} at step {step - len(infos) + 1 + i}")
            self.count += 1
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means; the sums start again."""
        means = {name: total / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means

    def state(self) -> dict[str, Any]:
        """What the constructor takes to go on from here."""
        return {"count": self.count, "sums": dict(self.sums)}


class MetricsWriter:
    """One record a step, to a file of JSON lines and to TensorBoard.

    Opening removes the records after step `start`: a resumed run writes them again.
    """

    def __init__(self, directory: Path, start: int):
        from slams_jax.training.board import Board  # imports torch where it is installed

        self._path = directory / METRICS_FILE
        self._file = open_records(self._path, lambda record: record["step"] <= start)
        self._board = Board(directory / TENSORBOARD, start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the record of `step`; values that are not finite are written as null."""
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        write_record(self._file, {"step": step, **finite})
        self._board.write(step, values)

    def sync(self) -> None:
        """Put both files on disk."""
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        self._board.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics file (`slams_jax.storage.read_records`)."""
    return read_records(path)


class Progress:
    """The pace of a run, from which the progress line is written."""

    def __init__(self, *, steps: int, samples: int):
        self._steps, self._samples = steps, samples
        self._begun = self._mark = self._paused = 0.0
        self._first = self._marked = 0

    def start(self, step: int) -> None:
        """Start the clock, `step` being done: the first, whose time is that of compiling."""
        self._begun = self._mark = time.perf_counter()
        self._first = self._marked = step

    def paused(self, seconds: float) -> None:
        """Leave `seconds` (validation, saving) out of the throughput."""
        self._paused += seconds

    def report(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Log the progress line of `step`; return `values` with `samples_per_second`, if known."""
        now = time.perf_counter()
        line = [f"step {step}/{self._steps}", f"loss {values['loss']:.4g}"]
        if step > self._marked:
            seconds = max(now - self._mark - self._paused, 1e-9)
            rate = self._samples * (step - self._marked) / seconds
            left = (self._steps - step) * (now - self._begun) / (step - self._first)
            values = {**values, "samples_per_second": rate}
            line += [f"{rate:.3g} samples/s", f"{duration(left)} left"]
        self._mark, self._marked, self._paused = now, step, 0.0
        if is_writer():
            LOG.info("  ".join(line))
        return values


class Recorder:
    """Where the scalars of a run go: sums, record, TensorBoard, progress line.

    Attributes:
        first: the first step of this call.
        running: the sums since the last record.
        progress: the pace.
    """

    def __init__(
        self,
        directory: Path,
        *,
        steps: int,
        start: int,
        running: Mapping[str, Any] | None,
        schedule: Callable[[Any], Any],
        samples: int,
    ):
        self.first = start + 1
        self.running = Running(running)
        self.progress = Progress(steps=steps, samples=samples)
        self._schedule = schedule
        self._writer = MetricsWriter(directory, start) if is_writer() else None

    def means(self, step: int) -> dict[str, float]:
        """The means since the last record, with the learning rate of `step`; logs a line."""
        with jax.numpy_dtype_promotion("standard"):
            rate = float(self._schedule(np.int32(step - 1)))
        return self.progress.report(step, {**self.running.take(), "learning_rate": rate})

    def write(self, step: int, values: dict[str, float], validation: dict[str, float]) -> None:
        """Write one record of `step`, if there is anything to write."""
        if validation and is_writer():
            # Groups, "group/name", are for the record alone.
            shown = {name: value for name, value in validation.items() if "/" not in name}
            line = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            LOG.info("step %d  validation  %s", step, line)
        values = {**values, **{f"validation/{name}": v for name, v in validation.items()}}
        if values and self._writer:
            self._writer.write(step, values)

    def sync(self) -> None:
        """Put everything on disk, so that no checkpoint is ahead of its records."""
        if self._writer:
            self._writer.sync()

    def close(self) -> None:
        """Close the files."""
        if self._writer:
            self._writer.close()


def duration(seconds: float) -> str:
    """Seconds as hours:minutes:seconds, such as 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
