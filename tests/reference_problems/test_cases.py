"""The reference problems themselves, and that the best rules draw from their posteriors.

The same check fails where the increment of guidance is scaled or turned round.
"""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import CosineSchedule, RefinementConfig, SamplerConfig
from slams_jax.errors import InputError
from slams_jax.reference_problems import (
    Exact,
    Guidance,
    Method,
    Mixture,
    MixturePrior,
    Oracle,
    count_evaluations,
    field_cases,
    mixture_cases,
    run_case,
    score,
    trajectory_cases,
)

SCHEDULE = CosineSchedule()
ODE = SamplerConfig("dpmpp_3m_ode", 32)
GAUSSIAN = Guidance("gaussian", (("iterations", 15),), covariance=True)


def single(array):
    return jnp.asarray(array, jnp.float32)


@pytest.fixture(scope="module")
def fields():
    """All four networks, of a smoother field than the table's."""
    return {case.name: case for case in field_cases(degree=8)}


@pytest.fixture(scope="module")
def mixtures():
    return {case.name: case for case in mixture_cases()}


@pytest.fixture(scope="module")
def trajectories():
    return {case.name: case for case in trajectory_cases()}


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A rule whose increment is multiplied by a factor: not the posterior, unless it is one."""

    rule: Guidance | Oracle
    factor: float

    def __call__(self, problem):
        prior, guided = problem.denoiser, self.rule(problem)
        return lambda x, t: prior(x, t) + self.factor * (guided(x, t) - prior(x, t))


def meets_the_target(case, rule, members, config=ODE):
    """Mean error to 0.05, variance ratio in 0.95 .. 1.05, and W1 near that of exact draws."""
    found = run_case(case, Method(rule, config), members, jax.random.key(0)).score
    return found is not None and bool(
        found.mean_error <= 0.05 + 2 * found.mean_error_se
        and abs(found.variance_ratio - 1) <= 0.05 + 2 * found.variance_ratio_se
        and found.w1 <= 1.15 * found.w1_exact + 2 * found.w1_se
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coarse", "scattered", "masked"])
def test_gaussian_fields(fields, name):
    assert meets_the_target(fields[f"field {name}"], GAUSSIAN, 192)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["three modes", "ridge", "sixteen dimensions"])
def test_mixtures(mixtures, name):
    assert meets_the_target(mixtures[name], Oracle(), 2048)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trajectory k=3", "trajectory exact"])
def test_trajectories(trajectories, name):
    assert meets_the_target(trajectories[name], GAUSSIAN, 512)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "rule", "members", "factor"),
    [
        ("field scattered", GAUSSIAN, 192, 0.8),
        ("ridge", Oracle(), 2048, 0.8),
        ("ridge", Oracle(), 2048, -1.0),
        ("trajectory exact", GAUSSIAN, 512, 0.8),
    ],
)
def test_broken_guidance_is_found_out(fields, mixtures, trajectories, case, rule, members, factor):
    problem = {**fields, **mixtures, **trajectories}[case]
    assert not meets_the_target(problem, Scaled(rule, factor), members)


@pytest.mark.slow
def test_composition_from_short_windows_costs_spread(trajectories):
    """The exact denoiser of the whole trajectory is right, windows of three frames are not."""
    ratios = [
        run_case(
            trajectories[f"trajectory {k}"], Method(GAUSSIAN, ODE), 512, jax.random.key(0)
        ).score
        for k in ("k=1", "k=3", "exact")
    ]
    assert ratios[0].variance_ratio > 1.1
    assert ratios[1].variance_ratio < 1.06
    assert ratios[2].variance_ratio < 1.04


@pytest.mark.slow
def test_the_posterior_of_a_field_solves_the_normal_equations(fields):
    """x = P H^T R^-1 (y - H x), through the library's own streams."""
    for case in fields.values():
        mean = single(case.exact.mean).reshape(case.problem.shape)

        def misfit(x, problem=case.problem):
            return 0.5 * sum(jnp.sum(r**2) for r in problem.innovations(x, jnp.zeros(())))

        # P itself: what is unknown where the noise is infinite.
        again = case.problem.covariance.solve(-jax.grad(misfit)(mean), single(1e6))
        np.testing.assert_allclose(again, mean, atol=2e-3)


@pytest.mark.slow
def test_the_spread_of_a_field_is_that_of_its_perturbed_analyses(fields):
    """Draws x + K (y + e - H x), with the gain in the form of precisions, in double precision."""
    case = fields["field coarse"]
    prior = case.problem.denoiser
    vectors, values = (np.asarray(a, np.float64) for a in (prior.vectors, prior.values))
    floor = float(prior.floor)
    inverse = np.eye(len(vectors)) / floor + vectors @ np.diag(1 / values - 1 / floor) @ vectors.T
    stream = case.problem.streams[0]
    size = len(vectors)
    columns = np.asarray(stream.operator(jnp.eye(size).reshape(size, *case.problem.shape[1:])))
    matrix = columns.reshape(size, -1).T.astype(np.float64)
    precision = inverse + matrix.T @ matrix / float(stream.covariance.variance)
    expected = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose(case.exact.std, expected, rtol=1e-3)
    along = np.linalg.solve(precision, case.exact.directions.T)
    variance = (case.exact.directions.T * along).sum(axis=0)
    np.testing.assert_allclose(case.exact.direction_std**2, variance, rtol=1e-3)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.8])
def test_the_denoiser_of_a_mixture_by_quadrature(t):
    """In one dimension, against the integral."""
    mixture = Mixture(
        np.array([0.7, 0.3]), np.array([[-1.0], [1.5]]), np.array([[[0.3]], [[0.05]]])
    ).standardised()
    np.testing.assert_allclose(mixture.mean(), 0.0, atol=1e-12)
    np.testing.assert_allclose(mixture.covariance(), 1.0, rtol=1e-12)
    a, s = (float(f(single(t))) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    x = np.linspace(-6, 6, 200_001)
    density = np.exp(mixture.log_densities(x[:, None])).sum(axis=1)
    for x_t in (-1.2, 0.1, 0.9):
        weights = density * np.exp(-0.5 * ((x_t - a * x) / s) ** 2)
        found = MixturePrior.of(mixture, SCHEDULE)(single([x_t]), single(t))
        np.testing.assert_allclose(found[0], weights @ x / weights.sum(), atol=1e-3)


@pytest.mark.slow
def test_windows_are_denoised_exactly(trajectories):
    """The middle frame from its own window, by the conditional mean given that window alone."""
    case = trajectories["trajectory k=1"]
    whole = case.problem.covariance
    vectors, values = (np.asarray(a, np.float64) for a in (whole.vectors, whole.values))
    joint = (vectors * values) @ vectors.T
    x_t = np.random.default_rng(0).standard_normal(case.problem.shape)
    a, s = (float(f(single(0.3))) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    found = case.problem.denoiser(single(x_t), single(0.3))
    window = slice(4 * 6, 7 * 6)  # frames 4 to 6, of six variables each
    part = joint[window, window]
    gain = a * part @ np.linalg.inv(a**2 * part + s**2 * np.eye(18))
    expected = (gain @ x_t[4:7].ravel())[6:12]
    np.testing.assert_allclose(found[5].ravel(), expected, atol=1e-4)


def test_exact_draws_score_as_exact():
    """Whatever their number, what is taken off is what they show; the errors say the rest."""
    rng = np.random.default_rng(0)
    root = np.tril(rng.standard_normal((20, 20))) / 4 + np.eye(20)
    exact = Exact.gaussian(rng.standard_normal(20), root @ root.T, rng.standard_normal((8, 20)))
    scores = [score(exact, exact.mean + rng.standard_normal((200, 20)) @ root.T) for _ in range(40)]
    ratios = np.array([s.variance_ratio for s in scores])
    errors = np.array([s.variance_ratio_se for s in scores])
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(40)
    assert 0.7 < errors.mean() / ratios.std() < 1.4
    assert np.mean([s.mean_error for s in scores]) < 0.03 < scores[0].sampling_error
    assert np.mean([s.covariance_error for s in scores]) < 0.06
    w1 = np.array([s.w1 for s in scores])
    assert abs(w1.mean() - scores[0].w1_exact) < 0.1 * scores[0].w1_exact


def test_errors_of_draws_are_found():
    rng = np.random.default_rng(0)
    exact = Exact.gaussian(np.array([1.0, -2.0]), np.diag([4.0, 0.25]), np.eye(2))
    white = rng.standard_normal((20_000, 2))
    found = score(exact, exact.mean + (white + np.array([0.3, -0.1])) * [2.0, 0.5])
    assert abs(found.mean_error - np.sqrt((0.3**2 + 0.1**2) / 2)) < 4 * found.mean_error_se
    assert abs(found.w1 - 0.2) < 4 * found.w1_se
    found = score(exact, exact.mean + 1.1 * white * [2.0, 0.5])
    assert abs(found.variance_ratio - 1.21) < 4 * found.variance_ratio_se
    assert abs(found.covariance_error - 0.21) < 4 * found.covariance_error_se


def test_quadrature_and_closed_form_agree():
    """The same mixture both ways: moments, quantiles and shares of the modes."""
    mixture = Mixture(
        np.array([0.6, 0.4]),
        np.array([[-1.0, 0.0], [1.2, 0.5]]),
        np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]]]),
    )
    posterior = mixture.given(np.array([[1.0, 0.5]]), np.array([0.8]), np.array([0.4]))
    axis = np.linspace(-5, 5, 500)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(mixture.log_densities(nodes)).sum(axis=1)
    weights = density * np.exp(-0.5 * (0.4 - nodes @ [1.0, 0.5]) ** 2 / 0.8)
    directions = np.array([[1.0, 0.0], [0.6, 0.8]])
    by_sum = Exact.weighted(nodes, weights / weights.sum(), directions, 2, posterior.component_of)
    closed = Exact.mixture(posterior, directions)
    np.testing.assert_allclose(by_sum.mean, closed.mean, atol=1e-4)
    np.testing.assert_allclose(by_sum.std, closed.std, rtol=1e-4)
    np.testing.assert_allclose(by_sum.direction_std, closed.direction_std, rtol=1e-4)
    np.testing.assert_allclose(by_sum.shares, closed.shares, atol=5e-3)
    inner = slice(150, -150)  # beyond, the nodes are too far apart
    np.testing.assert_allclose(by_sum.quantiles[:, inner], closed.quantiles[:, inner], atol=0.03)


@pytest.mark.slow
def test_evaluations_are_counted(trajectories):
    case, config = trajectories["trajectory k=1"], SamplerConfig(steps=5)
    counts = {
        Guidance("sda"): (5, 5),
        Guidance("mmps", (("iterations", 4),)): (5, 20),
        GAUSSIAN: (5, 0),
    }
    for rule, expected in counts.items():
        assert count_evaluations(case, Method(rule, config)) == expected
    moves = RefinementConfig(moves=3, sampler=SamplerConfig(steps=4))
    assert count_evaluations(case, Method(GAUSSIAN, config, moves)) == (5 + 3 * 4, 0)
    assert count_evaluations(case, Method(GAUSSIAN, config, moves, paths=2)) == (2 * 5 + 3 * 4, 0)


@pytest.mark.slow
def test_weighted_paths_come_nearer_to_the_posterior(mixtures):
    case, sampler = mixtures["ridge"], SamplerConfig(steps=64)
    one, several = (
        run_case(case, Method(GAUSSIAN, sampler, paths=paths), 4096, jax.random.key(0))
        for paths in (1, 2)
    )
    assert one.score is not None
    assert several.score is not None
    assert several.score.w1 < 0.6 * one.score.w1
    assert several.score.w1 < 4.5 * several.score.w1_exact
    assert (several.rule, several.forward_evaluations) == (f"{one.rule}, 2 weighted paths", 128)


def test_paths_of_another_draw_have_no_weights():
    for paths in (0, 2):
        with pytest.raises(InputError, match="takes one path or, with `sample` alone, several"):
            Method(GAUSSIAN, SamplerConfig(), draw=lambda *_: jnp.zeros(1), paths=paths)


@pytest.mark.parametrize(
    "method",
    [
        Method(GAUSSIAN, SamplerConfig("dpmpp_3m_ode"), paths=2),
        Method(Guidance("sda"), SamplerConfig(), paths=2),
    ],
)
def test_paths_without_weights_are_not_resampled(mixtures, method):
    with pytest.raises(InputError, match="have no weights: choose a rule of"):
        method.draws(mixtures["ridge"].problem, jax.random.key(0), 8)


@pytest.mark.slow
def test_refined_draws_are_scored(mixtures):
    """Moves take draws nearer to the posterior, and the row says how many were accepted."""
    case, sampler = mixtures["three modes"], SamplerConfig(steps=16)
    moves = RefinementConfig(moves=6, sampler=sampler)
    rows = [
        run_case(case, Method(GAUSSIAN, sampler, refinement), 1024, jax.random.key(0))
        for refinement in (None, moves)
    ]
    assert rows[0].accepted is None
    assert 0.1 < rows[1].accepted < 0.9
    assert rows[1].rule == "gaussian (15), 6 moves of 16"
    assert rows[1].score.w1 < 0.8 * rows[0].score.w1


@pytest.mark.slow
def test_draws_that_are_not_finite_are_reported(trajectories):
    broken = lambda problem: lambda x, t: problem.denoiser(x, t) / (t - t)
    method = Method(broken, SamplerConfig(steps=2))
    row = run_case(trajectories["trajectory k=1"], method, 32, jax.random.key(0))
    assert row.not_finite == 32
    assert row.score is None
    assert row.as_dict()["mean_error"] is None


def test_errors(trajectories):
    case = trajectories["trajectory k=1"]
    with pytest.raises(InputError, match="at least 32 members, got 4"):
        inspect.unwrap(run_case)(case, Method(GAUSSIAN, ODE), 4, jax.random.key(0))
    with pytest.raises(InputError, match="a known posterior denoiser"):
        Oracle()(case.problem)
    with pytest.raises(InputError, match="unknown network 'dense'"):
        inspect.unwrap(field_cases)(("dense",))
