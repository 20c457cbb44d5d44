"""Kill a training run at random moments, repeatedly, and compare it with an uninterrupted one.

    python -m experiments.chaos --kills 50 --output chaos.json

A small score network of Lorenz-63 is trained in separate processes, which SIGKILL ends: during
start-up, between steps, and during saves. The result is compared bit for bit with an uninterrupted
run: parameters, moving average, optimiser state, key, position in the data, best checkpoint,
metrics. The report (JSON) gives `kills`, `bit_exact` and `lost_steps`, the most steps that any kill
cost; the exit status is 1 if the runs differ, a kill cost more than one checkpoint interval, or a
checkpoint was damaged. See docs/robustness.md.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from experiments.process import cli
from slams_jax.errors import InputError, RunError
from slams_jax.models.saved import SCORE
from slams_jax.storage import write_text
from slams_jax.training import read_metrics, restore_run
from slams_jax.training.arrays import manifest

FLAGS = flags.FlagValues()
KILLS = flags.DEFINE_integer(
    "kills", 50, "Number of times the training is killed.", lower_bound=1, flag_values=FLAGS
)
OUTPUT = cli.path_flag(FLAGS, "output", "Report to write, a .json file.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the random moments.", flag_values=FLAGS)

ROOT = Path(__file__).parents[1]
EVERY = 20  # steps between checkpoints
WAIT = 300.0  # seconds without progress after which the experiment fails
TRAINING = (
    f"--config={ROOT / 'configs' / 'lorenz63.py'}",
    "--config.nature.days=200",
    "--config.data.periods.train=('2000-01-01', '2000-04-30')",
    "--config.data.periods.validation=('2000-05-10', '2000-05-31')",
    "--config.data.periods.test=('2000-06-10', '2000-06-30')",
    "--config.score.widths=(16,)",
    "--config.score.blocks=1",
    "--config.score_training.batch_size=16",
    "--config.score_training.warmup_steps=5",
    "--config.score_training.log_every=1",
    f"--config.score_training.checkpoint_every={EVERY}",
)


def main() -> None:
    """Run the experiment and write the report."""
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the .json to write")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        # Each process that is killed advances by at most about two intervals.
        steps = EVERY * (2 * KILLS.value + 10)
        report = run(Path(folder), KILLS.value, steps=steps, seed=SEED.value)
    write_text(json.dumps(report, indent=1) + "\n", OUTPUT.value)
    logging.info("%s", report)
    if not report["bit_exact"] or report["lost_steps"] > EVERY or report["damaged"]:
        raise RunError(f"training did not survive its kills: see {OUTPUT.value}")


def run(folder: Path, kills: int, *, steps: int, seed: int) -> dict[str, Any]:
    """Report on `kills` kills of a training of `steps` steps; both runs are below `folder`.

    Raises:
        RunError: a training failed on its own, or ended before the last kill.
    """
    rng = random.Random(seed)
    begun = time.perf_counter()
    straight = Training(folder, "straight", steps)
    with straight.process() as process:
        straight.wait(process, lambda: b"samples/s" in straight.log.read_bytes())
        start_up = time.perf_counter() - begun
        straight.finish(process)
    seconds = time.perf_counter() - begun
    killed = Training(folder, "killed", steps)
    lost, saving, starting, damaged = [], 0, 0, 0
    for i in range(kills):
        with killed.process() as process:
            _await_moment(killed, process, rng, start_up)
            process.kill()
            process.wait()
        lost.append(killed.reached() - killed.saved())
        saving += killed.is_saving()
        starting += b"samples/s" not in killed.log.read_bytes()
        damaged += killed.log.read_bytes().count(b"is damaged")
        logging.info("kill %d: %d steps lost, step %d", i + 1, lost[-1], killed.reached())
    with killed.process() as process:
        killed.finish(process)
    damaged += killed.log.read_bytes().count(b"is damaged")
    differences = compare(straight.directory, killed.directory)
    return {
        "kills": kills,
        "bit_exact": not differences,
        "lost_steps": max(lost),
        "lost_steps_mean": sum(lost) / kills,
        "checkpoint_every": EVERY,
        "steps": steps,
        "kills_while_saving": saving,
        "kills_before_first_step": starting,
        "damaged": damaged,
        "differences": differences,
        "seconds": round(time.perf_counter() - begun, 1),
        "seconds_uninterrupted": round(seconds, 1),
        "seed": seed,
        "jax": jax.__version__,
    }


class Training:
    """One work directory, in which successive processes train."""

    def __init__(self, folder: Path, name: str, steps: int):
        self.directory = folder / name / SCORE
        self.log = folder / f"{name}.log"  # of the newest process
        self._command = [
            sys.executable,
            "-m",
            "experiments.train",
            *TRAINING,
            f"--config.score_training.steps={steps}",
            f"--config.workdir={folder / name}",
            f"--config.nature.cache={folder / 'cache'}",
            f"--config.data.cache={folder / 'cache'}",
        ]
        self._environment = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **os.environ,
        }

    @contextlib.contextmanager
    def process(self):
        """A training process, killed when the context ends."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait(self, process: subprocess.Popen, until: Callable[[], bool]) -> None:
        """Wait until a condition holds while the training runs."""
        given_up = time.monotonic() + WAIT
        while not until():
            if process.poll() is not None:
                raise RunError(f"the training ended too early: {self._last_words()}")
            if time.monotonic() > given_up:
                raise RunError(f"no progress in training for {WAIT:g} s: {self._last_words()}")
            time.sleep(5e-4)

    def finish(self, process: subprocess.Popen) -> None:
        """Wait for the end of the training."""
        if process.wait() != 0:
            raise RunError(f"the training failed: {self._last_words()}")

    def is_saving(self) -> bool:
        """Whether a checkpoint is incomplete: being written, or cut short by a kill."""
        return any(self.directory.glob("checkpoint/*/*tmp*"))

    def saved(self) -> int:
        """The step that a run resumes from."""
        found = [int(p.name) for p in self.directory.glob("checkpoint/last/*") if p.name.isdigit()]
        return max(found, default=0)

    def reached(self) -> int:
        """The last step in the metrics."""
        records = read_metrics(self.directory / "metrics.jsonl")
        return records[-1]["step"] if records else self.saved()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it printed nothing"


def _await_moment(
    training: Training, process: subprocess.Popen, rng: random.Random, start_up: float
) -> None:
    """Wait for a moment to kill: a fifth during start-up, half of the rest during saves."""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, start_up))
        return
    training.wait(process, lambda: b"samples/s" in training.log.read_bytes())
    if rng.random() < 0.5:
        goal = training.reached() + rng.randrange(2 * EVERY)
        training.wait(process, lambda: training.reached() >= goal)
        return
    training.wait(process, training.is_saving)
    time.sleep(rng.uniform(0.0, 0.1))


def compare(a: Path, b: Path) -> list[str]:
    """Names of the parts in which two finished runs differ."""
    found = []
    for which in ("last", "best"):
        ours, theirs = restore_run(a, which), restore_run(b, which)
        if ours.step != theirs.step:
            found.append(f"{which}.step")
        if manifest(ours.items) != manifest(theirs.items):
            found.append(f"{which}.arrays")
        found += [
            f"{which}.{name}"
            for name in ("data", "running", "validation", "rollbacks")
            if ours.record.get(name) != theirs.record.get(name)
        ]
    records = [
        [
            {k: v for k, v in r.items() if k != "samples_per_second"}
            for r in read_metrics(directory / "metrics.jsonl")
        ]
        for directory in (a, b)
    ]
    if records[0] != records[1]:
        found.append("metrics.jsonl")
    return found


if __name__ == "__main__":
    cli.run(main, FLAGS)
