"""Latent assimilation on the Held-Suarez nature run: the reference experiment of this library.

    python -m experiments.train --config=configs/latent.py
    python -m experiments.assimilate --config=configs/latent.py --output=runs/latent/analysis.nc
    python -m experiments.evaluate --config=configs/latent.py --analysis=runs/latent/analysis.nc

With `--config.data.root=FOLDER` it takes files of your own instead (state.nc, background.nc, ...).
Four years of training data and networks four times those of the demo: about a day on two cores,
minutes to an hour on a GPU.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.workdir = "runs/latent"
    config.nature = {
        "system": "held_suarez",
        "seed": 0,
        "days": 1800,
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
            "sounder": {"path": "sounder.nc", "variable": "brightness_temperature"},
            "olr": {"path": "olr.nc", "variable": "outgoing_longwave_radiation"},
        },
        "periods": {
            "train": ("2000-01-01", "2003-12-31"),
            "validation": ("2004-01-06", "2004-05-31"),
            "test": ("2004-06-10", "2004-12-04"),
        },
        "harmonics": 0,
        "per_point": True,
        "cache": "cache",
    }
    config.schedule = {"eta": 1e-3}
    config.autoencoder = {"latent_channels": 12, "compression": 2, "width": 96, "blocks": 3}
    config.autoencoder_training = {
        "steps": 10000,
        "batch_size": 64,
        "accumulate": 1,
        "shard_state": False,
        "learning_rate": 1e-3,
        "warmup_steps": 500,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.999,
        "log_every": 200,
        "checkpoint_every": 2000,
    }
    config.score = {"window": 5, "widths": (96, 192), "blocks": 3, "prediction": "v"}
    config.score_training = {
        "steps": 60000,
        "batch_size": 64,
        "accumulate": 1,
        "shard_state": False,
        "learning_rate": 1e-3,
        "warmup_steps": 500,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.9995,
        "log_every": 200,
        "checkpoint_every": 5000,
    }
    config.sampler = {"solver": "dpmpp_2m", "steps": 32, "grid": "log_snr"}
    config.guidance = {"rule": "gaussian", "gamma": 1e-2, "iterations": 30}
    config.assimilation = {
        "period": "test",
        "frames": 29,
        "members": 16,
        "background": True,
        "latent_inputs": (),
        "window_chunk": 0,
        "member_batch": 4,
        "window_devices": 1,
        "space_devices": 1,
        "inflation": 1.0,
        "rank": 200,
        "streams": {
            "stations": {
                "kind": "points",
                "path": "stations.nc",
                "variable": "temperature",
                "error": 0.5,
                "withhold": 0.3,
            },
            "sounder": {
                "kind": "sounder",
                "path": "sounder.nc",
                "variable": "brightness_temperature",
            },
            "olr": {
                "kind": "olr",
                "path": "olr.nc",
                "variable": "outgoing_longwave_radiation",
            },
        },
    }
    return config
