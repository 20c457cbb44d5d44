"""Which model wins where: the settings of the SLAMS paper on a Held-Suarez nature run.

    python -m experiments.ablation --config=configs/ablation.py --output=runs/ablation

trains the four models of `ablation.models` and tries them in two protocols, the one that was
released with the paper and a corrected one (see docs/ablation.md). About an hour on two cores. T21
allows coarsening and strides up to 8 on its 32 x 64 points, which are 3.75 times as far apart as
those of the paper.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.workdir = "runs/ablation"
    config.nature = {
        "system": "held_suarez",
        "seed": 0,
        "days": 800,
        "spin_up": 150,
        "amplitude": 0.24,
        "cache": "cache",
    }
    config.data = {
        "root": "",
        "state": "state.nc",
        "background": "background.nc",
        "variables": ("temperature",),
        "levels": (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0),
        "modalities": {
            "stations": {"path": "stations.nc", "variable": "temperature", "stations": True},
            "olr": {"path": "olr.nc", "variable": "outgoing_longwave_radiation"},
        },
        "periods": {
            "train": ("2000-01-01", "2000-12-31"),
            "validation": ("2001-01-06", "2001-12-31"),
            "test": ("2002-01-06", "2002-03-10"),
        },
        "harmonics": 0,
        "per_point": True,
        "cache": "cache",
    }
    config.schedule = {"eta": 1e-3}
    config.autoencoder = {"latent_channels": 16, "compression": 2, "width": 48, "blocks": 2}
    config.autoencoder_training = {
        "steps": 400,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.99,
        "log_every": 50,
        "checkpoint_every": 200,
    }
    config.score = {"window": 3, "widths": (48, 96), "blocks": 2, "prediction": "v"}
    config.score_training = {
        "steps": 700,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.995,
        "log_every": 100,
        "checkpoint_every": 350,
    }
    config.sampler = {"solver": "dpmpp_2m", "steps": 16, "grid": "log_snr"}
    config.guidance = {"rule": "gaussian", "gamma": 1e-2, "iterations": 20}
    config.assimilation = {
        "period": "test",
        "background": True,
        "member_batch": 4,
        "inflation": 1.0,
        "rank": 200,
        "streams": {},
    }
    config.ablation = {
        # What the encoder sees beside the background. The pixel model has no encoder; a narrower
        # network on four times as many points costs twice as much.
        "models": {
            "pixel": {"autoencoder": False, "score": {"widths": (32, 64)}},
            "latent": {"modalities": ()},
            "latent + in-situ": {"modalities": ("stations",)},
            "latent + both": {"modalities": ("stations", "olr")},
        },
        "coarsening": (2, 4, 8),
        "noise": (0.5, 1.0, 2.0, 4.0),
        "stride": (2, 4, 8),
        "every": 4,
        "frames": 9,
        "members": 4,
    }
    return config
