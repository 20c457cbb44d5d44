import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax import Model
from slams_jax.assimilation.analysis import background_stream
from slams_jax.errors import InputError
from slams_jax.models import error_statistics as estimate
from slams_jax.models.model import decode, encode, residual, trajectory_prior
from slams_jax.models.saved import describe, load_model
from slams_jax.training.checkpoint import Checkpoints
from support.small_model import CHANNELS, GRID, STD


def states(count, seed=0):
    """Standardised states."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *GRID.shape, 3)).astype(np.float32)


def reader(fields):
    return lambda index: {name: values[index] for name, values in fields.items()}


def save(model, directory):
    """As `experiments.train` does."""

    def error(pair):
        if pair is None:
            return {}
        covariance, bias = pair
        return {**{k: np.asarray(v) for k, v in vars(covariance).items()}, "bias": bias}

    arrays = model.arrays
    prior = arrays.prior
    frame = {k: np.asarray(v) for k, v in vars(prior.frame).items()}
    statistics = {
        "fields": {name: s._asdict() for name, s in model.statistics.items()},
        "state_error": model.state_error,
        "increment_error": model.increment_error,
        "background_error": error(model.background_error),
        "latent_error": error(model.latent_error),
        "prior": {"frame": frame, "lags": np.asarray(prior.lags)},
    }
    if model.networks.autoencoder is not None:
        statistics |= {"latent_mean": arrays.latent_mean, "latent_std": arrays.latent_std}
    about = describe(model.networks, model.grid, model.channels, model.latent_inputs)
    stages = {"score": (arrays.score, {}, {"model": about}, statistics)}
    if model.networks.autoencoder is not None:
        stages["autoencoder"] = (arrays.autoencoder, arrays.model_state, {}, None)
    for stage, (params, model_state, metadata, kept) in stages.items():
        checkpoints = Checkpoints(
            directory / stage, run={}, metadata=json.loads(json.dumps(metadata)), statistics=kept
        )
        checkpoints.save({}, {"ema": params, "model_state": model_state}, {}, step=1)
        checkpoints.close()


@pytest.mark.parametrize("latent", [True, False])
def test_a_saved_model_is_read_as_it_was(latent, latent_model, state_model, tmp_path):
    model = latent_model if latent else state_model
    save(model, tmp_path)
    loaded = load_model(tmp_path)
    for name in ("networks", "grid", "channels", "latent_inputs"):
        assert getattr(loaded, name) == getattr(model, name), name
    hash(loaded.networks)
    ours, theirs = (
        (
            m.arrays,
            dict(m.statistics),
            m.state_error,
            m.increment_error,
            m.background_error,
            m.latent_error,
        )
        for m in (model, loaded)
    )
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_model_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no trained model in .*: train one"):
        load_model(tmp_path)
    (tmp_path / "score").mkdir()
    with pytest.raises(InputError, match="no checkpoint in"):
        load_model(tmp_path)


def test_decode_undoes_the_scaling_of_encode(model):
    """Latents scaled otherwise are the same states."""
    x = jnp.asarray(states(2))
    z = encode(model.networks, model.arrays, {"state": x})
    assert z.shape == (2, *model.networks.frame_shape)
    twice = model.arrays._replace(
        latent_mean=model.arrays.latent_mean + 1.0, latent_std=2.0 * model.arrays.latent_std
    )
    other = encode(model.networks, twice, {"state": x})
    mean, std = (np.asarray(getattr(model.arrays, n)) for n in ("latent_mean", "latent_std"))
    expected = (np.asarray(z) * std + mean - (mean + 1.0)) / (2.0 * std)
    np.testing.assert_allclose(other, expected, atol=1e-5)
    np.testing.assert_allclose(
        decode(model.networks, twice, other), decode(model.networks, model.arrays, z), atol=1e-4
    )


def test_without_autoencoder_decoding_is_the_change_of_units(state_model):
    model = state_model
    assert model.networks.frame_shape == (*GRID.shape, len(CHANNELS))
    x = states(2)
    np.testing.assert_allclose(decode(model.networks, model.arrays, jnp.asarray(x)), x * STD)


def test_the_residual_is_what_decoding_lacks(model):
    x = jnp.asarray(states(2))
    rebuilt = decode(
        model.networks, model.arrays, encode(model.networks, model.arrays, {"state": x})
    )
    rest = residual(model.networks, model.arrays, x)
    np.testing.assert_allclose(rest + rebuilt, np.asarray(x) * STD, atol=1e-4)
    assert np.abs(rest).mean() > 0.1  # four channels for twelve values


def test_the_prior_is_the_network_over_windows(model):
    x = jax.random.normal(jax.random.key(0), (5, *model.networks.frame_shape))
    prior = jax.jit(trajectory_prior(model.networks, model.arrays.score))
    chunked = jax.jit(trajectory_prior(model.networks, model.arrays.score, 1))
    t = jnp.float32(0.4)
    np.testing.assert_allclose(prior(x, t), chunked(x, t), atol=1e-5)
    # Frames two apart are seen together, frames four apart are not.
    moved = x.at[0].add(1.0)
    change = np.abs(np.asarray(prior(moved, t) - prior(x, t))).max(axis=(1, 2, 3))
    assert np.all(change[:2] > 1e-4)
    np.testing.assert_array_equal(change[3:], 0.0)


# --- what is estimated -------------------------------------------------------------------------


def test_raw_latents_are_the_codes_of_every_frame(model, tmp_path):
    """Also of those of a last, smaller batch."""
    count = estimate.BATCH + 3
    fields = {"state": states(count), "background": states(count, 1)}
    path = tmp_path / "latents.npy"
    raw = estimate.raw_latents(model.networks, model.arrays, reader(fields), count, path)
    z = encode(model.networks, model.arrays, {"state": jnp.asarray(fields["state"])})
    mean, std = (np.asarray(getattr(model.arrays, n)) for n in ("latent_mean", "latent_std"))
    np.testing.assert_allclose((raw - mean) / std, z, atol=1e-4)
    np.testing.assert_array_equal(np.load(path), raw)


def test_latent_scales():
    rng = np.random.default_rng(0)
    latents = (np.array([5.0, -300.0]) + [0.1, 2.0] * rng.standard_normal((50, 3, 4, 2))).astype(
        np.float32
    )
    mean, std = estimate.latent_scales(latents)
    flat = latents.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, flat.std(axis=0), rtol=1e-5)
    assert mean.dtype == std.dtype == np.float32


def test_reconstruction_error_is_weighted_by_area_and_in_the_units_of_the_state(model):
    count = estimate.BATCH + 2
    x = states(count)
    weights = GRID.area_weights()
    frames = np.arange(1, count)
    error = estimate.reconstruction_error(
        model.networks, model.arrays, reader({"state": x}), frames, weights
    )
    rest = np.asarray(residual(model.networks, model.arrays, jnp.asarray(x[frames])))
    expected = np.sqrt((rest**2 * weights[..., None]).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(error, expected, rtol=1e-4)


def test_reconstruction_beside_the_background(model):
    """What is left of x once the background has told what the latent cannot."""
    x, background = states(4), states(4, 1)
    fields = reader({"state": x, "background": background})
    error = estimate.reconstruction_error(
        model.networks,
        model.arrays,
        fields,
        np.arange(4),
        GRID.area_weights(),
        beside="background",
    )
    rests = [
        np.asarray(residual(model.networks, model.arrays, jnp.asarray(v))) for v in (x, background)
    ]
    rest = rests[0] - rests[1]
    expected = np.sqrt((rest**2 * GRID.area_weights()[..., None]).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(error, expected, rtol=1e-4)


def test_latent_errors_are_differences_of_codes(model):
    x, background = states(5), states(5, 1)
    fields = reader({"state": x, "background": background})
    frames = np.array([0, 2, 4])
    errors = estimate.latent_errors(model.networks, model.arrays, fields, frames, ("background",))
    code = lambda name, v: encode(model.networks, model.arrays, {name: jnp.asarray(v[frames])})
    np.testing.assert_allclose(errors, code("background", background) - code("state", x), atol=1e-4)
    # The same fields under both names are not the same input, but nearly the same code.
    same = reader({"state": x, "background": x})
    close = estimate.latent_errors(model.networks, model.arrays, same, frames, ("background",))
    assert np.abs(close).mean() < 0.5 * np.abs(errors).mean()


def test_networks_are_static(model):
    assert hash(model.networks) == hash(dataclasses.replace(model.networks))
    assert model.networks.frame_shape == (3, 4, 4)


def test_a_model_of_the_state_itself_has_no_error_unless_told(state_model):
    whole = state_model
    names = [f.name for f in dataclasses.fields(whole) if not f.name.endswith("_error")]
    plain = Model(
        **{name: getattr(whole, name) for name in names}, background_error=whole.background_error
    )
    zeros = np.zeros(len(CHANNELS), np.float32)
    background = np.asarray(states(3))
    told = dataclasses.replace(plain, state_error=zeros, increment_error=zeros)
    assert background_stream(plain, background).covariance.nugget == 0.0
    for a, b in zip(
        *(jax.tree.leaves(background_stream(m, background)) for m in (plain, told)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
