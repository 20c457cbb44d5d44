"""The linear filter, smoother and regression, against dense Gaussian algebra."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import LinearAnalysis, Window, fit_linear, kalman_smoother
from slams_jax.errors import InputError
from slams_jax.observe import Diagonal, Identity, make_stream

SHAPE = (2, 4, 1)
PERSISTENCE, ERROR, OBSERVED = 0.8, 0.5, 0.4
TIMES = 5


def process(count: int, seed: int = 0):
    """A white field that persists, and a background with independent errors."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *SHAPE))
    for t in range(1, count):
        x[t] = PERSISTENCE * x[t - 1] + np.sqrt(1 - PERSISTENCE**2) * x[t]
    return x, x + ERROR * rng.standard_normal(x.shape)


def window(background=None, observed=None) -> Window:
    climate = np.full((TIMES, *SHAPE), 10.0, np.float32)
    streams = ()
    if observed is not None:
        values = climate + 2.0 * observed
        error = Diagonal(jnp.full((1, 1, 1, 1), (2.0 * OBSERVED) ** 2))
        streams = (make_stream("obs", values, Identity(), error),)
    fields = {} if background is None else {"background": background}
    return Window(climate, np.full(1, 2.0, np.float32), streams, fields)


def exact(sources):
    """The Kalman smoother of one point, for a list of (values, error)."""
    values = np.stack([v for v, _ in sources], axis=-1)
    points = values.reshape(TIMES, -1, len(sources))
    smooth = jax.vmap(
        lambda y: kalman_smoother(
            y,
            jnp.ones((TIMES, len(sources), 1)),
            jnp.diag(jnp.asarray([e**2 for _, e in sources], jnp.float32)),
            transition=jnp.full((1, 1), PERSISTENCE),
            process_covariance=jnp.full((1, 1), 1 - PERSISTENCE**2),
            mean=jnp.zeros(1),
            covariance=jnp.ones((1, 1)),
        ),
        in_axes=1,
    )(jnp.asarray(points, jnp.float32))
    shape = (TIMES, *SHAPE)
    mean = np.asarray(smooth.mean)[..., 0].T.reshape(shape)
    return mean, np.asarray(smooth.covariance)[-1, :, 0, 0]  # of the last point


@pytest.fixture(scope="module")
def fitted():
    """With and without a background, of 6,000 times."""
    x, b = process(8000)
    periods = np.arange(6000), np.arange(6000, 8000)
    return {
        "background": fit_linear(x, {"background": b}, *periods, periodic=True, rank=1),
        "none": fit_linear(x, {}, *periods, periodic=False),
        "regression": fit_linear(x, {"background": b}, *periods, periodic=True, memory=False),
    }


@pytest.mark.slow
def test_observations_are_smoothed_as_by_kalman(fitted):
    x, _ = process(TIMES, 5)
    y = x + OBSERVED * np.random.default_rng(6).standard_normal(x.shape)
    y[2, 0] = np.nan
    mean, variance = exact([(y, OBSERVED)])
    analysis = LinearAnalysis(fitted["none"])
    assert analysis.sees == "window"
    assert analysis.uses == ("streams",)
    found = (analysis.mean(window(observed=y)) - 10.0) / 2.0
    np.testing.assert_allclose(found, mean, atol=0.05)
    draws = analysis(jax.random.key(1), window(observed=y), members=200)
    np.testing.assert_allclose((draws.mean(axis=0) - 10.0) / 2.0, mean, atol=0.17)
    spread = (draws / 2.0).std(axis=0)[:, 1].mean(axis=(1, 2))  # the row that is all observed
    np.testing.assert_allclose(spread, np.sqrt(variance), rtol=0.1)


@pytest.mark.slow
def test_a_background_and_observations_are_combined(fitted):
    """The last time sees the exact filter; earlier ones nearly the exact smoother."""
    x, b = process(TIMES, 7)
    y = x + OBSERVED * np.random.default_rng(8).standard_normal(x.shape)
    mean, _ = exact([(b, ERROR), (y, OBSERVED)])
    found = (LinearAnalysis(fitted["background"]).mean(window(b, y)) - 10.0) / 2.0
    np.testing.assert_allclose(found, mean, atol=0.12)


@pytest.mark.slow
def test_a_filter_never_sees_the_future_and_a_smoother_does(fitted):
    """The filter of a time is the analysis of the window that ends there."""
    x, b = process(TIMES, 9)
    analysis = LinearAnalysis(fitted["background"])
    changed = b.copy()
    changed[-1] += 3.0
    before, after = (analysis.mean(window(f, x)) for f in (b, changed))
    assert np.abs(before - after)[:-1].max() > 0.1
    regression = LinearAnalysis(fitted["regression"], streams=False)
    assert regression.sees == "past"
    draw = lambda f: regression(jax.random.key(0), window(f), members=2)
    np.testing.assert_array_equal(draw(b)[:, :-1], draw(changed)[:, :-1])
    assert np.abs(draw(b) - draw(changed))[:, -1].max() > 1.0


def test_regression_on_a_field_is_least_squares(fitted):
    _, b = process(TIMES, 11)
    found = (LinearAnalysis(fitted["regression"], streams=False).mean(window(b)) - 10.0) / 2.0
    # x_t on b_t and b_{t-1}: normal equations of the known covariances.
    c, v = PERSISTENCE, 1 + ERROR**2
    gain = np.linalg.solve([[v, c], [c, v]], [1.0, c])
    np.testing.assert_allclose(found[1:], gain[0] * b[1:] + gain[1] * b[:-1], atol=0.12)
    np.testing.assert_allclose(found[0], b[0] / v, atol=0.1)


def test_noise_alone_has_the_covariance_of_the_state(fitted):
    draws = LinearAnalysis(fitted["none"])(jax.random.key(2), window(), members=500)
    z = (draws - 10.0) / 2.0
    np.testing.assert_allclose((z**2).mean(axis=(0, 2, 3, 4)), 1.0, atol=0.1)
    lagged = (z[:, 1:] * z[:, :-1]).mean() / (z**2).mean()
    np.testing.assert_allclose(lagged, PERSISTENCE, atol=0.03)


def test_a_missing_input_counts_as_no_anomaly(fitted):
    _, b = process(TIMES, 12)
    missing, zero = b.copy(), b.copy()
    missing[1], zero[1] = np.nan, 0.0
    analysis = LinearAnalysis(fitted["regression"], streams=False)
    np.testing.assert_array_equal(analysis.mean(window(missing)), analysis.mean(window(zero)))


def test_short_periods_are_refused():
    x, _ = process(40)
    with pytest.raises(InputError, match="at least 5 times in the validation period"):
        fit_linear(x, {}, np.arange(30), np.arange(30, 34), periodic=True)


def test_the_model_is_a_pytree(fitted):
    leaves, tree = jax.tree.flatten(fitted["background"])
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert dataclasses.is_dataclass(jax.tree.unflatten(tree, leaves))
