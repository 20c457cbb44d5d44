import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.observe import Dense, LowRank, make_stream, whitened_innovations
from slams_jax.observe.streams import identity_decode

TIME, SHAPE = 3, (2, 3)
COUNT = 6
RNG = np.random.default_rng(0)


def single(array):
    return jnp.asarray(array, jnp.float32)


def low_rank(frames=1, rank=2):
    variance = RNG.uniform(0.3, 2.0, (frames, COUNT))
    factor = RNG.standard_normal((frames, COUNT, rank))
    matrix = factor @ np.swapaxes(factor, 1, 2) + np.stack([np.diag(v) for v in variance])
    return LowRank(single(variance), single(factor)), matrix


def dense(frames=1):
    root = RNG.standard_normal((frames, COUNT, 2 * COUNT))
    matrix = root @ np.swapaxes(root, 1, 2) / COUNT
    return Dense.of(matrix), matrix


def matrices(function):
    """The matrix of a linear function of (time, *SHAPE), at each time."""
    column = lambda e: function(jnp.broadcast_to(e.reshape(1, *SHAPE), (TIME, *SHAPE)))
    columns = jax.vmap(column, out_axes=-1)(jnp.eye(COUNT))
    return np.asarray(columns, np.float64).reshape(TIME, COUNT, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("make", [low_rank, dense])
@pytest.mark.parametrize("frames", [1, TIME])
@pytest.mark.parametrize("extra", [0.0, 0.7, "each"])
def test_whitening_and_root_are_those_of_the_matrix(make, frames, extra):
    covariance, matrix = make(frames)
    more = RNG.uniform(0.1, 1.0, SHAPE) if extra == "each" else extra
    added = np.diag(np.broadcast_to(more, SHAPE).reshape(-1))
    whiten = matrices(lambda r: covariance.whiten(r, single(more)))
    product = np.swapaxes(whiten, 1, 2) @ whiten @ (matrix + added)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(COUNT), product.shape), atol=2e-4)
    root = matrices(covariance.sample_root)
    expected = np.broadcast_to(matrix, (TIME, COUNT, COUNT))
    np.testing.assert_allclose(root @ np.swapaxes(root, 1, 2), expected, atol=1e-4)
    inflated = matrices(covariance.inflated(single(1.7)).sample_root)
    np.testing.assert_allclose(inflated @ np.swapaxes(inflated, 1, 2), 1.7 * expected, atol=2e-4)


@pytest.mark.slow
def test_a_factor_of_less_than_full_rank_has_no_part_in_what_it_leaves_out():
    covariance, _ = low_rank()
    doubled = LowRank(covariance.variance, jnp.concatenate([covariance.factor] * 2, -1) / 2**0.5)
    r = single(RNG.standard_normal((TIME, *SHAPE)))
    none = jnp.zeros(())
    np.testing.assert_allclose(doubled.whiten(r, none), covariance.whiten(r, none), atol=1e-5)
    alone = LowRank(covariance.variance, jnp.zeros((1, COUNT, 2)))
    np.testing.assert_allclose(
        alone.whiten(r, none).reshape(TIME, -1),
        np.asarray(r).reshape(TIME, -1) / np.sqrt(covariance.variance),
        rtol=1e-6,
    )


@pytest.mark.parametrize("make", [low_rank, dense])
def test_what_was_not_observed_is_cut_out_of_the_covariance(make):
    """The likelihood of a stream with gaps is that of the observed values alone."""
    covariance, matrix = make()
    values = RNG.standard_normal((TIME, *SHAPE))
    values[0, 0, 1] = values[1, 1, 2] = values[1, 0, 0] = np.nan
    state = single(RNG.standard_normal((TIME, *SHAPE, 1)))
    stream = make_stream("gappy", values, lambda x: x[..., 0], covariance)
    (white,) = whitened_innovations([stream], state, identity_decode, jnp.zeros(()))
    for t in range(TIME):
        seen = np.isfinite(values[t]).reshape(-1)
        r = (values[t] - np.asarray(state)[t, ..., 0]).reshape(-1)[seen]
        expected = r @ np.linalg.solve(matrix[0][np.ix_(seen, seen)], r)
        np.testing.assert_allclose(jnp.sum(white[t] ** 2), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense.of(np.array([[[1.0, 0.5], [0.4, 1.0]]])), "must be symmetric"),
        (lambda: Dense.of(np.array([[[1.0, 2.0], [2.0, 1.0]]])), "smallest eigenvalue is -1"),
        (
            lambda: make_stream(
                "odd",
                np.zeros((1, 2)),
                lambda x: x,
                LowRank(single([[1.0, -1.0]]), jnp.zeros((1, 2, 1))),
            ),
            "stream 'odd' has an error that is not positive",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()
