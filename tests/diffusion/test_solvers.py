import dataclasses
import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import CosineSchedule, SamplerConfig, sample, time_grid, to_denoised
from slams_jax.diffusion.sampler import problem_of
from slams_jax.diffusion.solvers import ExponentialSolver
from slams_jax.errors import InputError
from support import gaussian

SCHEDULE = CosineSchedule()
PRIOR, *_ = gaussian.make_problem()
DENOISER = gaussian.exact_denoiser(PRIOR, SCHEDULE)
DIM = len(PRIOR)


def flow(start, config):
    """The probability-flow ODE from `start` at t = 1 to t = 0, through what `sample` builds."""
    terms, solver = problem_of(jax.random.key(0), DENOISER, start, SCHEDULE, config)
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=start,
        stepsize_controller=diffrax.StepTo(time_grid(SCHEDULE, config.grid, config.steps)),
        adjoint=diffrax.ForwardMode(),
        max_steps=config.steps,
    )
    return np.asarray(solution.ys[0], np.float64)


def errors_of_the_flow(config, numbers):
    """Of its end, relative, for each number of steps.

    In each eigenvector of a Gaussian prior x(t) is proportional to its deviation at t.
    """
    start = jax.random.normal(jax.random.key(0), (DIM,))
    variance, vectors = np.linalg.eigh(PRIOR)
    eta = SCHEDULE.eta
    growth = np.sqrt((variance + eta**2) / (eta**2 * variance + 1.0))
    expected = vectors @ (growth * (vectors.T @ np.asarray(start, np.float64)))
    ends = [flow(start, dataclasses.replace(config, steps=steps)) for steps in numbers]
    return [np.linalg.norm(end - expected) / np.linalg.norm(expected) for end in ends]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "order", "error"),
    [
        (SamplerConfig("dpmpp_2m_ode"), 2, 1e-3),
        (SamplerConfig("ddim"), 1, 0.04),
        (SamplerConfig("ode", method="Euler"), 1, 0.02),
        (SamplerConfig("ode", method="Heun"), 2, 1e-3),
        (SamplerConfig("ode", method="Midpoint", grid="edm"), 2, 1e-3),
    ],
    ids=["dpmpp_2m_ode", "ddim", "euler", "heun", "midpoint"],
)
def test_order_of_convergence_of_the_deterministic_solvers(config, order, error):
    errors = errors_of_the_flow(config, (64, 128, 256))
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2.0**order, rtol=0.1)
    assert errors[-1] < error


@pytest.mark.slow
def test_three_estimates_converge_at_the_third_order():
    """Faster, as long as the terms of higher order are not small; beyond, rounding shows."""
    errors = errors_of_the_flow(SamplerConfig("dpmpp_3m_ode"), (24, 48, 96))
    assert min(np.divide(errors[:-1], errors[1:])) > 0.9 * 2**3
    assert errors[-1] < 5e-5
    assert errors[0] < 0.4 * errors_of_the_flow(SamplerConfig("dpmpp_2m_ode"), (24,))[0]


def path_and_start(key, shape=(DIM,)):
    """The noise, of `shape`, and the first state that `sample` uses."""
    key_start, key_noise = jax.random.split(key)
    start = SCHEDULE.sigma(jnp.ones(())) * jax.random.normal(key_start, (DIM,))
    noise = jax.ShapeDtypeStruct(shape, jnp.float32)
    return diffrax.UnsafeBrownianPath(noise, key_noise), start


def white_of(path, s):
    """The normal numbers of each step, as numpy has them."""
    z = [path.evaluate(a, b) / jnp.sqrt(b - a) for a, b in itertools.pairwise(s)]
    return np.asarray(z, np.float64)


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


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "steps"), [("dpmpp_2m", 32), ("dpmpp_2m_ode", 3)])
def test_two_step_solver_equals_a_scan_of_its_formulas(solver, steps):
    key = jax.random.key(3)
    config = SamplerConfig(solver, steps)
    found = jax.jit(lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config))(key)
    expected = jax.jit(lambda k: scan_two_step(k, steps, solver == "dpmpp_2m"))(key)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def loop_three_step(key, steps):
    """With the functions phi of exponential integrators, in double precision."""
    start = path_and_start(key)[1]
    t = 1.0 - np.asarray(time_grid(SCHEDULE, "log_snr", steps), np.float64)
    alpha, sigma = scales(t)
    lam = np.log(alpha / sigma)
    x, seen = np.asarray(start, np.float64), []
    for i in range(steps):
        score = -np.linalg.solve(alpha[i] ** 2 * PRIOR + sigma[i] ** 2 * np.eye(DIM), x)
        seen = [(x + sigma[i] ** 2 * score) / alpha[i], *seen[:2]]
        h = lam[i + 1] - lam[i]
        phi_1 = np.expm1(-h)
        phi_2 = phi_1 / h + 1
        phi_3 = phi_2 / h - 0.5
        first = second = np.zeros(DIM)
        if i >= 1:
            r_0 = (lam[i] - lam[i - 1]) / h
            first = (seen[0] - seen[1]) / r_0
        if i >= 2:
            r_1 = (lam[i - 1] - lam[i - 2]) / h
            before = (seen[1] - seen[2]) / r_1
            second = (first - before) / (r_0 + r_1)
            first = first + r_0 * second
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * phi_1 * seen[0]
        x = x + alpha[i + 1] * (phi_2 * first - 2 * phi_3 * second)
    return x


@pytest.mark.slow
def test_three_step_solver_equals_a_loop_of_its_formulas():
    key, steps = jax.random.key(3), 5
    config = SamplerConfig("dpmpp_3m_ode", steps)
    found = jax.jit(lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config))(key)
    np.testing.assert_allclose(found, loop_three_step(key, steps), rtol=2e-4, atol=2e-4)


def scales(t):
    """alpha and sigma of the cosine schedule, in double precision."""
    alpha = np.cos(np.arccos(np.sqrt(SCHEDULE.eta)) * t) ** 2
    return alpha, np.sqrt(1.0 - alpha**2 + SCHEDULE.eta**2)


def exact_score(x, t):
    alpha, sigma = scales(t)
    return -np.linalg.solve(alpha**2 * PRIOR + sigma**2 * np.eye(DIM), x)


def loop_of_the_reverse_sde(key, steps, heun):
    """Song et al. 2021, eq. 6, with the derivatives of the cosine schedule written out."""
    path, start = path_and_start(key)
    times = time_grid(SCHEDULE, "uniform", steps)
    white = white_of(path, times)
    omega, s = np.arccos(np.sqrt(SCHEDULE.eta)), np.asarray(times, np.float64)

    def rates(x, s):
        alpha, sigma = scales(1.0 - s)
        slope = -omega * np.sin(2 * omega * (1.0 - s))
        f = slope / alpha
        g2 = -2 * alpha * slope - 2 * f * sigma**2
        return -f * x + g2 * exact_score(x, 1.0 - s), np.sqrt(g2)

    x = np.asarray(start, np.float64)
    for i in range(steps):
        ds = s[i + 1] - s[i]
        noise = np.sqrt(ds) * white[i]
        drift, g = rates(x, s[i])
        guess = x + drift * ds + g * noise
        if heun:
            drift_2, g_2 = rates(guess, s[i + 1])
            guess = x + 0.5 * (drift + drift_2) * ds + 0.5 * (g + g_2) * noise
        x = guess
    return x


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "steps"), [("euler_maruyama", 20), ("heun", 60)])
def test_solvers_of_the_reverse_sde_equal_a_loop(solver, steps):
    key = jax.random.key(3)
    config = SamplerConfig(solver, steps, "uniform")
    found = jax.jit(lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config))(key)
    expected = loop_of_the_reverse_sde(key, steps, heun=solver == "heun")
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_equals_a_loop_of_its_formulas(eta):
    """Song, Meng & Ermon 2021, eqs. 12 and 16, where abar stands for alpha^2 / (1 + eta_s^2).

    With x / sqrt(1 + eta_s^2) in place of x, the schedule's alpha^2 + sigma^2 = 1 + eta_s^2
    becomes the abar + (1 - abar) = 1 of the paper.
    """
    key, steps = jax.random.key(3), 12
    config = SamplerConfig("ddim", steps, eta=eta)
    found = jax.jit(lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config))(key)
    path, start = path_and_start(key)
    times = time_grid(SCHEDULE, "log_snr", steps)
    white, t = white_of(path, times), 1.0 - np.asarray(times, np.float64)
    unit = np.sqrt(1.0 + SCHEDULE.eta**2)
    abar = (scales(t)[0] / unit) ** 2
    x = np.asarray(start, np.float64) / unit
    for i in range(steps):
        a, b = abar[i], abar[i + 1]
        eps = -np.sqrt(1 - a) * unit * exact_score(unit * x, t[i])
        s = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
        x_0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
        x = np.sqrt(b) * x_0 + np.sqrt(1 - b - s**2) * eps + s * white[i]
    np.testing.assert_allclose(found, unit * x, rtol=2e-3, atol=2e-3)


def noise_predictor(x, t):
    """In place of a network that predicts eps: any function that is x where all is noise."""
    return SCHEDULE.sigma(t) * x + SCHEDULE.alpha(t) * jnp.sin(2.0 * x + 3.0 * t)


def denoiser_of_noise(x, t):
    return to_denoised(SCHEDULE, noise_predictor(x, t), "eps", x, t)


@pytest.mark.slow
def test_predictor_corrector_equals_a_loop_of_the_reference():
    """Rozet & Louppe 2023, algorithm 4, with the reference's settings on its grid."""
    key, steps, tau, corrections = jax.random.key(3), 16, 0.5, 2
    config = SamplerConfig("pc", steps, "uniform", corrections=corrections, tau=tau)
    found = jax.jit(lambda k: sample(k, denoiser_of_noise, (DIM,), SCHEDULE, config))(key)
    path, start = path_and_start(key, (corrections, DIM))
    times = time_grid(SCHEDULE, "uniform", steps)
    white, t = white_of(path, times), 1.0 - np.asarray(times, np.float64)
    x = np.asarray(start, np.float64)
    predict = lambda x, mu, sigma, t: sigma * x + mu * np.sin(2 * x + 3 * t)
    for i in range(steps):
        (mu, sigma), (mu_next, sigma_next) = scales(t[i]), scales(t[i + 1])
        r = mu_next / mu
        x = r * x + (sigma_next - r * sigma) * predict(x, mu, sigma, t[i])
        for z in white[i]:
            eps = predict(x, mu_next, sigma_next, t[i + 1])
            delta = tau / np.mean(eps**2)
            x = x - (delta * eps + np.sqrt(2 * delta) * z) * sigma_next
    np.testing.assert_allclose(found, x, rtol=2e-3, atol=2e-3)


def scan_predictor_corrector(key, steps, tau):
    """One correction a step, by hand."""
    path, start = path_and_start(key, (1, DIM))
    s = time_grid(SCHEDULE, "log_snr", steps)
    t = 1.0 - s

    def body(x, i):
        r, sigma = SCHEDULE.alpha(t[i + 1]) / SCHEDULE.alpha(t[i]), SCHEDULE.sigma(t[i + 1])
        x = r * x + (sigma - r * SCHEDULE.sigma(t[i])) * noise_predictor(x, t[i])
        z = path.evaluate(s[i], s[i + 1])[0] / jnp.sqrt(s[i + 1] - s[i])
        e = noise_predictor(x, t[i + 1])
        delta = tau / jnp.mean(e**2)
        return x - (delta * e + jnp.sqrt(2 * delta) * z) * sigma, None

    return jax.lax.scan(body, start, jnp.arange(steps))[0]


@pytest.mark.slow
def test_predictor_corrector_equals_a_scan():
    key, steps = jax.random.key(4), 32
    config = SamplerConfig("pc", steps, tau=0.3)
    found = jax.jit(lambda k: sample(k, denoiser_of_noise, (DIM,), SCHEDULE, config))(key)
    expected = jax.jit(lambda k: scan_predictor_corrector(k, steps, 0.3))(key)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
def test_noise_is_white_over_steps_and_members():
    """The increments that `sample` asks for: normal, and independent of one another."""
    members, steps = 4000, 8
    times = time_grid(SCHEDULE, "log_snr", steps)
    keys = jax.random.split(jax.random.key(0), members)

    @jax.vmap
    def numbers(key):
        path, start = path_and_start(key, (2, DIM))
        z = [path.evaluate(a, b) / jnp.sqrt(b - a) for a, b in itertools.pairwise(times)]
        return jnp.concatenate([start[None, :1], jnp.stack(z)[..., 0]], axis=None)

    z = np.asarray(numbers(keys), np.float64)  # the start, then two for each step
    error = 1 / np.sqrt(members)
    assert z.shape == (members, 1 + 2 * steps)
    covariance = z.T @ z / members
    assert np.abs(z.mean(axis=0)).max() < 4 * error
    assert np.abs(covariance - np.eye(1 + 2 * steps)).max() < 4.5 * np.sqrt(2) * error
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / z.size)
    between = (z[1:] * z[:-1]).mean()  # one member and the next
    assert abs(between) < 4 / np.sqrt(z.size)


# Independent values, variances 1 to 1e-3: what is left of them after `steps`, as the root of the
# mean square of log(variance of the draws / exact variance). Halving the steps at the first
# order halves it; the corrector stays biased by the length of its Langevin steps.
VARIANCES = np.geomspace(1.0, 1e-3, 32)
EXACTNESS = {
    "dpmpp_2m": (SamplerConfig("dpmpp_2m", 64), 0.02),
    "dpmpp_2m_ode": (SamplerConfig("dpmpp_2m_ode", 32), 0.03),
    "dpmpp_3m_ode": (SamplerConfig("dpmpp_3m_ode", 32), 0.005),
    "ddim": (SamplerConfig("ddim", 256), 0.04),
    "ddpm": (SamplerConfig("ddim", 256, eta=1.0), 0.06),
    "euler_maruyama": (SamplerConfig("euler_maruyama", 256), 0.04),
    "heun": (SamplerConfig("heun", 64), 0.03),
    "ode_heun": (SamplerConfig("ode", 32), 0.02),
    "ode_tsit5": (SamplerConfig("ode", 64, method="Tsit5", rtol=1e-3, atol=1e-4), 0.01),
    "edm": (SamplerConfig("ode", 32, "edm"), 0.06),
    "uniform": (SamplerConfig("dpmpp_2m", 512, "uniform"), 0.09),
    "pc": (SamplerConfig("pc", 128, tau=0.02), 0.04),
}


def variance_errors(config, count=4000):
    denoiser = gaussian.independent_denoiser(VARIANCES, SCHEDULE)
    draw = jax.jit(lambda k: sample(k, denoiser, (count, len(VARIANCES)), SCHEDULE, config))
    x = np.asarray(draw(jax.random.key(2)), np.float64)
    assert np.abs(x.mean(axis=0) / x.std(axis=0)).max() < 4 / np.sqrt(count)
    return np.log((x**2).mean(axis=0) / VARIANCES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACTNESS)
def test_variances_of_a_gaussian_target(name):
    config, bias = EXACTNESS[name]
    count = 4000
    errors = variance_errors(config, count)
    # The mean of 32 squares of sampling errors has a relative standard error of sqrt(2 / 32).
    floor = 2 / count * (1 + 4 * np.sqrt(2 / len(VARIANCES)))
    assert np.mean(errors**2) < bias**2 + floor


@pytest.mark.slow
def test_the_corrector_of_the_reference_spreads_too_far():
    """With tau = 0.5 the smallest variance is about four times too large, whatever the steps."""
    for steps in (32, 128):
        ratio = np.exp(variance_errors(SamplerConfig("pc", steps)))
        assert 0.9 < ratio[0] < 1.1
        assert ratio[-1] > 2.5


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        SamplerConfig("dpmpp_2m", 64),
        SamplerConfig("dpmpp_2m_ode", 64),
        SamplerConfig("dpmpp_3m_ode", 64),
        SamplerConfig("euler_maruyama", 512),
        SamplerConfig("heun", 128),
        SamplerConfig("ddim", 512),
        SamplerConfig("ddim", 512, eta=1.0),
        SamplerConfig("pc", 256, tau=0.02),
        SamplerConfig("ode", 64),
    ],
    ids=[
        "dpmpp_2m",
        "dpmpp_2m_ode",
        "dpmpp_3m_ode",
        "euler_maruyama",
        "heun",
        "ddim",
        "ddpm",
        "pc",
        "ode",
    ],
)
def test_a_skewed_target_keeps_its_moments(config):
    """20,000 independent draws, as one array; what the steps leave is below 2 %."""
    count = 20_000
    draw = jax.jit(lambda key: sample(key, mixture_denoiser, (count,), SCHEDULE, config))
    x = np.asarray(draw(jax.random.key(1)), np.float64)
    for k in (1, 2, 3):
        error = np.sqrt((MOMENT[2 * k] - MOMENT[k] ** 2) / count)
        assert abs((x**k).mean() - MOMENT[k]) < 4 * error + 0.02 * abs(MOMENT[k])
    upper = (x > 0.75).mean()
    assert abs(upper - WEIGHTS[1]) < 4 * np.sqrt(0.16 / count) + 0.004


@pytest.mark.parametrize(("eta", "estimates"), [(1.0, 3), (0.5, 3), (1.0, 4), (1.5, 2)])
def test_settings_that_no_formula_stands_for_are_refused(eta, estimates):
    with pytest.raises(InputError, match="estimates"):
        ExponentialSolver(CosineSchedule(), eta, estimates)
