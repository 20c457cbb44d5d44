"""SLAMS as published (Qu et al. 2024): its networks and all its hyperparameters, 120 x 240 points.

    python -m experiments.train --config=configs/slams_reference.py --config.data.root=FOLDER

FOLDER holds daily temperature on ten levels (`state.nc`), gauge precipitation (`cpc.nc`) and
outgoing longwave radiation (`olr.nc`) on one 1.5-degree grid. The encoder sees the true state
beside both modalities, at full resolution, and both networks pad circularly in both directions.
What differs from the release: the periods are disjoint (2021 is in one of them only), latents are
standardised, and the weights are averaged. 64 epochs; hours on a GPU, not meant for a CPU.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/slams_reference"
    config.data.root = "data/slams"
    config.data.background = base.field("")
    config.data.levels = (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0)
    config.data.modalities = {
        "cpc": base.field("cpc.nc", variable="total_precipitation"),
        "olr": base.field("olr.nc", variable="outgoing_longwave_radiation"),
    }
    config.data.periods = {
        "train": ("2000-01-01", "2015-12-31"),
        "validation": ("2016-01-01", "2020-12-31"),
        "test": ("2021-01-01", "2022-12-31"),
    }
    config.autoencoder = base.autoencoder(
        5,
        architecture="slams",
        hidden=(9, 8, 7, 6),
        kernel=5,
        padding="torus",
        state_probability=1.0,
        alone=0.0,
        drop=0.0,
        level_power=1.0,
        latent_noise=0.0,
        latent_penalty=0.0,
    )
    published = {
        "steps": 5844,
        "learning_rate": 2e-4,
        "decay": "linear",
        "weight_decay": 1e-3,
        "clip_norm": None,
    }
    config.autoencoder_training = base.training(**published)
    config.score.update(
        widths=(32, 64, 128),
        blocks=3,
        embedding=64,
        kernel=3,
        padding="torus",
        coordinates="none",
        prediction="eps",
        frame_noise=False,
    )
    config.score_training.update(published)
    config.sampler.update(solver="pc", steps=512, grid="uniform", corrections=1, tau=0.5)
    config.guidance.update(rule="sda", gamma=1e-2, iterations=1)
    config.assimilation.update(
        frames=29, members=1, background=False, window_chunk=5, member_batch=1
    )
    config.assimilation.streams = {
        "coarse": base.stream("coarse", factor=4, error=1.0, every=4),
    }
    return config
