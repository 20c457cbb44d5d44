"""Which model wins where on a moist atmosphere, where rain and radiation tell of temperature.

    pip install --no-deps -r requirements/moist.txt
    python -m experiments.ablation --config=configs/ablation_moist.py --output=runs/ablation_moist

The models, protocols and settings of `ablation.py` on the data of `modalities.py`: 60 test days, in
twelve windows over a year. Beside them stand a second seed of the training, the model and the
sampler of the SLAMS paper as published, and that sampler with our networks; these evaluate the
network 1,024 times, so they are tried with three of the settings.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import ablation, base, modalities, slams_reference

FEW = ("coarsening 4", "noise 1", "stride 4")
EPOCHS = 64  # as published


def get_config() -> ConfigDict:
    config: Any = modalities.get_config()  # ConfigDict's types know nothing of its fields
    config.workdir = "runs/ablation_moist"
    config.assimilation.latent_inputs = ()
    config.assimilation.member_batch = 8
    shared: Any = ablation.get_config().ablation
    published: Any = slams_reference.get_config()
    # The three years of training have 1,096 days.
    short = {"steps": EPOCHS * 1096 // published.score_training.batch_size, "ema_decay": 0.99}
    sampling = {"sampler": published.sampler, "guidance": published.guidance}
    both = ("gauges", "olr")
    config.ablation = {
        **shared,
        "models": {
            "pixel": shared.models["pixel"],
            "latent": shared.models["latent"],
            "latent + gauges": {"modalities": ("gauges",)},
            "latent + olr": {"modalities": ("olr",)},
            "latent + both": {"modalities": both},
            "latent + both (second seed)": {"modalities": both, "seed": 1},
            "latent + both (published sampler)": {
                "modalities": both,
                "trained": "latent + both",
                "changes": sampling,
                "settings": FEW,
            },
            "as published": {
                "modalities": both,
                "changes": {
                    # The encoder sees the state beside both modalities, and no background.
                    "data": {"background": base.field("")},
                    "autoencoder": published.autoencoder,
                    "autoencoder_training": {**published.autoencoder_training, **short},
                    "score": published.score,
                    "score_training": {**published.score_training, **short},
                    **sampling,
                },
                "protocols": ("released",),
                "settings": FEW,
            },
        },
        "streams": {},
        "windows": 12,
        "frames": 5,
        "members": 8,
    }
    return config
