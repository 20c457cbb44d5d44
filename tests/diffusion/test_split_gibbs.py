"""Split Gibbs sampling against posteriors that are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import CosineSchedule, SamplerConfig, guide, sample_ensemble
from slams_jax.diffusion import sample_with_info as sample
from slams_jax.diffusion.conditional import Local, moved, perturbed
from slams_jax.diffusion.increments import Loops, linearised
from slams_jax.errors import InputError

SCHEDULE = CosineSchedule()
# Variances of the state and of observations of its first value and of its sum, and these.
PRIOR = np.array([[1.5, 0.6], [0.6, 0.8]])
MATRIX, ERRORS, OBSERVED = np.array([[1.0, 0.0], [1.0, 1.0]]), (0.4, 0.2), (1.1, 0.3)
SHAPE = (1, 1, 1, 2)
LOOPS = Loops(10, 0.0, 1)


@dataclasses.dataclass(frozen=True)
class Prior:
    """N(0, PRIOR), with another covariance than that if `factor` is not one."""

    factor: float = 1.0

    def apply(self, x, function):
        values, vectors = np.linalg.eigh(PRIOR)
        matrix = (vectors * function(values)[None]) @ vectors.T
        return (matrix @ x.reshape(2)).reshape(SHAPE)

    def __call__(self, x_t, t):
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        return self.apply(x_t, lambda p: alpha * p / (alpha**2 * p + sigma**2))

    def covariance(self, x, ratio):
        return self.apply(x, lambda p: self.factor * p * ratio / (p + ratio))

    def root(self, x, ratio):
        return self.apply(x, lambda p: jnp.sqrt(self.factor * p * ratio / (p + ratio)))


def innovations(x, extra):
    y = jnp.array(OBSERVED) - MATRIX.astype(np.float32) @ x.reshape(2)
    return y / jnp.sqrt(jnp.array(ERRORS))


def bent(x, extra):
    """The square of the first value: two modes, at which the operator is flat at the mean."""
    return (2.0 - x.reshape(2)[:1] ** 2) / 0.5


def draws(config, observe=innovations, *, factor=1.0, members=4096, key=0):
    prior = Prior(factor)
    denoiser = guide(
        prior,
        observe,
        SCHEDULE,
        rule="gaussian",
        iterations=10,
        covariance=prior.covariance,
        root=prior.root,
    )
    run = jax.jit(
        lambda k: sample_ensemble(
            k, lambda k: sample(k, denoiser, SHAPE, SCHEDULE, config), members
        )
    )
    x, info = run(jax.random.key(key))
    return np.asarray(x, float).reshape(members, 2), info


def posterior():
    precision = np.linalg.inv(PRIOR) + MATRIX.T @ np.diag(1.0 / np.array(ERRORS)) @ MATRIX
    covariance = np.linalg.inv(precision)
    return covariance @ MATRIX.T @ (np.array(OBSERVED) / np.array(ERRORS)), covariance


@pytest.mark.slow
@pytest.mark.parametrize("slices", [0, 2])
@pytest.mark.parametrize("levels", [1, 8])
def test_linear_observations_of_a_gaussian_have_exact_draws(levels, slices):
    """However few the levels: a reverse SDE would need many."""
    x, info = draws(SamplerConfig("split_gibbs", levels, slices=slices))
    mean, covariance = posterior()
    std = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - mean), 4.0 * std / np.sqrt(len(x)))
    # The variance of a product of Gaussians is at most twice that of its factors' product.
    limit = 4.0 * np.sqrt(2.0 / len(x)) * np.outer(std, std)
    np.testing.assert_array_less(np.abs(np.cov(x.T) - covariance), limit)
    assert np.all(info.evaluations == levels)
    assert np.all(info.failed_at == -1.0)


@pytest.mark.slow
def test_a_wrong_covariance_is_found_out():
    """Half of C: with one level, the spread is too small beyond chance."""
    x, _ = draws(SamplerConfig("split_gibbs", 1), factor=0.5)
    _, covariance = posterior()
    ratio = np.var(x, axis=0) / np.diag(covariance)
    assert np.all(ratio < 1.0 - 5.0 * np.sqrt(2.0 / len(x)))


def quadrature():
    """Moments of |x_0| and of x_1 under the prior and the bent observation."""
    axis = np.linspace(-7.0, 7.0, 1401)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log = -0.5 * np.einsum("na,ab,nb->n", x, np.linalg.inv(PRIOR), x)
    log -= 0.5 * ((2.0 - x[:, 0] ** 2) / 0.5) ** 2
    weights = np.exp(log - log.max())
    return x, weights / weights.sum()


@pytest.mark.slow
def test_slices_make_draws_right_where_the_operator_is_bent():
    """Both modes, each with its shape; without slices both are wrong."""
    nodes, weights = quadrature()
    statistics = (np.abs, lambda x: x**2, lambda x: x[:, ::-1] * x, lambda x: x**4)

    def worst(slices):
        """Largest error of a statistic, in standard errors."""
        x, _ = draws(SamplerConfig("split_gibbs", 4, slices=slices), bent)
        found = []
        for of in statistics:
            exact = weights @ of(nodes)
            spread = np.sqrt(weights @ (of(nodes) - exact) ** 2)
            found.append(np.abs(of(x).mean(axis=0) - exact) / (spread / np.sqrt(len(x))))
        found.append(np.abs((x[:, 0] > 0).mean() - 0.5) * 2.0 * np.sqrt(len(x)))
        return max(np.max(f) for f in found)

    assert worst(16) < 4.5
    assert worst(0) > 10.0


@pytest.mark.slow
def test_the_chain_keeps_the_target():
    """From exact draws of a bent posterior, one move leaves exact draws: nothing is forgotten."""
    nodes, weights = quadrature()
    rng = np.random.default_rng(0)
    start = nodes[rng.choice(len(nodes), 8192, p=weights)].reshape(-1, *SHAPE).astype(np.float32)
    prior, ratio = Prior(), jnp.float32(1e9)
    see = lambda x: bent(x, 0.0)
    local = Local(
        jnp.zeros(SHAPE),
        lambda v: prior.covariance(v, ratio),
        lambda v: prior.root(v, ratio),
        see,
        lambda x: linearised(bent, x),
    )
    one = lambda k, x: moved(k, x, jnp.array(False), local, LOOPS, 1)[0]
    keys = jax.random.split(jax.random.key(3), len(start))
    x = np.asarray(jax.jit(jax.vmap(one))(keys, jnp.asarray(start))).reshape(-1, 2)
    assert np.mean(np.any(x != start.reshape(-1, 2), axis=1)) > 0.9
    for of in (np.abs, np.square, lambda x: x[:, ::-1] * x, lambda x: x**4):
        exact = weights @ of(nodes)
        spread = np.sqrt(weights @ (of(nodes) - exact) ** 2)
        error = np.abs(of(x).mean(axis=0) - exact)
        np.testing.assert_array_less(error, 4.0 * spread / np.sqrt(len(x)))


@pytest.mark.slow
def test_without_observations_it_draws_from_the_prior():
    x, _ = draws(SamplerConfig("split_gibbs", 2), None)
    np.testing.assert_allclose(np.cov(x.T), PRIOR, atol=4.0 * 1.5 * np.sqrt(2.0 / len(x)))


@pytest.mark.slow
def test_failures_are_told_with_their_level():
    prior = Prior()
    failing = lambda x_t, t: jnp.where(t < 0.5, jnp.nan, prior(x_t, t))
    denoiser = guide(failing, None, SCHEDULE, root=prior.root)
    config = SamplerConfig("split_gibbs", 4, "uniform")
    x, info = sample(jax.random.key(0), denoiser, SHAPE, SCHEDULE, config)
    assert info.failed_at == 0.25
    assert not np.any(np.isfinite(x))


@pytest.mark.slow
@pytest.mark.parametrize("slices", [0, 2])
def test_an_operator_that_fails_is_told(slices):
    """Of the last levels too, when the chain has a state that it could stay at."""
    prior = Prior()
    failing = lambda x, extra: jnp.where(jnp.abs(x) < 1e4, innovations(x, extra)[0], jnp.nan)
    late = lambda v, ratio: jnp.where(ratio < 1.0, 1e6, 1.0) * prior.root(v, ratio)
    options = dict(rule="gaussian", covariance=prior.covariance, root=late)
    denoiser = guide(prior, failing, SCHEDULE, **options)
    config = SamplerConfig("split_gibbs", 4, "uniform", slices=slices)
    x, info = sample(jax.random.key(0), denoiser, SHAPE, SCHEDULE, config)
    assert 0.0 < info.failed_at < 0.5
    assert not np.any(np.isfinite(x))


def test_a_rule_without_draws_is_refused():
    denoiser = guide(Prior(), innovations, SCHEDULE, rule="sda")
    with pytest.raises(InputError, match="solver 'split_gibbs' draws x_0 given observations"):
        sample(jax.random.key(0), denoiser, SHAPE, SCHEDULE, SamplerConfig("split_gibbs"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(solver="split_gibbs", sweeps=0), "sweeps must be at least 1"),
        (dict(solver="split_gibbs", slices=-1), "slices must not be negative"),
        (dict(slices=3), "slices = 3 has no effect with solver 'dpmpp_2m'"),
        (dict(sweeps=3), "sweeps = 3 has no effect with solver 'dpmpp_2m'"),
    ],
)
def test_options_of_other_solvers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SamplerConfig(**options)


@pytest.mark.slow
def test_more_sweeps_take_more_evaluations():
    _, info = draws(SamplerConfig("split_gibbs", 3, sweeps=2), members=2)
    assert np.all(info.evaluations == 6)


@pytest.mark.slow
def test_perturbed_analyses_keep_what_is_left():
    prior = Prior()
    local = Local(
        jnp.zeros(SHAPE),
        lambda v: prior.covariance(v, jnp.float32(1.0)),
        lambda v: prior.root(v, jnp.float32(1.0)),
        lambda x: innovations(x, 0.0),
        lambda x: linearised(innovations, x),
    )
    left = [perturbed(jax.random.key(0), local, Loops(n, 0.0, 1))[1] for n in (1, 2)]
    assert left[0] > 0.01 > 1e-4 > left[1]
