"""Cycled data assimilation: forecast, background, analysis, forecast.

from slams_jax.cycling import cycle

for background, analysis in cycle(forecast, analyse, start, observations, key):
    ...
"""

from slams_jax.cycling.cycle import Analyse, Cycled, cycle, cycle_step
from slams_jax.cycling.ensemble_oi import EnsembleOI, ensemble_oi, localisation

__all__ = [
    "Analyse",
    "Cycled",
    "EnsembleOI",
    "cycle",
    "cycle_step",
    "ensemble_oi",
    "localisation",
]
