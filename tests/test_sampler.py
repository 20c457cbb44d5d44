import inspect
from types import SimpleNamespace

import gaussian
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from slams_jax.diffusion import CosineSchedule, SamplerConfig, sample, sample_ensemble, time_grid
from slams_jax.errors import InputError

SCHEDULE = CosineSchedule()
PRIOR, *_ = gaussian.make_problem()
DENOISER = gaussian.exact_denoiser(PRIOR, SCHEDULE)
DIM = len(PRIOR)


@pytest.mark.parametrize("grid", ["log_snr", "uniform"])
@pytest.mark.parametrize("steps", [1, 7, 32])
def test_time_grids_rise_from_zero_to_one_in_equal_steps(grid, steps):
    s = np.asarray(time_grid(SCHEDULE, grid, steps))
    assert s.shape == (steps + 1,)
    assert (s[0], s[-1]) == (0.0, 1.0)
    assert np.all(np.diff(s) > 0)
    progress = s if grid == "uniform" else np.asarray(SCHEDULE.log_snr(1 - jnp.asarray(s)))
    np.testing.assert_allclose(np.diff(progress), np.ptp(progress) / steps, rtol=2e-3)


def test_the_default_draws_from_the_prior():
    count = 4000
    config = SamplerConfig(steps=96)
    draws = gaussian.draws(DENOISER, DIM, SCHEDULE, config, count)
    std = np.sqrt(np.diag(PRIOR))
    scores = draws / std
    assert np.abs(scores.mean(axis=0)).max() < 4 / np.sqrt(count)
    assert np.abs(scores.var(axis=0) - 1).max() < 4 * np.sqrt(2 / count) + 0.02
    expected = PRIOR / np.outer(std, std)
    assert np.abs(scores.T @ scores / count - expected).max() < 5 * np.sqrt(2 / count) + 0.02


def test_member_does_not_depend_on_members_or_batch():
    config, key = SamplerConfig(steps=8), jax.random.key(1)
    draw = lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config)
    reference = jax.jit(lambda k: sample_ensemble(k, draw, 7))(key)
    for members, batch in ((3, None), (7, 3)):
        found = jax.jit(lambda k, m=members, b=batch: sample_ensemble(k, draw, m, batch=b))(key)
        assert found.shape == (members, DIM)
        np.testing.assert_allclose(found, reference[:members], atol=1e-5)


def test_keys_repeat_and_differ_and_calls_compile_once():
    traces = []

    def traced(x, t):
        traces.append(None)
        return DENOISER(x, t)

    draw = lambda k: sample(k, traced, (DIM,), SCHEDULE, SamplerConfig(steps=8))
    draws = jax.jit(lambda k: sample_ensemble(k, draw, 3))
    first = draws(jax.random.key(5))
    count = len(traces)
    again, other = draws(jax.random.key(5)), draws(jax.random.key(6))
    np.testing.assert_array_equal(first, again)
    everything = np.concatenate([first, other])
    distance = np.abs(everything[:, None] - everything[None]).max(axis=-1)
    assert np.all(distance[~np.eye(6, dtype=bool)] > 0.1)
    assert len(traces) == count > 0
    assert draws._cache_size() == 1


@pytest.mark.parametrize(("solver", "steps"), [("dpmpp_2m", 32), ("euler_maruyama", 5)])
def test_each_step_evaluates_the_denoiser_once(solver, steps):
    times = []

    def counted(x, t):
        io_callback(lambda t: times.append(float(t)), None, t)  # never elided nor repeated
        return DENOISER(x, t)

    config = SamplerConfig(solver, steps)
    draw = lambda key: sample(key, counted, (DIM,), SCHEDULE, config)
    jax.block_until_ready(jax.jit(draw)(jax.random.key(0)))
    jax.effects_barrier()
    np.testing.assert_allclose(
        np.sort(times), np.sort(1 - time_grid(SCHEDULE, "log_snr", steps)[:-1]), atol=1e-6
    )
    times.clear()
    # Members side by side share their evaluations; a batch at a time, each has its own.
    jax.block_until_ready(
        jax.jit(lambda key: sample_ensemble(key, draw, 4, batch=2))(jax.random.key(0))
    )
    jax.effects_barrier()
    assert len(times) == 2 * steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(solver="heun"), "sampler solver 'heun' is unknown: choose from"),
        (dict(grid="edm"), "sampler grid 'edm' is unknown: choose from"),
        (dict(steps=0), "sampler steps must be at least 1, got 0"),
    ],
)
def test_errors(options, message):
    # The check itself, which the type checker of the tests would forestall.
    values = SimpleNamespace(**{**vars(SamplerConfig()), **options})
    with pytest.raises(InputError, match=message):
        inspect.unwrap(SamplerConfig.__post_init__)(values)
