"""Train the autoencoder and the score network of a configuration.

    python -m experiments.train --config=configs/latent.py --config.workdir=runs/mine

Repeat the command to resume an interrupted run; a finished stage is not repeated. SIGTERM saves the
step that was reached and ends with status 143; see docs/robustness.md.
"""

from absl import flags

from experiments.configuration.settings import read
from experiments.configuration.training import train
from experiments.process import cli

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
DISTRIBUTED = cli.distributed_flag(FLAGS)


def main() -> None:
    """Train what the flags say."""
    train(read(CONFIG.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
