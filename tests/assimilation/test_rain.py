"""Temperature and rain analysed together: right where the answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

from slams_jax.assimilation.analysis import assimilate
from slams_jax.assimilation.observations import Observations
from slams_jax.data import Anamorphosis, Censored, climatology
from slams_jax.data.anamorphosis import physical
from slams_jax.data.channels import stack_members, unstack_channels
from slams_jax.diffusion import SamplerConfig
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.models import load_model, save_model
from slams_jax.schema import Channel
from support.small_model import (
    BACKGROUND_ERROR,
    BIAS,
    GRID,
    STD,
    assert_same_model,
    statistics,
    times,
    tiny_model,
)

TIMES = times()
FINE = SamplerConfig(steps=32)  # near the limit of the solver
RAIN = Censored(power=2.0, scale=1e-3, trace=1e-4)
TRANSFORMS = (None, None, RAIN)
CHANNELS = (*(Channel("temperature", p) for p in (300.0, 1000.0)), Channel("total_precipitation"))
CENTRE, WIDTH = 0.8, 1.1  # of z, the variable behind the rain
MEMBERS = 40


def rainy(model):
    """A model of white noise whose last channel is what lies behind the rain."""
    std = np.append(STD[:2], WIDTH).astype(np.float32)
    coefficients = statistics().coefficients.copy()
    coefficients[..., 2] = 0.0
    coefficients[0, ..., 2] = CENTRE
    mean = np.zeros((*GRID.shape, 3), np.float32)
    mean[..., 2] = CENTRE
    width = np.ones_like(mean)
    width[..., 2] = WIDTH
    return dataclasses.replace(
        model,
        channels=CHANNELS,
        arrays=model.arrays._replace(std=jnp.asarray(std)),
        statistics={"state": statistics()._replace(coefficients=coefficients, std=std)},
        units={"temperature": "K", "total_precipitation": "m"},
        anamorphosis=Anamorphosis(TRANSFORMS, mean, width),
    )


@pytest.fixture(scope="module")
def model():
    """The prior is white noise about the climatology, exactly."""
    return rainy(tiny_model(latent=False, network=0.0))


def draw(model, background, observations, **options):
    analysis = assimilate(
        model,
        background,
        observations,
        members=MEMBERS,
        key=jax.random.key(1),
        times=TIMES,
        sampler=FINE,
        score="gaussian",  # which the prior is
        **options,
    )
    return analysis, stack_members(analysis, model.channels)


def dataset(states):
    return unstack_channels(
        np.asarray(states, np.float32)[None], CHANNELS, TIMES, GRID.latitude, GRID.longitude
    ).isel(member=0)


def expected_rain(mean, std):
    """(share of dry, mean of the rain) for z ~ N(mean, std²), by quadrature."""
    z = mean[..., None] + std * np.linspace(-8.0, 8.0, 4001)
    weight = np.exp(-0.5 * np.linspace(-8.0, 8.0, 4001) ** 2)
    rain = np.where(z > RAIN.threshold, RAIN.scale * np.maximum(z, 0.0) ** RAIN.power, 0.0)
    return ndtr((RAIN.threshold - mean) / std), (rain * weight).sum(-1) / weight.sum()


def assert_rains(rain, mean, std):
    """Share of dry and mean of draws (member, ...) with independent values, in standard errors."""
    assert rain.min() == 0.0
    assert rain[rain > 0.0].min() >= 0.999 * RAIN.trace
    mean = np.broadcast_to(mean, rain.shape[1:])
    dry, amount = expected_rain(mean, std)
    error = np.sqrt((dry * (1.0 - dry)).sum() / len(rain)) / dry.size
    assert abs((rain == 0.0).mean() - dry.mean()) < 4 * error + 0.004  # and that of the solver
    error = np.sqrt(rain.var(axis=0).sum() / len(rain)) / dry.size
    assert abs(rain.mean() - amount.mean()) < 4 * error + 0.01 * amount.mean()


@pytest.mark.slow
def test_the_prior_rains_as_it_should(model):
    analysis, members = draw(model, None, [])
    assert analysis.total_precipitation.dims == ("member", "time", "latitude", "longitude")
    assert analysis.total_precipitation.attrs["units"] == "m"
    assert_rains(members[..., 2], CENTRE, WIDTH)
    _, without = draw(dataclasses.replace(model, anamorphosis=None), None, [])
    np.testing.assert_array_equal(members[..., :2], without[..., :2])
    np.testing.assert_array_equal(members, physical(TRANSFORMS, without))


@pytest.mark.slow
def test_the_posterior_of_a_background_is_exact(model):
    """Independent points: a normal variable given another one, seen as rain."""
    rng = np.random.default_rng(3)
    climate = climatology(model.statistics["state"], TIMES)
    std = np.asarray(model.arrays.std)
    z = climate + std * rng.standard_normal((len(TIMES), *GRID.shape, 3))
    z[..., 2] = np.maximum(z[..., 2], RAIN.threshold + 0.01)  # rain tells z exactly
    analysis, members = draw(model, dataset(physical(TRANSFORMS, z)), [])
    # y = z + bias + e in standard deviations.
    gain = 1.0 / (1.0 + BACKGROUND_ERROR**2)
    bias = (BIAS / STD)[2] * WIDTH
    mean = CENTRE + gain * (z[..., 2] - bias - CENTRE)
    assert_rains(members[..., 2], mean, WIDTH * np.sqrt(1.0 - gain))
    diagnosed = analysis.mean("member").total_precipitation.values
    assert diagnosed.mean() == pytest.approx(members[..., 2].mean(), rel=1e-5)


@pytest.mark.slow
def test_gauges_observe_rain(model):
    """One at each of two points; elsewhere it rains as in the prior.

    Guidance knows the tangent of what is not linear: draws are near those by quadrature.
    """
    values = np.tile(np.array([4e-3, 0.0], np.float32), (len(TIMES), 1))
    gauges = xr.Dataset(
        {"total_precipitation": (("time", "station"), 1e3 * values, {"units": "mm"})},
        {
            "time": TIMES,
            "station": ["a", "b"],
            "latitude": ("station", np.asarray(GRID.latitude)[[1, 4]]),
            "longitude": ("station", np.asarray(GRID.longitude)[[2, 6]]),
        },
    )
    stream = Observations("gauges", gauges, "points", "total_precipitation", error=1.0)  # mm
    analysis, members = draw(model, None, [stream], guidance=GuidanceConfig(iterations=8))
    at = members[:, :, [1, 4], [2, 6], 2].reshape(-1, 2)
    z = CENTRE + WIDTH * np.random.default_rng(0).standard_normal(100_000)
    rain = physical((RAIN,), z[:, None])[:, 0]
    # Roots of 5 and 3 mm, and of 1 and 0 mm, are two errors apart.
    for drawn, y, error in zip(at.T, (2.0, RAIN.threshold), (0.252, 0.5), strict=True):
        weight = np.exp(-0.5 * ((np.maximum(z, RAIN.threshold) - y) / error) ** 2)
        mean = np.average(rain, weights=weight)
        std = np.sqrt(np.average((rain - mean) ** 2, weights=weight))
        dry = np.average(rain == 0.0, weights=weight)
        assert abs(drawn.mean() - mean) < 0.3e-3
        assert 0.75 < drawn.std() / std < 1.4
        assert abs((drawn == 0.0).mean() - dry) < 0.1
    other = np.ones(GRID.shape, bool)
    other[[1, 4], [2, 6]] = False
    assert_rains(members[:, :, other, 2], CENTRE, WIDTH)
    assert '"name": "gauges", "count": 10' in analysis.attrs["diagnostics"]


@pytest.mark.slow
def test_rain_on_a_dry_background_is_no_gross_error(model, caplog):
    climate = np.broadcast_to(
        climatology(model.statistics["state"], TIMES), (len(TIMES), *GRID.shape, 3)
    ).copy()
    climate[..., 2] = 0.0
    observed = np.full_like(climate, np.nan)
    observed[0, 0, :2, 2] = 4e-4, 0.5  # m, of which the second is absurd
    stream = Observations(
        "radar", dataset(observed)[["total_precipitation"]], "grid", "total_precipitation", 1e-4
    )
    draw(model, dataset(climate), [stream], gross_error=4.0)
    assert "1 of 2 values are more than 4 standard deviations" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_model_with_rain_is_read_as_it_was_written(model, dtype, tmp_path):
    path = save_model(model, tmp_path / "rain.safetensors", dtype=dtype)
    loaded = load_model(path)
    assert loaded.transforms == TRANSFORMS
    assert loaded.anamorphosis is not None
    assert model.anamorphosis is not None
    np.testing.assert_array_equal(loaded.anamorphosis.mean, model.anamorphosis.mean)
    if dtype == "float32":
        assert_same_model(loaded, model)
    card = path.with_suffix(".md").read_text()
    assert "| total_precipitation | m, censored: 0.001 m to the power 2 of a normal" in card


def test_a_model_without_rain_says_nothing_of_it(state_model, tmp_path):
    path = save_model(state_model, tmp_path / "plain.safetensors")
    assert b"transforms" not in path.read_bytes()
    assert b"anamorphosis" not in path.read_bytes()
    assert load_model(path).transforms == ()
