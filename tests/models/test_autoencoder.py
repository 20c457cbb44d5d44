import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.models import autoencoder
from slams_jax.models.autoencoder import AutoencoderConfig, draw_dropped

INPUTS = (("state", 3), ("background", 3), ("stations", 1))
SLAMS = AutoencoderConfig(
    state_channels=10,
    inputs=(("state", 10), ("rain", 1), ("olr", 1)),
    latent_channels=5,
    architecture="slams",
    kernel=5,
    padding="torus",
    state_probability=1.0,
    alone=0.0,
    drop=0.0,
    level_power=1.0,
    latent_noise=0.0,
    latent_penalty=0.0,
)


def small(**options):
    defaults = dict(
        state_channels=3, inputs=INPUTS, latent_channels=4, compression=2, width=8, blocks=1
    )
    return AutoencoderConfig(**{**defaults, **options})


decode = jax.jit(autoencoder.decode, static_argnums=(0, 4))
loss = jax.jit(autoencoder.loss, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def encode(config, params, model_state, inputs):
    return autoencoder.encode(config, params, model_state, inputs)


def randomised(params, scale=0.1):
    """Parameters with nothing left at zero, so that every path counts."""
    rng = np.random.default_rng(9)
    noise = lambda x: scale * rng.normal(size=x.shape).astype(np.float32)
    return jax.tree.map(lambda x: x + noise(x), params)


def example(shape=(4, 8), batch=2, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    state = jax.random.normal(keys[0], (batch, *shape, 3))
    background = state + 0.3 * jax.random.normal(keys[1], state.shape)
    stations = state[..., :1]
    seen = jax.random.uniform(keys[2], stations.shape) < 0.3
    return {
        "state": state,
        "background": background,
        "stations": jnp.where(seen, stations, jnp.nan),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "compression", "padding"),
    [
        ((6, 9), 1, "edge"),
        ((6, 9), 2, "edge"),
        ((5, 7), 4, "channel"),
        ((4, 8), 2, "sphere"),
        ((1, 1), 1, "edge"),
    ],
)
def test_shapes_on_any_grid(shape, compression, padding):
    config = small(compression=compression, padding=padding, coordinates="both")
    params, model_state = autoencoder.init(config, jax.random.key(0), shape)
    batch = example(shape)
    z = encode(config, params, model_state, batch)
    assert z.shape == (2, *config.latent_shape(shape))
    assert model_state == {}
    x = decode(config, params, model_state, z, shape)
    assert x.shape == batch["state"].shape
    assert bool(jnp.all(jnp.isfinite(x)))


@pytest.mark.slow
def test_missing_values_count_as_absent_inputs():
    config = small()
    params, model_state = autoencoder.init(config, jax.random.key(0), (4, 8))
    params = randomised(params)
    batch = example()
    without = {"background": batch["background"]}
    blank = {name: jnp.full_like(batch[name], jnp.nan) for name in ("state", "stations")}
    z = encode(config, params, model_state, without)
    np.testing.assert_allclose(
        encode(config, params, model_state, {**without, **blank}), z, atol=1e-6
    )
    with_stations = encode(
        config, params, model_state, {k: batch[k] for k in batch if k != "state"}
    )
    assert float(jnp.max(jnp.abs(with_stations - z))) > 1e-2


@pytest.mark.slow
def test_the_mask_tells_zero_from_missing():
    config = small()
    params, _ = autoencoder.init(config, jax.random.key(0), (4, 8))
    params = randomised(params)
    zero = {"background": jnp.zeros((1, 4, 8, 3))}
    missing = {"background": jnp.full((1, 4, 8, 3), jnp.nan)}
    difference = encode(config, params, {}, zero) - encode(config, params, {}, missing)
    assert float(jnp.max(jnp.abs(difference))) > 1e-2


@pytest.mark.slow
def test_missing_values_leave_loss_and_gradient_finite_and_unused():
    config = small()
    params, _ = autoencoder.init(config, jax.random.key(0), (4, 8))
    params = randomised(params)
    batch = example(batch=4)
    holes = jnp.zeros((4, 4, 8, 3), bool).at[:, 1, 2:4, 0].set(True)
    broken = {**batch, "state": jnp.where(holes, jnp.nan, batch["state"])}

    @jax.jit
    def value_and_gradient(params, batch):
        f = lambda p: autoencoder.loss(config, p, {}, jax.random.key(1), batch)[0]
        return jax.value_and_grad(f)(params)

    value, gradient = value_and_gradient(params, broken)
    assert bool(jnp.isfinite(value))
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(gradient))
    assert float(value) != float(value_and_gradient(params, batch)[0])


@pytest.mark.slow
def test_encoding_is_equivariant_in_longitude():
    config = small(padding="sphere")
    params, _ = autoencoder.init(config, jax.random.key(0), (4, 8))
    params = randomised(params)
    batch = example()
    turned = {name: jnp.roll(x, 2, axis=2) for name, x in batch.items()}
    z = encode(config, params, {}, batch)
    np.testing.assert_allclose(
        encode(config, params, {}, turned), jnp.roll(z, 1, axis=2), atol=2e-5
    )


@pytest.mark.slow
def test_dropping_follows_its_probabilities():
    config = small(state_probability=0.4, alone=0.5, drop=(("background", 0.2), ("stations", 0.9)))
    n = 20_000
    dropped = draw_dropped(config, jax.random.key(0), ("state", "background", "stations"), n)
    kept = {name: ~np.asarray(d) for name, d in dropped.items()}
    state = kept["state"]
    assert state.sum() == pytest.approx(0.4 * n, abs=1)  # stratified
    assert np.all(state | kept["background"] | kept["stations"])

    def close(values, probability):
        tolerance = 4 * np.sqrt(probability * (1 - probability) / values.size)
        assert values.mean() == pytest.approx(probability, abs=tolerance)

    close(kept["background"][state], 0.5 * 0.8)
    close(kept["stations"][state], 0.5 * 0.1)
    # Without the state both are dropped with 0.2 * 0.9, and one of them is then put back.
    close(kept["background"][~state], 0.8 + 0.18 / 2)
    close(kept["stations"][~state], 0.1 + 0.18 / 2)


def test_the_state_alone_is_never_dropped():
    config = small(inputs=(("state", 3),))
    dropped = draw_dropped(config, jax.random.key(0), ("state",), 64)
    assert not np.any(dropped["state"])


@pytest.mark.slow
def test_loss_is_the_weighted_norm_of_the_errors():
    # Identity on the first two channels only: the error is the third channel itself.
    config = small(
        inputs=(("state", 3),), compression=1, level_power=2.0, latent_noise=0.0, latent_penalty=0.0
    )
    params, _ = autoencoder.init(config, jax.random.key(0), (4, 8))
    eye = jnp.eye(3, 4).at[2, 2].set(0.0)
    params["encoder"]["linear"]["kernel"] = eye
    params["decoder"]["linear"]["kernel"] = jnp.zeros((3, 3, 4, 3)).at[1, 1].set(eye.T)
    batch = {"state": example()["state"]}
    weights = np.linspace(0.5, 1.5, 32, dtype=np.float32).reshape(4, 8)
    value, (_, info) = loss(config, params, {}, jax.random.key(0), batch, weights=weights)
    third = float(np.average(np.mean(np.square(batch["state"][..., 2]), 0), weights=weights))
    assert float(value) == pytest.approx(np.sqrt(third**2 / 3), rel=1e-4)
    assert float(info["mse"]) == pytest.approx(third / 3, rel=1e-4)
    assert float(info["reconstruction_worst"]) == pytest.approx(np.sqrt(third), rel=1e-4)


def test_the_worst_level_gets_the_largest_weight():
    gradient = jax.grad(lambda mse: autoencoder._norm(small(), mse))(jnp.array([0.01, 0.1, 0.2]))
    np.testing.assert_allclose(gradient / gradient[0], [1.0, 10.0, 20.0], rtol=1e-3)


@pytest.mark.slow
def test_linear_code_starts_at_the_principal_components():
    # States of rank 4 in patches of 12 values are coded and decoded without loss.
    keys = jax.random.split(jax.random.key(0), 2)
    basis = jax.random.normal(keys[0], (4, 2, 2, 3))
    codes = jax.random.normal(keys[1], (50, 2, 4, 4))
    patches = jnp.einsum("bijk,kxyc->bixjyc", codes, basis)
    states = np.asarray(patches.reshape(50, 4, 8, 3))
    config = small()
    params, _ = autoencoder.init(config, jax.random.key(1), (4, 8), states=states)
    z = encode(config, params, {}, {"state": jnp.asarray(states)})
    x = decode(config, params, {}, z, (4, 8))
    assert float(jnp.std(x - states)) < 0.01 * states.std()  # but for the ridge
    assert float(jnp.mean(jnp.square(z))) == pytest.approx(1.0, rel=1e-3)
    random, _ = autoencoder.init(config, jax.random.key(1), (4, 8))
    x = decode(
        config, random, {}, encode(config, random, {}, {"state": jnp.asarray(states)}), (4, 8)
    )
    assert float(jnp.std(x - states)) > 0.3 * states.std()


def test_reference_has_the_published_layers():
    params, model_state = autoencoder.init(SLAMS, jax.random.key(0), (6, 8))
    chains = {
        half: [params[half]["_Chain_0"][f"Conv_{i}"]["kernel"].shape for i in range(5)]
        for half in ("encoder", "decoder")
    }
    down, up = (12, 9, 8, 7, 6, 5), (5, 6, 7, 8, 9, 10)
    assert chains["encoder"] == [(5, 5, a, b) for a, b in itertools.pairwise(down)]
    assert chains["decoder"] == [(5, 5, a, b) for a, b in itertools.pairwise(up)]
    assert set(model_state) == {"encoder", "decoder"}


@pytest.mark.slow
def test_reference_updates_its_batch_statistics():
    params, model_state = autoencoder.init(SLAMS, jax.random.key(0), (6, 8))
    keys = jax.random.split(jax.random.key(1), 3)
    batch = {
        name: 2.0 + jax.random.normal(key, (4, 6, 8, channels))
        for key, (name, channels) in zip(keys, SLAMS.inputs, strict=True)
    }
    value, (new_state, info) = loss(SLAMS, params, model_state, jax.random.key(2), batch)
    assert float(value) == pytest.approx(float(info["mse"]), rel=1e-5)
    changed = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), model_state, new_state)
    assert min(jax.tree.leaves(changed)) > 0.0
    z = encode(SLAMS, params, new_state, batch)
    assert z.shape == (4, 6, 8, 5)
    assert decode(SLAMS, params, new_state, z, (6, 8)).shape == (4, 6, 8, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": (("background", 3),)}, "must hold"),
        ({"inputs": (*INPUTS, ("stations", 2))}, "twice"),
        ({"compression": 3}, "compression must be 1, 2 or 4, got 3"),
        ({"kernel": 4}, "kernel must be odd"),
        ({"drop": 1.0}, "drop of"),
        ({"drop": (("radar", 0.5),)}, "unknown inputs"),
        ({"level_power": 0.5}, "level_power"),
        ({"architecture": "slams"}, "compression must be 1 with 'slams'"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


def test_bad_inputs_are_named():
    config = small()
    params, _ = autoencoder.init(config, jax.random.key(0), (4, 8))
    batch = example()
    with pytest.raises(InputError, match="no input"):
        autoencoder.encode(config, params, {}, {})
    with pytest.raises(InputError, match="'radar'"):
        autoencoder.encode(config, params, {}, {"radar": batch["state"]})
    with pytest.raises(InputError, match="has 3 channels, expected 1"):
        autoencoder.encode(config, params, {}, {"stations": batch["state"]})
    with pytest.raises(InputError, match="no 'state'"):
        autoencoder.loss(config, params, {}, jax.random.key(0), {"background": batch["background"]})
