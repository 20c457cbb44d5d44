"""Which model wins where: the settings of the SLAMS paper on a Held-Suarez nature run.

    python -m experiments.ablation --config=configs/ablation.py --output=runs/ablation

trains the four models of `ablation.models` and tries them in two protocols, the one that was
released with the paper and a corrected one (see docs/ablation.md). Some three hours on two cores.
T21 allows coarsening and strides up to 8 on its 32 x 64 points, which are 3.75 times as far apart
as those of the paper.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/ablation"
    config.nature = base.held_suarez(days=800)
    config.data.levels = (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0)
    config.data.modalities = {
        "stations": base.field("stations.nc", variable="temperature", stations=True),
        "olr": base.field("olr.nc", variable="outgoing_longwave_radiation"),
    }
    config.data.periods = {
        "train": ("2000-01-01", "2000-12-31"),
        "validation": ("2001-01-06", "2001-12-31"),
        "test": ("2002-01-06", "2002-03-10"),
    }
    base.small(config)
    config.autoencoder_training.update(steps=400, checkpoint_every=200)
    config.score_training.update(steps=700, log_every=100, checkpoint_every=350)
    config.guidance.iterations = 20
    config.assimilation.member_batch = 4
    config.ablation = {
        # What the encoder sees beside the background. The pixel model has no encoder; a narrower
        # network on four times as many points costs twice as much.
        "models": {
            "pixel": {"autoencoder": False, "changes": {"score": {"widths": (32, 64)}}},
            "latent": {"modalities": ()},
            "latent + in-situ": {"modalities": ("stations",)},
            "latent + both": {"modalities": ("stations", "olr")},
        },
        # How classical methods observe what encoders see.
        "streams": {
            "stations": base.stream("points", path="stations.nc", error=0.5),
            "olr": base.stream("olr", path="olr.nc", variable="outgoing_longwave_radiation"),
        },
        "coarsening": (2, 4, 8),
        "noise": (0.5, 1.0, 2.0, 4.0),
        "stride": (2, 4, 8),
        "error": 0.1,
        "every": 4,
        "windows": 1,
        "frames": 9,
        "members": 4,
    }
    return config
