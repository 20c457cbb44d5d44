import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax import Model
from slams_jax.assimilation.analysis import background_stream
from slams_jax.errors import InputError, RunError
from slams_jax.models import error_statistics as estimate
from slams_jax.models.model import decode, encode, residual, trajectory_prior
from slams_jax.models.plain import plain_prior, plain_regression
from slams_jax.models.saved import describe, load_model, membership
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
    statistics = {
        "fields": {name: s._asdict() for name, s in model.statistics.items()},
        "state_error": model.state_error,
        "increment_error": model.increment_error,
        "background_error": error(model.background_error),
        "prior": plain_prior(prior),
        "background": plain_regression(model.background),
        "latent_mean": arrays.latent_mean,
        "latent_std": arrays.latent_std,
    }
    if model.latent is not None:
        statistics["latent"] = plain_regression(model.latent)
        statistics["latent_patterns"] = membership(model.latent_patterns, model.latent_inputs)
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


@pytest.mark.slow
@pytest.mark.parametrize("latent", [True, False])
def test_a_saved_model_is_read_as_it_was(latent, latent_model, state_model, tmp_path):
    model = latent_model if latent else state_model
    save(model, tmp_path)
    loaded = load_model(tmp_path)
    for name in ("networks", "grid", "channels", "latent_inputs", "latent_patterns"):
        assert getattr(loaded, name) == getattr(model, name), name
    hash(loaded.networks)
    ours, theirs = (
        (
            m.arrays,
            dict(m.statistics),
            m.state_error,
            m.increment_error,
            m.background_error,
            m.background,
            m.latent,
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_residual_is_what_decoding_lacks(model):
    x = jnp.asarray(states(2))
    rebuilt = decode(
        model.networks, model.arrays, encode(model.networks, model.arrays, {"state": x})
    )
    rest = residual(model.networks, model.arrays, x)
    np.testing.assert_allclose(rest + rebuilt, np.asarray(x) * STD, atol=1e-4)
    assert np.abs(rest).mean() > 0.1  # four channels for twelve values


@pytest.mark.slow
def test_the_prior_is_the_network_over_windows(model):
    x = jax.random.normal(jax.random.key(0), (5, *model.networks.frame_shape))
    prior = jax.jit(trajectory_prior(model.networks, model.arrays))
    chunked = jax.jit(trajectory_prior(model.networks, model.arrays, 1))
    t = jnp.float32(0.4)
    np.testing.assert_allclose(prior(x, t), chunked(x, t), atol=1e-5)
    # Frames two apart are seen together, frames four apart are not.
    moved = x.at[0].add(1.0)
    change = np.abs(np.asarray(prior(moved, t) - prior(x, t))).max(axis=(1, 2, 3))
    assert np.all(change[:2] > 1e-4)
    np.testing.assert_array_equal(change[3:], 0.0)


# --- what is estimated -------------------------------------------------------------------------


@pytest.mark.slow
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


def test_local_scales_follow_what_is_local_and_not_the_noise():
    """Twice the spread over a third of the longitudes; elsewhere chance alone."""
    rng = np.random.default_rng(0)
    size = np.ones((3, 12, 2))
    size[1, :4, 1] = 2.0
    codes = (np.array([5.0, -300.0]) + size * rng.standard_normal((400, 3, 12, 2))).astype("f4")
    mean, std = estimate.local_scales(codes, np.arange(400))
    np.testing.assert_allclose(mean, np.broadcast_to([5.0, -300.0], mean.shape), atol=0.15)
    np.testing.assert_allclose(std[1, :, 1], size[1, :, 1], rtol=0.15)
    raw = codes.std(axis=0)
    assert std[0].std() < 0.6 * raw[0].std()
    np.testing.assert_allclose((std**2).mean(axis=1), (raw**2).mean(axis=1), rtol=0.03)
    assert mean.dtype == std.dtype == np.float32
    codes[..., 0] = 1.0
    with pytest.raises(RunError, match="1 of 2 latent channels are constant"):
        estimate.local_scales(codes, np.arange(400))


@pytest.mark.slow
def test_reconstruction_errors_are_a_sample_in_the_units_of_the_state(model):
    count = 2 * estimate.MISSED + 3
    x, background = states(count), states(count, 1)
    fields = reader({"state": x, "background": background})
    frames = np.arange(count)
    rest = lambda v: np.asarray(residual(model.networks, model.arrays, jnp.asarray(v[::3])))
    errors = estimate.reconstruction_errors(model.networks, model.arrays, fields, frames)
    np.testing.assert_allclose(errors, -rest(x), atol=1e-4)
    beside = estimate.reconstruction_errors(
        model.networks, model.arrays, fields, frames, beside="background"
    )
    np.testing.assert_allclose(beside, rest(background) - rest(x), atol=1e-4)


def test_networks_are_static(model):
    assert hash(model.networks) == hash(dataclasses.replace(model.networks))
    assert model.networks.frame_shape == (3, 4, 4)


def test_a_model_of_the_state_itself_has_no_error_unless_told(state_model):
    names = [f.name for f in dataclasses.fields(state_model) if f.name.endswith("_error")]
    fields = [f.name for f in dataclasses.fields(state_model) if f.name not in names]
    plain = Model(**{name: getattr(state_model, name) for name in fields})
    assert not np.any(plain.state_error)


@pytest.mark.slow
def test_a_background_is_a_regression_in_frames_that_are_complete(model):
    """Its code, less what is constant; frames without it tell nothing; holes are refused."""
    background = STD * states(3) + 1.0
    climate = np.zeros_like(background)
    background[1] = np.nan
    stream = background_stream(model, background[None], climate)
    z = encode(model.networks, model.arrays, {"state": jnp.asarray(background / STD)})
    offset = model.background.offset[0]
    np.testing.assert_allclose(stream.values[0], np.asarray(z)[0] - offset, atol=1e-4)
    assert stream.mask.all(axis=(1, 2, 3)).tolist() == [True, False, True]
    assert stream.covariance.known.tolist() == [True, False, True]
    background[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="background has correlated errors but incomplete frames"):
        background_stream(model, background[None], climate)
