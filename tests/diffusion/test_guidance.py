import inspect
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import cg

from slams_jax.diffusion import CosineSchedule, SamplerConfig, guide
from slams_jax.diffusion.guidance import Rule
from slams_jax.errors import InputError
from slams_jax.observe import Diagonal, make_stream, whitened_innovations
from slams_jax.observe.streams import identity_decode
from support import gaussian

SCHEDULE = CosineSchedule()
PRIOR, OPERATOR, VARIANCE, Y = gaussian.make_problem()
DENOISER = gaussian.exact_denoiser(PRIOR, SCHEDULE)
DIM = len(PRIOR)
TIMES = [0.0, 0.01, 0.1, 0.4, 0.7, 0.95, 1.0]


def single(array):
    return jnp.asarray(array, jnp.float32)


def innovations(x, extra):
    return (single(Y) - single(OPERATOR) @ x) / jnp.sqrt(single(VARIANCE) + extra)


def noisy(t, seed=0):
    """A draw of x_t under the prior."""
    rng = np.random.default_rng(seed)
    x_0 = np.linalg.cholesky(PRIOR) @ rng.standard_normal(DIM)
    a, s = float(SCHEDULE.alpha(single(t))), float(SCHEDULE.sigma(single(t)))
    return a, s, a * x_0 + s * rng.standard_normal(DIM)


def exact_mean(t, x_t):
    """E[x_0 | x_t, y], by adding precisions in double precision."""
    a, s, _ = noisy(t)
    weighted = OPERATOR.T / VARIANCE
    total = np.linalg.inv(PRIOR) + weighted @ OPERATOR + a**2 / s**2 * np.eye(DIM)
    return np.linalg.solve(total, weighted @ Y + a / s**2 * x_t)


def test_without_observations_it_is_the_prior_itself():
    for rule in get_args(Rule):
        assert guide(DENOISER, None, SCHEDULE, rule=rule, covariance=exact_covariance) is DENOISER


def exact_covariance(v, ratio):
    """(P^-1 + 1 / ratio)^-1 v."""
    values, vectors = np.linalg.eigh(PRIOR)
    values, vectors = single(values), single(vectors)
    return vectors @ (values * ratio / (values + ratio) * (vectors.T @ v))


@pytest.mark.slow
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize(
    ("rule", "covariance"),
    [
        ("mmps", None),
        ("mmps", exact_covariance),
        ("gaussian", exact_covariance),
        ("exact", exact_covariance),
    ],
)
def test_with_the_covariance_of_the_prior_the_mean_is_exact(rule, covariance, t):
    """Five observations: the conjugate gradients end after five iterations."""
    guided = guide(DENOISER, innovations, SCHEDULE, rule=rule, iterations=5, covariance=covariance)
    _, _, x_t = noisy(t)
    found = jax.jit(guided)(single(x_t), single(t))
    np.testing.assert_allclose(found, exact_mean(t, x_t), atol=1e-3)


def test_mmps_converges_with_iterations():
    errors = []
    _, _, x_t = noisy(0.4)
    for iterations in (1, 2, 3, 4):
        guided = guide(DENOISER, innovations, SCHEDULE, rule="mmps", iterations=iterations)
        found = jax.jit(guided)(single(x_t), single(0.4))
        errors.append(np.abs(found - exact_mean(0.4, x_t)).max())
    assert np.all(np.diff(errors) < 0)
    assert errors[0] > 0.1


def test_iterations_stop_at_the_tolerance():
    """No further than is asked for: what fewer iterations give, to the bit."""
    _, _, x_t = noisy(0.4)

    def found(iterations, tolerance):
        options = dict(rule="gaussian", iterations=iterations, tolerance=tolerance)
        guided = guide(DENOISER, innovations, SCHEDULE, covariance=exact_covariance, **options)
        return np.asarray(jax.jit(guided)(single(x_t), single(0.4)))

    stages = [found(i, 0.0) for i in (1, 2, 3, 4, 5)]
    steps = [np.abs(stages[i + 1] - stages[i]).max() for i in range(3)]
    assert min(steps) > 1e-3  # so that stages can be told apart
    loose = found(5, 0.5)
    assert min(np.abs(loose - stage).max() for stage in stages[:4]) < 1e-5
    np.testing.assert_allclose(found(5, 1e-6), stages[4], atol=1e-5)


@pytest.mark.parametrize("rule", ["gaussian", "mmps"])
def test_the_residual_is_what_conjugate_gradients_leave(rule):
    """Those of SciPy, in double precision, on the same equations."""
    t = 0.4
    a, s, x_t = noisy(t)
    innovation = np.asarray(innovations(DENOISER(single(x_t), single(t)), 0.0), float)
    whitened = OPERATOR / np.sqrt(VARIANCE)[:, None]
    covariance = np.linalg.inv(np.linalg.inv(PRIOR) + a**2 / s**2 * np.eye(DIM))
    if rule == "gaussian":
        matrix = np.linalg.inv(covariance) + whitened.T @ whitened
        right, norm = whitened.T @ innovation, covariance
    else:
        matrix = np.eye(len(Y)) + whitened @ covariance @ whitened.T
        right, norm = innovation, np.eye(len(Y))
    left = []
    for iterations in (1, 2, 3):
        options = dict(rule=rule, covariance=exact_covariance, iterations=iterations)
        guided = guide(DENOISER, innovations, SCHEDULE, **options)
        *_, residual = jax.jit(guided.estimate)(single(x_t), single(t))
        solution, _ = cg(matrix, right, maxiter=iterations, rtol=0.0, M=norm)
        rest = right - matrix @ solution
        expected = np.sqrt(rest @ norm @ rest / (right @ norm @ right))
        np.testing.assert_allclose(residual, expected, rtol=0.02)
        left.append(expected)
    assert left[0] > 2 * left[2] > 1e-3  # something to tell, and different things


def test_each_iteration_comes_closer_to_the_minimum():
    """With a thousand times more accurate observations, where those of the dual equations stray."""
    sharp = lambda x, extra: 30.0 * innovations(x, extra)
    _, _, x_t = noisy(0.9)
    error = {}
    for iterations in (1, 2, 3, 4, 20):
        options = dict(rule="gaussian", covariance=exact_covariance, iterations=iterations)
        guided = guide(DENOISER, sharp, SCHEDULE, **options)
        error[iterations] = np.asarray(jax.jit(guided)(single(x_t), single(0.9)), float)
    prior = np.asarray(DENOISER(single(x_t), single(0.9)), float)
    distance = lambda x: np.linalg.norm(x - error[20])
    found = [distance(prior), *(distance(error[i]) for i in (1, 2, 3, 4))]
    assert np.all(np.diff(found) < 0), found


def bent(x, extra):
    """Innovations of an operator that is not linear."""
    return (single(Y) - jnp.sinh(single(OPERATOR) @ x)) / jnp.sqrt(single(VARIANCE) + extra)


@pytest.mark.slow
@pytest.mark.parametrize("tangent", [None, "rough"])
def test_outer_loops_end_where_the_innovations_agree(tangent):
    """x_0 + C A^T r(x_0 + d) is x_0 + d for a bent operator, with a rough tangent too."""
    t, (a, s, x_t) = 0.4, noisy(0.4)
    x_0, rough = DENOISER(single(x_t), single(t)), single(OPERATOR) * 1.1

    def near(about):
        at = bent(about, 0.0)
        return lambda x, extra: at - rough @ (x - about) / jnp.sqrt(single(VARIANCE) + extra)

    def left(outer):
        guided = guide(
            DENOISER,
            bent,
            SCHEDULE,
            rule="gaussian",
            iterations=8,
            outer=outer,
            covariance=exact_covariance,
            tangent=near if tangent else None,
        )
        d = jax.jit(guided)(single(x_t), single(t)) - x_0
        slope = jax.jacobian(lambda x: (near(x_0) if tangent else bent)(x, 0.0))(x_0)
        again = exact_covariance(-slope.T @ bent(x_0 + d, 0.0), (s / a) ** 2)
        return float(jnp.max(jnp.abs(again - d)) / jnp.max(jnp.abs(d)))

    assert left(1) > 0.05
    assert left(6) < 0.2 * left(1)


def test_the_tangent_is_what_is_linearised():
    """One loop with a linear tangent is the analysis of the tangent."""
    _, _, x_t = noisy(0.4)
    other = lambda about: innovations
    options = dict(rule="gaussian", iterations=5, covariance=exact_covariance)
    found = guide(DENOISER, bent, SCHEDULE, tangent=other, **options)(single(x_t), single(0.4))
    np.testing.assert_allclose(found, exact_mean(0.4, x_t), atol=1e-3)


def test_mmps_iterations_beyond_convergence_do_no_harm():
    """There the squared residual is zero, and so would be every denominator."""
    _, _, x_t = noisy(0.4)
    guided = guide(DENOISER, innovations, SCHEDULE, rule="mmps", iterations=40)
    np.testing.assert_allclose(
        jax.jit(guided)(single(x_t), single(0.4)), exact_mean(0.4, x_t), atol=1e-3
    )
    nothing = guide(DENOISER, lambda x, extra: jnp.zeros(3) * x[:3], SCHEDULE, rule="mmps")
    np.testing.assert_array_equal(
        nothing(single(x_t), single(0.4)), DENOISER(single(x_t), single(0.4))
    )


@pytest.mark.parametrize("rule", ["sda", "dps", "pigdm", "tmpd", "mmps"])
def test_the_jacobian_of_the_denoiser_carries_the_observations(rule):
    """Without it there is no increment; with it the unobserved points move too."""
    t, (_, _, x_t) = single(0.4), noisy(0.4)
    constant = lambda x, t: jax.lax.stop_gradient(DENOISER(x, t))
    prior = DENOISER(single(x_t), t)
    detached = guide(constant, innovations, SCHEDULE, rule=rule)(single(x_t), t)
    np.testing.assert_array_equal(detached, prior)
    # Only point 4 observed, without error to speak of: its neighbours follow by correlation.
    point = lambda x, extra: (1.0 + prior[4] - x[4:5]) / jnp.sqrt(1e-6 + extra)
    guided = guide(DENOISER, point, SCHEDULE, rule=rule, gamma=1e-6)(single(x_t), t)
    increment = np.asarray(guided - prior)
    assert increment[3] > 0.2
    assert increment[5] > 0.2


def white_denoiser(x, t):
    """Of x_0 ~ N(0, I)."""
    a, s = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return a / (a**2 + s**2) * x


def white_mean(t, x_t):
    a, s, _ = noisy(t)
    weighted = OPERATOR.T / VARIANCE
    total = np.eye(DIM) * (1 + a**2 / s**2) + weighted @ OPERATOR
    return np.linalg.solve(total, weighted @ Y + a / s**2 * x_t)


@pytest.mark.parametrize("t", [0.02, 0.4, 0.8])
@pytest.mark.parametrize("jacobian", [True, False])
def test_pigdm_is_exact_for_a_white_prior(t, jacobian):
    guided = guide(
        white_denoiser, innovations, SCHEDULE, rule="pigdm", iterations=5, jacobian=jacobian
    )
    _, _, x_t = noisy(t)
    np.testing.assert_allclose(guided(single(x_t), single(t)), white_mean(t, x_t), atol=1e-3)


def test_pigdm_without_the_jacobian_asks_for_no_derivative():
    @jax.custom_vjp
    def denoiser(x):
        return DENOISER(x, single(0.4))

    def backward(_, cotangent):
        raise AssertionError("differentiated")

    denoiser.defvjp(lambda x: (denoiser(x), None), backward)
    x_t = single(noisy(0.4)[2])
    one = lambda x, t: denoiser(x)
    guide(one, innovations, SCHEDULE, rule="pigdm", jacobian=False)(x_t, single(0.4))
    with pytest.raises(AssertionError, match="differentiated"):
        guide(one, innovations, SCHEDULE, rule="pigdm")(x_t, single(0.4))


@pytest.mark.parametrize("t", [0.02, 0.4, 0.8])
def test_tmpd_is_exact_for_observations_that_are_independent(t):
    """Points of a white prior: A V A^T is diagonal, its diagonal is its row sums."""
    observed = np.array([1, 4, 9])
    y, error = np.array([0.3, -1.0, 2.0]), 0.2
    whiten = lambda x, extra: (single(y) - x[observed]) / jnp.sqrt(error + extra)
    a, s, x_t = noisy(t)
    total = np.full(DIM, 1 + a**2 / s**2)
    total[observed] += 1 / error
    weighted = a / s**2 * x_t
    weighted[observed] += y / error
    guided = guide(white_denoiser, whiten, SCHEDULE, rule="tmpd")
    np.testing.assert_allclose(guided(single(x_t), single(t)), weighted / total, atol=1e-4)


def test_tmpd_equals_its_formula():
    """Row sums of A V A^T, from dense matrices."""
    t, (a, s, x_t) = 0.4, noisy(0.4)
    v = np.linalg.inv(np.linalg.inv(PRIOR) + a**2 / s**2 * np.eye(DIM))
    whitened = OPERATOR / np.sqrt(VARIANCE)[:, None]
    x_0 = a / s**2 * v @ x_t
    sums = (whitened @ v @ whitened.T).sum(axis=1)
    weights = (Y - OPERATOR @ x_0) / np.sqrt(VARIANCE) / (1 + np.maximum(sums, 0))
    expected = x_0 + v @ whitened.T @ weights
    guided = guide(DENOISER, innovations, SCHEDULE, rule="tmpd")
    np.testing.assert_allclose(guided(single(x_t), single(t)), expected, atol=2e-3)


def test_dps_is_sda_without_gamma():
    x_t, t = single(noisy(0.1)[2]), single(0.1)
    dps = guide(DENOISER, innovations, SCHEDULE, rule="dps", gamma=7.0)(x_t, t)
    np.testing.assert_array_equal(
        dps, guide(DENOISER, innovations, SCHEDULE, rule="sda", gamma=0.0)(x_t, t)
    )


@pytest.mark.parametrize("rule", ["pigdm", "tmpd", "mmps"])
@pytest.mark.parametrize(("t", "harm"), [(0.2, True), (0.9, False)])
def test_the_jacobian_is_not_trusted_where_noise_prevails(rule, t, harm):
    """Where a covariance is given; below, the network's own is the better one."""
    x_t, t = single(noisy(t)[2]), single(t)
    wrong = lambda x, time: DENOISER(x, time) + 0.3 * jnp.sin(x - jax.lax.stop_gradient(x))
    right = guide(DENOISER, innovations, SCHEDULE, rule=rule, covariance=exact_covariance)
    with_wrong = guide(wrong, innovations, SCHEDULE, rule=rule, covariance=exact_covariance)
    off = np.abs(with_wrong(x_t, t) - right(x_t, t)).max()
    assert (off > 0.01) == harm


@pytest.mark.parametrize("t", [0.02, 0.4, 0.8])
@pytest.mark.parametrize("gamma", [1e-2, 0.3])
def test_sda_equals_the_reference_formula(t, gamma):
    """Rozet & Louppe's likelihood, its gradient by differences, in the form of the noise eps.

    The denoiser and the operator are both nonlinear.
    """
    denoise = lambda np, x: np.tanh(x) + 0.3 * x**2 / (1 + x**2)
    observe = lambda np, x: x[:3] ** 2 + x[3:6]
    y, variance = np.array([0.5, -0.2, 1.0]), np.array([0.3, 0.1, 0.2])
    a, s, x_t = noisy(t)
    x_t = x_t[:6]

    def log_p(x):
        x_hat = denoise(np, x)
        return -0.5 * np.sum((y - observe(np, x_hat)) ** 2 / (variance + gamma * s**2 / a**2))

    steps = 1e-5 * np.eye(6)
    slope = np.array([(log_p(x_t + h) - log_p(x_t - h)) / 2e-5 for h in steps])
    eps = (x_t - a * denoise(np, x_t)) / s - s * slope
    expected = (x_t - s * eps) / a

    whiten = lambda x, extra: (single(y) - observe(jnp, x)) / jnp.sqrt(single(variance) + extra)
    denoiser = lambda x, t: denoise(jnp, x)
    guided = guide(denoiser, whiten, SCHEDULE, rule="sda", gamma=gamma)
    increment = np.abs(expected - denoise(np, x_t)).max()
    np.testing.assert_allclose(guided(single(x_t), single(t)), expected, atol=2e-3 * increment)


@pytest.mark.parametrize("t", [0.02, 0.4, 0.8])
def test_sda_is_exact_where_its_assumption_holds(t):
    """cov(x_0 | x_t) = p sigma^2 / (alpha^2 p + sigma^2) I is gamma sigma^2 / alpha^2 I here."""
    variance = 0.7
    a, s, x_t = noisy(t)
    gain = a * variance / (a**2 * variance + s**2)
    observed = np.array([1, 4, 9])
    y, error = np.array([0.3, -1.0, 2.0]), 0.2
    whiten = lambda x, extra: (single(y) - x[observed]) / jnp.sqrt(error + extra)
    denoiser = lambda x, t: gain * x
    guided = guide(denoiser, whiten, SCHEDULE, rule="sda", gamma=a * gain)
    total = np.full(DIM, 1 / variance + a**2 / s**2)
    total[observed] += 1 / error
    weighted = a / s**2 * x_t
    weighted[observed] += y / error
    np.testing.assert_allclose(guided(single(x_t), single(t)), weighted / total, atol=1e-4)


def test_streams_guide_as_their_dense_operator_does():
    """Two streams of a trajectory (1, 3, 4, 1) with gaps, through the library's likelihood."""
    shape = (1, 3, 4, 1)
    parts = [slice(0, 2), slice(2, 5)]
    operators = [
        lambda x, part=part: (single(OPERATOR[part]) @ x.reshape(-1))[None] for part in parts
    ]
    streams = [
        make_stream(
            "stream",
            np.append(Y[part], np.nan)[None],
            lambda x, h=h: jnp.concatenate([h(x), jnp.zeros((1, 1))], axis=1),
            Diagonal(single(np.append(VARIANCE[part], 1.0))),
        )
        for part, h in zip(parts, operators, strict=True)
    ]
    denoiser = lambda x, t: DENOISER(x.reshape(-1), t).reshape(shape)
    through = lambda x, extra: whitened_innovations(streams, x, identity_decode, extra)
    _, _, x_t = noisy(0.4)
    for rule in ("sda", "mmps"):
        plain = jax.jit(guide(DENOISER, innovations, SCHEDULE, rule=rule))
        found = jax.jit(guide(denoiser, through, SCHEDULE, rule=rule))
        np.testing.assert_allclose(
            found(single(x_t).reshape(shape), single(0.4)).reshape(-1),
            plain(single(x_t), single(0.4)),
            atol=1e-4,
        )


@pytest.mark.slow
def test_mmps_draws_from_the_exact_posterior():
    count, steps = 4000, 96
    guided = guide(DENOISER, innovations, SCHEDULE, rule="mmps", iterations=5)
    config = SamplerConfig(steps=steps)
    draws = gaussian.draws(guided, DIM, SCHEDULE, config, count)
    mean, covariance = gaussian.exact_posterior(PRIOR, OPERATOR, VARIANCE, Y)
    std = np.sqrt(np.diag(covariance))
    scores = (draws - mean) / std
    # 12 means and variances within 4 standard errors, and what 96 steps leave.
    assert np.abs(scores.mean(axis=0)).max() < 4 / np.sqrt(count)
    assert np.abs(scores.var(axis=0) - 1).max() < 4 * np.sqrt(2 / count) + 0.02
    correlation = scores.T @ scores / count
    expected = covariance / np.outer(std, std)
    assert np.abs(correlation - expected).max() < 5 * np.sqrt(2 / count) + 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rule="pgd"), "unknown guidance rule 'pgd': choose from .*'sda', 'dps'"),
        (dict(rule="gaussian"), "rule 'gaussian' needs the covariance of the prior"),
        (dict(rule="sda", gamma=-1.0), "gamma must not be negative, got -1.0"),
        (dict(rule="mmps", iterations=0), "at least one iteration, got 0"),
        (dict(rule="gaussian", outer=0), "at least one outer loop, got 0"),
        (dict(rule="mmps", tolerance=1.0), r"tolerance must lie in \[0, 1\), got 1.0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        inspect.unwrap(guide)(DENOISER, innovations, SCHEDULE, **options)
