"""Refinement of an analysis by Metropolis moves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from slams_jax.assimilation import posterior
from slams_jax.assimilation.analysis import assimilate
from slams_jax.assimilation.streams import background_stream
from slams_jax.data import climatology
from slams_jax.data.channels import unstack_channels
from slams_jax.diffusion import RefinementConfig, SamplerConfig
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.mesh import analysis_mesh
from slams_jax.observe import Diagonal, make_stream
from support.small_model import BACKGROUND_ERROR, BIAS, CHANNELS, GRID, STD, times, tiny_model

TIMES = times()[:3]
POINT = (1, 3, 4, 1)  # time, latitude, longitude, channel
SHIFT, SEEN, ERROR = 0.3, 1.5, 0.4  # what is squared, the value and its error; standardised
MEMBERS = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Square:
    """(z - `SHIFT`)^2 of the standardised anomaly z at one point: its sign is lost."""

    climate: Float[Array, "time lat lon channel"]

    def __call__(self, state):
        z = (state - self.climate)[:, 3:4, 4:5, 1:2] / float(STD[1])
        return (z - SHIFT) ** 2


def exact(function):
    """E[f(z) | y] of z ~ N(0, 1), y = (z - SHIFT)^2 + e."""
    z = np.linspace(-6.0, 6.0, 20001)
    weight = np.exp(-0.5 * z**2 - 0.5 * ((SEEN - (z - SHIFT) ** 2) / ERROR) ** 2)
    return (weight * function(z)).sum() / weight.sum()


def drawn(score, refinement, sampler=SamplerConfig(steps=32)):
    """The standardised anomaly of each member where it was observed, and the analysis."""
    model = tiny_model(latent=False, network=0.0)  # its prior is white noise, exactly
    climate = climatology(model.statistics["state"], TIMES)
    values = np.full((3, 1, 1, 1), np.nan, np.float32)
    values[POINT[0]] = SEEN
    stream = make_stream("square", values, Square(climate), Diagonal(jnp.float32(ERROR**2)))
    analysis = assimilate(
        model,
        None,
        [stream],
        members=MEMBERS,
        key=jax.random.key(0),
        times=TIMES,
        score=score,
        sampler=sampler,
        guidance=GuidanceConfig(iterations=4),
        refinement=refinement,
    )
    state = np.moveaxis(analysis["temperature"].values, 2, -1)
    return ((state - climate) / STD)[(slice(None), *POINT)], analysis


@pytest.mark.slow
def test_moves_reach_a_posterior_of_two_modes():
    moves = RefinementConfig(moves=8, sampler=SamplerConfig(steps=16))
    before, _ = drawn("network", None)
    z, analysis = drawn("network", moves)
    right = exact(lambda z: z > SHIFT)  # the weight of one mode
    error = np.sqrt(right * (1 - right) / MEMBERS)
    # Guidance alone is wrong: its operator is linear about an estimate that may be anywhere.
    assert abs((before > SHIFT).mean() - right) > 5.0 * error
    assert abs((z > SHIFT).mean() - right) < 4.0 * error
    mean, square = exact(lambda z: z), exact(lambda z: z**2)
    assert abs(z.mean() - mean) < 4.0 * np.sqrt((square - mean**2) / MEMBERS)
    assert 0.1 < analysis.attrs["acceptance"] < 0.9
    assert analysis.attrs["evaluations"] == 32 + 8 * 16


@pytest.mark.slow
def test_slices_reach_it_too():
    z, analysis = drawn("gaussian", None, SamplerConfig("split_gibbs", 8, slices=4))
    right = exact(lambda z: z > SHIFT)
    assert abs((z > SHIFT).mean() - right) < 4.0 * np.sqrt(right * (1 - right) / MEMBERS)
    mean, square = exact(lambda z: z), exact(lambda z: z**2)
    assert abs(z.mean() - mean) < 4.0 * np.sqrt((square - mean**2) / MEMBERS)
    assert analysis.attrs["evaluations"] == 8
    assert "divergence" not in analysis.attrs


def a_background(model):
    climate = climatology(model.statistics["state"], TIMES)
    rng = np.random.default_rng(1)
    anomaly = STD * rng.standard_normal((3, *GRID.shape, 3))
    error = BACKGROUND_ERROR * STD * rng.standard_normal(anomaly.shape)
    return (climate + anomaly + BIAS + error).astype(np.float32), climate


@pytest.mark.slow
@pytest.mark.parametrize("score", ["network", "gaussian"])
def test_moves_know_the_prior_alone_and_all_observations(score):
    """What guidance absorbs in closed form is no part of the prior, but of the likelihood."""
    model = tiny_model(latent=False, network=0.0)
    background, climate = a_background(model)
    mesh = analysis_mesh(1, devices=jax.local_devices()[:1])
    stream = background_stream(model, background[None], climate, mesh)
    recipe = posterior.Recipe(
        model.networks,
        SamplerConfig(),
        GuidanceConfig(),
        1,
        None,
        True,
        mesh,
        score,
        RefinementConfig(),
    )
    conditioned = posterior.condition_on(recipe, model.arrays, 3, (stream,))
    assert conditioned.streams == ()
    found = posterior._posterior(recipe, model.arrays, conditioned, jnp.asarray(climate))
    x, t = jax.random.normal(jax.random.key(2), found.shape), jnp.float32(0.5)
    alpha, sigma = (f(t) for f in (model.networks.schedule.alpha, model.networks.schedule.sigma))
    free = alpha / (alpha**2 + sigma**2) * x
    np.testing.assert_allclose(found.prior(x, t), free, atol=2e-5)
    assert np.abs(found.guided(x, t) - free).max() > 0.1
    # The background is the state with independent errors of one size.
    seen = (background - climate) / STD - BIAS / STD
    expected = -0.5 * (((seen - x) / BACKGROUND_ERROR) ** 2).sum()
    np.testing.assert_allclose(found.log_likelihood(x), expected, rtol=2e-4)


@pytest.mark.slow
def test_hardly_any_move_of_a_whole_field_is_accepted(caplog, latent_model):
    """With a background everywhere, moves are rejected; the analysis says so and stays."""
    background, _ = a_background(latent_model)
    dataset = unstack_channels(
        background[None], CHANNELS, TIMES, GRID.latitude, GRID.longitude
    ).isel(member=0)
    options = dict(members=2, key=jax.random.key(0), sampler=SamplerConfig(steps=4))
    plain = assimilate(latent_model, dataset, [], **options)
    assert "acceptance" not in plain.attrs
    moves = RefinementConfig(moves=2, sampler=SamplerConfig(steps=4))
    refined = assimilate(latent_model, dataset, [], refinement=moves, **options)
    assert refined.attrs["acceptance"] == 0.0
    np.testing.assert_array_equal(refined["temperature"], plain["temperature"])
    assert "refinement accepted 0.0 % of its 2 moves of 4" in caplog.text
    tiny = RefinementConfig(2, 0.003, 0.003, SamplerConfig(steps=4))
    small = assimilate(latent_model, dataset, [], refinement=tiny, **options)
    assert small.attrs["acceptance"] > 0.0
