"""Models and nature runs: Lorenz-63 and -96, Kolmogorov flow, a dry and a moist atmosphere.

from slams_jax.dynamics import HeldSuarezRun, nature_run

folder = nature_run(HeldSuarezRun(days=450))  # state.nc, background.nc, stations.nc, ...
"""

from slams_jax.dynamics import (
    held_suarez,
    kolmogorov,
    lorenz63,
    lorenz96,
    moist,
    moist_ensemble,
    two_scale,
)
from slams_jax.dynamics.held_suarez import Atmosphere, Forcing, HeldSuarezConfig
from slams_jax.dynamics.kolmogorov import Kolmogorov
from slams_jax.dynamics.lorenz63 import Lorenz63
from slams_jax.dynamics.lorenz96 import Lorenz96
from slams_jax.dynamics.moist import Convection, MoistAtmosphere, MoistConfig
from slams_jax.dynamics.nature import nature_run
from slams_jax.dynamics.nature_config import (
    ForecastConfig,
    GaugesConfig,
    HeldSuarezRun,
    ImperfectConvection,
    ImperfectForcing,
    ImperfectLorenz63,
    KolmogorovRun,
    Lorenz63Forecast,
    Lorenz63Run,
    MoistForecastConfig,
    MoistRun,
    NatureRun,
    RadiosondesConfig,
    SounderConfig,
    StationsConfig,
)
from slams_jax.dynamics.two_scale import TwoScale

__all__ = [
    "Atmosphere",
    "Convection",
    "Forcing",
    "ForecastConfig",
    "GaugesConfig",
    "HeldSuarezConfig",
    "HeldSuarezRun",
    "ImperfectConvection",
    "ImperfectForcing",
    "ImperfectLorenz63",
    "Kolmogorov",
    "KolmogorovRun",
    "Lorenz63",
    "Lorenz63Forecast",
    "Lorenz63Run",
    "Lorenz96",
    "MoistAtmosphere",
    "MoistConfig",
    "MoistForecastConfig",
    "MoistRun",
    "NatureRun",
    "RadiosondesConfig",
    "SounderConfig",
    "StationsConfig",
    "TwoScale",
    "held_suarez",
    "kolmogorov",
    "lorenz63",
    "lorenz96",
    "moist",
    "moist_ensemble",
    "nature_run",
    "two_scale",
]
