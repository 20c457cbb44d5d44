import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from slams_jax.diffusion import (
    CosineSchedule,
    SamplerConfig,
    evaluations,
    sample,
    sample_ensemble,
    sample_with_info,
    time_grid,
)
from slams_jax.diffusion.guidance import Estimate, Guided
from slams_jax.errors import InputError
from support import gaussian

SCHEDULE = CosineSchedule()
PRIOR, *_ = gaussian.make_problem()
DENOISER = gaussian.exact_denoiser(PRIOR, SCHEDULE)
DIM = len(PRIOR)


PROGRESS = {
    "uniform": lambda t: 1.0 - t,
    "log_snr": SCHEDULE.log_snr,
    "edm": lambda t: -((SCHEDULE.sigma(t) / SCHEDULE.alpha(t)) ** (1 / 7)),  # Karras et al., eq. 5
}


@pytest.mark.slow
@pytest.mark.parametrize("grid", PROGRESS)
@pytest.mark.parametrize("steps", [1, 7, 32])
def test_time_grids_rise_from_zero_to_one_in_equal_steps(grid, steps):
    s = np.asarray(time_grid(SCHEDULE, grid, steps))
    assert s.shape == (steps + 1,)
    assert (s[0], s[-1]) == (0.0, 1.0)
    assert np.all(np.diff(s) > 0)
    progress = np.asarray(PROGRESS[grid](1 - jnp.asarray(s)))
    np.testing.assert_allclose(np.diff(progress), np.ptp(progress) / steps, rtol=2e-3)


@pytest.mark.parametrize("grid", PROGRESS)
def test_time_grids_are_the_same_to_the_bit_in_a_program(grid):
    """The noise is keyed by the bits of the times."""
    inside = jax.jit(lambda: time_grid(SCHEDULE, grid, 100))()
    np.testing.assert_array_equal(inside, time_grid(SCHEDULE, grid, 100))


@pytest.mark.slow
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


@pytest.mark.slow
def test_member_does_not_depend_on_members_or_batch():
    config, key = SamplerConfig(steps=8), jax.random.key(1)
    draw = lambda k: sample(k, DENOISER, (DIM,), SCHEDULE, config)
    reference = jax.jit(lambda k: sample_ensemble(k, draw, 7))(key)
    for members, batch in ((3, None), (7, 3)):
        found = jax.jit(lambda k, m=members, b=batch: sample_ensemble(k, draw, m, batch=b))(key)
        assert found.shape == (members, DIM)
        np.testing.assert_allclose(found, reference[:members], atol=1e-5)


@pytest.mark.slow
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


@pytest.mark.slow
def test_members_do_not_depend_on_devices():
    """16 members over 8 devices, against all of them on one."""
    config, key = SamplerConfig(steps=8), jax.random.key(1)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("member",), axis_types=auto)
    draw = lambda k: sample_with_info(k, DENOISER, (DIM,), SCHEDULE, config)
    ensemble = lambda k: sample_ensemble(k, draw, 16)
    over_members = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("member"))
    spread = jax.jit(ensemble, out_shardings=over_members)
    x, info = spread(key)
    reference, _ = jax.jit(ensemble)(key)
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, DIM)}
    assert len(x.sharding.device_set) == 8
    np.testing.assert_allclose(x, reference, atol=1e-5)
    np.testing.assert_array_equal(info.evaluations, np.full(16, 8))
    assert np.all(info.failed_at == -1)


COUNTED = {
    "dpmpp_2m": (SamplerConfig(steps=9), 9),
    "dpmpp_3m_ode": (SamplerConfig("dpmpp_3m_ode", 9), 9),
    "dpmpp_2m_ode": (SamplerConfig("dpmpp_2m_ode", 9), 9),
    "ddim": (SamplerConfig("ddim", 9, eta=0.5), 9),
    "euler_maruyama": (SamplerConfig("euler_maruyama", 9), 9),
    "heun": (SamplerConfig("heun", 9), 18),
    "pc": (SamplerConfig("pc", 9, corrections=3), 36),
    "Euler": (SamplerConfig("ode", 9, method="Euler"), 9),
    "Heun": (SamplerConfig("ode", 9), 18),
    "Bosh3": (SamplerConfig("ode", 9, method="Bosh3"), 28),
    "Dopri8": (SamplerConfig("ode", 3, method="Dopri8"), 40),
    "adaptive": (SamplerConfig("ode", 200, method="Tsit5", rtol=1e-3, atol=1e-3), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_evaluations_are_those_that_are_made(name):
    config, expected = COUNTED[name]
    calls = []

    def counted(x, t):
        io_callback(lambda t: calls.append(float(t)), None, t)  # never elided nor repeated
        return DENOISER(x, t)

    draw = jax.jit(lambda key: sample_with_info(key, counted, (DIM,), SCHEDULE, config))
    _, info = jax.block_until_ready(draw(jax.random.key(0)))
    jax.effects_barrier()
    assert evaluations(config) == expected
    assert len(calls) == int(info.evaluations) == (expected or len(calls)) > 0
    assert 0.0 <= min(calls) < 1e-2
    assert max(calls) == 1.0
    assert info.failed_at == -1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_3m_ode", "ddim", "pc", "heun", "Heun"])
def test_the_largest_residual_of_any_step_is_told(name):
    """Here it is largest halfway, and the draw is the same without it."""
    config = COUNTED[name][0]
    told = Guided(lambda x, t: Estimate(DENOISER(x, t), DENOISER(x, t), t * (1.0 - t)))
    drawn = lambda of: sample_with_info(jax.random.key(0), of, (DIM,), SCHEDULE, config)
    x, info = jax.jit(lambda: drawn(told))()
    plain, untold = jax.jit(lambda: drawn(DENOISER))()
    t = 1.0 - np.asarray(time_grid(SCHEDULE, config.grid, config.steps))
    if name in ("heun", "Heun"):
        assert info.residual == untold.residual == -1
    else:
        np.testing.assert_allclose(info.residual, (t * (1.0 - t)).max(), rtol=1e-4)
        assert untold.residual == -1
    np.testing.assert_allclose(x, plain, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpmpp_2m", "Heun", "pc", "adaptive"])
def test_a_draw_that_fails_says_when(name):
    config = COUNTED[name][0]
    fails = np.array([False, True, True, False])

    def draw(pair):
        key, fail = pair
        broken = lambda x, t: jnp.where((t < 0.4) & fail, jnp.inf, DENOISER(x, t))
        return sample_with_info(key, broken, (DIM,), SCHEDULE, config)

    keys = jax.random.split(jax.random.key(0), 4)
    x, info = jax.jit(jax.vmap(draw))((keys, jnp.asarray(fails)))
    np.testing.assert_array_equal(np.isfinite(x).all(axis=1), ~fails)
    np.testing.assert_array_equal(info.failed_at >= 0, fails)
    t = 1.0 - np.asarray(time_grid(SCHEDULE, config.grid, config.steps))
    found = np.asarray(info.failed_at)[fails]
    if name == "adaptive":
        assert np.all((found >= 0.4) & (found < 0.5))
    else:
        # A step is seen at its end; those of "pc" and "Heun" look there for themselves.
        first = np.argmax(t < 0.4)
        np.testing.assert_allclose(found, t[first + (name == "dpmpp_2m")], atol=1e-6)
    alone, _ = jax.jit(draw)((keys[3], jnp.asarray(False)))
    # Near t = 0 the corrector, and the choice of the steps, magnify what rounding leaves of eps.
    np.testing.assert_allclose(x[3], alone, atol=0.05 if name in ("pc", "adaptive") else 1e-5)


@pytest.mark.slow
def test_adaptive_steps_that_do_not_suffice_are_no_draw():
    config = SamplerConfig("ode", 4, method="Tsit5", rtol=1e-3, atol=1e-3)
    draw = jax.jit(lambda key: sample_with_info(key, DENOISER, (DIM,), SCHEDULE, config))
    x, info = draw(jax.random.key(0))
    assert np.isnan(x).all()
    assert 0.05 < float(info.failed_at) < 1.0
    assert int(info.evaluations) == 25


@pytest.mark.slow
def test_programs_hold_no_callbacks():
    """Otherwise they could be neither cached nor exported."""
    for config in (SamplerConfig(), COUNTED["adaptive"][0]):
        draw = jax.jit(lambda key, c=config: sample(key, DENOISER, (DIM,), SCHEDULE, c))
        assert "callback" not in draw.lower(jax.random.key(0)).as_text()


@pytest.mark.slow
def test_members_side_by_side_share_their_evaluations():
    """A batch at a time, each batch has its own."""
    calls = []

    def counted(x, t):
        io_callback(lambda t: calls.append(float(t)), None, t)
        return DENOISER(x, t)

    draw = lambda key: sample(key, counted, (DIM,), SCHEDULE, SamplerConfig(steps=5))
    draws = jax.jit(lambda key: sample_ensemble(key, draw, 4, batch=2))
    jax.block_until_ready(draws(jax.random.key(0)))
    jax.effects_barrier()
    assert len(calls) == 2 * 5
    times = 1.0 - np.asarray(time_grid(SCHEDULE, "log_snr", 5))[:-1]
    np.testing.assert_allclose(np.sort(calls), np.sort(np.repeat(times, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(solver="rk4"), "unknown sampler solver 'rk4': choose from"),
        (dict(grid="cosine"), "unknown sampler grid 'cosine': choose from"),
        (dict(solver="ode", method="Kvaerno5"), "unknown sampler method 'Kvaerno5': choose"),
        (dict(steps=0), "sampler steps must be at least 1, got 0"),
        (dict(solver="pc", corrections=0), "sampler corrections must be at least 1, got 0"),
        (dict(eta=0.5), r"sampler eta = 0.5 has no effect with solver 'dpmpp_2m': .* 'ddim'"),
        (dict(solver="ddim", tau=0.1), r"sampler tau = 0.1 has no effect with solver 'ddim'"),
        (dict(solver="pc", rtol=0.1), r"sampler rtol = 0.1 has no effect with solver 'pc'"),
        (dict(solver="ddim", eta=1.5), r"sampler eta must lie in \[0, 1\], got 1.5"),
        (dict(solver="ddim", eta=float("nan")), r"sampler eta must lie in \[0, 1\], got nan"),
        (dict(solver="pc", tau=2.0), r"sampler tau must lie in \(0, 2\), got 2.0"),
        (dict(solver="ode", rtol=0.1), "sampler rtol and atol must both be positive"),
        (dict(solver="ode", rtol=-1.0, atol=-1.0), "sampler rtol and atol must both be positive"),
        (
            dict(solver="ode", method="Euler", rtol=0.1, atol=0.1),
            "sampler method 'Euler' does not estimate its error",
        ),
    ],
)
def test_errors(options, message):
    # The check itself, which the type checker of the tests would forestall.
    values = SimpleNamespace(**{**vars(SamplerConfig()), **options})
    with pytest.raises(InputError, match=message):
        inspect.unwrap(SamplerConfig.__post_init__)(values)
