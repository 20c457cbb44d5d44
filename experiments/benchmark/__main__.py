"""Measure speed and memory on this machine, against its limits, PyTorch and DAPPER.

    python -m experiments.benchmark --output=runs/benchmark --quick

Writes `benchmark.json`, a list of rows with `case`, `seconds`, `percent_of_peak`,
`throughput_over_pytorch` and the further columns of each case, and the tables `benchmark.md`. Times
are medians of repetitions in which the library and PyTorch take turns. PyTorch is an extra (`pip
install slams-jax[torch]`); without it its columns are null. So is DAPPER (`slams-jax[dapper]`);
without it there are no rows of filters. Run nothing else meanwhile: the column
`load` shows how many processes competed. docs/performance.md explains the columns. About 12 minutes
on two free cores, 3 with `--quick`.
"""

import json
from typing import Any

import jax
from absl import flags, logging

from experiments.benchmark import filters, pytorch_twin, tables
from experiments.benchmark.run import run
from experiments.process import cli
from slams_jax.errors import InputError
from slams_jax.storage import write_text

FLAGS = flags.FlagValues()
OUTPUT = cli.path_flag(FLAGS, "output", "Folder for the results.")
QUICK = flags.DEFINE_bool(
    "quick", False, "The small grid and few repetitions: 3 minutes.", flag_values=FLAGS
)


def main() -> None:
    """Measure and write every row as it comes."""
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the folder to write into")
    folder = cli.folder(OUTPUT.value)
    if not pytorch_twin.available():
        logging.warning(
            "PyTorch is not installed (pip install 'slams-jax[torch]'): its columns stay empty"
        )
    if not filters.available():
        logging.warning("DAPPER is not installed (pip install 'slams-jax[dapper]'): no filters")
    # Programs kept from the last run would make compilation look fast.
    jax.config.update("jax_enable_compilation_cache", False)
    rows: list[dict[str, Any]] = []
    for row in run(quick=QUICK.value):
        rows.append(row)
        logging.info("%s", tables.in_words(row))
        write_text(json.dumps(rows, indent=1) + "\n", folder / "benchmark.json")
        write_text(tables.tables(rows), folder / "benchmark.md")


if __name__ == "__main__":
    cli.run(main, FLAGS)
