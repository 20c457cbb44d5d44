r"""Which model wins where: one table over models and settings of observations, in two protocols.

    python -m experiments.ablation --config=configs/ablation.py --output=runs/ablation \
        --protocols=corrected --models=pixel,latent

Trains each model of `ablation.models` below the output folder, then analyses every setting with it.
`released` is the protocol published with SLAMS, `corrected` what it should have been; see
`experiments.ablation.protocols` and docs/ablation.md. Repeat the command to resume an interrupted
run: training from its checkpoints, analyses after the last one in `results` below the output
folder. Writes `ablation.json` (a list of rows), `ablation.md`, one picture a protocol, and, given
twelve cases, `gains.png`: what each model gains over the best classical method, by level.
"""

from absl import flags

from experiments.ablation import report
from experiments.ablation.compare import compare
from experiments.ablation.protocols import PROTOCOLS
from experiments.configuration.build import plain
from experiments.process import cli
from slams_jax.errors import InputError

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Folder for models and results.")
CHOSEN = flags.DEFINE_list("protocols", list(PROTOCOLS), "Protocols to run.", flag_values=FLAGS)
MODELS = flags.DEFINE_list(
    "models", [], "Models to run; all of the configuration if not given.", flag_values=FLAGS
)


def main() -> None:
    """Compare what the flags say."""
    raw = plain(CONFIG.value)
    if OUTPUT.value is None:
        raise InputError("--output is missing: give the folder to write into")
    unknown = [name for name in CHOSEN.value if name not in PROTOCOLS]
    if unknown or not CHOSEN.value:
        raise InputError(f"unknown protocols {unknown}: choose some of {','.join(PROTOCOLS)}")
    rows = compare(raw, OUTPUT.value, protocols=CHOSEN.value, models=MODELS.value)
    print(report.tables(rows))


if __name__ == "__main__":
    cli.run(main, FLAGS)
