"""A Lorenz-63 nature run of 10,000 states, 0.1 time units apart, each called a day.

    python -m experiments.generate --config=configs/nature_lorenz63.py

Takes a few seconds.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.nature = ConfigDict(
        {
            "system": "lorenz63",
            "seed": 0,
            "days": 10000,
            "spin_up": 200,
            "dt": 0.01,
            "substeps": 10,
            "amplitude": 0.2,
            "cache": "cache",
        }
    )
    return config
