"""Train the autoencoder and the score network of a configuration.

    python -m experiments.train --config=configs/latent.py [--config.workdir=runs/mine ...]

A run that was stopped continues where it was; a finished stage is not repeated. SIGTERM saves the
step that was reached and ends with status 143; see docs/robustness.md.
"""

from experiments.configuration import inputs
from experiments.configuration.models import network_settings
from experiments.configuration.settings import CONFIG, Settings, read
from experiments.process import cli
from slams_jax.models.train import train_model


def main() -> None:
    """Train what the flags say."""
    train(read(CONFIG.value))


def train(settings: Settings) -> None:
    """Both stages; one where the configuration has no autoencoder. One run a work directory.

    Raises:
        InputError, RunError, Preempted: as `train_model` has them.
    """
    data = inputs.load(settings)
    train_model(
        settings.workdir,
        data,
        network_settings(settings, data),
        autoencoder_training=settings.autoencoder_training,
        score_training=settings.score_training,
        latent_inputs=settings.assimilation.latent_inputs,
        rank=settings.assimilation.rank,
        seed=settings.seed,
        config=settings.raw,
    )


if __name__ == "__main__":
    cli.run(main, distributed=True)
