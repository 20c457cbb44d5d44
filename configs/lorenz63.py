r"""Lorenz-63: a trained score of windows of nine states, and sparse, noisy observations of them.

    python -m experiments.train --config=configs/lorenz63.py
    python -m experiments.assimilate --config=configs/lorenz63.py --output=runs/lorenz63/analysis.nc
    python -m experiments.evaluate --config=configs/lorenz63.py \
        --analysis=runs/lorenz63/analysis.nc

The state has no space: it is a grid of one point with three channels, and there is no autoencoder.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/lorenz63"
    config.nature = base.lorenz63(substeps=5)
    config.data.variables = ("lorenz63",)
    config.data.periods = {
        "train": ("2000-01-01", "2021-12-31"),
        "validation": ("2022-01-10", "2024-09-30"),
        "test": ("2024-10-10", "2027-04-30"),
    }
    config.score.update(window=9, widths=(256,), kernel=1, coordinates="none")
    config.score_training.update(
        steps=20000,
        batch_size=256,
        warmup_steps=200,
        weight_decay=1e-4,
        log_every=500,
        checkpoint_every=4000,
    )
    config.sampler.steps = 64
    config.assimilation.update(frames=100, members=64, background=False, rank=1)
    config.assimilation.streams = {
        "sparse": base.stream("stride", variable="lorenz63", error=1.0, every=4),
    }
    return config
