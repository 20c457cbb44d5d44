"""Files and URLs to Datasets of one schema: the only room that opens them."""

from slams_jax.readers.gridded import from_dataset, open_dataset
from slams_jax.readers.periods import check_times, period_bounds, select_period, split_periods
from slams_jax.readers.stations import from_stations, read_stations

__all__ = [
    "check_times",
    "from_dataset",
    "from_stations",
    "open_dataset",
    "period_bounds",
    "read_stations",
    "select_period",
    "split_periods",
]
