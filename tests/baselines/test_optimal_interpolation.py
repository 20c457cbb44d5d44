import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import (
    OptimalInterpolation,
    Window,
    fit_background,
    optimal_interpolation,
    optimal_interpolation_ensemble,
    tuned,
)
from slams_jax.baselines.protocol import BACKGROUND
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import (
    Coarsen,
    Diagonal,
    Points,
    Separable,
    Stride,
    log_likelihood,
    make_stream,
)
from slams_jax.observe.streams import identity_decode
from slams_jax.schema import channels_of

TIME, LAT, LON = 2, 4, 6
CHANNELS = channels_of(("temperature",), (500.0, 850.0))
# Compiled, as they are meant to be used; op by op they take minutes.
analyse = jax.jit(optimal_interpolation, static_argnames=("iterations", "outer"))
analyse_ensemble = jax.jit(
    optimal_interpolation_ensemble, static_argnames=("members", "batch", "iterations", "outer")
)
GRID = Grid.of(np.arange(LAT) * 2.0 + 30.0, np.arange(LON) * 2.0 + 350.0)
SHAPE = (TIME, LAT, LON, len(CHANNELS))


def background_covariance(nugget=0.1):
    """Correlated over about two grid points and between the channels, uneven in strength."""
    points = np.stack(np.meshgrid(np.arange(LAT), np.arange(LON), indexing="ij"), -1).reshape(-1, 2)
    distance2 = ((points[:, None] - points[None]) ** 2).sum(-1)
    values, vectors = np.linalg.eigh(np.exp(-distance2 / 8.0))
    between, rotation = np.linalg.eigh(np.array([[1.0, 0.6], [0.6, 1.0]]))
    std = np.random.default_rng(1).uniform(0.5, 2.0, SHAPE[1:])
    arrays = (std, vectors[:, -10:], values[-10:], 0.05, rotation, between, nugget)
    return Separable(*(jnp.asarray(a, jnp.float32) for a in arrays))


def points_operator():
    return Points.at(
        GRID,
        CHANNELS,
        np.array([31.0, 33.3, 35.9, 30.0]),
        np.array([-9.0, 353.2, 359.9, -4.5]),
        np.array([500.0, 700.0, 850.0, 600.0]),
    )


OPERATORS = {"points": points_operator(), "coarsen": Coarsen(2), "stride": Stride(3)}


def problem(name, seed=0, error=0.3):
    """Background, stream with a gap and uneven errors, covariance."""
    rng = np.random.default_rng(seed)
    covariance, operator = background_covariance(), OPERATORS[name]
    background = jnp.asarray(rng.normal(270.0, 10.0, SHAPE), jnp.float32)
    truth = background + covariance.sample_root(
        jnp.asarray(rng.standard_normal(SHAPE), jnp.float32)
    )
    clean = np.array(operator(truth))
    values = clean + error * rng.standard_normal(clean.shape)
    values[0].flat[0] = np.nan
    variance = error**2 * rng.uniform(0.5, 2.0, clean.shape[1:])
    stream = make_stream(name, values, operator, Diagonal(jnp.asarray(variance, jnp.float32)))
    return background, stream, covariance


def dense(function, shape):
    """The matrix of a linear function of arrays of `shape`."""
    size = int(np.prod(shape))
    column = lambda e: function(e.reshape(shape)).reshape(-1)
    return np.asarray(jax.jit(jax.vmap(column, out_axes=1))(jnp.eye(size)), np.float64)


def closed_form(background, stream, covariance):
    """Mean and covariance of x_b + B H^T (H B H^T + R)^-1 (y - H x_b), all frames at once."""
    root = dense(covariance.sample_root, SHAPE)
    prior = root @ root.T
    observed = np.asarray(stream.mask).reshape(-1)
    operator = dense(stream.operator, SHAPE)[observed]
    variance = np.broadcast_to(stream.covariance.variance, stream.values.shape).reshape(-1)
    x_b = np.asarray(background, np.float64).reshape(-1)
    innovation = np.asarray(stream.values, np.float64).reshape(-1)[observed] - operator @ x_b
    gain = np.linalg.solve(
        operator @ prior @ operator.T + np.diag(variance[observed]), operator @ prior
    ).T
    return (x_b + gain @ innovation).reshape(SHAPE), prior - gain @ operator @ prior


@jax.jit
@jax.value_and_grad
def cost(x, background, streams, covariance):
    whitened = covariance.whiten(x - background, jnp.zeros(()))
    return 0.5 * jnp.sum(whitened**2) - log_likelihood(streams, x, identity_decode)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_equals_the_closed_form(name):
    background, stream, covariance = problem(name)
    analysis = analyse(background, [stream], covariance)
    expected, _ = closed_form(background, stream, covariance)
    assert np.abs(expected - np.asarray(background)).max() > 0.5  # there is something to compute
    np.testing.assert_allclose(analysis, expected, atol=1e-3)


@pytest.mark.slow
def test_two_streams_equal_one_of_their_mean():
    """Two streams of the same points are one of their mean with half the error variance."""
    background, stream, covariance = problem("points")
    half = Diagonal(stream.covariance.variance / 2)
    values = np.where(stream.mask, stream.values, np.nan)
    shift = np.float32(0.2)
    twice = [
        make_stream(n, values + s, stream.operator, stream.covariance)
        for n, s in (("a", shift), ("b", -shift))
    ]
    expected, _ = closed_form(
        background, make_stream("mean", values, stream.operator, half), covariance
    )
    np.testing.assert_allclose(analyse(background, twice, covariance), expected, atol=1e-3)


def test_frames_do_not_influence_each_other():
    background, stream, covariance = problem("coarsen")
    analysis = analyse(background, [stream], covariance)
    values = np.where(stream.mask, stream.values, np.nan)
    alone = make_stream("first", values[:1], stream.operator, stream.covariance)
    np.testing.assert_allclose(
        analyse(background[:1], [alone], covariance), analysis[:1], atol=1e-3
    )


def test_without_streams_it_is_the_background():
    background, _, covariance = problem("points")
    assert optimal_interpolation(background, [], covariance) is background


@pytest.mark.slow
def test_ensemble_has_the_closed_form_mean_and_covariance():
    """And its members do not depend on how many there are, nor on the batches."""
    background, stream, covariance = problem("points")
    members = 2000
    ensemble = analyse_ensemble(
        jax.random.key(0), background, [stream], covariance, members=members, iterations=30
    )
    few = analyse_ensemble(
        jax.random.key(0), background, [stream], covariance, members=4, batch=2, iterations=30
    )
    np.testing.assert_allclose(few, ensemble[:4], atol=1e-3)
    mean, posterior = closed_form(background, stream, covariance)
    flat = np.asarray(ensemble, np.float64).reshape(members, -1) - mean.reshape(-1)
    std = np.sqrt(np.diag(posterior))
    # 96 correlated means and variances: 4.5 standard errors are passed by chance once in 1,000.
    assert np.abs(flat.mean(0) / std).max() < 4.5 / np.sqrt(members)
    assert np.abs(flat.var(0) / std**2 - 1).max() < 4.5 * np.sqrt(2 / members)
    correlation = (flat / std).T @ (flat / std) / members
    assert np.abs(correlation - posterior / np.outer(std, std)).max() < 5 / np.sqrt(members)


class Longwave:
    """A strongly nonlinear operator: emission of a mixture of the channels, W m-2."""

    def __call__(self, state):
        return 5.67e-8 * jnp.mean(state, axis=-1) ** 4


jax.tree_util.register_static(Longwave)


def iterate(background, stream, covariance, outers):
    """Costs, and lengths of their gradients, of the background and after outer iterations."""
    states = [background]
    states += [analyse(background, [stream], covariance, outer=outer) for outer in outers]
    found = [cost(x, background, [stream], covariance) for x in states]
    return [float(c) for c, _ in found], [float(jnp.linalg.norm(g)) for _, g in found]


@pytest.mark.slow
def test_outer_iterations_reduce_the_cost_of_a_nonlinear_operator():
    rng = np.random.default_rng(0)
    background = jnp.full(SHAPE, 250.0)
    values = np.asarray(Longwave()(background + 8.0)) + rng.standard_normal(SHAPE[:3])
    stream = make_stream("longwave", values, Longwave(), Diagonal(jnp.float32(1.0)))
    costs, slopes = iterate(background, stream, background_covariance(), (1, 4))
    assert costs[0] > 2 * costs[1]
    assert costs[1] > costs[2]
    assert slopes[2] < 0.02 * slopes[1]


class Overshooting:
    """An operator on which a whole Gauss-Newton step increases the cost."""

    def __call__(self, state):
        return jnp.arctan(4.0 * (state - 250.0))


jax.tree_util.register_static(Overshooting)


@pytest.mark.slow
def test_a_step_is_shortened_where_the_whole_of_it_overshoots():
    background = jnp.full(SHAPE, 252.0)
    stream = make_stream("bent", np.full(SHAPE, -1.4), Overshooting(), Diagonal(jnp.float32(1e-3)))
    costs, _ = iterate(background, stream, background_covariance(), (1, 6))
    assert costs[0] >= costs[1] > costs[2]


def test_errors():
    background, stream, covariance = problem("points")
    with pytest.raises(InputError, match="at least one iteration"):
        optimal_interpolation(background, [stream], covariance, iterations=0)
    with pytest.raises(InputError, match=r"frames of shape \(4, 6, 1\)"):
        optimal_interpolation(background[..., :1], [stream], covariance)
    latent = make_stream(
        "z", np.zeros(SHAPE), OPERATORS["coarsen"], Diagonal(jnp.ones(())), space="latent"
    )
    with pytest.raises(InputError, match="'z' is in latent space"):
        optimal_interpolation(background, [latent], covariance)
    with pytest.raises(InputError, match="members"):
        optimal_interpolation_ensemble(
            jax.random.key(0), background, [stream], covariance, members=0
        )


# --- a covariance that is not separable ---------------------------------------------------------


def uneven_errors(count, seed=0):
    """Waves whose channels are alike if long and opposite if short, of uneven amplitude."""
    rng = np.random.default_rng(seed)
    longitude = 2.0 * np.pi * np.arange(LON) / LON
    errors = np.zeros((count, LAT, LON, 2))
    for wavenumber, sign in ((1, 1.0), (2, -1.0)):
        wave = rng.standard_normal((count, LAT, 1, 2)) @ np.stack(
            [np.cos(wavenumber * longitude), np.sin(wavenumber * longitude)]
        )
        errors += np.stack([wave[:, :, 0], sign * wave[:, :, 0]], axis=-1)
    return errors * np.linspace(0.5, 2.0, LAT)[:, None, None] + 3.0


def test_errors_of_two_scales_keep_their_own_vertical_correlation():
    fitted = fit_background(uneven_errors(400), periodic=True)
    np.testing.assert_allclose(fitted.std[:, 0, 0], 2**0.5 * np.linspace(0.5, 2.0, LAT), rtol=0.1)
    white = jax.random.normal(jax.random.key(0), (2000, LAT, LON, 2))
    errors = fitted.sample_root(white)
    np.testing.assert_allclose(jnp.std(errors, axis=0), fitted.std, rtol=0.15)
    drawn = np.fft.rfft(errors, axis=2)
    for wavenumber, sign in ((1, 1.0), (2, -1.0)):
        a, b = np.moveaxis(drawn[:, :, wavenumber], -1, 0)
        coherence = np.mean(a * b.conj()).real / np.mean(np.abs(a) * np.abs(b))
        assert sign * coherence > 0.8
    doubled = fitted.inflated(jnp.float32(4.0)).sample_root(white)
    np.testing.assert_allclose(doubled, 2.0 * fitted.sample_root(white), rtol=1e-5)


@pytest.mark.slow
def test_an_analysis_with_it_equals_the_closed_form():
    background, stream, _ = problem("points")
    covariance = fit_background(uneven_errors(60), periodic=True)
    expected, _ = closed_form(background, stream, covariance)
    np.testing.assert_allclose(analyse(background, [stream], covariance), expected, atol=2e-3)


def test_the_better_covariance_is_chosen():
    """For errors that it describes, and observations of one channel alone."""
    errors = uneven_errors(200) - 3.0
    right, wrong = fit_background(errors[:150], periodic=True), background_covariance()
    truth = np.full((50, LAT, LON, 2), 280.0)
    values = np.where(np.arange(2) == 0, truth, np.nan)
    stream = make_stream("one", values, Stride(1), Diagonal(jnp.full((LAT, LON, 2), 0.01)))
    window = Window(truth, np.ones(2), (stream,), {BACKGROUND: errors[150:]})
    start = OptimalInterpolation(wrong, np.zeros((LAT, LON, 2)))
    found = tuned(start, window, truth, np.ones((LAT, LON)), covariances=(wrong, right))
    assert type(found.covariance) is type(right)
