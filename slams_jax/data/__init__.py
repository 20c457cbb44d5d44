"""Data in: files to datasets of one schema, a memory-mapped cache, statistics and windows."""

from slams_jax.data.archive import build_archive, channels_in
from slams_jax.data.fields import stack_channels, unstack_channels
from slams_jax.data.gridded import grid_points
from slams_jax.data.periods import check_times, period_bounds, select_period, split_periods
from slams_jax.data.readers import open_dataset
from slams_jax.data.stations import read_stations
from slams_jax.data.statistics import (
    Statistics,
    climatology,
    fit_statistics,
    standardise,
    unstandardise,
)
from slams_jax.data.store import Archive, Field, open_archive
from slams_jax.data.windows import window_loader, window_starts

__all__ = [
    "Archive",
    "Field",
    "Statistics",
    "build_archive",
    "channels_in",
    "check_times",
    "climatology",
    "fit_statistics",
    "grid_points",
    "open_archive",
    "open_dataset",
    "period_bounds",
    "read_stations",
    "select_period",
    "split_periods",
    "stack_channels",
    "standardise",
    "unstack_channels",
    "unstandardise",
    "window_loader",
    "window_starts",
]
