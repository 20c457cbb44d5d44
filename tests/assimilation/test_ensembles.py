"""Backgrounds with members: the errors of the day in the analysis."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from slams_jax.assimilation import HybridConfig, InversionConfig, assimilate
from slams_jax.assimilation.ensembles import partition
from slams_jax.data import climatology
from slams_jax.data.channels import unstack_channels
from slams_jax.diffusion import SamplerConfig
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError
from slams_jax.grid import EARTH_RADIUS
from support.small_model import BIAS, CHANNELS, GRID, STD, times, tiny_model

TIMES = times(3)
SHAPE = (len(TIMES), *GRID.shape, len(CHANNELS))
FINE = SamplerConfig(steps=32)
EAST = np.asarray(GRID.longitude) >= 180.0


@pytest.fixture(scope="module")
def model():
    """The prior is white noise about the climatology, exactly; so are errors of the background."""
    return tiny_model(latent=False, network=0.0)


def climate_of(model):
    return climatology(model.statistics["state"], TIMES)


def dataset(values):
    """(member, time, lat, lon, channel) in physical units as a Dataset."""
    return unstack_channels(
        np.asarray(values, np.float32), CHANNELS, TIMES, GRID.latitude, GRID.longitude
    )


def forecasts(model, count=6, seed=0):
    """Members about one state, 0.6 climatological deviations apart in the east alone."""
    rng = np.random.default_rng(seed)
    state = climate_of(model) + STD * rng.standard_normal(SHAPE)
    departures = 0.6 * STD * rng.standard_normal((count, *SHAPE)) * EAST[:, None]
    return state + departures - departures.mean(axis=0) + BIAS


def analysed(model, members, count, **options):
    """`count` draws from forecasts and nothing else."""
    return assimilate(model, dataset(members), [], members=count, key=jax.random.key(1), **options)


def standardised(model, analysis):
    values = np.moveaxis(analysis["temperature"].values, 2, -1)
    return (values - climate_of(model)) / STD


def test_bumps_sum_to_a_gaussian():
    latitude, longitude = np.arange(-87.5, 90.0, 5.0), np.arange(0.0, 360.0, 5.0)
    bumps = partition(latitude, longitude, 2000.0)
    flat = bumps.reshape(len(bumps), -1)
    places = np.deg2rad(np.meshgrid(latitude, longitude, indexing="ij")).reshape(2, -1)
    unit = np.stack(
        [
            np.cos(places[0]) * np.cos(places[1]),
            np.cos(places[0]) * np.sin(places[1]),
            np.sin(places[0]),
        ]
    )
    apart = EARTH_RADIUS / 1e3 * np.sqrt(np.maximum(2.0 - 2.0 * unit.T @ unit, 0.0))
    correlation = flat.T @ flat
    np.testing.assert_allclose(np.diag(correlation), 1.0, atol=1e-5)
    np.testing.assert_allclose(correlation, np.exp(-0.5 * (apart / 2000.0) ** 2), atol=0.08)
    region = partition(latitude[20:24], longitude[:4], 2000.0)
    assert len(region) < len(bumps) / 4
    np.testing.assert_allclose(np.sum(region**2, axis=0), 1.0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "radius"), [(0.0, None), (0.7, 4000.0)])
def test_given_nothing_else_the_analysis_is_the_forecast(model, weight, radius):
    """Mean, and variances along the directions of the posterior, in closed form."""
    members, count = forecasts(model), 200
    config = HybridConfig(weight=weight, radius=radius)
    # The network is zero: its statistics are the same, and faster.
    analysis = analysed(model, members, count, ensemble=config, sampler=FINE, score="gaussian")
    draws = standardised(model, analysis).reshape(count, -1)
    mean = ((members.mean(axis=0) - climate_of(model) - BIAS) / STD).ravel()
    departures = ((members - members.mean(axis=0)) / STD).reshape(len(members), -1)
    covariance = departures.T @ departures / (len(members) - 1)
    if radius is not None:
        bumps = partition(np.asarray(GRID.latitude), np.asarray(GRID.longitude), radius)
        near = np.einsum("bxy,buv->xyuv", bumps, bumps)
        wide = np.broadcast_to(near[None, :, :, None, None, :, :, None], SHAPE + SHAPE)
        covariance = covariance * wide.reshape(covariance.shape)
    # White errors, on the whole as large as those that the members tell.
    share = np.mean(np.sum(departures**2, axis=0)) / (len(members) - 1)
    white = share * np.eye(mean.size)
    mean = mean * (1.0 - share) / (1.0 - share + share / len(members))
    expected = (1.0 + 1.0 / len(members)) * ((1.0 - weight) * white + weight * covariance)
    values, vectors = np.linalg.eigh(expected)
    values = np.minimum(values, 1.0)  # the variance of the prior
    deviation = np.sqrt(np.sum(vectors**2 * values, axis=1))
    off = (draws.mean(axis=0) - mean) / deviation * np.sqrt(count)
    assert np.mean(off**2) == pytest.approx(1.0, abs=0.25)
    ratio = np.var((draws - mean) @ vectors, axis=0) / values
    for part in (ratio[:100], ratio[-4:]):
        assert part.mean() == pytest.approx(1.0, abs=5.0 * np.sqrt(2.0 / count / len(part)) + 0.02)


@pytest.mark.slow
def test_rules_that_whiten_the_errors_agree_with_the_closed_form(model):
    draw = lambda rule: analysed(
        model,
        forecasts(model),
        1,
        ensemble=HybridConfig(weight=0.7),
        sampler=SamplerConfig(steps=8),
        guidance=GuidanceConfig(rule, iterations=80, tolerance=1e-5),
    )
    closed, whitened = (standardised(model, draw(rule)) for rule in ("gaussian", "mmps"))
    np.testing.assert_allclose(whitened, closed, atol=0.02)


def test_one_member_is_a_single_background(model):
    members = forecasts(model)
    draw = lambda background, **options: assimilate(
        model,
        background,
        [],
        members=2,
        key=jax.random.key(1),
        sampler=SamplerConfig(steps=4),
        **options,
    )
    alone = draw(dataset(members.mean(axis=0)[None]))
    xr.testing.assert_allclose(alone, draw(dataset(members.mean(axis=0)[None]).isel(member=0)))


@pytest.mark.slow
def test_draws_start_from_members_in_turn(model):
    """Of a white prior: x given f + s e, seen with an error of s."""
    members, count, level = forecasts(model, count=2), 200, 0.4
    model = dataclasses.replace(model, background=None)  # no statistics are needed
    options = dict(ensemble=InversionConfig(level), sampler=FINE, score="gaussian")
    analysis = analysed(model, members, count, **options)
    schedule = model.networks.schedule
    ratio = float((schedule.sigma(jnp.float32(level)) / schedule.alpha(jnp.float32(level))) ** 2)
    mean = (members - climate_of(model)) / STD / (1.0 + ratio)
    variance = ratio / (1.0 + ratio) ** 2 + ratio / (1.0 + ratio)
    draws = standardised(model, analysis).reshape(count // 2, 2, *SHAPE)
    off = (draws.mean(axis=0) - mean) / np.sqrt(variance / (count // 2))
    assert np.mean(off**2) == pytest.approx(1.0, abs=0.2)
    assert np.mean(draws.var(axis=0, ddof=1)) == pytest.approx(variance, rel=0.03)
    assert "divergence" not in analysis.attrs


@pytest.mark.slow
def test_members_enter_through_the_encoder_and_beside_missing_times():
    model = tiny_model(latent=True)
    members = forecasts(model)
    members[:, 1] = np.nan
    config = HybridConfig(weight=0.9, inflation=3.0)
    analysis = analysed(model, members, 12, ensemble=config, sampler=SamplerConfig(steps=8))
    spread = standardised(model, analysis).std(axis=0).mean(axis=(1, 3))
    east, west = spread[:, EAST].mean(axis=1), spread[:, ~EAST].mean(axis=1)
    assert np.all(east[[0, 2]] > 1.2 * west[[0, 2]])
    assert np.all(spread[1] > 0.7)  # no forecast
    assert np.all(west[[0, 2]] < 0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weight=1.0), r"weight of HybridConfig must lie in \[0, 1\), got 1.0"),
        (dict(radius=0.0), "radius of HybridConfig must be a positive number, got 0.0"),
        (dict(inflation=-1.0), "inflation of HybridConfig must be"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        HybridConfig(**options)


def test_draws_that_cannot_start_from_members_are_refused(model):
    members = forecasts(model)
    start = lambda background, **options: assimilate(
        model,
        background,
        [],
        members=1,
        key=jax.random.key(0),
        times=TIMES,
        ensemble=InversionConfig(),
        **options,
    )
    with pytest.raises(InputError, match="starts from members of the background, at all its times"):
        start(None)
    with pytest.raises(InputError, match="draws from members have no weights"):
        start(dataset(members), paths=2)
    few = dataset(members).isel(time=slice(2))
    with pytest.raises(InputError, match="give 3 or more, got 2"):
        assimilate(model, few, [], members=1, key=jax.random.key(0), ensemble=InversionConfig())
    members[:, 1] = np.nan
    with pytest.raises(InputError, match="without missing values, or choose HybridConfig"):
        start(dataset(members))
    with pytest.raises(InputError, match=r"level of InversionConfig must lie in \(0, 1\), got 1.0"):
        InversionConfig(1.0)


def test_members_that_tell_nothing_or_differ_in_gaps_are_refused(model):
    members = forecasts(model)
    draw = lambda values: analysed(model, values, 1, sampler=SamplerConfig(steps=4))
    with pytest.raises(InputError, match="members of the background are all the same"):
        draw(np.repeat(members[:1], 3, axis=0))
    members[2, 1] = np.nan
    with pytest.raises(InputError, match="member 2 of the background lacks values"):
        draw(members)
