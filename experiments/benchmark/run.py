"""All measurements, one row at a time."""

from collections.abc import Iterator
from typing import Any

from experiments.benchmark import analyses
from experiments.benchmark.filters import run_filters
from experiments.benchmark.machine import measure_machine
from experiments.benchmark.networks import run_networks

SHAPES = ((32, 64), (120, 240))
REPETITIONS, QUICK_REPETITIONS = 7, 3
LIMIT_REPETITIONS = 25  # the fastest counts


def run(*, quick: bool) -> Iterator[dict[str, Any]]:
    """The rows, one after the other."""
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    machine, limits = measure_machine(LIMIT_REPETITIONS)
    yield from limits
    yield from run_networks(machine, repetitions, SHAPES[:1] if quick else SHAPES)
    yield analyses.run_overhead(machine, repetitions)
    yield from analyses.run_memory(machine, quick=quick)
    yield from run_filters(machine, QUICK_REPETITIONS, 200 if quick else 1000)
    members, steps = (1, 2) if quick else (analyses.MEMBERS, 8)
    yield from analyses.run_ensembles(machine, members=members, steps=steps)
