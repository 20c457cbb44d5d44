"""Latent assimilation on the moist nature run: the reference experiment of this library.

    pip install 'slams-jax[osse]' && pip install --no-deps -r requirements/moist.txt
    python -m experiments.train --config=configs/latent.py
    python -m experiments.assimilate --config=configs/latent.py --output=runs/latent/analysis.nc
    python -m experiments.evaluate --config=configs/latent.py --analysis=runs/latent/analysis.nc

The data of `modalities.py` (three years of training, one of validation, one of test), networks
twice as wide and deeper, and the stations and soundings of the demo in the analysis. Half an hour
to generate; about three hours to train on two cores, two minutes on an H100. Three years of data do
not bear longer training: the network then overfits. With `--config.data.root=FOLDER` it takes files
of your own instead (state.nc, background.nc, ...).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base, demo, modalities


def get_config() -> ConfigDict:
    config: Any = demo.get_config()  # ConfigDict's types know nothing of its fields
    config.workdir = "runs/latent"
    modalities.five_years(config)
    config.autoencoder = base.autoencoder(16, compression=2, width=96, blocks=3)
    config.autoencoder_training = base.training(
        steps=2000, warmup_steps=200, weight_decay=1e-4, log_every=100, checkpoint_every=500
    )
    config.score.update(window=5, widths=(96, 192), blocks=3)
    config.score_training = base.training(
        steps=1500, warmup_steps=200, weight_decay=1e-4, log_every=100, checkpoint_every=250
    )
    config.sampler.steps = 32
    config.guidance.iterations = 30
    config.assimilation.update(frames=29, members=16, member_batch=4)
    config.compare.every = 6
    return config
