"""The training that a configuration describes, as a call of the library."""

from experiments.configuration import inputs
from experiments.configuration.models import network_settings
from experiments.configuration.settings import Settings
from slams_jax.models.train import train_model


def train(settings: Settings) -> None:
    """Train both stages, or one where the configuration has no autoencoder.

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
