"""Two months of the moist atmosphere, cycled: 3D-Var, LETKF, and the trained model beside it.

    pip install 'slams-jax[osse]' && pip install --no-deps -r requirements/moist.txt
    python -m experiments.cycle --config=configs/cycle_moist.py --model=runs/demo \
        --output=runs/cycle_moist

The imperfect model of `configs/demo.py` forecasts, from no more than its own climate to begin with;
stations, radiosondes, gauges and radiation of the truth are what the demo analyses. The trained
model is that of the demo, given the forecasts of the LETKF. Two cores take about half an hour to
generate five years of truth, ten seconds for each cycle of forty members, and half a minute for an
analysis by the trained model.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base, demo, modalities


def get_config() -> ConfigDict:
    config: Any = demo.get_config()  # ConfigDict's types know nothing of its fields
    modalities.five_years(config)
    # As the demo is trained.
    config.data.periods.train = ("2000-01-01", "2000-12-31")
    config.data.periods.validation = ("2001-01-06", "2001-07-31")
    with config.unlocked():
        config.moist_cycle = base.moist_cycle()
    # The columns of the covariance of forty members fall in number with its square.
    config.ensemble.radius = 3000.0
    config.assimilation.member_batch = 8
    return config
