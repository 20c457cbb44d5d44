"""Score-based latent data assimilation in JAX.

The front door is `assimilate`; the rooms behind it (`data`, `observe`, `diffusion`, `training`,
`verify`, ...) are for use on their own.
"""

from slams_jax.assimilation import ComputeConfig, Observations, assimilate, fit_inflation
from slams_jax.diffusion import CosineSchedule, GuidanceConfig, SamplerConfig, preset
from slams_jax.errors import InputError, RunError
from slams_jax.grid import Grid
from slams_jax.models import Model, load_model
from slams_jax.readers import open_dataset, read_stations

__version__ = "0.2.0"

__all__ = [
    "ComputeConfig",
    "CosineSchedule",
    "Grid",
    "GuidanceConfig",
    "InputError",
    "Model",
    "Observations",
    "RunError",
    "SamplerConfig",
    "assimilate",
    "fit_inflation",
    "load_model",
    "open_dataset",
    "preset",
    "read_stations",
]
