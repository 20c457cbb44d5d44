"""Rain gauges and outgoing longwave radiation on a moist atmosphere, at the size of the demo.

    pip install --no-deps -r requirements/moist.txt
    python -m experiments.train --config=configs/moist.py
    python -m experiments.assimilate --config=configs/moist.py --output=runs/moist/analysis.nc
    python -m experiments.evaluate --config=configs/moist.py --analysis=runs/moist/analysis.nc

An atmosphere with seasons, land and rain (T21, 8 levels) is generated. Neither rain nor radiation
has an observation operator: the encoder sees both beside the background, as one observation of the
latent; with --config.assimilation.latent_inputs="('gauges',)" or "('olr',)" an analysis sees one
alone. Surface stations and radiosondes, some withheld, observe temperature in the analysis.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base


def five_years(config: Any) -> None:
    """Three years of training, one of validation and one of test: every season is in each."""
    config.nature.days = 1824
    config.data.periods = {
        "train": ("2000-01-01", "2002-12-31"),
        "validation": ("2003-01-06", "2003-12-31"),
        "test": ("2004-01-06", "2004-12-28"),
    }


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/moist"
    config.nature = base.moist(days=450)
    config.data.levels = (30.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0)
    config.data.harmonics = 2
    # Means of the gauges of a cell, missing elsewhere: the gauge analysis.
    config.data.modalities = {
        "gauges": base.field(
            "gauges.nc",
            variable="total_precipitation",
            stations=True,
            transform="log1p+wet",
            scale=1e-3,  # m
        ),
        "olr": base.field("olr.nc", variable="outgoing_longwave_radiation"),
    }
    config.data.periods = {
        "train": ("2000-01-01", "2000-12-31"),
        "validation": ("2001-01-06", "2001-02-14"),
        "test": ("2001-02-20", "2001-03-25"),
    }
    base.small(config)
    config.assimilation.update(
        frames=16, members=8, member_batch=4, latent_inputs=("gauges", "olr")
    )
    config.assimilation.streams = {
        "stations": base.stream("points", path="stations.nc", error=0.5, withhold=0.3),
        "soundings": base.stream("points", path="soundings.nc", error=0.7, withhold=0.3),
    }
    return config
