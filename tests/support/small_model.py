"""A tiny model, built by hand: exact where its score network is zero, a true network where not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.data import Statistics
from slams_jax.diffusion import CosineSchedule
from slams_jax.gaussian import GaussianPrior, Modes, Regression, Spectrum, fit_regression
from slams_jax.grid import Grid
from slams_jax.models import autoencoder, score
from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.model import Model, ModelArrays, Networks, encode
from slams_jax.models.score import ScoreConfig
from slams_jax.observe import fit_separable
from slams_jax.schema import channels_of

GRID = Grid.of(np.arange(-75.0, 76.0, 30.0), np.arange(0.0, 360.0, 45.0))  # 6 x 8
LEVELS = (20.0, 300.0, 1000.0)
CHANNELS = channels_of(["temperature"], LEVELS)
STD = np.array([3.0, 5.0, 6.0], np.float32)
BIAS = 1.5  # K, of the background
BACKGROUND_ERROR = 0.2  # of the background, in climatological standard deviations


def statistics() -> Statistics:
    """A climatology with a yearly cycle at every grid point."""
    rng = np.random.default_rng(0)
    mean = np.array([210.0, 230.0, 285.0]) + rng.standard_normal((*GRID.shape, 3))
    cycle = 4.0 * rng.standard_normal((2, *GRID.shape, 3))
    return Statistics(np.concatenate([mean[None], cycle]).astype(np.float32), STD)


def tiny_model(*, latent: bool, network: float = 0.05) -> Model:
    """A model whose prior is nearly white noise of the state, or of the latent.

    A score network whose last kernel is zero predicts the velocity 0, and so is the exact denoiser
    of white noise of unit variance; `network` is the size of its random last kernel.
    """
    key_score, key_encoder, key_last = jax.random.split(jax.random.key(0), 3)
    rng = np.random.default_rng(1)
    encoder, width = None, len(CHANNELS)
    arrays = ModelArrays(std=jnp.asarray(STD))
    if latent:
        width = 4
        inputs = (("state", 3), ("background", 3))
        encoder = AutoencoderConfig(3, inputs, width, compression=2, width=8, blocks=1)
        states = rng.standard_normal((20, *GRID.shape, 3)).astype(np.float32)
        params, model_state = autoencoder.init(encoder, key_encoder, GRID.shape, states=states)
        arrays = arrays._replace(
            autoencoder=_perturbed(params, key_last, 0.1),
            model_state=model_state,
            latent_mean=jnp.full((width,), 0.2),
            latent_std=jnp.full((width,), 1.1),
        )
    else:
        arrays = arrays._replace(latent_mean=jnp.zeros(width), latent_std=jnp.ones(width))
    config = ScoreConfig(
        window=3, channels=width, widths=(8,), blocks=1, embedding=8, prediction="v"
    )
    networks = Networks(CosineSchedule(), config, encoder, GRID.shape)
    params = score.init(config, key_score, networks.frame_shape[:2])
    arrays = arrays._replace(
        score=_perturbed(params, key_last, network), prior=white_prior(networks.frame_shape)
    )
    return Model(
        networks,
        GRID,
        CHANNELS,
        arrays,
        {"state": statistics(), "background": statistics()},
        state_error=(0.05 if latent else 0.0) * STD[None, None, None],
        increment_error=(0.02 if latent else 0.0) * STD[None, None, None],
        background_error=fit_separable(background_errors(), rank=10),
        background=_encoded(networks, arrays) if latent else unbiased(BACKGROUND_ERROR, BIAS / STD),
        latent=unbiased(0.3, np.full(width, 0.1), networks.frame_shape) if latent else None,
        latent_inputs=("background",) if latent else (),
        latent_patterns=(("background",),) if latent else (),
    )


def white_prior(shape=(*GRID.shape, len(CHANNELS)), lags=()) -> GaussianPrior:
    """White noise of unit variance in space, with the given correlations in time."""
    lat, lon, channel = shape
    blocks, size = lon // 2 + 1, lat * channel
    vectors = np.broadcast_to(np.eye(size), (blocks, size, size))
    wide = np.broadcast_to(np.asarray(lags, float), (blocks, size, len(lags)))
    spectrum = Spectrum(jnp.ones((blocks, size)), jnp.asarray(wide, jnp.complex64))
    return GaussianPrior(Modes(jnp.asarray(vectors, jnp.complex64), shape, True), (spectrum,))


def unbiased(error, bias, shape=(*GRID.shape, len(CHANNELS))) -> Regression:
    """y = x + bias + e, e white noise of standard deviation `error`."""
    modes = white_prior(shape).modes
    count = modes.vectors.shape[:2]
    return Regression(
        modes,
        (jnp.ones((1, *count), jnp.complex64),),
        (jnp.full((1, *count), error**2),),
        (jnp.zeros((*count, 0), jnp.complex64),),
        jnp.broadcast_to(jnp.asarray(bias, jnp.float32), (1, *shape)),
    )


def _encoded(networks, arrays) -> Regression:
    """The background of `background_errors`, encoded."""
    states = np.random.default_rng(3).standard_normal((200, *GRID.shape, 3)).astype(np.float32)
    code = lambda x: np.asarray(encode(networks, arrays, {"state": jnp.asarray(x)}))
    seen = code(states + background_errors(200) / STD)
    return fit_regression([seen], code(states), arrays.prior.modes, order=0)


def background_errors(count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(2)
    white = rng.standard_normal((count, *GRID.shape, 3))
    return (BIAS + BACKGROUND_ERROR * STD * white).astype(np.float32)


def _perturbed(params, key, size: float):
    """Kernels that start at zero get random values of `size`."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    zero = [leaf.ndim == 4 and not np.any(np.asarray(leaf)) for leaf in leaves]
    return jax.tree.unflatten(
        tree,
        [
            size * jax.random.normal(k, leaf.shape) if z else leaf
            for k, leaf, z in zip(keys, leaves, zero, strict=True)
        ],
    )


def times(count: int = 5, start: str = "2001-07-01") -> np.ndarray:
    return np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(1, "D")


def everything(model):
    """All that a model holds in arrays."""
    return (
        model.arrays,
        dict(model.statistics),
        model.state_error,
        model.increment_error,
        model.background_error,
        model.background,
        model.latent,
        model.anamorphosis,
    )


ARRAYS = ("arrays", "statistics", "background", "latent", "anamorphosis")


def assert_same_model(a, b):
    """Two models equal to the bit, in arrays and in all else."""
    for field in dataclasses.fields(a):
        if not field.name.endswith("_error") and field.name not in ARRAYS:
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    assert jax.tree.structure(everything(a)) == jax.tree.structure(everything(b))
    for x, y in zip(*(jax.tree.leaves(everything(m)) for m in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)
