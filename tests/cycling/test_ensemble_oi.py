import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.cycling import ensemble_oi, localisation
from slams_jax.errors import InputError

LATITUDE, LONGITUDE = np.array([-40.0, 10.0, 60.0]), np.array([0.0, 120.0, 240.0])
STATIONS = (np.array([-40.0, 60.0]), np.array([120.0, 240.0]))  # two of the grid points
ERROR = jnp.array([0.5, 2.0])


def operator(state):
    """A field and twice another one, at the stations."""
    return jnp.stack([state["t"][0, [0, 2], [1, 2]], 2.0 * state["p"][[0, 2], [1, 2]]], axis=-1)


@pytest.fixture(scope="module")
def states():
    key_t, key_p = jax.random.split(jax.random.key(0))
    t = 5.0 + jax.random.normal(key_t, (6, 2, 3, 3))
    return {"t": t, "p": t[:, 1] + 0.3 * jax.random.normal(key_p, (6, 3, 3))}


@pytest.mark.slow
@pytest.mark.parametrize("radius", [1e9, 6000.0])
def test_increments_are_those_of_the_dense_formula(states, radius):
    grid = np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")
    near, between = localisation(STATIONS, grid, radius), localisation(STATIONS, STATIONS, radius)
    scheme = ensemble_oi(
        states,
        operator,
        ERROR,
        variance=0.2,
        nearness=jnp.asarray(near),
        between=jnp.asarray(between),
    )
    departure = jnp.array([[1.0, -0.5], [0.3, 2.0]])
    increment = scheme.increment(departure)

    flat = np.concatenate([np.reshape(states[n], (6, -1)) for n in ("t", "p")], axis=1)
    seen = np.reshape(jax.vmap(operator)(states), (6, -1))
    joint = 0.2 * np.cov(np.concatenate([flat, seen], axis=1).astype(np.float64), rowvar=False)
    to_state = np.tile(near.reshape(2, -1).T, (3, 1)).repeat(2, axis=1)
    cross = joint[:27, 27:] * to_state
    inner = joint[27:, 27:] * between.repeat(2, axis=0).repeat(2, axis=1)
    inner += np.diag(np.tile(ERROR, 2) ** 2)
    expected = cross @ np.linalg.solve(inner, np.ravel(departure))
    found = np.concatenate([np.ravel(increment["t"]), np.ravel(increment["p"])])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_localisation_is_a_correlation_of_the_distance():
    same = localisation(STATIONS, STATIONS, 2000.0)
    np.testing.assert_allclose(np.diag(same), 1.0, rtol=1e-5)
    east = localisation(
        (np.zeros(1), np.zeros(1)), (np.zeros(3), np.array([9.0, 18.0, 180.0])), 1000.0
    )
    arc = 6371.0 * np.deg2rad([9.0, 18.0])
    np.testing.assert_allclose(east[0, :2], np.exp(-0.5 * (arc / 1000.0) ** 2), rtol=0.05)
    assert east[0, 2] < 1e-12


def test_states_without_places_have_none(states):
    scheme = ensemble_oi(
        states["t"][:, 0, 0],
        lambda x: x[None, :2],
        ERROR,
        variance=1.0,
        nearness=jnp.ones(1),
        between=jnp.ones((1, 1)),
    )
    x = np.asarray(states["t"][:, 0, 0], np.float64)
    b = np.cov(x, rowvar=False)
    expected = b[:, :2] @ np.linalg.solve(b[:2, :2] + np.diag(ERROR**2), [1.0, 3.0])
    np.testing.assert_allclose(scheme.increment(jnp.array([[1.0, 3.0]])), expected, rtol=1e-4)


def test_bad_input(states):
    how = {"nearness": jnp.ones((2, 3, 3)), "between": jnp.ones((2, 2))}
    with pytest.raises(InputError, match="at least 2 states"):
        ensemble_oi(jax.tree.map(lambda x: x[:1], states), operator, ERROR, variance=1.0, **how)
    with pytest.raises(InputError, match="variance > 0"):
        ensemble_oi(states, operator, ERROR, variance=0.0, **how)
