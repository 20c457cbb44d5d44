"""The Kalman smoother against dense linear algebra in double precision."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.baselines import kalman_smoother
from slams_jax.errors import InputError

TIMES, SIZE, COUNT = 7, 3, 2


def problem(seed=0):
    """A state space whose operator changes in time, with correlated errors and gaps."""
    rng = np.random.default_rng(seed)
    transition = 0.5 * rng.standard_normal((SIZE, SIZE))
    positive = lambda n: (lambda a: a @ a.T / n + 0.3 * np.eye(n))(rng.standard_normal((n, n)))
    problem = dict(
        values=rng.standard_normal((TIMES, COUNT)),
        operator=rng.standard_normal((TIMES, COUNT, SIZE)),
        error_covariance=positive(COUNT),
        transition=transition,
        process_covariance=positive(SIZE),
        mean=rng.standard_normal(SIZE),
        covariance=positive(SIZE),
    )
    problem["values"][1] = np.nan
    problem["values"][3, 0] = np.nan
    problem["values"][-1, 1] = np.nan
    return problem


def smooth(problem):
    values, operator, error, *rest = (jnp.asarray(v, jnp.float32) for v in problem.values())
    names = list(problem)[3:]
    options = dict(zip(names, rest, strict=True))
    return jax.jit(kalman_smoother)(values, operator, error, **options)


def dense(problem):
    """All times as one Gaussian vector, its precision summed term by term."""
    size = TIMES * SIZE
    precision, weighted = np.zeros((size, size)), np.zeros(size)

    def add(rows, target, covariance):
        """rows x = target + N(0, covariance)"""
        inverse = np.linalg.inv(covariance)
        precision[:] += rows.T @ inverse @ rows
        weighted[:] += rows.T @ inverse @ target

    block = lambda k: np.eye(size)[k * SIZE : (k + 1) * SIZE]
    add(block(0), problem["mean"], problem["covariance"])
    for k in range(TIMES - 1):
        rows = block(k + 1) - problem["transition"] @ block(k)
        add(rows, np.zeros(SIZE), problem["process_covariance"])
    for k, y in enumerate(problem["values"]):
        seen = np.isfinite(y)
        rows = problem["operator"][k][seen] @ block(k)
        add(rows, y[seen], problem["error_covariance"][np.ix_(seen, seen)])
    covariance = np.linalg.inv(precision)
    return covariance @ weighted, covariance


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_the_exact_posterior(seed):
    mean, covariance = dense(problem(seed))
    found = smooth(problem(seed))
    np.testing.assert_allclose(found.mean.ravel(), mean, atol=2e-4)
    np.testing.assert_allclose(found.joint_covariance(), covariance, atol=2e-4)
    for k in range(TIMES):
        part = slice(k * SIZE, (k + 1) * SIZE)
        np.testing.assert_allclose(found.covariance[k], covariance[part, part], atol=2e-4)


@pytest.mark.slow
def test_it_agrees_with_dynamax():
    """An independent implementation, which takes no missing values."""
    whole = problem() | {"values": np.random.default_rng(9).standard_normal((TIMES, COUNT))}
    p = {name: jnp.asarray(value, jnp.float32) for name, value in whole.items()}
    none = lambda size: (jnp.zeros(size), jnp.zeros((size, 0)))  # bias, weights of inputs
    with (
        warnings.catch_warnings(),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        warnings.simplefilter("ignore")  # of what dynamax imports
        ssm = pytest.importorskip("dynamax.linear_gaussian_ssm.inference")
        initial = ssm.ParamsLGSSMInitial(p["mean"], p["covariance"])
        dynamics = ssm.ParamsLGSSMDynamics(p["transition"], *none(SIZE), p["process_covariance"])
        emissions = ssm.ParamsLGSSMEmissions(p["operator"], *none(COUNT), p["error_covariance"])
        expected = ssm.lgssm_smoother(ssm.ParamsLGSSM(initial, dynamics, emissions), p["values"])
    found = smooth(whole)
    np.testing.assert_allclose(found.mean, expected.smoothed_means, atol=1e-3)
    np.testing.assert_allclose(found.covariance, expected.smoothed_covariances, atol=1e-3)


def test_without_observations_it_is_the_prior():
    nothing = problem()
    nothing["values"] = np.full((TIMES, COUNT), np.nan)
    mean, covariance = dense(nothing)
    found = smooth(nothing)
    np.testing.assert_allclose(found.mean.ravel(), mean, atol=1e-5)
    np.testing.assert_allclose(found.joint_covariance(), covariance, atol=2e-4)


@pytest.mark.parametrize("name", ["operator", "transition", "covariance"])
def test_matrices_that_do_not_fit(name):
    wrong = problem()
    wrong[name] = wrong[name][:-1]
    values, operator, error, *rest = (jnp.asarray(v, jnp.float32) for v in wrong.values())
    options = dict(zip(list(wrong)[3:], rest, strict=True))
    with pytest.raises(InputError, match=f"smoother's {name} has shape"):
        inspect.unwrap(kalman_smoother)(values, operator, error, **options)
