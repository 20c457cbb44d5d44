"""The particle filter against the Kalman smoother, in standard errors over independent filters."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import (
    WeightedEnsemble,
    backward_simulation,
    kalman_smoother,
    particle_filter,
    regularised_filter,
    systematic_resampling,
)
from slams_jax.cycling import cycle_step
from slams_jax.dynamics import lorenz63
from slams_jax.dynamics.lorenz63 import Lorenz63
from slams_jax.errors import InputError
from support.twin_experiment import median_rmse

TIMES, SIZE = 5, 2
PARTICLES, FILTERS = 2048, 64
TRANSITION = np.array([[0.9, 0.3], [-0.3, 0.8]])
PROCESS, ERROR = 0.3, 0.6  # variances


def single(array):
    return jnp.asarray(array, jnp.float32)


@pytest.fixture(scope="module")
def values():
    """One variable is seen at most times, the other never."""
    y = np.random.default_rng(3).standard_normal((TIMES, 1)) * 1.2
    y[1] = np.nan
    return y


@pytest.fixture(scope="module")
def exact(values):
    operator = np.broadcast_to(np.array([[1.0, 0.0]]), (TIMES, 1, SIZE))
    return kalman_smoother(
        single(values),
        single(operator),
        single([[ERROR]]),
        transition=single(TRANSITION),
        process_covariance=PROCESS * jnp.eye(SIZE),
        mean=jnp.zeros(SIZE),
        covariance=jnp.eye(SIZE),
    )


def log_likelihood(states, y):
    misfit = jnp.where(jnp.isfinite(y)[None], y[None] - states[:, :1], 0.0)
    return -0.5 * jnp.sum(misfit**2, axis=1) / ERROR


def one_filter(key, values, share, particles=PARTICLES):
    key_first, key_filter = jax.random.split(key)

    def advance(key, states):
        noise = jnp.sqrt(PROCESS) * jax.random.normal(key, states.shape)
        return states @ single(TRANSITION).T + noise

    first = jax.random.normal(key_first, (particles, SIZE))
    return particle_filter(
        key_filter, first, advance, log_likelihood, single(values), resample_below=share
    )


def log_transition(states, later):
    ahead = states @ single(TRANSITION).T
    return -0.5 / PROCESS * jnp.sum((later[:, None] - ahead[None]) ** 2, axis=-1)


def filters(values, share):
    """Of each filter mean and second moments (time, state), effective and evidence."""

    def moments(key):
        found = one_filter(key, values, share)
        mean = jnp.einsum("p,pts->ts", found.weights, found.trajectories)
        square = jnp.einsum("p,pts,ptr->tsr", found.weights, found.trajectories, found.trajectories)
        return mean, square, found.effective, found.log_evidence

    keys = jax.random.split(jax.random.key(1), FILTERS)
    found = jax.jit(lambda keys: jax.lax.map(moments, keys))(keys)
    return tuple(np.asarray(a, np.float64) for a in found)


def apart(found, expected):
    """Greatest distance of the mean over the filters, in its standard errors."""
    error = found.std(axis=0, ddof=1) / np.sqrt(FILTERS)
    return np.max(np.abs(found.mean(axis=0) - expected) / error)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_it_is_the_kalman_smoother(values, exact, share):
    """At the last time the filter, at all others the smoother: the same ensemble."""
    mean, square, effective, _ = filters(values, share)
    assert apart(mean, np.asarray(exact.mean)) < 4
    second = exact.covariance + exact.mean[:, :, None] * exact.mean[:, None, :]
    assert apart(square, np.asarray(second)) < 4
    # The standard error is small enough to find a wrong weight or ancestor.
    assert mean.std(axis=0).max() / np.sqrt(FILTERS) < 0.02
    assert np.all((effective > 20) & (effective <= PARTICLES * 1.001))


@pytest.mark.slow
def test_backward_simulation_is_the_kalman_smoother(values, exact):
    """Draws of each filter; their number fills neither the batches nor the groups of particles."""

    def moments(key):
        key_filter, key_back = jax.random.split(key)
        found = one_filter(key_filter, values, 0.5, particles=1000)
        draws = backward_simulation(key_back, found, log_transition, 200, batch=128)
        flat = draws.reshape(len(draws), -1)
        return draws.mean(axis=0), flat.T @ flat / len(flat)

    keys = jax.random.split(jax.random.key(2), FILTERS)
    mean, square = jax.jit(lambda keys: jax.lax.map(moments, keys))(keys)
    assert apart(np.asarray(mean, np.float64), np.asarray(exact.mean)) < 4
    # Of states at two times too, which a wrong transition density would leave unrelated.
    flat = np.asarray(exact.mean, np.float64).ravel()
    second = exact.joint_covariance() + np.outer(flat, flat)
    assert apart(np.asarray(square, np.float64), second) < 4
    assert np.asarray(square).std(axis=0).max() / np.sqrt(FILTERS) < 0.06


@pytest.mark.slow
def test_early_states_of_backward_simulation_are_different(values):
    found = jax.jit(one_filter, static_argnums=2)(jax.random.key(0), values, 1.0)
    draws = backward_simulation(jax.random.key(1), found, log_transition, 300)
    assert draws.shape == (300, TIMES, SIZE)
    assert len(np.unique(np.asarray(draws[:, 0, 0]))) > 200


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_evidence_is_unbiased(values, share):
    """E[p(y)] of the filter is p(y), that of a Gaussian vector (Del Moral 2004, ch. 7)."""
    covariance = [np.eye(SIZE)]
    for _ in range(TIMES - 1):
        covariance.append(TRANSITION @ covariance[-1] @ TRANSITION.T + PROCESS * np.eye(SIZE))
    lagged = lambda j, k: np.linalg.matrix_power(TRANSITION, j - k) @ covariance[k]
    joint = np.array(
        [[lagged(max(j, k), min(j, k))[0, 0] for k in range(TIMES)] for j in range(TIMES)]
    )
    seen = np.isfinite(values[:, 0])
    y = values[seen, 0]
    joint = joint[np.ix_(seen, seen)] + ERROR * np.eye(seen.sum())
    expected = -0.5 * (y @ np.linalg.solve(joint, y) + np.linalg.slogdet(joint)[1])
    expected += 0.5 * seen.sum() * np.log(ERROR)  # the constant that the likelihood leaves out
    evidence = np.exp(filters(values, share)[3])
    assert apart(evidence, np.exp(expected)) < 4
    assert evidence.std() / evidence.mean() / np.sqrt(FILTERS) < 0.02


@pytest.mark.slow
def test_fewer_ancestors_are_left_by_resampling(values):
    key = jax.random.key(0)
    run = jax.jit(one_filter, static_argnums=2)
    never, always = run(key, values, 0.0), run(key, values, 1.0)
    assert int(never.ancestors) == PARTICLES
    assert 50 < int(always.ancestors) < 0.7 * PARTICLES
    roots = np.unique(np.asarray(always.trajectories[:, 0]), axis=0)
    assert len(roots) == int(always.ancestors)
    np.testing.assert_allclose(np.sum(np.asarray(always.weights)), 1.0, rtol=1e-4)


@pytest.mark.slow
def test_draws_follow_the_weights(values):
    found = jax.jit(one_filter, static_argnums=2)(jax.random.key(0), values, 0.5)
    draws = np.asarray(found.draw(jax.random.key(1), 4000), np.float64)
    mean = np.einsum("p,pts->ts", found.weights, found.trajectories)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.max(np.abs(draws.mean(axis=0) - mean) / error) < 4


def test_systematic_resampling():
    """Each index n w_i times, rounded up or down, and n w_i on average."""
    weights = single([0.03, 0.4, 0.0, 0.27, 0.3])
    keys = jax.random.split(jax.random.key(0), 4000)
    index = np.asarray(jax.vmap(lambda key: systematic_resampling(key, weights))(keys))
    counts = np.stack([np.bincount(row, minlength=5) for row in index])
    expected = 5 * np.asarray(weights, np.float64)
    assert np.all(np.abs(counts - expected) < 1)
    error = counts.std(axis=0) / np.sqrt(len(counts)) + 1e-6
    assert np.max(np.abs(counts.mean(axis=0) - expected) / error) < 4


def test_many_particles_of_even_weight_are_all_kept():
    """Single precision has just enough digits for as many as the reference takes."""
    count = 65536
    even = jnp.full((count,), 1.0 / count)
    index = np.asarray(systematic_resampling(jax.random.key(0), even))
    assert np.mean(np.bincount(index, minlength=count) == 1) > 0.99


def test_errors(values):
    plain = inspect.unwrap(particle_filter)
    key, first = jax.random.key(0), jnp.zeros((4, 2))
    same = lambda key, states: states
    with pytest.raises(InputError, match=r"must lie in \[0, 1\], got 1.5"):
        plain(key, first, same, log_likelihood, single(values), resample_below=1.5)
    with pytest.raises(InputError, match=r"at least one time, got \[0\]"):
        plain(key, first, same, log_likelihood, jnp.zeros((0, 1)))
    with pytest.raises(InputError, match=r"a leading axis of at least one time, got \[2, 3\]"):
        plain(key, first, same, log_likelihood, (jnp.zeros((2, 1)), jnp.zeros((3, 1))))
    with pytest.raises(InputError, match="count and batch must be positive, got 0 and 128"):
        inspect.unwrap(backward_simulation)(key, None, log_transition, 0)


# --- regularised -------------------------------------------------------------------------------


def gaussian_likelihood(states, y):
    return -0.5 * jnp.sum(jnp.where(jnp.isfinite(y)[None], y[None] - states, 0.0) ** 2, axis=1)


def test_a_regularised_analysis_is_the_posterior():
    """Of a Gaussian, widened by the bandwidth once it is resampled."""
    prior = 1.5 * jax.random.normal(jax.random.key(0), (4096, 2))
    y = jnp.array([1.2, jnp.nan])
    exact = 1.0 / (1.0 / 1.5**2 + 1.0)
    background = WeightedEnsemble.of(prior)
    run = lambda share, factor: jax.jit(
        regularised_filter(gaussian_likelihood, regularisation=factor, resample_below=share)
    )(background, y, jax.random.key(1))
    weighted, resampled, wide = run(0.0, 1.0), run(1.0, 0.0), run(1.0, 1.0)
    assert np.array_equal(weighted.states, prior)
    for found in (weighted, resampled, wide):
        np.testing.assert_allclose(found.mean(), [exact * 1.2, 0.0], atol=0.08)
    assert np.ptp(resampled.log_weights) == 0.0
    np.testing.assert_allclose(np.var(resampled.states, axis=0), [exact, 1.5**2], rtol=0.1)
    bandwidth = 4096 ** (-1 / 6)
    ratio = np.var(wide.states, axis=0) / np.var(resampled.states, axis=0)
    np.testing.assert_allclose(ratio, 1.0 + bandwidth**2, rtol=0.05)
    assert len(np.unique(wide.states[:, 0])) > 4000 > len(np.unique(resampled.states[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("particles", "regularisation", "share", "score"),
    [(100, 2.4, 0.3, 0.38), (800, 0.9, 0.2, 0.28)],
)
def test_scores_of_the_regularised_filter_are_the_published_ones(
    particles, regularisation, share, score
):
    """DAPPER's set-up of Lorenz-63, one run there; the median of 8 runs over 1,000 cycles here."""
    start, error = [1.509, -1.531, 25.46], 2**0.5
    model = lambda x: lorenz63.trajectory(Lorenz63(), x, dt=0.01, length=1, substeps=25)[0]
    filtering = regularised_filter(
        lambda x, y: gaussian_likelihood(x / error, y / error),
        regularisation=regularisation,
        resample_below=share,
    )
    forecast = lambda p, _: p._replace(states=model(p.states))
    found = median_rmse(
        model,
        start,
        error,
        error,
        particles,
        lambda x, y, key: cycle_step(forecast, filtering, x, y, key).analysis,
        begin=WeightedEnsemble.of,
        mean=WeightedEnsemble.mean,
    )
    np.testing.assert_allclose(found, score, rtol=0.1)


def test_bad_regularisation():
    with pytest.raises(InputError, match="regularisation must not be negative, got -1"):
        regularised_filter(gaussian_likelihood, regularisation=-1.0)
    with pytest.raises(InputError, match="resample_below must lie in"):
        regularised_filter(gaussian_likelihood, resample_below=2.0)
