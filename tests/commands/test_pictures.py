"""What the maps of an evaluation show as observed."""

import numpy as np
import pytest
import xarray as xr

from experiments.evaluation.pictures import seen
from slams_jax import Observations

TIME = np.datetime64("2001-08-14", "ns")
LEVELS = [100.0, 500.0, 850.0]


def points(vertical, values):
    data = xr.Dataset(
        {"temperature": (("time", "station"), [values], {"units": "K"})},
        {
            "time": [TIME],
            "latitude": ("station", np.arange(3.0)),
            "longitude": ("station", np.arange(3.0)),
            **vertical,
        },
    )
    return Observations("points", data, "points", error=1.0)


@pytest.mark.parametrize(
    "vertical",
    [
        {"level": ("station", [500.0, 850.0, 700.0])},
        # 470, 899 and 701 hPa in the standard atmosphere
        {"altitude": ("station", [6050.0, 1000.0, 3000.0])},
    ],
)
def test_points_belong_to_the_nearest_level(vertical):
    stream = points(vertical, [250.0, 290.0, 275.0])
    shown = {p: seen(stream, "temperature", p, LEVELS, TIME) for p in LEVELS}
    assert shown[100.0] is None
    np.testing.assert_array_equal(shown[500.0].values, [250.0, np.nan, np.nan])
    np.testing.assert_array_equal(shown[850.0].values, [np.nan, 290.0, 275.0])


def test_other_quantities_and_times_are_not_shown():
    stream = points({"level": ("station", [500.0] * 3)}, [250.0] * 3)
    assert seen(stream, "geopotential", 500.0, LEVELS, TIME) is None
    assert seen(stream, "temperature", 500.0, LEVELS, TIME + np.timedelta64(1, "D")) is None
