"""Real data: a temperature profile over Iberia from stations and coarse samplings of a reanalysis.

    python -m experiments.train --config=configs/iberia.py --config.data.root=FOLDER
    python -m experiments.assimilate --config=configs/iberia.py --config.data.root=FOLDER \
        --output=runs/iberia/analysis.nc
    python -m experiments.evaluate --config=configs/iberia.py --config.data.root=FOLDER \
        --analysis=runs/iberia/analysis.nc

FOLDER holds `ncep_daily_1961_1995.nc` (NCEP/NCAR Reanalysis 1) and the `gsn_*.csv` tables (Global
Station Network). The background is the state of the day before.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.workdir = "runs/iberia"
    config.nature = None
    config.data = {
        "root": "../shared/data/iberia",
        "state": "ncep_daily_1961_1995.nc",
        "background": "previous",
        "variables": ("temperature",),
        "levels": (500.0, 700.0, 850.0, 1000.0),
        "modalities": {
            "stations": {
                "path": "gsn_tmean.csv",
                "metadata": "gsn_stations.csv",
                "variable": "temperature",
                "units": "degC",
                "stations": True,
            },
        },
        "periods": {
            "train": ("1961-01-01", "1988-12-31"),
            "validation": ("1989-01-01", "1991-12-31"),
            "test": ("1992-01-01", "1995-12-31"),
        },
        "harmonics": 2,
        "per_point": True,
        "cache": "cache",
    }
    config.schedule = {"eta": 1e-3}
    config.autoencoder = {"latent_channels": 4, "compression": 1, "width": 48, "blocks": 2}
    config.autoencoder_training = {
        "steps": 1000,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "warmup_steps": 100,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.995,
        "log_every": 100,
        "checkpoint_every": 250,
    }
    config.score = {"window": 5, "widths": (48, 96), "blocks": 2, "prediction": "v"}
    config.score_training = {
        "steps": 1500,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "warmup_steps": 100,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.998,
        "log_every": 100,
        "checkpoint_every": 500,
    }
    config.sampler = {"solver": "dpmpp_2m", "steps": 24, "grid": "log_snr"}
    config.guidance = {"rule": "gaussian", "gamma": 1e-2, "iterations": 30}
    config.assimilation = {
        "period": "test",
        "frames": 90,
        "members": 8,
        "background": True,
        "latent_inputs": (),
        "window_chunk": 0,
        "member_batch": 4,
        "inflation": 1.0,
        "rank": 54,
        "streams": {
            "stations": {
                "kind": "points",
                "path": "gsn_tmean.csv",
                "metadata": "gsn_stations.csv",
                "units": "degC",
                "estimate": True,
                "withhold": ("SP000008202", "SP000008410"),
            },
            "coarse": {"kind": "coarse", "factor": 3, "error": 1.0},
            "sparse": {"kind": "stride", "factor": 4, "error": 1.0, "every": 4},
        },
    }
    return config
