import diffrax
import gaussian
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import (
    CosineSchedule,
    ExponentialTwoStep,
    SamplerConfig,
    sample,
    time_grid,
)
from slams_jax.diffusion.solvers import exponential_terms

SCHEDULE = CosineSchedule()
PRIOR, *_ = gaussian.make_problem()
DENOISER = gaussian.exact_denoiser(PRIOR, SCHEDULE)
DIM = len(PRIOR)
SHAPE = jax.ShapeDtypeStruct((DIM,), jnp.float32)


def flow(start, steps):
    """The probability-flow ODE from `start` at t = 1 to t = 0."""
    noise = diffrax.UnsafeBrownianPath(SHAPE, jax.random.key(0))
    solution = diffrax.diffeqsolve(
        exponential_terms(DENOISER, noise),
        ExponentialTwoStep(SCHEDULE, stochastic=False),
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=start,
        stepsize_controller=diffrax.StepTo(time_grid(SCHEDULE, "log_snr", steps)),
        adjoint=diffrax.DirectAdjoint(),
        max_steps=steps + 1,
    )
    return np.asarray(solution.ys[0], np.float64)


def test_the_two_step_solver_is_of_second_order_for_the_ode():
    """In each eigenvector of a Gaussian prior x(t) is proportional to its deviation at t."""
    start = jax.random.normal(jax.random.key(0), (DIM,))
    variance, vectors = np.linalg.eigh(PRIOR)
    eta = SCHEDULE.eta
    growth = np.sqrt((variance + eta**2) / (eta**2 * variance + 1.0))
    expected = vectors @ (growth * (vectors.T @ np.asarray(start, np.float64)))
    errors = [np.linalg.norm(flow(start, steps) - expected) for steps in (64, 128, 256)]
    ratios = np.divide(errors[:-1], errors[1:])
    assert np.all((ratios > 3.6) & (ratios < 4.4))
    assert errors[-1] < 1e-3 * np.linalg.norm(expected)


def path_and_start(key):
    """The noise and the first state that `sample` uses."""
    key_start, key_noise = jax.random.split(key)
    start = SCHEDULE.sigma(jnp.ones(())) * jax.random.normal(key_start, (DIM,))
    return diffrax.UnsafeBrownianPath(SHAPE, key_noise), start


def scan_two_step(key, steps, stochastic):
    """Lu et al. 2022: SDE-DPM-Solver++(2M) and DPM-Solver++(2M), as the paper writes them."""
    path, start = path_and_start(key)
    s = time_grid(SCHEDULE, "log_snr", steps)
    t = 1.0 - s

    def body(carry, i):
        x, last = carry
        alpha, sigma = SCHEDULE.alpha(t[i + 1]), SCHEDULE.sigma(t[i + 1])
        lam = SCHEDULE.log_snr(t)
        h, h_last = lam[i + 1] - lam[i], lam[i] - lam[i - 1]
        r = h_last / h
        denoised = DENOISER(x, t[i])
        extrapolated = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * last
        d = jnp.where(i == 0, denoised, extrapolated)
        if stochastic:
            z = path.evaluate(s[i], s[i + 1]) / jnp.sqrt(s[i + 1] - s[i])
            x = (
                sigma / SCHEDULE.sigma(t[i]) * jnp.exp(-h) * x
                + alpha * (1 - jnp.exp(-2 * h)) * d
                + sigma * jnp.sqrt(1 - jnp.exp(-2 * h)) * z
            )
        else:
            x = sigma / SCHEDULE.sigma(t[i]) * x - alpha * (jnp.exp(-h) - 1) * d
        return (x, denoised), None

    return jax.lax.scan(body, (start, jnp.zeros_like(start)), jnp.arange(steps))[0][0]


@pytest.mark.parametrize(("solver", "steps"), [("dpmpp_2m", 32), ("dpmpp_2m_ode", 3)])
def test_two_step_solver_equals_a_scan_of_its_formulas(solver, steps):
    key = jax.random.key(3)
    config = SamplerConfig(solver, steps)
    found = jax.jit(lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config))(key)
    expected = jax.jit(lambda k: scan_two_step(k, steps, solver == "dpmpp_2m"))(key)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_euler_maruyama_equals_a_loop():
    """Song et al. 2021, eq. 6, with the derivatives of the cosine schedule written out."""
    key, steps = jax.random.key(3), 20
    config = SamplerConfig("euler_maruyama", steps, "uniform")
    found = jax.jit(lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config))(key)
    path, start = path_and_start(key)
    s = time_grid(SCHEDULE, "uniform", steps)
    x = np.asarray(start, np.float64)
    omega, eta = np.arccos(np.sqrt(SCHEDULE.eta)), SCHEDULE.eta
    for i in range(steps):
        t, ds = 1.0 - float(s[i]), float(s[i + 1]) - float(s[i])
        alpha = np.cos(omega * t) ** 2
        slope = -omega * np.sin(2 * omega * t)
        variance = 1 - alpha**2 + eta**2
        f = slope / alpha
        g2 = -2 * alpha * slope - 2 * f * variance
        score = -np.linalg.solve(alpha**2 * PRIOR + variance * np.eye(DIM), x)
        noise = np.asarray(path.evaluate(s[i], s[i + 1]), np.float64)
        x = x + (-f * x + g2 * score) * ds + np.sqrt(g2) * noise
    np.testing.assert_allclose(found, x, rtol=2e-3, atol=2e-3)


# A skewed target: 0.8 N(-0.5, 0.3^2) + 0.2 N(2, 0.3^2); mean 0, third central moment > 0.
WEIGHTS, MEANS, SPREAD = np.array([0.8, 0.2]), np.array([-0.5, 2.0]), 0.3
MOMENT = {
    k: np.sum(WEIGHTS * m)
    for k, m in {
        1: MEANS,
        2: MEANS**2 + SPREAD**2,
        3: MEANS**3 + 3 * MEANS * SPREAD**2,
        4: MEANS**4 + 6 * MEANS**2 * SPREAD**2 + 3 * SPREAD**4,
        6: MEANS**6 + 15 * MEANS**4 * SPREAD**2 + 45 * MEANS**2 * SPREAD**4 + 15 * SPREAD**6,
    }.items()
}


def mixture_denoiser(x, t):
    """E[x_0 | x_t]: the means of the components, weighted by how probable x_t makes them."""
    a, s = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    means, total = jnp.asarray(MEANS, jnp.float32), (a * SPREAD) ** 2 + s**2
    away = x[:, None] - a * means[None]
    probability = jax.nn.softmax(
        jnp.log(jnp.asarray(WEIGHTS, jnp.float32))[None] - away**2 / (2 * total), axis=1
    )
    return jnp.sum(probability * (means[None] + a * SPREAD**2 / total * away), axis=1)


@pytest.mark.parametrize(
    ("solver", "steps"), [("dpmpp_2m", 64), ("dpmpp_2m_ode", 64), ("euler_maruyama", 512)]
)
def test_a_skewed_target_keeps_its_moments(solver, steps):
    """20,000 independent draws, as one array; what the steps leave is below 2 %."""
    count, config = 20_000, SamplerConfig(solver, steps)
    draw = jax.jit(lambda key: sample(key, mixture_denoiser, (count,), SCHEDULE, config))
    x = np.asarray(draw(jax.random.key(1)), np.float64)
    for k in (1, 2, 3):
        error = np.sqrt((MOMENT[2 * k] - MOMENT[k] ** 2) / count)
        assert abs((x**k).mean() - MOMENT[k]) < 4 * error + 0.02 * abs(MOMENT[k])
    upper = (x > 0.75).mean()
    assert abs(upper - WEIGHTS[1]) < 4 * np.sqrt(0.16 / count) + 0.004
