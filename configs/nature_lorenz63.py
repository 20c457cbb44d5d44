"""A Lorenz-63 nature run of 10,000 states, 0.1 time units apart, each called a day.

    python -m experiments.generate --config=configs/nature_lorenz63.py

Takes a few seconds.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return ConfigDict({"nature": base.lorenz63(days=10000)})
