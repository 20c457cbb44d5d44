import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.dynamics import Lorenz96, TwoScale, lorenz96, two_scale
from slams_jax.errors import InputError

SYSTEM = TwoScale()


def some_state(system=SYSTEM, slow=6):
    return jax.random.normal(jax.random.key(0), (slow, 1 + system.fast))


def test_tendencies_are_the_published_ones():
    system = TwoScale(forcing=18.0, fast=3, coupling=0.9, rate=7.0, amplitude=11.0)
    state = np.asarray(some_state(system, 5), np.float64)
    x, y = state[:, 0], state[:, 1:].ravel()
    exchange, size = 0.9 * 7.0 / 11.0, len(y)
    expected = np.empty_like(state)
    for k in range(5):
        advection = -x[k - 1] * (x[k - 2] - x[(k + 1) % 5])
        expected[k, 0] = advection - x[k] + 18.0 - exchange * y[3 * k : 3 * k + 3].sum()
    for j in range(size):
        advection = -7.0 * 11.0 * y[(j + 1) % size] * (y[(j + 2) % size] - y[j - 1])
        expected[j // 3, 1 + j % 3] = advection - 7.0 * y[j] + exchange * x[j // 3]
    found = two_scale.tendency(system, jnp.asarray(state, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_scales_exchange_energy_and_lose_it_by_friction_alone():
    system, state = TwoScale(forcing=0.0), some_state()
    gained = jnp.sum(state * two_scale.tendency(system, state))
    lost = jnp.sum(state[:, 0] ** 2) + system.rate * jnp.sum(state[:, 1:] ** 2)
    np.testing.assert_allclose(gained, -lost, rtol=1e-5)


def test_without_coupling_the_slow_variables_are_those_of_one_scale():
    system, state = TwoScale(coupling=0.0), some_state()
    alone = lorenz96.trajectory(Lorenz96(system.forcing), state[:, 0], dt=0.005, length=20)
    both = two_scale.trajectory(system, state, dt=0.005, length=20)
    np.testing.assert_allclose(both[..., 0], alone, rtol=1e-5, atol=1e-5)


def test_a_closure_is_added_to_the_tendency():
    x = some_state()[:, 0]
    found = lorenz96.tendency(Lorenz96(10.0, (0.5, -0.2, 0.1)), x)
    added = 0.5 - 0.2 * x + 0.1 * x**2
    np.testing.assert_allclose(found, lorenz96.tendency(Lorenz96(10.0), x) + added, rtol=1e-5)


def test_a_closure_that_is_a_polynomial_is_found():
    """Of fast variables whose sum is a polynomial of the slow one."""
    system, slow = TwoScale(fast=1), jnp.linspace(-5.0, 10.0, 50)
    fast = -(0.5 - 0.2 * slow + 0.03 * slow**3) / system.exchange
    model = two_scale.closed(system, jnp.stack([slow, fast], axis=-1), degree=3)
    np.testing.assert_allclose(model.closure, [0.5, -0.2, 0.0, 0.03], atol=1e-4)
    assert model.forcing == system.forcing


@pytest.mark.slow
def test_forecasts_with_the_closure_are_the_better_ones():
    start = two_scale.rested(SYSTEM, 1.0 + jax.random.normal(jax.random.key(1), (20, 36)))
    run = two_scale.trajectory(SYSTEM, start, dt=0.005, length=60, substeps=40)[30:]
    model = two_scale.closed(SYSTEM, run)
    truth = run[1:, ..., 0]

    def error(model):
        ahead = lorenz96.trajectory(model, run[:-1, ..., 0], dt=0.05, length=1, substeps=4)[0]
        return float(jnp.sqrt(jnp.mean((ahead - truth) ** 2)) / jnp.std(truth))

    # In climatological standard deviations, 0.2 time units (a day) ahead.
    assert error(model) < 0.03
    assert error(Lorenz96(SYSTEM.forcing)) > 2 * error(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"forcing": np.nan}, "forcing of Lorenz-96 must be a finite number"),
        ({"coupling": np.inf}, "coupling of Lorenz-96 must be a finite number"),
        ({"fast": 0}, "fast of Lorenz-96 must be a positive number, got 0"),
        ({"rate": -1.0}, "rate of Lorenz-96 must be a positive number"),
        ({"amplitude": 0.0}, "amplitude of Lorenz-96 must be a positive number"),
    ],
)
def test_bad_parameters(change, words):
    with pytest.raises(InputError, match=words):
        TwoScale(**change)


def test_bad_states():
    with pytest.raises(InputError, match="four slow variables or more, got 3"):
        two_scale.trajectory(SYSTEM, some_state(slow=3), dt=0.005, length=1)
    with pytest.raises(InputError, match="11 parts, not a slow variable and 4 fast ones"):
        two_scale.trajectory(TwoScale(fast=4), some_state(), dt=0.005, length=1)
    with pytest.raises(InputError, match="degree 4 cannot be fitted to 5 slow"):
        two_scale.closed(SYSTEM, some_state(slow=5))
    with pytest.raises(InputError, match="closure of Lorenz-96 must be finite"):
        Lorenz96(closure=(np.nan,))
