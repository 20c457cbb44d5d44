r"""Trajectories of a Kolmogorov flow: a trained model, LETKF, 4D-Var, and the sampler of SDA.

    pip install 'slams-jax[kolmogorov]'
    python -m experiments.train --config=configs/kolmogorov.py
    python -m experiments.compare --config=configs/compare_kolmogorov.py \
        --output=runs/compare_kolmogorov

The sampler of SDA takes most of the time; `--config.flow.systems` leaves it out.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base, kolmogorov


def get_config() -> ConfigDict:
    config: Any = kolmogorov.get_config()
    with config.unlocked():
        config.flow = base.flow()
    return config
