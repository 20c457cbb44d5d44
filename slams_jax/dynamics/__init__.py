"""Nature runs: Lorenz-63 and the Held-Suarez global atmosphere.

from slams_jax.dynamics import HeldSuarezRun, nature_run

folder = nature_run(HeldSuarezRun(days=450))  # state.nc, background.nc, stations.nc, ...
"""

from slams_jax.dynamics import held_suarez, lorenz63
from slams_jax.dynamics.held_suarez import Atmosphere, Forcing, HeldSuarezConfig
from slams_jax.dynamics.lorenz63 import Lorenz63
from slams_jax.dynamics.nature import nature_run
from slams_jax.dynamics.nature_config import (
    ForecastConfig,
    HeldSuarezRun,
    ImperfectForcing,
    ImperfectLorenz63,
    Lorenz63Forecast,
    Lorenz63Run,
    NatureRun,
    SounderConfig,
    StationsConfig,
)

__all__ = [
    "Atmosphere",
    "Forcing",
    "ForecastConfig",
    "HeldSuarezConfig",
    "HeldSuarezRun",
    "ImperfectForcing",
    "ImperfectLorenz63",
    "Lorenz63",
    "Lorenz63Forecast",
    "Lorenz63Run",
    "NatureRun",
    "SounderConfig",
    "StationsConfig",
    "held_suarez",
    "lorenz63",
    "nature_run",
]
