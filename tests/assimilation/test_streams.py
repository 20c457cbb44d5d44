"""What a background tells beside its code."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.assimilation.streams import unresolved
from slams_jax.mesh import analysis_mesh
from slams_jax.models.model import residual
from support.small_model import GRID, STD

pytestmark = pytest.mark.slow


def test_what_no_latent_can_represent_is_a_regression_on_the_background(latent_model):
    """Here half of what the background has of it, and an error that is known."""
    rng = np.random.default_rng(0)
    shape = (50, *GRID.shape, 3)
    own, left = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    state_error = -(0.5 * own + 0.1 * left)
    model = dataclasses.replace(
        latent_model, state_error=state_error, increment_error=state_error + own
    )
    background = STD * rng.standard_normal((2, *GRID.shape, 3)).astype(np.float32)
    background[1] = np.nan
    told, error = unresolved(model, background, np.zeros_like(background), analysis_mesh(1))
    whole = residual(model.networks, model.arrays, jnp.asarray(background / STD))
    np.testing.assert_allclose(told[0], 0.5 * np.asarray(whole)[0], rtol=0.05, atol=1e-4)
    assert not told[1].any()
    np.testing.assert_allclose(error.std(axis=(0, 1, 2)), 0.1, rtol=0.05)


def test_numbers_for_each_channel_have_no_regression(latent_model):
    """Models of before have one error: the background is taken over as it stands."""
    background = STD * np.ones((1, *GRID.shape, 3), np.float32)
    told, error = unresolved(latent_model, background, np.zeros_like(background), analysis_mesh(1))
    whole = residual(latent_model.networks, latent_model.arrays, jnp.asarray(background / STD))
    np.testing.assert_allclose(told, np.asarray(whole), atol=1e-4)
    np.testing.assert_array_equal(error, latent_model.increment_error)
