"""Temperature and rain analysed together, on the moist atmosphere of `modalities.py`.

    pip install --no-deps -r requirements/moist.txt
    python -m experiments.train --config=configs/moist_rain.py
    python -m experiments.assimilate --config=configs/moist_rain.py \
        --output=runs/moist_rain/analysis.nc
    python -m experiments.evaluate --config=configs/moist_rain.py \
        --analysis=runs/moist_rain/analysis.nc

Rain is a variable of the state, a power of a normal variable that is cut off at a trace of
0.1 mm/day: no member has negative rain, and dry places are dry. The state itself is diffused, with
the small network of the demo. Rain gauges observe the rain, stations and radiosondes the
temperature.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base, demo, modalities


def get_config() -> ConfigDict:
    config: Any = demo.get_config()  # ConfigDict's types know nothing of its fields
    config.workdir = "runs/moist_rain"
    modalities.five_years(config)
    config.data.variables = ("temperature", "total_precipitation")
    config.data.transforms = {"total_precipitation": base.censored(trace=1e-4)}
    with config.unlocked():
        config.data.modalities = {}
    config.autoencoder = None
    config.autoencoder_training = None
    config.score_training.update(steps=1500)
    config.assimilation.update(frames=60, latent_inputs=())
    config.assimilation.streams = {
        **config.assimilation.streams,
        "gauges": base.stream(
            "points",
            path="gauges.nc",
            variable="total_precipitation",
            error=3e-3,  # m
        ),
    }
    return config
