import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.dynamics import Lorenz96, lorenz96
from slams_jax.errors import InputError

SYSTEM = Lorenz96()


def test_the_rest_state_stays():
    x = jnp.full(40, SYSTEM.forcing)
    np.testing.assert_array_equal(lorenz96.tendency(SYSTEM, x), 0.0)


def test_tendencies_are_the_published_ones():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(7)
    expected = [(x[(i + 1) % 7] - x[i - 2]) * x[i - 1] - x[i] + 8.0 for i in range(7)]
    found = lorenz96.tendency(SYSTEM, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_advection_conserves_energy():
    x = jax.random.normal(jax.random.key(0), (3, 40))
    advection = lorenz96.tendency(Lorenz96(0.0), x) + x
    np.testing.assert_allclose(jnp.sum(x * advection, axis=-1), 0.0, atol=1e-4)


@pytest.mark.slow
def test_the_climate_is_the_published_one():
    """Standard deviation 3.6 (DAPPER's score of the climatology)."""
    start = SYSTEM.forcing + jax.random.normal(jax.random.key(0), (20, 40))
    run = np.asarray(lorenz96.trajectory(SYSTEM, start, dt=0.05, length=400, substeps=4))[100:]
    np.testing.assert_allclose(run.std(), 3.63, rtol=0.02)
    np.testing.assert_allclose(run.mean(), 2.35, rtol=0.03)


def test_bad_input():
    with pytest.raises(InputError, match="finite"):
        Lorenz96(forcing=np.nan)
    with pytest.raises(InputError, match="four variables or more, got 3"):
        lorenz96.trajectory(SYSTEM, jnp.ones(3), dt=0.05, length=1)
    with pytest.raises(InputError, match="dt, length and substeps"):
        lorenz96.trajectory(SYSTEM, jnp.ones(40), dt=0.0, length=1)
