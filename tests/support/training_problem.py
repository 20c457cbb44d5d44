"""A small regression with noise in its loss, so that keys, data and state all matter."""

import dataclasses

import grain
import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.training import (
    DeviceConfig,
    DivergenceConfig,
    IntervalConfig,
    OptimiserConfig,
    fit,
)

GROUPS = {"intervals": IntervalConfig, "divergence": DivergenceConfig, "devices": DeviceConfig}
CONFIG = {"model": {"width": 8, "levels": (10.0, 50.0)}, "name": "small"}
# The map is large enough to lie in a file of its own, which orbax does not protect.
STATISTICS = {
    "map": np.random.default_rng(5).normal(size=(64, 64)).astype(np.float32),
    "mean": np.arange(3.0),
    "std": np.float32(2.0),
}


def init_fn(key):
    key_in, key_out = jax.random.split(key)
    params = {
        "hidden": {"kernel": jax.random.normal(key_in, (4, 8)) / 2, "bias": jnp.zeros(8)},
        "out": {"kernel": jax.random.normal(key_out, (8, 1)) / 3},
    }
    return params, {"count": jnp.zeros(())}


def predict(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return hidden @ params["out"]["kernel"]


def loss_fn(params, model_state, key, batch):
    noise = 0.1 * jax.random.normal(key, batch["x"].shape)
    error = predict(params, batch["x"] + noise) - batch["y"]
    loss = jnp.mean(error**2)
    return loss, ({"count": model_state["count"] + 1.0}, {"bias": jnp.mean(error)})


def data(n=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return x, (x[:, :1] - 0.5 * x[:, 1:2]).astype(np.float32)


def loader(batch_size=8, spoil=None):
    """Endless batches; the sample `spoil` is NaN."""
    x, y = data()
    if spoil is not None:
        y[spoil] = np.nan
    source = grain.MapDataset.range(len(x)).map(lambda i: {"x": x[i], "y": y[i]})
    return source.seed(1).shuffle().repeat().batch(batch_size).to_iter_dataset()


@jax.jit
def validate(params, model_state):
    x, y = data()
    return {"loss": jnp.mean((predict(params, x) - y) ** 2), "count": model_state["count"]}


def optimiser(**changes):
    return OptimiserConfig(**{"steps": 20, "learning_rate": 1e-2, "warmup_steps": 2, **changes})


def train(directory, **changes):
    """`fit` of the problem, on two devices, with any argument or option changed."""
    arguments = {
        "loss_fn": loss_fn,
        "init_fn": init_fn,
        "loader": loader(),
        "optimiser": optimiser(),
        "seed": 0,
        "validate": validate,
        "metadata": {"config": CONFIG, "note": "kept"},
        "statistics": STATISTICS,
    }
    options = {
        "intervals": {"log_every": 3, "validate_every": 4, "checkpoint_every": 5},
        "divergence": {},
        "devices": {"devices": jax.devices()[:2]},
    }
    for name, kind in GROUPS.items():
        fields = {f.name for f in dataclasses.fields(kind)}
        mine = {n: changes.pop(n) for n in fields & set(changes)}
        arguments[name] = kind(**(options[name] | mine))
    return fit(directory, **(arguments | changes))


def assert_same(a, b):
    """Two states equal to the bit, keys included."""

    def plain(state):
        state = state._replace(key=jax.random.key_data(state.key))
        return jax.tree.leaves_with_path(state)

    for (path, x), (_, y) in zip(plain(a), plain(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))
