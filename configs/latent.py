"""Latent assimilation on the Held-Suarez nature run: the reference experiment of this library.

    python -m experiments.train --config=configs/latent.py
    python -m experiments.assimilate --config=configs/latent.py --output=runs/latent/analysis.nc
    python -m experiments.evaluate --config=configs/latent.py --analysis=runs/latent/analysis.nc

With `--config.data.root=FOLDER` it takes files of your own instead (state.nc, background.nc, ...).
Four years of training data and networks four times those of the demo: about a day on two cores,
minutes to an hour on a GPU.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/latent"
    config.nature = base.held_suarez(days=1800)
    config.data.levels = (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0)
    config.data.modalities = {
        "stations": base.field("stations.nc", variable="temperature", stations=True),
        "sounder": base.field("sounder.nc", variable="brightness_temperature"),
        "olr": base.field("olr.nc", variable="outgoing_longwave_radiation"),
    }
    config.data.periods = {
        "train": ("2000-01-01", "2003-12-31"),
        "validation": ("2004-01-06", "2004-05-31"),
        "test": ("2004-06-10", "2004-12-04"),
    }
    config.autoencoder = base.autoencoder(12, compression=2, width=96, blocks=3)
    config.autoencoder_training = base.training(
        steps=10000, warmup_steps=500, weight_decay=1e-4, log_every=200, checkpoint_every=2000
    )
    config.score.widths = (96, 192)
    config.score_training.update(
        steps=60000,
        warmup_steps=500,
        weight_decay=1e-4,
        ema_decay=0.9995,
        log_every=200,
        checkpoint_every=5000,
    )
    config.assimilation.update(frames=29, member_batch=4)
    config.assimilation.streams = {
        "stations": base.stream("points", path="stations.nc", error=0.5, withhold=0.3),
        "sounder": base.stream("sounder", path="sounder.nc", variable="brightness_temperature"),
        "olr": base.stream("olr", path="olr.nc", variable="outgoing_longwave_radiation"),
    }
    return config
