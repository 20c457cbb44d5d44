r"""Real data: a temperature profile over Iberia from stations and coarse samplings of a reanalysis.

    python -m experiments.train --config=configs/iberia.py --config.data.root=FOLDER
    python -m experiments.assimilate --config=configs/iberia.py --config.data.root=FOLDER \
        --output=runs/iberia/analysis.nc
    python -m experiments.evaluate --config=configs/iberia.py --config.data.root=FOLDER \
        --analysis=runs/iberia/analysis.nc

FOLDER holds `ncep_daily_1961_1995.nc` (NCEP/NCAR Reanalysis 1) and the `gsn_*.csv` tables (Global
Station Network). The background is the state of the day before.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/iberia"
    config.data.state = base.field("ncep_daily_1961_1995.nc")
    config.data.background = base.field("previous")
    config.data.levels = (500.0, 700.0, 850.0, 1000.0)
    config.data.modalities = {
        "stations": base.field(
            "gsn_tmean.csv",
            metadata="gsn_stations.csv",
            variable="temperature",
            units="degC",
            stations=True,
        ),
    }
    config.data.periods = {
        "train": ("1961-01-01", "1988-12-31"),
        "validation": ("1989-01-01", "1991-12-31"),
        "test": ("1992-01-01", "1995-12-31"),
    }
    config.data.harmonics = 2
    config.autoencoder = base.autoencoder(4, width=48)
    config.autoencoder_training = base.training(
        steps=1000,
        learning_rate=2e-3,
        warmup_steps=100,
        weight_decay=1e-4,
        ema_decay=0.995,
        log_every=100,
        checkpoint_every=250,
    )
    config.score.update(widths=(48, 96), blocks=2)
    config.score_training.update(
        steps=1500,
        learning_rate=2e-3,
        warmup_steps=100,
        weight_decay=1e-4,
        ema_decay=0.998,
        log_every=100,
    )
    config.sampler.steps = 24
    config.assimilation.update(frames=90, members=8, member_batch=4, rank=54)
    config.compare.rank = 216  # all of 6 x 9 points and four levels
    config.assimilation.streams = {
        "stations": base.stream(
            "points",
            path="gsn_tmean.csv",
            metadata="gsn_stations.csv",
            units="degC",
            estimate=True,
            withhold=("SP000008202", "SP000008410"),
        ),
        "coarse": base.stream("coarse", factor=3, error=1.0),
        "sparse": base.stream("stride", factor=4, error=1.0, every=4),
    }
    return config
