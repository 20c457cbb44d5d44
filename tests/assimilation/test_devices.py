"""An analysis on several devices is that of one."""

import jax
import numpy as np
import pytest

from slams_jax.assimilation.analysis import ComputeConfig, assimilate
from slams_jax.data import climatology
from slams_jax.data.channels import unstack_channels
from slams_jax.diffusion import SamplerConfig
from support.devices import mesh_of
from support.small_model import times

pytestmark = pytest.mark.slow


def analyse(model, mesh):
    """Three members, a window at a time: of the prior of a latent model, or given a background."""
    at = times()
    truth = climatology(model.statistics["state"], at)
    background = unstack_channels(
        truth[None], model.channels, at, model.grid.latitude, model.grid.longitude
    ).isel(member=0)
    return assimilate(
        model,
        background if model.networks.autoencoder is None else None,
        [],
        members=3,
        key=jax.random.key(3),
        times=at,
        sampler=SamplerConfig(steps=4),
        compute=ComputeConfig(mesh=mesh, window_chunk=1),
    )["temperature"].values


def test_a_draw_does_not_depend_on_its_devices(latent_model):
    alone = analyse(latent_model, mesh_of(member=1))
    np.testing.assert_array_equal(analyse(latent_model, mesh_of(member=3)), alone)
    # Six latitudes over two devices, and three of the latent, which do not divide.
    shared = analyse(latent_model, mesh_of(member=2, windows=2, space=2))
    np.testing.assert_allclose(shared, alone, atol=1e-3)


def test_an_analysis_does_not_depend_on_its_devices(state_model):
    alone, shared = (
        analyse(state_model, mesh_of(**axes))
        for axes in ({"member": 1}, {"member": 2, "windows": 2, "space": 2})
    )
    np.testing.assert_allclose(shared, alone, atol=2e-3)
