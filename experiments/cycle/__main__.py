"""Cycle a twin experiment: a truth, simulated observations, a filter, for as long as you like.

    python -m experiments.cycle --config=configs/cycle_lorenz96.py --output=runs/cycle

Simulates Lorenz-63 or Lorenz-96, writes `observations.nc` and `truth.nc`, and streams the former
through `cycle.method`. Writes `cycle.jsonl` (a line for each cycle), `analyses.zarr`, a summary
(`summary.json`, `summary.md`) and `cycle.png`, which is redrawn while the command runs. Repeat the
command to resume. `--config=configs/benchmark_lorenz.py` compares filters, tuned on other
observations, in `benchmark.md`. docs/guides/cycling.md explains the diagnostics.
"""

from absl import flags

from experiments.configuration.build import build, plain
from experiments.cycle.benchmark import BenchmarkSettings, benchmark
from experiments.cycle.run import run
from experiments.cycle.twin import CycleSettings
from experiments.process import cli
from slams_jax.errors import InputError

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Folder to write into.")
DRAW_EVERY = flags.DEFINE_integer(
    "draw_every", 200, "Cycles between two pictures.", lower_bound=1, flag_values=FLAGS
)


def main() -> None:
    """Run the twin experiment of the configuration."""
    values = plain(CONFIG.value)
    if set(values) not in ({"cycle"}, {"benchmark"}):
        raise InputError(
            f"a configuration of cycles has the one field 'cycle' or 'benchmark', got "
            f"{sorted(values)}: see configs/cycle_lorenz96.py"
        )
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the folder to write into")
    if "benchmark" in values:
        settings = build(BenchmarkSettings, values["benchmark"], "benchmark")
        print(benchmark(settings, OUTPUT.value, DRAW_EVERY.value))
        return
    print(run(build(CycleSettings, values["cycle"], "cycle"), OUTPUT.value, DRAW_EVERY.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
