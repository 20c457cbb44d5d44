import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import etkf, hybrid, variational
from slams_jax.cycling import Analyse, cycle_step
from slams_jax.dynamics import Lorenz63, lorenz63
from slams_jax.errors import InputError
from slams_jax.products import product

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
SIZE = 4
MODEL = 0.5 * RNG.standard_normal((SIZE, SIZE))
H = RNG.standard_normal((3, SIZE))
ERROR = np.array([0.5, 1.0, 0.8])
ROOT = np.tril(RNG.standard_normal((SIZE, SIZE))) + np.eye(SIZE)


def single(x):
    return jnp.asarray(x, jnp.float32)


def linear(matrix):
    return lambda x: product("ij,j->i", single(matrix), x)


def test_three_dimensional_is_the_dense_formula():
    background, y = np.arange(SIZE) - 1.0, np.array([1.0, -0.5, np.nan])
    analyse = variational(linear(H), single(ERROR), linear(ROOT))
    assert isinstance(analyse, Analyse)
    h, r = H[:2], np.diag(ERROR[:2] ** 2)  # the third is missing
    covariance = ROOT @ ROOT.T
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + r)
    expected = background + gain @ (y[:2] - h @ background)
    found = jax.jit(analyse)(single(background), single(y), KEY)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_four_dimensional_is_the_smoother_of_the_start_of_the_window():
    background, y = np.arange(SIZE) - 1.0, RNG.standard_normal(6)
    window = np.concatenate([H @ MODEL, H @ MODEL @ MODEL])
    variance = np.tile(ERROR, 2) ** 2
    precision = np.linalg.inv(ROOT @ ROOT.T) + window.T @ (window / variance[:, None])
    expected = background + np.linalg.solve(
        precision, window.T @ ((y - window @ background) / variance)
    )
    model, observe = linear(MODEL), linear(H)

    def predict(x):
        first = model(x)
        return jnp.concatenate([observe(first), observe(model(first))])

    analyse = variational(predict, single(np.tile(ERROR, 2)), linear(ROOT))
    np.testing.assert_allclose(analyse(single(background), single(y), KEY), expected, atol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_the_mean_of_the_hybrid_is_the_dense_formula_and_its_departures_are_the_filter_s(weight):
    y, distance = np.array([1.0, -0.5, np.nan]), np.abs(np.subtract.outer(range(SIZE), range(SIZE)))
    members = np.arange(SIZE) - 1.0 + RNG.standard_normal((6, SIZE))
    taper = np.exp(-distance)
    filter_ = etkf(linear(H), single(ERROR), inflation=1.1)
    localisation = linear(np.linalg.cholesky(taper))
    analyse = hybrid(filter_, linear(H), single(ERROR), linear(ROOT), localisation, weight=weight)
    h, r = H[:2], np.diag(ERROR[:2] ** 2)  # the third is missing
    covariance = (1 - weight) * ROOT @ ROOT.T + weight * taper * np.cov(members.T)
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + r)
    mean = members.mean(axis=0)
    found = np.asarray(jax.jit(analyse)(single(members), single(y), KEY))
    np.testing.assert_allclose(found.mean(axis=0), mean + gain @ (y[:2] - h @ mean), atol=1e-4)
    departures = np.asarray(filter_(single(members), single(y), KEY))
    departures = departures - departures.mean(axis=0)
    np.testing.assert_allclose(found - found.mean(axis=0), departures, atol=1e-5)


def test_the_cost_is_smallest_where_the_operator_is_not_linear():
    background, y = single(np.full(SIZE, 0.3)), single([4.0, 1.0, 2.0])
    bent = lambda x: linear(H)(x + 0.1 * x**2)
    found = variational(bent, single(ERROR), linear(ROOT), outer=12)(background, y, KEY)

    def cost(x):
        v = jnp.linalg.solve(single(ROOT), x - background)
        return 0.5 * jnp.sum(v**2) + 0.5 * jnp.sum(((y - bent(x)) / ERROR) ** 2)

    assert cost(found) < 0.8 * cost(background)
    np.testing.assert_allclose(jax.grad(cost)(found), 0.0, atol=5e-3)


def test_windows_that_grow_find_the_minimum_that_a_long_one_hides():
    """Of x alone, over four units of time: longer than errors take to grow to the climate's."""
    count, error = 16, 0.5
    follow = lambda x: lorenz63.trajectory(Lorenz63(), x, dt=0.01, substeps=25, length=count)[:, 0]
    start = jnp.array([1.0, 3.0, 20.0])
    truth = lorenz63.trajectory(Lorenz63(), start, dt=0.01, length=2000)[-1]
    y = follow(truth) + error * jax.random.normal(jax.random.key(1), (count,))
    background = truth + jnp.array([4.0, -4.0, 4.0])
    growing = np.arange(count)[None] < np.arange(2, count)[:, None]

    def misfit(windows, outer):
        analyse = variational(
            follow, jnp.full(count, error), lambda v: 6.0 * v, outer=outer, windows=windows
        )
        found = jax.jit(analyse)(background, y, KEY)
        return float(jnp.mean(jnp.square((y - follow(found)) / error)))

    assert misfit(growing, 4) < 1.5
    assert misfit(None, 4 + len(growing)) > 100.0


def test_the_score_of_three_dimensional_is_the_published_one():
    """DAPPER's set-up of Lorenz-63, B a tenth of the climate's: 1.04."""
    start, error = single([1.509, -1.531, 25.46]), 2**0.5
    model = lambda x: lorenz63.trajectory(Lorenz63(), x, dt=0.01, length=1, substeps=25)[0]
    climate = jax.jit(
        lambda x: lorenz63.trajectory(Lorenz63(), x, dt=0.01, length=10_000, substeps=25)
    )
    root = linear(np.linalg.cholesky(0.1 * np.cov(np.asarray(climate(start)).T)))
    analyse = variational(lambda x: x, jnp.full(3, error), root, outer=1)

    def run(key):
        key_start, key_error = jax.random.split(key)

        def advance(carry, key):
            truth, state = carry
            truth = model(truth)
            observed = truth + error * jax.random.normal(key, truth.shape)
            state = cycle_step(lambda x, _: model(x), analyse, state, observed, key).analysis
            return (truth, state), jnp.sqrt(jnp.mean((state - truth) ** 2))

        first = start + error * jax.random.normal(key_start, start.shape)
        keys = jax.random.split(key_error, 1300)
        return jnp.mean(jax.lax.scan(advance, (first, start), keys)[1][300:])

    found = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 8)))
    np.testing.assert_allclose(np.median(found), 1.04, rtol=0.05)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(error=jnp.zeros(3)), "must be positive standard deviations"),
        (dict(error=jnp.ones(3), outer=0), "at least one iteration, got iterations=50, outer=0"),
    ],
)
def test_bad_input(how, message):
    with pytest.raises(InputError, match=message):
        variational(linear(H), root=linear(ROOT), **how)
    with pytest.raises(InputError, match=message):
        hybrid(lambda *_: None, linear(H), root=linear(ROOT), localisation=lambda v: v, **how)


def test_a_weight_is_a_share():
    with pytest.raises(InputError, match=r"must lie in \[0, 1\], got 1.5"):
        hybrid(lambda *_: None, linear(H), jnp.ones(3), linear(ROOT), lambda v: v, weight=1.5)


def test_windows_are_of_the_observations():
    with pytest.raises(InputError, match=r"windows must be \(window, 3 observations\), got"):
        variational(linear(H), single(ERROR), linear(ROOT), windows=np.ones((2, 4), bool))
