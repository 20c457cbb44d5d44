"""The size of the demo on a dry atmosphere, without land, seasons or rain.

    python -m experiments.train --config=configs/held_suarez.py
    python -m experiments.assimilate --config=configs/held_suarez.py \
        --output=runs/held_suarez/analysis.nc
    python -m experiments.evaluate --config=configs/held_suarez.py \
        --analysis=runs/held_suarez/analysis.nc

A Held-Suarez atmosphere (T21, 450 days of temperature on the ten levels of SLAMS) is generated, in
three minutes on two cores and 100 MB of disk. Its backgrounds are forecasts of an imperfect model
in a cycle with radiosondes (`nature.forecast`), wrong by about half a climatological standard
deviation. An autoencoder and a score network are trained on its first year, and its temperature is
analysed from background, surface stations, a microwave sounder and outgoing longwave radiation,
which all have observation operators.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base


def dry_atmosphere(config: Any, days: int) -> None:
    """The nature run, and what observes it."""
    config.nature = base.held_suarez(days=days)
    config.data.levels = (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0)
    config.data.modalities = {
        "stations": base.field("stations.nc", variable="temperature", stations=True),
        "sounder": base.field("sounder.nc", variable="brightness_temperature"),
        "olr": base.field("olr.nc", variable="outgoing_longwave_radiation"),
    }
    config.assimilation.streams = {
        "stations": base.stream("points", path="stations.nc", error=0.5, withhold=0.3),
        "sounder": base.stream("sounder", path="sounder.nc", variable="brightness_temperature"),
        "olr": base.stream("olr", path="olr.nc", variable="outgoing_longwave_radiation"),
    }


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/held_suarez"
    dry_atmosphere(config, days=450)
    config.data.periods = {
        "train": ("2000-01-01", "2000-12-31"),
        "validation": ("2001-01-06", "2001-02-14"),
        "test": ("2001-02-20", "2001-03-25"),
    }
    base.small(config)
    config.assimilation.update(frames=16, members=8, member_batch=4)
    return config
