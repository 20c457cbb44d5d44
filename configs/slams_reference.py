"""SLAMS as published (Qu et al. 2024): its networks and all its hyperparameters, 120 x 240 points.

    python -m experiments.train --config=configs/slams_reference.py --config.data.root=FOLDER

FOLDER holds daily temperature on ten levels (`state.nc`), gauge precipitation (`cpc.nc`) and
outgoing longwave radiation (`olr.nc`) on one 1.5-degree grid. The encoder sees the true state
beside both modalities, at full resolution, and both networks pad circularly in both directions.
What differs from the release: the periods are disjoint (2021 is in one of them only), latents are
standardised, and the weights are averaged. 64 epochs; hours on a GPU, not meant for a CPU.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.workdir = "runs/slams_reference"
    config.nature = None
    config.data = {
        "root": "data/slams",
        "state": "state.nc",
        "background": "",
        "variables": ("temperature",),
        "levels": (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0),
        "modalities": {
            "cpc": {"path": "cpc.nc", "variable": "total_precipitation"},
            "olr": {"path": "olr.nc", "variable": "outgoing_longwave_radiation"},
        },
        "periods": {
            "train": ("2000-01-01", "2015-12-31"),
            "validation": ("2016-01-01", "2020-12-31"),
            "test": ("2021-01-01", "2022-12-31"),
        },
        "harmonics": 0,
        "per_point": True,
        "cache": "cache",
    }
    config.schedule = {"eta": 1e-3}
    config.autoencoder = {
        "architecture": "slams",
        "latent_channels": 5,
        "hidden": (9, 8, 7, 6),
        "kernel": 5,
        "padding": "torus",
        "state_probability": 1.0,
        "alone": 0.0,
        "drop": 0.0,
        "level_power": 1.0,
        "latent_noise": 0.0,
        "latent_penalty": 0.0,
    }
    config.autoencoder_training = {
        "steps": 5844,
        "batch_size": 64,
        "learning_rate": 2e-4,
        "warmup_steps": 0,
        "decay": "linear",
        "weight_decay": 1e-3,
        "clip_norm": None,
        "ema_decay": 0.999,
        "log_every": 50,
        "checkpoint_every": 500,
    }
    config.score = {
        "window": 5,
        "widths": (32, 64, 128),
        "blocks": 3,
        "embedding": 64,
        "kernel": 3,
        "padding": "torus",
        "coordinates": "none",
        "prediction": "eps",
    }
    config.score_training = {
        "steps": 5844,
        "batch_size": 64,
        "learning_rate": 2e-4,
        "warmup_steps": 0,
        "decay": "linear",
        "weight_decay": 1e-3,
        "clip_norm": None,
        "ema_decay": 0.999,
        "log_every": 50,
        "checkpoint_every": 500,
    }
    config.sampler = {
        "solver": "pc",
        "steps": 512,
        "grid": "uniform",
        "corrections": 1,
        "tau": 0.5,
    }
    config.guidance = {"rule": "sda", "gamma": 1e-2, "iterations": 1}
    config.assimilation = {
        "period": "test",
        "frames": 29,
        "members": 1,
        "background": False,
        "latent_inputs": (),
        "window_chunk": 5,
        "member_batch": 1,
        "rank": 200,
        "streams": {
            "coarse": {"kind": "coarse", "factor": 4, "error": 1.0, "every": 4},
        },
    }
    return config
