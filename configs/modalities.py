"""What rain gauges and outgoing longwave radiation tell of the temperature of a moist atmosphere.

    pip install --no-deps -r requirements/moist.txt
    python -m experiments.train   --config=configs/modalities.py
    python -m experiments.compare --config=configs/modalities.py --output=runs/modalities/compare

Three years of training, one of validation and one of test, so that every season is in each. No
thermometer reports: background, gauges and radiation are all there is, as in SLAMS. The comparison
gives the model, its Gaussian surrogate, a linear filter and a regression each set of them. Two
cores take about half an hour to generate the five years and as long to train.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import demo


def five_years(config: Any) -> None:
    """Three years of training, one of validation and one of test: every season is in each."""
    config.nature.days = 1824
    config.data.periods = {
        "train": ("2000-01-01", "2002-12-31"),
        "validation": ("2003-01-06", "2003-12-31"),
        "test": ("2004-01-06", "2004-12-28"),
    }


def get_config() -> ConfigDict:
    config: Any = demo.get_config()  # ConfigDict's types know nothing of its fields
    config.workdir = "runs/modalities"
    five_years(config)
    config.autoencoder_training.steps = 800
    config.score_training.steps = 2000
    with config.unlocked():
        config.assimilation.streams = {}
    config.compare.update(
        every=6,
        after=0,
        # Without streams, optimal interpolation is the background.
        systems=(
            "climatology",
            "background",
            "regression",
            "linear filter",
            "surrogate filter",
            "network filter",
        ),
        inputs=((), ("gauges",), ("olr",), ("gauges", "olr")),
    )
    return config
