"""The Held-Suarez nature run of the demo: 450 days of T21 temperature on SLAMS's ten levels.

    python -m experiments.generate --config=configs/held_suarez.py

Takes about three minutes on two cores and 100 MB of disk. The backgrounds are forecasts of an
imperfect model in a cycle with radiosondes (`nature.forecast`), wrong by about half a
climatological standard deviation.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return ConfigDict({"nature": base.held_suarez(days=450)})
