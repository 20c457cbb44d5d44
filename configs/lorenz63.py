"""Lorenz-63: a trained score of windows of nine states, and sparse, noisy observations of them.

    python -m experiments.train --config=configs/lorenz63.py
    python -m experiments.assimilate --config=configs/lorenz63.py --output=runs/lorenz63/analysis.nc
    python -m experiments.evaluate --config=configs/lorenz63.py \
        --analysis=runs/lorenz63/analysis.nc

The state has no space: it is a grid of one point with three channels, and there is no autoencoder.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.workdir = "runs/lorenz63"
    config.nature = {
        "system": "lorenz63",
        "seed": 0,
        "days": 10000,
        "spin_up": 200,
        "dt": 0.01,
        "substeps": 5,
        "amplitude": 0.2,
        "cache": "cache",
    }
    config.data = {
        "root": "",
        "state": "state.nc",
        "background": "background.nc",
        "variables": ("lorenz63",),
        "levels": (),
        "modalities": {},
        "periods": {
            "train": ("2000-01-01", "2021-12-31"),
            "validation": ("2022-01-10", "2024-09-30"),
            "test": ("2024-10-10", "2027-04-30"),
        },
        "harmonics": 0,
        "per_point": True,
        "cache": "cache",
    }
    config.schedule = {"eta": 1e-3}
    config.autoencoder = None
    config.autoencoder_training = None
    config.score = {
        "window": 9,
        "widths": (256,),
        "blocks": 3,
        "kernel": 1,
        "coordinates": "none",
        "prediction": "v",
    }
    config.score_training = {
        "steps": 20000,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "warmup_steps": 200,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.999,
        "log_every": 500,
        "checkpoint_every": 4000,
    }
    config.sampler = {"solver": "dpmpp_2m", "steps": 64, "grid": "log_snr"}
    config.guidance = {"rule": "gaussian", "gamma": 1e-2, "iterations": 30}
    config.assimilation = {
        "period": "test",
        "frames": 100,
        "members": 64,
        "background": False,
        "latent_inputs": (),
        "window_chunk": 0,
        "member_batch": 0,
        "inflation": 1.0,
        "rank": 1,
        "streams": {
            "sparse": {
                "kind": "stride",
                "variable": "lorenz63",
                "factor": 1,
                "error": 1.0,
                "every": 4,
            },
        },
    }
    return config
