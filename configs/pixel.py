"""Assimilation in state space, without an autoencoder, on the Held-Suarez nature run.

    python -m experiments.train --config=configs/pixel.py
    python -m experiments.assimilate --config=configs/pixel.py --output=runs/pixel/analysis.nc
    python -m experiments.evaluate --config=configs/pixel.py --analysis=runs/pixel/analysis.nc

With `--config.data.root=FOLDER` it takes files of your own instead (state.nc, background.nc, ...).
Four years of training data and networks four times those of the demo: about a day on two cores,
minutes to an hour on a GPU.
"""

from ml_collections import ConfigDict

from configs import base, held_suarez


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/pixel"
    held_suarez.dry_atmosphere(config, days=1800)
    config.data.periods = {
        "train": ("2000-01-01", "2003-12-31"),
        "validation": ("2004-01-06", "2004-05-31"),
        "test": ("2004-06-10", "2004-12-04"),
    }
    config.score.widths = (64, 128, 256)
    config.score_training.update(
        steps=60000,
        warmup_steps=500,
        weight_decay=1e-4,
        ema_decay=0.9995,
        log_every=200,
        checkpoint_every=5000,
    )
    config.assimilation.update(frames=29, member_batch=4)
    return config
