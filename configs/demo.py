"""The whole of it on an embedded nature run, small enough for two cores.

    make demo

or, step by step,

    python -m experiments.train --config=configs/demo.py
    python -m experiments.assimilate --config=configs/demo.py --output=runs/demo/analysis.nc
    python -m experiments.evaluate --config=configs/demo.py --analysis=runs/demo/analysis.nc

A Held-Suarez atmosphere (T21, 10 levels) is generated, an autoencoder and a score network are
trained on its first year, and its temperature is analysed from an imperfect background, surface
stations, a microwave sounder and outgoing longwave radiation.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.workdir = "runs/demo"
    config.nature = {
        "system": "held_suarez",
        "seed": 0,
        "days": 450,
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
            "train": ("2000-01-01", "2000-12-31"),
            "validation": ("2001-01-06", "2001-02-14"),
            "test": ("2001-02-20", "2001-03-25"),
        },
        "harmonics": 0,
        "per_point": True,
        "cache": "cache",
    }
    config.schedule = {"eta": 1e-3}
    config.autoencoder = {"latent_channels": 16, "compression": 2, "width": 48, "blocks": 2}
    config.autoencoder_training = {
        "steps": 500,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.99,
        "log_every": 50,
        "checkpoint_every": 250,
    }
    config.score = {"window": 3, "widths": (48, 96), "blocks": 2, "prediction": "v"}
    config.score_training = {
        "steps": 1200,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.995,
        "log_every": 50,
        "checkpoint_every": 400,
    }
    config.sampler = {"solver": "dpmpp_2m", "steps": 16, "grid": "log_snr"}
    config.guidance = {"rule": "gaussian", "gamma": 1e-2, "iterations": 24}
    config.assimilation = {
        "period": "test",
        "frames": 16,
        "members": 8,
        "background": True,
        "latent_inputs": (),
        "window_chunk": 0,
        "member_batch": 4,
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
