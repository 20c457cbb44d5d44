"""An analysis that is given to `experiments.evaluate` is read as any data are."""

import numpy as np
import pytest

from experiments.evaluate import COUNTS, open_analysis
from slams_jax.data.channels import stack_members, unstack_channels
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from support.small_model import CHANNELS, GRID, times

STATES = (250.0 + np.random.default_rng(0).standard_normal((3, 5, *GRID.shape, 3))).astype("f4")
ANALYSIS = unstack_channels(STATES, CHANNELS, times(), GRID.latitude, GRID.longitude).assign_attrs(
    dict.fromkeys(COUNTS, 1.0), diagnostics="[]"
)


def opened(data, tmp_path, *, at=times(), grid=GRID, members=3):
    path = tmp_path / "analysis.nc"
    data.to_netcdf(path, engine="h5netcdf")
    return open_analysis(path, at, grid, CHANNELS, members)


FORMS = {
    "own": lambda d: d,
    "north first, top last": lambda d: d.isel(
        latitude=slice(None, None, -1), level=slice(None, None, -1)
    ),
    "-180 to 180": lambda d: d.assign_coords(longitude=(d.longitude + 180) % 360 - 180).sortby(
        "longitude"
    ),
    "degC": lambda d: d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="degC")),
    "latest first": lambda d: d.isel(time=slice(None, None, -1)),
    "another name": lambda d: d.rename(temperature="ta"),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_analysis_in_another_form_is_the_same(form, tmp_path):
    read = opened(FORMS[form](ANALYSIS), tmp_path)
    np.testing.assert_allclose(stack_members(read, CHANNELS), STATES, atol=1e-4)
    assert read.attrs["diagnostics"] == "[]"


BAD = {
    "has 3 members, the configuration asks for 4: give .*members=3": dict(members=4),
    "is on another grid .6 x 8, .* than the model's": dict(
        grid=Grid.of(GRID.latitude, np.asarray(GRID.longitude) + 1.0)
    ),
    "is an analysis of 5 times from 2001-07-01, .* from 2002-07-01": dict(
        at=times(start="2002-07-01")
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_another_analysis_is_refused(message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        opened(ANALYSIS, tmp_path, **BAD[message])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_analysis_in_impossible_units_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"analysis\.nc: temperature reaches .* K, outside"):
        opened(ANALYSIS.assign(temperature=ANALYSIS.temperature - 273.15), tmp_path)
    furlongs = ANALYSIS.assign(temperature=ANALYSIS.temperature.assign_attrs(units="furlong"))
    with pytest.raises(InputError, match="has units 'furlong', not 'K'"):
        opened(furlongs, tmp_path)
