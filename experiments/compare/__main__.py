r"""Compare the model with classical methods on many days of the test period.

    python -m experiments.compare --config=configs/demo.py --output=runs/demo/compare

Every `compare.every` days, each system analyses one day from a window of days about it. Filters see
the days up to the analysis, smoothers those after it too. Repeat the command to resume: finished
windows are files in `windows` below the output folder. Writes `compare.json`, `compare.md` and
`compare.png`. docs/verification.md explains the scores.

With `--config=configs/compare_kolmogorov.py` the systems analyse trajectories of a turbulent flow:
a trained model, the sampler of Rozet & Louppe, and classical methods that know the equations; it
writes `flow.json`, `flow.md`, `spectra.png` and `maps.png`.
"""

from absl import flags

from experiments.compare.flow import FlowSettings
from experiments.compare.flow_run import compare_flow
from experiments.compare.run import compare
from experiments.configuration.build import build, plain
from experiments.configuration.settings import read
from experiments.process import cli
from slams_jax.errors import InputError

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Folder for scores and finished windows.")
MODEL = cli.model_flag(FLAGS)


def main() -> None:
    """Compare what the flags say."""
    values = plain(CONFIG.value)
    flow = values.pop("flow", None)
    settings = read(values)
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the folder to write into")
    if flow is not None:
        options = build(FlowSettings, flow, "flow")
        print(compare_flow(settings, options, cli.folder(OUTPUT.value), source=MODEL.value))
        return
    print(compare(settings, OUTPUT.value, source=MODEL.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
