"""Lorenz-63, observed every 0.25 time units, by the ensemble transform Kalman filter.

    python -m experiments.cycle --config=configs/cycle_lorenz63.py --output=runs/cycle63

Takes less than a minute.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    cycle = base.cycle(system="lorenz63", cycles=1000, dt=0.01, substeps=25, error=2.0**0.5)
    cycle.update(method="etkf", members=10, inflation=1.1)
    return ConfigDict({"cycle": cycle})
