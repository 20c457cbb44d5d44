r"""Kolmogorov flow: a trained score of windows of five velocity fields, without an autoencoder.

    pip install 'slams-jax[kolmogorov]'
    python -m experiments.train --config=configs/kolmogorov.py

The flow of Rozet & Louppe (2023), arXiv 2306.10574, section 4.2, on a coarser grid (128 x 128 for
256 x 256), and for training one run as long as 200 of their 819 trajectories. Two cores take twelve
minutes to generate it, and an hour to train.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config: Any = base.get_config()
    config.workdir = "runs/kolmogorov"
    config.nature = base.kolmogorov(days=14900)
    config.data.background.path = ""
    config.data.variables = ("velocity",)
    config.data.periods = {
        "train": ("2000-01-01", "2035-01-16"),  # 12,800 states
        "validation": ("2035-03-01", "2037-06-30"),
        "test": ("2037-08-01", "2040-10-15"),
    }
    config.score.update(window=5, widths=(32, 64, 128), blocks=2, padding="torus")
    config.score_training.update(
        steps=4500,
        batch_size=8,
        warmup_steps=100,
        weight_decay=1e-4,
        log_every=100,
        checkpoint_every=500,
    )
    config.sampler.steps = 32
    config.guidance.outer = 3  # for observations that are not linear; others lose nothing by it
    config.assimilation.update(frames=16, members=8, background=False)
    config.assimilation.streams = {
        "coarse": base.stream("coarse", variable="velocity", factor=8, error=0.1),
    }
    return config
