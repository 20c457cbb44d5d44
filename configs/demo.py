"""The whole of it on an embedded nature run, small enough for two cores.

    make demo

or, step by step,

    pip install 'slams-jax[osse]' && pip install --no-deps -r requirements/moist.txt
    python -m experiments.train --config=configs/demo.py
    python -m experiments.assimilate --config=configs/demo.py --output=runs/demo/analysis.nc
    python -m experiments.evaluate --config=configs/demo.py --analysis=runs/demo/analysis.nc

An atmosphere with seasons, land and rain (T21, 8 levels) is generated, an autoencoder and a score
network are trained on its first year, and its temperature is analysed from an imperfect background,
rain gauges, outgoing longwave radiation, surface stations and radiosondes.

Neither rain nor radiation has an observation operator: the encoder sees both beside the background,
as one observation of the latent; with --config.assimilation.latent_inputs="('gauges',)" or
"('olr',)" an analysis sees one alone. Stations and radiosondes, some withheld, observe temperature
through their operators.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/demo"
    config.nature = base.moist(days=610)
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
        # The errors of latent observations are estimated from it, which takes 200 days.
        "validation": ("2001-01-06", "2001-07-31"),
        "test": ("2001-08-06", "2001-08-31"),
    }
    base.small(config)
    config.autoencoder_training.update(steps=400, checkpoint_every=200)
    config.score_training.update(steps=600, checkpoint_every=300)
    config.assimilation.update(
        frames=16, members=8, member_batch=4, latent_inputs=("gauges", "olr")
    )
    config.assimilation.streams = {
        "stations": base.stream("points", path="stations.nc", error=0.5, withhold=0.3),
        "soundings": base.stream("points", path="soundings.nc", error=0.7, withhold=0.3),
    }
    return config
