"""Noisy Lorenz-63 of Rozet & Louppe (2023), arXiv 2306.10574: a score of windows of 17 states.

    python -m experiments.train --config=configs/sda_lorenz63.py
    python -m experiments.calibrate --cases=h --sda=runs/sda_lorenz63 --output=runs/calibration-h

States are 0.025 time units apart and get noise of variance 0.025. The run has 90,000 of them, as
many days as dates in nanoseconds allow; the paper trained on 840,000, and on windows of five, which
lose much in the composition (docs/calibration.md). About ten minutes on two cores.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import lorenz63


def get_config() -> ConfigDict:
    config: Any = lorenz63.get_config()
    config.workdir = "runs/sda_lorenz63"
    config.nature.update(days=90000, dt=0.025, substeps=1, noise=1.0)
    config.data.periods = {
        "train": ("2000-01-01", "2229-12-31"),
        "validation": ("2230-01-10", "2238-01-01"),
        "test": ("2238-01-11", "2246-04-30"),
    }
    # One noise level for all frames, as in the paper.
    config.score.update(window=17, widths=(160,), frame_noise=False)
    config.score_training.steps = 16000
    return config
