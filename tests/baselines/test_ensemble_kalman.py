"""Ensemble Kalman filters against the Kalman filter, and against published scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from slams_jax.baselines import etkf, gaspari_cohn, iterative_enkf, letkf, stochastic_enkf
from slams_jax.baselines.ensemble_kalman import _finite_size
from slams_jax.cycling import Analyse, cycle, cycle_step
from slams_jax.dynamics import Lorenz63, Lorenz96, lorenz63, lorenz96
from slams_jax.errors import InputError
from slams_jax.products import product
from support.twin_experiment import median_rmse

H = np.array([[1.0, 0.5, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, -1], [0, 0, 0, 0, 2]])
ERROR = np.array([0.5, 1.0, 0.8, 1.5])
Y = np.array([1.0, -0.5, np.nan, 2.0])
KEY = jax.random.key(7)
SINGLE = {"H": jnp.asarray(H, jnp.float32), "error": jnp.asarray(ERROR, jnp.float32)}


def operator(x):
    return SINGLE["H"] @ x


def ensemble(members, seed=0):
    rng = np.random.default_rng(seed)
    root = np.tril(rng.standard_normal((5, 5))) + np.eye(5)
    return rng.standard_normal((members, 5)) @ root.T + np.arange(5.0)


def kalman(background):
    """Mean and covariance given the values that are not missing, in double precision."""
    seen = np.isfinite(Y)
    h, r = H[seen], np.diag(ERROR[seen] ** 2)
    mean, b = background.mean(axis=0), np.cov(background, rowvar=False)
    gain = b @ h.T @ np.linalg.inv(h @ b @ h.T + r)
    return mean + gain @ (Y[seen] - h @ mean), b - gain @ h @ b


def single(array):
    return jnp.asarray(array, jnp.float32)


FILTERS = {
    "etkf": lambda **how: etkf(operator, SINGLE["error"], **how),
    "letkf": lambda **how: letkf(operator, SINGLE["error"], jnp.ones((5, 4)), **how),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("rotate", [False, True])
def test_mean_and_covariance_are_those_of_kalman(name, rotate):
    background = ensemble(30)
    analysis = np.asarray(FILTERS[name](rotate=rotate)(single(background), single(Y), KEY), float)
    mean, covariance = kalman(background)
    np.testing.assert_allclose(analysis.mean(axis=0), mean, atol=2e-4)
    np.testing.assert_allclose(np.cov(analysis, rowvar=False), covariance, atol=5e-4)


def test_rotation_changes_members_and_inflation_widens_them():
    background = single(ensemble(30))
    plain = FILTERS["etkf"](rotate=False)(background, single(Y), KEY)
    rotated = FILTERS["etkf"](rotate=True)(background, single(Y), KEY)
    assert np.abs(rotated - plain).max() > 0.1
    wide = FILTERS["etkf"](rotate=False, inflation=1.5)(background, single(Y), KEY)
    mean = plain.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(wide, mean + 1.5 * (plain - mean), atol=1e-4)


def test_perturbed_observations_are_right_on_average():
    background = ensemble(4000)
    found = stochastic_enkf(operator, SINGLE["error"])(single(background), single(Y), KEY)
    analysis = np.asarray(found, float)
    mean, covariance = kalman(background)
    np.testing.assert_allclose(analysis.mean(axis=0), mean, atol=2e-3)  # exact: noise without mean
    size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    error = np.abs(np.cov(analysis, rowvar=False) - covariance) / size
    assert error.max() < 5 * np.sqrt(2 / 4000)


def test_values_see_the_observations_that_are_near():
    """With factors of one or zero, each value has the filter of the observations it sees."""
    background = single(ensemble(30))
    near = np.zeros((5, 4))
    near[:2, :2] = near[2:, 3] = 1.0
    options = dict(rotate=False)
    local = letkf(operator, SINGLE["error"], single(near), **options)
    found = local(background, single(Y), KEY)
    for values, seen in ((slice(0, 2), [0, 1]), (slice(2, 5), [3])):
        some = np.full(4, np.nan)
        some[seen] = Y[seen]
        expected = FILTERS["etkf"](**options)(background, single(some), KEY)
        np.testing.assert_allclose(found[:, values], expected[:, values], atol=1e-4)


def test_far_observations_count_less():
    background = single(ensemble(30))
    spread = []
    for near in (1.0, 0.5, 0.1, 0.0):
        local = letkf(operator, SINGLE["error"], jnp.full((5, 4), near), rotate=False)
        spread.append(float(np.var(local(background, single(Y), KEY), axis=0).sum()))
    assert np.all(np.diff(spread) > 0)
    np.testing.assert_allclose(spread[-1], np.var(background, axis=0).sum(), rtol=1e-4)
    # A quarter of the precision is twice the error.
    local = letkf(operator, SINGLE["error"], jnp.full((5, 4), 0.25), rotate=False)
    doubled = etkf(operator, 2.0 * SINGLE["error"], rotate=False)
    found, expected = (f(background, single(Y), KEY) for f in (local, doubled))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_iterative_filter_is_the_square_root_filter_where_all_is_linear():
    background = single(ensemble(6))
    expected = etkf(operator, SINGLE["error"], inflation=1.1)(background, single(Y), KEY)
    for iterations in (1, 5):
        found = iterative_enkf(operator, SINGLE["error"], inflation=1.1, iterations=iterations)
        np.testing.assert_allclose(found(background, single(Y), KEY), expected, atol=1e-4)


def test_the_iterative_filter_ends_at_the_smallest_cost():
    background, seen = single(ensemble(8)), np.isfinite(Y)
    bent = lambda x: operator(x + 0.1 * x**2)
    analysis = iterative_enkf(bent, SINGLE["error"], tolerance=0.0, iterations=30)
    found = jnp.mean(analysis(background, single(Y), KEY), axis=0)
    mean = jnp.mean(background, axis=0)
    departures = background - mean[None]

    def cost(weights):
        misfit = (Y - bent(mean + product("m,mv->v", weights, departures))) / ERROR
        return 3.5 * jnp.sum(weights**2) + 0.5 * jnp.sum(jnp.where(seen, misfit, 0.0) ** 2)

    weights = jnp.linalg.lstsq(departures.T, found - mean)[0]
    start = jax.grad(cost)(jnp.zeros(8))
    # Secants of the ensemble, not tangents, take it there: nearly, not exactly.
    assert jnp.linalg.norm(jax.grad(cost)(weights)) < 0.05 * jnp.linalg.norm(start)


def test_adaptive_inflation_is_that_of_the_smallest_dual_cost():
    variances, told = np.array([4.0, 1.0, 0.25, 0.0]), np.array([6.0, 3.0, 0.5, 0.0])
    factor = float(_finite_size(single(variances), single(told)))
    left = np.mean(3.0 / (variances + 3.0))
    correction = (5 / 4 / (4 / 3)) ** (0.5 * left)

    def cost(scale):
        misfit = np.sum((told[:3] ** 2 / variances[:3]) / (scale**2 * variances[:3] + 3.0))
        return misfit + 1.25 / correction / scale**2 + 4 / 3 * correction * np.log(scale**2)

    found = scipy.optimize.minimize_scalar(cost, bounds=(0.3, 10.0), method="bounded")
    assert found.x > 1.5  # more than the spread explains
    np.testing.assert_allclose(factor, found.x, rtol=1e-3)
    none = _finite_size(jnp.zeros(4), jnp.zeros(4))
    np.testing.assert_allclose(none, 1.0, rtol=1e-3)


def test_adaptive_inflation_answers_to_observations_that_are_far_off():
    background = single(ensemble(6))
    adaptive = etkf(operator, SINGLE["error"], inflation="adaptive")
    spread = lambda y: np.std(adaptive(background, single(y), KEY), axis=0).mean()
    assert spread(Y + 20.0) > 1.5 * spread(np.asarray(operator(jnp.mean(background, axis=0))))


def test_many_precise_observations_that_are_far_off_leave_the_analysis_finite():
    repeated = lambda x: jnp.tile(operator(x), 20_000)
    adaptive = etkf(repeated, jnp.tile(0.01 * SINGLE["error"], 20_000), inflation="adaptive")
    found = adaptive(single(ensemble(6)), jnp.tile(single(Y + 500.0), 20_000), KEY)
    assert np.isfinite(found).all()


def test_the_taper_is_that_of_gaspari_and_cohn():
    distance = np.linspace(0.0, 12.0, 121)
    taper = gaspari_cohn(distance, 10.0)
    assert taper[0] == 1.0
    assert np.all(taper[100:] == 0.0)
    np.testing.assert_allclose(taper[50], 5 / 24)  # both pieces meet
    assert np.all(np.diff(taper[:101]) < 0)
    ring = np.minimum(np.arange(40), 40 - np.arange(40))
    assert np.fft.fft(gaspari_cohn(ring, 10.0)).real.min() > -1e-9  # a correlation function


@pytest.mark.slow
def test_they_take_a_place_in_a_cycle():
    filtering = etkf(lambda x: x, jnp.ones(40))
    assert isinstance(filtering, Analyse)
    start = 8.0 + jax.random.normal(KEY, (10, 40))
    forecast = lambda x, key: lorenz96.step(Lorenz96(), x, 0.05)
    observed = [jnp.full(40, 8.0), jnp.full(40, jnp.nan)]
    first, second = cycle(forecast, filtering, start, observed, KEY)
    assert np.std(first.analysis, axis=0).max() < np.std(first.background, axis=0).max()
    # Nothing observed: the same mean and spread, members rotated.
    np.testing.assert_allclose(
        np.mean(second.analysis, axis=0), np.mean(second.background, axis=0), atol=1e-4
    )
    np.testing.assert_allclose(
        np.std(second.analysis, axis=0), np.std(second.background, axis=0), rtol=1e-3
    )


def lorenz_63(x):
    return lorenz63.trajectory(Lorenz63(), x, dt=0.01, length=1, substeps=25)[0]


def lorenz_96(x):
    return lorenz96.step(Lorenz96(), x, 0.05)


DISTANCE = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
# Sakov & Oke (2008) and Sakov, Oliver & Bertino (2012), as DAPPER sets them up: everything is
# observed, with errors of variance 1 and 2. The model, a start, its spread and the errors.
RING = (lorenz_96, (np.r_[8.01, np.full(39, 8.0)], 0.03, 1.0))
BUTTERFLY = (lorenz_63, (np.array([1.509, -1.531, 25.46]), 2**0.5, 2**0.5))
# Members, filter, and DAPPER's score, that of one run.
PUBLISHED = {
    "ring, stochastic, 40": (
        *RING,
        40,
        stochastic_enkf(lambda x: x, jnp.ones(40), inflation=1.06),
        0.22,
    ),
    "ring, square root, 24": (
        *RING,
        24,
        etkf(lambda x: x, jnp.ones(40), inflation=1.013),
        0.18,
    ),
    "ring, local, 7": (
        *RING,
        7,
        letkf(
            lambda x: x,
            jnp.ones(40),
            # DAPPER's radius of 4 is that of a Gaussian's inflection.
            single(gaspari_cohn(np.minimum(DISTANCE, 40 - DISTANCE), 2 * 1.82 * 4)),
            inflation=1.04,
        ),
        0.22,
    ),
    "butterfly, stochastic, 100": (
        *BUTTERFLY,
        100,
        stochastic_enkf(lambda x: x, jnp.full(3, 2**0.5), inflation=1.01),
        0.56,
    ),
    "butterfly, square root, 10": (
        *BUTTERFLY,
        10,
        etkf(lambda x: x, jnp.full(3, 2**0.5), inflation=1.02),
        0.60,
    ),
    # The finite-size filter: no inflation is tuned.
    "butterfly, adaptive, 10": (
        *BUTTERFLY,
        10,
        etkf(lambda x: x, jnp.full(3, 2**0.5), inflation="adaptive"),
        0.54,
    ),
    "butterfly, adaptive, 3": (
        *BUTTERFLY,
        3,
        etkf(lambda x: x, jnp.full(3, 2**0.5), inflation="adaptive", rotate=False),
        0.60,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_scores_are_the_published_ones(name):
    model, (start, spread, error), members, filtering, score = PUBLISHED[name]
    forecast = lambda x, _: model(x)
    analyse = lambda x, y, key: cycle_step(forecast, filtering, x, y, key).analysis
    found = median_rmse(model, start, spread, error, members, analyse)
    # That of one run has itself an error of some 5 %.
    np.testing.assert_allclose(found, score, rtol=0.1)


@pytest.mark.slow
def test_the_score_of_the_iterative_smoother_is_the_published_one():
    """DAPPER's set-up of Lorenz-63, lag 1, 10 members: 0.31, of forecasts of the analyses."""
    model, twin = BUTTERFLY
    smooth = iterative_enkf(model, jnp.full(3, 2**0.5), inflation=1.02)
    analyse = lambda x, y, key: jax.vmap(model)(smooth(x, y, key))
    np.testing.assert_allclose(median_rmse(model, *twin, 10, analyse), 0.31, rtol=0.05)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(error=jnp.zeros(4)), "must be positive standard deviations"),
        (dict(error=jnp.ones(4), inflation=0.0), "inflation must be positive, got 0.0"),
    ],
)
def test_bad_input(how, message):
    for make in (etkf, iterative_enkf, stochastic_enkf):
        with pytest.raises(InputError, match=message):
            make(operator, **how)
    with pytest.raises(InputError, match=message):
        letkf(operator, nearness=jnp.ones((5, 4)), **how)
    with pytest.raises(InputError, match="must be positive, got 'none'"):
        etkf(operator, jnp.ones(4), inflation="none")
    with pytest.raises(InputError, match="at least one iteration"):
        iterative_enkf(operator, jnp.ones(4), iterations=0)
    with pytest.raises(InputError, match="radius"):
        gaspari_cohn(np.zeros(3), 0.0)


def test_the_values_of_a_place_share_its_analysis():
    members = single(ensemble(30))
    wide = jnp.concatenate([members, members[:, ::-1] ** 2], axis=1).reshape(30, 5, 2)
    near = np.random.default_rng(2).uniform(size=(5, 4))
    seen = lambda x: operator(x.reshape(-1)[:5])
    key = jax.random.key(4)
    found = letkf(seen, SINGLE["error"], single(near))(wide, single(Y), key)
    each = letkf(seen, SINGLE["error"], single(np.repeat(near, 2, axis=0)))
    np.testing.assert_allclose(found, each(wide, single(Y), key), atol=1e-4)
    with pytest.raises(
        InputError, match=r"nearness has 4 rows, and the state of a member the shape \(5, 2\)"
    ):
        letkf(seen, SINGLE["error"], single(near[:4]))(wide, single(Y), key)
