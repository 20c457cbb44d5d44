"""Measure speed and memory on this machine, against its limits and against PyTorch.

    python -m experiments.benchmark --output=runs/benchmark [--quick]

Writes `benchmark.json`, a list of rows with `case`, `seconds`, `percent_of_peak`,
`throughput_over_pytorch` and what else each case has to say, and `benchmark.md`, the tables. Times
are medians of repetitions in which the library and PyTorch take turns; PyTorch is an extra
(`pip install slams-jax[torch]`), and without it its columns are null. Nothing else should run: the
column `load` says how many processes wanted to. `docs/performance.md` says how to read it.
About 12 minutes on two free cores; `--quick`, with the small grid alone, 3.
"""

import json
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from experiments.benchmark import analyses as benchmark_analyses
from experiments.benchmark import pytorch_twin as twin
from experiments.benchmark import tables as benchmark_tables
from experiments.benchmark.machine import measure_machine
from experiments.benchmark.networks import run_networks
from experiments.process import cli
from slams_jax.errors import InputError
from slams_jax.storage import write_text

# Other commands have flags of these names too; each command has one of them.
OUTPUT = flags.DEFINE_string("output", None, "What to write into.", allow_override=True)
QUICK = flags.DEFINE_bool("quick", False, "Less of it: a few minutes.", allow_override=True)

SHAPES = ((32, 64), (120, 240))
REPETITIONS, QUICK_REPETITIONS = 7, 3
LIMIT_REPETITIONS = 25  # the fastest counts


def main() -> None:
    """All rows, written as they come."""
    if not OUTPUT.value:
        raise InputError("say where to write: give --output=FOLDER")
    folder = Path(OUTPUT.value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from None
    if not twin.available():
        logging.warning(
            "PyTorch is not installed (pip install 'slams-jax[torch]'): the columns that compare "
            "with it stay empty"
        )
    # Programs kept from the last run would make compilation look fast.
    jax.config.update("jax_enable_compilation_cache", False)
    rows: list[dict[str, Any]] = []
    for row in run(quick=QUICK.value):
        rows.append(row)
        logging.info("%s", benchmark_tables.in_words(row))
        write_text(json.dumps(rows, indent=1) + "\n", folder / "benchmark.json")
        write_text(benchmark_tables.tables(rows), folder / "benchmark.md")


def run(*, quick: bool):
    """The rows, one after the other."""
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    machine, limits = measure_machine(LIMIT_REPETITIONS)
    yield from limits
    yield from run_networks(machine, repetitions, SHAPES[:1] if quick else SHAPES)
    yield benchmark_analyses.run_overhead(machine, repetitions)
    yield from benchmark_analyses.run_memory(machine, quick=quick)
    members, steps = (1, 2) if quick else (benchmark_analyses.MEMBERS, 8)
    yield from benchmark_analyses.run_ensembles(machine, members=members, steps=steps)


if __name__ == "__main__":
    cli.run(main)
