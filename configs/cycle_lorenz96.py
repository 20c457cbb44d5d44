"""A year of six-hourly analyses of Lorenz-96 by the LETKF.

    python -m experiments.cycle --config=configs/cycle_lorenz96.py --output=runs/cycle

Takes less than a minute. Another filter: --config.cycle.method=3dvar.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return ConfigDict(
        {"cycle": base.cycle(method="letkf", members=20, inflation=1.03, radius=14.0)}
    )
