import functools

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.aliases import Forecast
from slams_jax.cycling import cycle, cycle_step


def forecast(state, key):
    return {"x": 0.9 * state["x"] + 0.1 * jax.random.normal(key, (2,))}


def analyse(background, observed, key):
    step = 0.5 * (observed - background["x"]) + 0.01 * jax.random.normal(key, (2,))
    return {"x": background["x"] + step}


def test_a_background_is_the_forecast_of_the_analysis_before():
    assert isinstance(forecast, Forecast)
    start, observations = {"x": jnp.array([1.0, -2.0])}, jnp.array([[0.5, 1.0], [2.0, 0.0]])
    first, second = cycle(
        lambda state, _: {"x": 2.0 * state["x"]},
        lambda background, observed, _: {"x": (background["x"] + observed) / 2},
        start,
        observations,
        jax.random.key(0),
    )
    np.testing.assert_allclose(first.background["x"], [2.0, -4.0])
    np.testing.assert_allclose(first.analysis["x"], [1.25, -1.5])
    np.testing.assert_allclose(second.background["x"], [2.5, -3.0])
    np.testing.assert_allclose(second.analysis["x"], [2.25, -1.5])


def test_a_loop_is_a_scan_with_other_draws_at_every_step():
    start, key = {"x": jnp.zeros(2)}, jax.random.key(1)
    observations = jnp.zeros((5, 2))
    looped = list(cycle(forecast, analyse, start, observations, key))

    def step(state, given):
        done = functools.partial(cycle_step, forecast, analyse)(state, *given)
        return done.analysis, done

    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(5))
    last, scanned = jax.lax.scan(step, start, (observations, keys))
    for k, done in enumerate(looped):
        np.testing.assert_allclose(scanned.background["x"][k], done.background["x"], rtol=1e-5)
        np.testing.assert_allclose(scanned.analysis["x"][k], done.analysis["x"], rtol=1e-5)
    np.testing.assert_allclose(last["x"], looped[-1].analysis["x"], rtol=1e-5)
    # No two forecasts draw the same, nor do a forecast and its analysis.
    starts = [start["x"], *(done.analysis["x"] for done in looped[:-1])]
    drawn = [10 * (done.background["x"] - 0.9 * x) for done, x in zip(looped, starts, strict=True)]
    drawn += [100 * (done.analysis["x"] - 0.5 * done.background["x"]) for done in looped]
    apart = np.abs(np.subtract.outer(np.array(drawn)[:, 0], np.array(drawn)[:, 0]))
    assert np.all(apart[~np.eye(10, dtype=bool)] > 1e-3)
