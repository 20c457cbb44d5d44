"""The model that comes with the library does what it did when it was trained."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.data import standardise
from slams_jax.models import decode, demo_model, encode, score
from slams_jax.models.model import window_prior

# Three days of the test period: hundredths of a kelvin above 250 K.
SAMPLE = Path(__file__).parents[1] / "golden" / "demo_sample.npz"
# Of the run that was saved, in float32, on this sample; the file's precision changes none by 0.2 %.
RECONSTRUCTION = (0.0605, 0.0545, 0.0590, 0.0636, 0.0836, 0.0965, 0.1260, 0.0980)
DENOISING = {0.1: 0.1375, 0.3: 0.3075, 0.5: 0.4702, 0.7: 0.6961}


@pytest.fixture(scope="module")
def model():
    return demo_model()


@pytest.fixture(scope="module")
def states(model):
    """Standardised states (time, lat, lon, channel)."""
    with np.load(SAMPLE) as file:
        state = 250.0 + file["hundredths"].astype(np.float32) / np.float32(100.0)
        times = file["times"].astype("datetime64[ns]")
    return jnp.asarray(standardise(state, model.statistics["state"], times))


@pytest.fixture(scope="module")
def latents(model, states):
    return jax.jit(lambda x: encode(model.networks, model.arrays, {"state": x}))(states)


def test_the_autoencoder_misses_as_little_as_it_did(model, states, latents):
    decoded = jax.jit(lambda z: decode(model.networks, model.arrays, z))(latents)
    missed = np.asarray(decoded) - np.asarray(states) * np.asarray(model.arrays.std)
    rmse = np.sqrt((missed**2).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(rmse, RECONSTRUCTION, rtol=0.01)


@pytest.mark.slow
def test_the_score_network_denoises_as_it_did(model, latents):
    networks = model.networks
    gaussian = window_prior(networks, model.arrays)
    denoise = score.window_denoiser(networks.score, networks.schedule, model.arrays.score, gaussian)
    run = jax.jit(lambda x, t: denoise(x[None], t)[0])
    eps = jax.random.normal(jax.random.key(1), latents.shape)
    for t, expected in DENOISING.items():
        time = jnp.float32(t)
        noisy = networks.schedule.alpha(time) * latents + networks.schedule.sigma(time) * eps
        error = float(jnp.sqrt(jnp.mean((run(noisy, time) - latents) ** 2)))
        np.testing.assert_allclose(error, expected, rtol=0.01, err_msg=f"at t = {t}")
