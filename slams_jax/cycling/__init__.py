"""Cycled data assimilation: forecast, background, analysis, forecast.

from slams_jax.cycling import Observed, cycle, run_cycle

for background, analysis in cycle(forecast, analyse, start, observations, key):
    ...

run_cycle(forecast, analyse, start, observations, key, directory="runs/cycle",
          observed=Observed(operator, error), begin=0.0, interval=0.05)
"""

from slams_jax.cycling.cycle import Analyse, Cycled, cycle, cycle_step
from slams_jax.cycling.diagnostics import Observed, diagnosis
from slams_jax.cycling.ensemble_oi import EnsembleOI, ensemble_oi, localisation
from slams_jax.cycling.ensembles import WeightedEnsemble
from slams_jax.cycling.files import summary
from slams_jax.cycling.fixed_lag import fixed_lag, with_past
from slams_jax.cycling.observation_errors import ErrorEstimate, estimate_errors
from slams_jax.cycling.run import run_cycle
from slams_jax.cycling.timeline import observation_series

__all__ = [
    "Analyse",
    "Cycled",
    "EnsembleOI",
    "ErrorEstimate",
    "Observed",
    "WeightedEnsemble",
    "cycle",
    "cycle_step",
    "diagnosis",
    "ensemble_oi",
    "estimate_errors",
    "fixed_lag",
    "localisation",
    "observation_series",
    "run_cycle",
    "summary",
    "with_past",
]
