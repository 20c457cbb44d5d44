"""Cycle a twin experiment: a truth, its observations, a filter, for as long as you like.

    python -m experiments.cycle --config=configs/cycle_lorenz96.py --output=runs/cycle

Simulates Lorenz-63 or Lorenz-96, writes `observations.nc` and `truth.nc`, and streams the former
through `cycle.method`. Writes `cycle.jsonl` (a line for each cycle), `analyses.zarr`, a summary
(`summary.json`, `summary.md`) and `cycle.png`, which is redrawn while the command runs. Repeat the
command to resume. `--config=configs/benchmark_lorenz.py` compares filters, tuned on other
observations, in `benchmark.md`. `--config=configs/cycle_moist.py` cycles an atmosphere, with
classical filters and a trained model, each in a folder of its own; `summary.md` compares them.
docs/guides/cycling.md explains the diagnostics.
"""

from absl import flags

from experiments.configuration.build import build, plain
from experiments.configuration.settings import read
from experiments.cycle import moist_run
from experiments.cycle.benchmark import BenchmarkSettings, benchmark
from experiments.cycle.moist import MoistCycleSettings
from experiments.cycle.run import run
from experiments.cycle.twin import CycleSettings
from experiments.process import cli
from slams_jax.errors import InputError

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Folder to write into.")
MODEL = cli.model_flag(FLAGS)
DRAW_EVERY = flags.DEFINE_integer(
    "draw_every", 200, "Cycles between two pictures.", lower_bound=1, flag_values=FLAGS
)


def main() -> None:
    """Run the twin experiment of the configuration."""
    values = plain(CONFIG.value)
    moist = values.pop("moist_cycle", None)
    if moist is None and set(values) not in ({"cycle"}, {"benchmark"}):
        raise InputError(
            f"a configuration of cycles has the one field 'cycle' or 'benchmark', or 'moist_cycle' "
            f"beside others, got {sorted(values)}: see configs/cycle_lorenz96.py"
        )
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the folder to write into")
    if moist is not None:
        cycle = build(MoistCycleSettings, moist, "moist_cycle")
        print(moist_run.run(read(values), cycle, cli.folder(OUTPUT.value), MODEL.value))
        return
    if MODEL.value is not None:
        raise InputError("--model is for configs/cycle_moist.py: leave it out")
    if "benchmark" in values:
        settings = build(BenchmarkSettings, values["benchmark"], "benchmark")
        print(benchmark(settings, OUTPUT.value, DRAW_EVERY.value))
        return
    print(run(build(CycleSettings, values["cycle"], "cycle"), OUTPUT.value, DRAW_EVERY.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
