import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.observe import (
    Coarsen,
    Diagonal,
    Identity,
    Separable,
    Stride,
    innovation,
    log_likelihood,
    make_stream,
    whitened_innovations,
)
from slams_jax.observe.streams import identity_decode

SHAPE = (3, 4, 4, 2)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal(SHAPE), jnp.float32)


def values_with_gaps(shape, gaps=(0, 5)):
    values = RNG.standard_normal(shape)
    values.reshape(-1)[list(gaps)] = np.nan
    return values


def decode(latent):
    """A decoder that is not linear and changes the number of channels."""
    return jnp.concatenate([jnp.tanh(latent), latent**2], axis=-1)


def test_innovation_is_zero_and_flat_where_nothing_was_observed():
    values = values_with_gaps((3, 2, 2, 2))
    stream = make_stream("coarse", values, Coarsen(2), Diagonal(jnp.float32(0.1)))
    found = np.asarray(innovation(stream, X))
    expected = np.where(np.isfinite(values), values - np.asarray(Coarsen(2)(X)), 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.reshape(-1)[0] == 0
    slope = jax.grad(lambda x: log_likelihood([stream], x, identity_decode))(X)
    assert jnp.all(jnp.isfinite(slope))
    np.testing.assert_array_equal(slope[0, :2, :2, 0], 0.0)
    assert float(jnp.abs(slope[0, :2, :2, 1]).min()) > 0


def test_missing_values_hide_whatever_stands_there():
    """The same stream, whether a gap is NaN or its error too."""
    values = values_with_gaps((3, 2, 2, 2))
    variance = np.where(np.isfinite(values), 0.3, np.nan)
    holed = make_stream("a", values, Coarsen(2), Diagonal(jnp.asarray(variance, jnp.float32)))
    even = make_stream("a", values, Coarsen(2), Diagonal(jnp.float32(0.3)))
    args = X, identity_decode
    np.testing.assert_allclose(
        log_likelihood([holed], *args), log_likelihood([even], *args), rtol=1e-6
    )


def test_log_likelihood_equals_the_dense_formula_over_streams_of_both_spaces():
    coarse, sparse = values_with_gaps((3, 2, 2, 4)), values_with_gaps((3, 2, 2, 2), (3,))
    errors = RNG.uniform(0.2, 2.0, (2, 2, 4)), RNG.uniform(0.2, 2.0, (2,))
    streams = [
        make_stream("coarse", coarse, Coarsen(2), Diagonal(jnp.asarray(errors[0], jnp.float32))),
        make_stream(
            "latent",
            sparse,
            Stride(2),
            Diagonal(jnp.asarray(errors[1], jnp.float32)),
            space="latent",
        ),
    ]
    expected = 0.0
    for values, predicted, variance in (
        (coarse, np.asarray(Coarsen(2)(decode(X))), errors[0]),
        (sparse, np.asarray(X)[:, ::2, ::2], errors[1]),
    ):
        seen = np.isfinite(values)
        r = (values - predicted)[seen]
        matrix = np.diag(np.broadcast_to(variance, values.shape)[seen])
        expected += -0.5 * r @ np.linalg.solve(matrix, r)
    np.testing.assert_allclose(log_likelihood(streams, X, decode), expected, rtol=1e-4)
    together = sum(log_likelihood([s], X, decode) for s in streams)
    np.testing.assert_allclose(log_likelihood(streams, X, decode), together, rtol=1e-5)


def test_extra_variance_is_scaled_to_the_units_of_the_stream():
    """In other units, with scale and error to match, the whitened innovations are the same."""
    values = values_with_gaps((3, 4, 4, 2))
    scale = np.array([10.0, 0.1])
    variance = np.array([0.3, 0.7])

    class Scaled:
        def __call__(self, x):
            return x * jnp.asarray(scale, jnp.float32)[None, None, None]

    plain = make_stream("a", values, Identity(), Diagonal(jnp.asarray(variance, jnp.float32)))
    scaled = make_stream(
        "a",
        values * scale,
        Scaled(),
        Diagonal(jnp.asarray(variance * scale**2, jnp.float32)),
        scale=scale.astype(np.float32),
    )
    extra = jnp.float32(0.5)
    one = whitened_innovations([plain], X, identity_decode, extra)[0]
    two = whitened_innovations([scaled], X, identity_decode, extra)[0]
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    expected = np.asarray(innovation(plain, X)) / np.sqrt(variance + 0.5)
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)


def test_a_stream_passes_through_jit_and_gradients_reach_through_the_decoder():
    stream = make_stream("a", np.zeros((3, 2, 2, 4)), Coarsen(2), Diagonal(jnp.float32(0.5)))
    function = lambda s, x: log_likelihood([s], x, decode)
    np.testing.assert_allclose(jax.jit(function)(stream, X), function(stream, X), rtol=1e-5)
    slope = jax.jit(jax.grad(function, argnums=1))(stream, X)
    step = 1e-2 * jnp.asarray(RNG.standard_normal(SHAPE), jnp.float32)
    change = function(stream, X + step) - function(stream, X - step)
    np.testing.assert_allclose(change, 2 * jnp.vdot(slope, step), rtol=2e-2)


def correlated():
    parts = (np.ones((4, 4, 2)), np.eye(16, 3), np.ones(3), 0.5, np.eye(2), np.ones(2), 0.1)
    return Separable(*(jnp.asarray(a, jnp.float32) for a in parts))


def test_correlated_errors_take_whole_frames():
    values = RNG.standard_normal(SHAPE)
    values[1] = np.nan
    stream = make_stream("field", values, Identity(), correlated())
    whitened = whitened_innovations([stream], X, identity_decode, jnp.zeros(()))[0]
    np.testing.assert_array_equal(whitened[1], 0.0)
    assert float(jnp.abs(whitened[jnp.array([0, 2])]).max()) > 0.1
    values[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="'field' has correlated errors but incomplete frames"):
        make_stream("field", values, Identity(), correlated())


@pytest.mark.parametrize("variance", [0.0, -1.0, np.nan, np.inf])
def test_errors_must_be_positive(variance):
    with pytest.raises(InputError, match="'a' has an error that is not positive"):
        make_stream("a", np.zeros(SHAPE), Identity(), Diagonal(jnp.float32(variance)))


def test_a_stream_without_values_is_refused():
    with pytest.raises(InputError, match="'a' has no finite value"):
        make_stream("a", np.full(SHAPE, np.nan), Identity(), Diagonal(jnp.float32(1.0)))


@pytest.mark.parametrize("shape", [(1, 4, 4, 2), (3, 4, 4, 1), (3, 2, 2, 2)])
def test_values_must_match_the_operator(shape):
    stream = make_stream("a", np.zeros(shape), Identity(), Diagonal(jnp.float32(1.0)))
    with pytest.raises(InputError, match=r"'a' has values of shape .* gives \(3, 4, 4, 2\)"):
        log_likelihood([stream], X, identity_decode)
