"""From Datasets to training arrays: memory-mapped archives, statistics and windows."""

from slams_jax.data.anamorphosis import Anamorphosis, Censored
from slams_jax.data.archive import build_archive, channels_in
from slams_jax.data.channels import stack_channels, unstack_channels
from slams_jax.data.gridding import grid_points
from slams_jax.data.statistics import (
    Statistics,
    climatology,
    fit_statistics,
    standardise,
    unstandardise,
)
from slams_jax.data.store import Archive, Field, open_archive
from slams_jax.data.training_data import TrainingSet, split_archive, training_set
from slams_jax.data.transforms import InputTransform
from slams_jax.data.windows import window_loader, window_starts

__all__ = [
    "Anamorphosis",
    "Archive",
    "Censored",
    "Field",
    "InputTransform",
    "Statistics",
    "TrainingSet",
    "build_archive",
    "channels_in",
    "climatology",
    "fit_statistics",
    "grid_points",
    "open_archive",
    "split_archive",
    "stack_channels",
    "standardise",
    "training_set",
    "unstack_channels",
    "unstandardise",
    "window_loader",
    "window_starts",
]
