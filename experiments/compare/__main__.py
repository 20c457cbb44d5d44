r"""Compare the model with classical methods on many days of the test period.

    python -m experiments.compare --config=configs/demo.py --output=runs/demo/compare

Every `compare.every` days, each system analyses one day from a window of days about it. Filters see
the days up to the analysis, smoothers those after it too. Repeat the command to resume: finished
windows are files in `windows` below the output folder. Writes `compare.json`, `compare.md` and
`compare.png`. docs/verification.md explains the scores.
"""

from absl import flags

from experiments.compare.run import compare
from experiments.configuration.settings import read
from experiments.process import cli
from slams_jax.errors import InputError

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Folder for scores and finished windows.")
MODEL = cli.model_flag(FLAGS)


def main() -> None:
    """Compare what the flags say."""
    settings = read(CONFIG.value)
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the folder to write into")
    print(compare(settings, OUTPUT.value, source=MODEL.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
