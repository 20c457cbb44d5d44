import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.dynamics import Lorenz63, lorenz63
from slams_jax.dynamics.nature_config import Lorenz63Run
from slams_jax.errors import InputError

SYSTEM = Lorenz63()


def test_fixed_points_stay():
    c = np.sqrt(SYSTEM.beta * (SYSTEM.rho - 1.0))
    points = jnp.array([[0.0, 0.0, 0.0], [c, c, SYSTEM.rho - 1], [-c, -c, SYSTEM.rho - 1]])
    np.testing.assert_allclose(lorenz63.tendency(SYSTEM, points), 0.0, atol=2e-5)
    np.testing.assert_allclose(lorenz63.step(SYSTEM, points, 0.01), points, atol=1e-5)


def test_order_of_convergence_is_four():
    with jax.enable_x64(True):
        x = jnp.array([1.0, 2.0, 20.0], jnp.float64)

        def end(steps):
            return lorenz63.trajectory(SYSTEM, x, dt=0.4 / steps, length=1, substeps=steps)[0]

        exact = end(4096)
        errors = [float(jnp.linalg.norm(end(steps) - exact)) for steps in (64, 128, 256)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 4.0, atol=0.2)


def test_volumes_contract_at_the_rate_of_the_divergence():
    # The divergence of the flow is -(σ + 1 + β) everywhere.
    x = jnp.array([-7.0, -9.0, 24.0])
    dt = 0.005
    jacobian = jax.jacfwd(lambda x: lorenz63.step(SYSTEM, x, dt))(x)
    rate = np.log(np.linalg.det(np.asarray(jacobian, np.float64))) / dt
    np.testing.assert_allclose(rate, -(SYSTEM.sigma + 1 + SYSTEM.beta), rtol=2e-3)


def test_trajectory_equals_a_loop_of_steps():
    x = jnp.array([[1.0, 1.0, 1.0], [5.0, -3.0, 20.0]])
    run = lorenz63.trajectory(SYSTEM, x, dt=0.01, length=4, substeps=3)
    assert run.shape == (4, 2, 3)
    for state in run:
        for _ in range(3):
            x = lorenz63.step(SYSTEM, x, 0.01)
        np.testing.assert_allclose(state, x, rtol=1e-5)


def test_noise_of_one_step_has_its_variance():
    x = jnp.broadcast_to(jnp.array([1.0, 2.0, 20.0]), (20000, 3))
    how = {"noise": 2.0, "dt": 0.025, "length": 2}
    first, second = lorenz63.noisy_trajectory(SYSTEM, jax.random.key(0), x, **how)
    error = np.asarray(first - lorenz63.step(SYSTEM, x, 0.025), np.float64)
    np.testing.assert_allclose(np.cov(error.T), 0.1 * np.eye(3), atol=0.005)
    np.testing.assert_allclose(error.mean(axis=0), 0.0, atol=0.01)
    # The noise of the next step is independent of it.
    later = np.asarray(second - lorenz63.step(SYSTEM, first, 0.025), np.float64)
    np.testing.assert_allclose(later.T @ error / len(error), 0.0, atol=0.005)


def test_noise_is_added_after_each_step_of_an_interval():
    x = jnp.full((20000, 3), 2.0)
    how = {"noise": 1.0, "dt": 1e-4, "length": 1, "substeps": 4}
    (end,) = lorenz63.noisy_trajectory(SYSTEM, jax.random.key(0), x, **how)
    np.testing.assert_allclose(np.var(end, axis=0), 4e-4, rtol=0.05)


@pytest.mark.slow
def test_nature_run_is_on_the_attractor_and_its_background_is_a_forecast():
    how = {"length": 4000, "dt": 0.01, "substeps": 10, "spin_up": 100}
    truth, background = lorenz63.nature_run(SYSTEM, jax.random.key(1), **how)
    # Climate of the attractor: mean of z 23.55, standard deviations 7.92, 9.01 and 8.62.
    mean, std = np.mean(truth, axis=0), np.std(truth, axis=0)
    np.testing.assert_allclose(mean[2], 23.55, atol=0.4)
    np.testing.assert_allclose(std, [7.92, 9.01, 8.62], rtol=0.05)
    # With a perfect model and observations, the background is the truth.
    exact = {"imperfect": SYSTEM, "error": 1e-3, "variance": 1.0}
    same, perfect = lorenz63.nature_run(SYSTEM, jax.random.key(1), **exact, **how)
    np.testing.assert_array_equal(same, truth)
    np.testing.assert_allclose(perfect, truth, atol=0.05)
    noisy, _ = lorenz63.nature_run(SYSTEM, jax.random.key(1), noise=1.0, **how)
    assert np.abs(noisy[-1] - truth[-1]).max() > 1e-3
    error = np.asarray(background - truth)
    size = np.sqrt(np.mean(error**2, axis=0)) / std
    assert np.all((size > 0.3) & (size < 0.7)), size
    anomaly = error - error.mean(axis=0)
    persistence = np.mean(anomaly[1:] * anomaly[:-1], axis=0) / np.mean(anomaly**2, axis=0)
    assert np.all(persistence > 0.3), persistence
    # The bias of z, whose climate depends on ρ: the standard error is .01 of its deviation.
    assert error[:, 2].mean() > 0.05 * std[2]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Lorenz63(sigma=-1.0), "sigma"),
        (lambda: Lorenz63(rho=float("nan")), "rho"),
        (lambda: lorenz63.trajectory(SYSTEM, jnp.ones(3), dt=0.0, length=2), "dt"),
        (lambda: Lorenz63Run(noise=-1.0), "noise must be finite and not negative, got -1.0"),
        (lambda: Lorenz63Run(noise=float("inf")), "noise"),
        (
            lambda: lorenz63.nature_run(
                SYSTEM, jax.random.key(0), length=2, dt=0.01, substeps=1, spin_up=0
            ),
            "length >= 3",
        ),
    ],
)
def test_bad_input(call, named):
    with pytest.raises(InputError, match=named):
        call()
