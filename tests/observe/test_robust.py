import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import (
    Diagonal,
    Identity,
    Points,
    Robust,
    Separable,
    innovation,
    log_likelihood,
    make_stream,
    pad_points,
    whitened_innovations,
    without_gross_errors,
)
from slams_jax.observe.streams import identity_decode
from slams_jax.schema import Channel

RNG = np.random.default_rng(0)
SHAPE = (2, 3, 4, 1)
ZERO = jnp.zeros(SHAPE)
HUBER, STUDENT = Robust("huber", 1.5), Robust("student_t", 4.0)


def single(array):
    return jnp.asarray(array, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("robust", [HUBER, STUDENT])
def test_the_weighted_square_has_the_gradient_of_the_loss(robust):
    values = 3.0 * RNG.standard_normal(SHAPE)
    stream = make_stream("a", values, Identity(), Diagonal(single(0.5)), robust=robust)
    x = single(RNG.standard_normal(SHAPE))

    def squares(x):
        (r,) = whitened_innovations([stream], x, identity_decode, jnp.zeros(()))
        return -0.5 * jnp.sum(r**2)

    loss = lambda x: log_likelihood([stream], x, identity_decode)
    np.testing.assert_allclose(jax.grad(squares)(x), jax.grad(loss)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("robust", [HUBER, STUDENT])
def test_small_errors_count_as_gaussian_ones_and_gross_ones_hardly(robust):
    plain = 0.5 * np.array([1e-3, 1e2]) ** 2
    loss = np.asarray(robust.loss(single([1e-3, 1e2])))
    np.testing.assert_allclose(loss[0] / plain[0], robust.weight(single(0.0)), rtol=1e-2)
    assert loss[1] < 0.05 * plain[1]
    assert np.all(np.diff(np.asarray(robust.weight(single([0.0, 1.0, 2.0, 9.0])))) <= 0)


def test_student_t_is_the_log_density_of_scipy():
    from scipy.stats import t

    r = np.linspace(-6, 6, 25)
    expected = t.logpdf(0.0, 4.0) - t.logpdf(r, 4.0)
    np.testing.assert_allclose(STUDENT.loss(single(r)), expected, atol=1e-5)


def test_values_far_from_the_background_are_rejected():
    """Total standard deviation 0.5: 2.4 stays within five of it and 2.6 does not."""
    values = np.zeros(SHAPE)
    values[0, 0, 0, 0], values[0, 0, 1, 0], values[1, 2, 3, 0] = 2.4, 2.6, np.nan
    stream = make_stream("a", values, Identity(), Diagonal(single(0.3**2)))
    checked = without_gross_errors(stream, ZERO, single([0.4]))
    expected = np.isfinite(values)
    expected[0, 0, 1, 0] = False
    np.testing.assert_array_equal(checked.mask, expected)
    assert float(innovation(checked, ZERO)[0, 0, 1, 0]) == 0.0
    np.testing.assert_array_equal(
        without_gross_errors(stream, ZERO, single([0.4]), threshold=6.0).mask, np.isfinite(values)
    )


@pytest.mark.slow
def test_streams_of_more_and_fewer_points_have_one_shape_and_the_same_likelihood():
    grid = Grid.of(np.array([-45.0, 0.0, 45.0]), np.array([0.0, 90.0, 180.0, 270.0]))
    x = single(RNG.standard_normal(SHAPE))
    shapes = set()
    for count in (3, 5, 8):
        lat, lon = RNG.uniform(-40, 40, count), RNG.uniform(0, 270, count)
        operator = Points.at(grid, [Channel("temperature", None)], lat, lon, None)
        values = RNG.standard_normal((2, count))
        values[0, 1] = np.nan
        stream = make_stream(
            "stations",
            values,
            operator,
            Diagonal(single(RNG.uniform(0.5, 1, (1, count)))),
            scale=np.full(count, 2.0),
        )
        padded = pad_points(stream, 8)
        extra = single(0.3)
        squares = [
            float(jnp.sum(whitened_innovations([s], x, identity_decode, extra)[0] ** 2))
            for s in (stream, padded)
        ]
        np.testing.assert_allclose(*squares, rtol=1e-6)
        assert padded.mask.sum() == stream.mask.sum() == 2 * count - 1
        shapes.add(str([jnp.shape(leaf) for leaf in jax.tree.leaves(padded)]))
    assert len(shapes) == 1


def correlated():
    leaves = np.ones((3, 4, 1)), np.eye(12)[:, :2], np.ones(2), 0.1, np.eye(1), np.ones(1), 0.0
    return Separable(*map(single, leaves))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Robust("huber", 0.0), "parameter must be positive, got 0.0"),
        (
            lambda: without_gross_errors(
                make_stream("b", np.zeros(SHAPE), Identity(), correlated()), ZERO, single(1.0)
            ),
            "stream 'b' cannot be checked",
        ),
        (
            lambda: without_gross_errors(
                make_stream("b", np.zeros(SHAPE), Identity(), Diagonal(single(1.0))),
                ZERO,
                single(1.0),
                threshold=0.0,
            ),
            "threshold of gross errors must be positive, got 0.0",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()
