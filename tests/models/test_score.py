import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.errors import InputError
from slams_jax.gaussian import fit_prior
from slams_jax.models import score
from slams_jax.models.score import ScoreConfig, window_denoiser

pytestmark = pytest.mark.optimised  # memory of optimised programs

SCHEDULE = CosineSchedule()


def small(**options):
    defaults = dict(window=3, channels=2, widths=(8, 8), blocks=1, embedding=8, prediction="v")
    return ScoreConfig(**{**defaults, **options})


def randomised(params, scale=0.1):
    """Parameters with nothing left at zero, so that every path counts."""
    rng = np.random.default_rng(9)
    noise = lambda x: scale * rng.normal(size=x.shape).astype(np.float32)
    return jax.tree.map(lambda x: x + noise(x), params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "extra", "chunk"),
    [(1, 0, None), (1, 4, 2), (3, 0, 1), (3, 1, None), (3, 4, 2), (5, 1, 1), (5, 4, 3), (5, 4, 9)],
)
def test_composition_equals_a_loop_over_windows(window, chunk, extra):
    config = small(window=window)
    params = randomised(score.init(config, jax.random.key(0), (4, 6)))
    denoise = jax.jit(window_denoiser(config, SCHEDULE, params))
    x, t = jax.random.normal(jax.random.key(1), (window + extra, 4, 6, 2)), jnp.float32(0.4)
    expected = [None] * len(x)
    half = window // 2
    for start in range(extra + 1):
        out = denoise(x[None, start : start + window], t)[0]
        low = 0 if start == 0 else half
        high = window if start == extra else half + 1
        for j in range(low, high):
            expected[start + j] = out[j]
    composed = jax.jit(trajectory_denoiser(denoise, window, chunk=chunk))
    np.testing.assert_allclose(composed(x, t), jnp.stack(expected), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "remat"), [(1, True), (3, False)])
def test_chunks_give_the_gradient_of_the_whole_under_vmap(chunk, remat):
    config = small()
    params = randomised(score.init(config, jax.random.key(0), (4, 6)))
    denoise = window_denoiser(config, SCHEDULE, params)
    x = jax.random.normal(jax.random.key(1), (2, 6, 4, 6, 2))  # two members

    def gradient(chunk):
        composed = trajectory_denoiser(denoise, 3, chunk=chunk, remat=remat)
        value = lambda x: jnp.sum(jnp.sin(composed(x, jnp.float32(0.6))))
        return jax.jit(jax.vmap(jax.grad(value)))(x)

    np.testing.assert_allclose(gradient(chunk), gradient(None), atol=1e-5)


@pytest.mark.slow
def test_memory_of_a_gradient_is_bounded_by_the_chunk():
    config = small(widths=(16,), coordinates="none")
    params = score.init(config, jax.random.key(0), (16, 32))

    def temporary(frames, remat=True):
        denoise = window_denoiser(config, SCHEDULE, params)
        composed = trajectory_denoiser(denoise, 3, chunk=1, remat=remat)
        value = lambda x: jnp.sum(composed(x, jnp.float32(0.6)))
        x = jnp.zeros((frames, 16, 32, 2))
        return jax.jit(jax.grad(value)).lower(x).compile().memory_analysis().temp_size_in_bytes

    # Activations of a window are 16 channels many times over; a frame has 2.
    growth = (temporary(35) - temporary(3)) / 32
    assert growth < 0.05 * temporary(3)
    assert temporary(35, remat=False) > temporary(3) + 32 * 10 * growth  # all of them are kept


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_initial_denoiser_is_benign(prediction):
    config = small(prediction=prediction)
    params = score.init(config, jax.random.key(0), (4, 6))
    denoise = jax.jit(window_denoiser(config, SCHEDULE, params))
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 6, 2))
    t = jnp.float32(0.5)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    factor = 1 / alpha if prediction == "eps" else alpha / (alpha**2 + sigma**2)
    np.testing.assert_allclose(denoise(x, t), factor * x, rtol=1e-4)


@pytest.mark.slow
def test_one_point_grid():
    config = small(window=5, channels=3, widths=(16,), kernel=1, padding="edge", coordinates="none")
    params = randomised(score.init(config, jax.random.key(0), (1, 1)))
    x = jax.random.normal(jax.random.key(1), (9, 1, 1, 3))
    denoise = jax.jit(trajectory_denoiser(window_denoiser(config, SCHEDULE, params), 5))
    y = denoise(x, jnp.float32(0.2))
    assert y.shape == x.shape
    assert bool(jnp.all(jnp.isfinite(y)))


@pytest.mark.slow
def test_untrained_loss_is_the_variance_of_the_target():
    x = jax.random.normal(jax.random.key(2), (64, 3, 8, 8, 2))
    config = small(prediction="eps")
    params = score.init(config, jax.random.key(0), (8, 8))
    loss = jax.jit(score.loss, static_argnums=(0, 1))
    value, info = loss(config, SCHEDULE, params, jax.random.key(1), x)
    standard_error = (2 / x.size) ** 0.5
    assert abs(float(value) - 1.0) < 5 * standard_error
    assert set(info) == {"mse_low", "mse_middle", "mse_high"}
    assert float(value) == pytest.approx(float(sum(info.values())) / 3, rel=0.02)


def trained(config, draw, steps, gaussian=None):
    """Parameters for one point after `steps` batches of 256 windows from `draw`."""
    params = score.init(config, jax.random.key(0), (1, 1))
    optimiser = optax.adam(optax.cosine_decay_schedule(4e-3, steps))

    @jax.jit
    def step(carry, key):
        params, state = carry
        key_data, key_loss = jax.random.split(key)
        x = draw(key_data, 256)
        loss = lambda params: score.loss(config, SCHEDULE, params, key_loss, x, gaussian)[0]
        gradient = jax.grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

    with jax.numpy_dtype_promotion("standard"):
        start = (params, optimiser.init(params))
    (params, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(3), steps))
    return params


@pytest.mark.slow
def test_one_time_is_the_same_time_for_every_frame():
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 6, 2))
    for config in (small(), small(frame_noise=False)):
        params = randomised(score.init(config, jax.random.key(0), (4, 6)))
        denoise = jax.jit(window_denoiser(config, SCHEDULE, params))
        one = denoise(x, jnp.float32(0.4))
        many = jnp.full((2, config.levels), 0.4)
        np.testing.assert_allclose(denoise(x, many), one, atol=1e-6)
    params = randomised(score.init(small(), jax.random.key(0), (4, 6)))
    changed = jax.jit(window_denoiser(small(), SCHEDULE, params))
    mixed = jnp.array([[0.4, 0.4, 0.4], [0.4, 0.4, 0.9]])
    same, other = changed(x, mixed) - changed(x, jnp.float32(0.4))
    np.testing.assert_allclose(same, 0.0, atol=1e-6)
    assert float(jnp.abs(other[0]).max()) > 1e-3


@pytest.mark.slow
def test_training_mixes_common_times_absent_frames_and_times_of_their_own():
    x = jnp.zeros((4000, 3, 1, 1, 2))
    t = np.asarray(score.noisy(small(), SCHEDULE, jax.random.key(0), x)["t"])
    error = 4 * 0.5 / 4000**0.5
    levels = np.array([len(set(times) - {1.0}) for times in t])
    assert abs((levels == 3).mean() - 0.125) < error  # each frame its own
    absent = (t == 1.0).sum(axis=1)
    for count, share in enumerate((7 + 1 / 8, 3 / 8, 3 / 8, 1 / 8)):
        assert abs((absent == count).mean() - share / 8) < error
    assert abs(t[(absent == 0) & (levels == 1), 0].mean() - 0.5) < error
    one = score.noisy(small(frame_noise=False), SCHEDULE, jax.random.key(0), x)["t"]
    assert one.shape == (4000, 1)
    np.testing.assert_allclose(np.sort(one[:, 0]), one[:, 0])  # stratified


@pytest.mark.slow
@pytest.mark.parametrize(("prediction", "times"), [("eps", (0.1, 0.4)), ("v", (0.1, 0.4, 0.7))])
def test_training_finds_the_denoiser_of_a_gaussian(prediction, times):
    # x_0 = (a, a / 2) with a ~ N(0, 1): E[x_0 | x_t] is linear and known.
    config = small(
        window=1,
        widths=(32,),
        kernel=1,
        padding="edge",
        coordinates="none",
        embedding=32,
        prediction=prediction,
    )
    direction = jnp.array([1.0, 0.5])
    draw = lambda key, n: (
        jax.random.normal(key, (n, 1, 1, 1, 1)) * direction[None, None, None, None]
    )
    params = trained(config, draw, steps=1200)
    denoise = jax.jit(window_denoiser(config, SCHEDULE, params))
    key_a, key_eps = jax.random.split(jax.random.key(4))
    x_0 = jax.random.normal(key_a, (512, 1)) * direction[None]
    for t in times:
        alpha, sigma = SCHEDULE.alpha(jnp.float32(t)), SCHEDULE.sigma(jnp.float32(t))
        x_t = alpha * x_0 + sigma * jax.random.normal(key_eps, x_0.shape)
        gain = alpha * jnp.outer(direction, direction)
        gain = gain / (alpha**2 * jnp.vdot(direction, direction) + sigma**2)
        exact = x_t @ gain
        found = denoise(x_t[:, None, None, None, :], jnp.float32(t))[:, 0, 0, 0]
        assert float(jnp.sqrt(jnp.mean((found - exact) ** 2))) < 0.06


@pytest.mark.slow
def test_frames_at_pure_noise_are_absent():
    """Of a Gaussian chain, one network denoises frames whose levels of noise differ."""
    config = dataclasses.replace(DEPARTURE, channels=1, prediction="v")
    covariance = 0.9 ** np.abs(np.arange(3)[:, None] - np.arange(3))
    root = jnp.asarray(np.linalg.cholesky(covariance), jnp.float32)
    draw = lambda key, n: (jax.random.normal(key, (n, 3)) @ root.T)[:, :, None, None, None]
    params = trained(config, draw, steps=1000)
    denoise = jax.jit(window_denoiser(config, SCHEDULE, params))
    key_clean, key_noise = jax.random.split(jax.random.key(4))
    x_0, eps = draw(key_clean, 512), jax.random.normal(key_noise, (512, 3, 1, 1, 1))
    for levels in ([0.4, 0.4, 0.4], [0.3, 1.0, 0.3], [0.1, 1.0, 1.0], [0.1, 0.3, 0.7]):
        t = jnp.broadcast_to(jnp.asarray(levels, jnp.float32), (512, 3))
        alpha, sigma = (f(t)[:, :, None, None, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma))
        x_t = alpha * x_0 + sigma * eps
        a, s = np.diag(alpha[0, :, 0, 0, 0]), np.diag(sigma[0, :, 0, 0, 0])
        gain = covariance @ a @ np.linalg.inv(a @ covariance @ a + s @ s)
        exact = np.asarray(x_t)[:, :, 0, 0, 0] @ gain.T
        found = denoise(x_t, t)[:, :, 0, 0, 0]
        assert float(jnp.sqrt(jnp.mean((found - exact) ** 2))) < 0.15


def curved(key, count):
    """States x, y = x^2 / 2 + noise on a point, each one a chain of three frames."""
    key_x, key_y = jax.random.split(key)
    covariance = 0.8 ** np.abs(np.arange(3)[:, None] - np.arange(3))
    x = jax.random.normal(key_x, (count, 3)) @ jnp.asarray(np.linalg.cholesky(covariance).T, "f4")
    y = (x**2 - 1.0 + 0.3 * jax.random.normal(key_y, x.shape)) / 1.5
    return jnp.stack([x, y], axis=-1)[:, :, None, None, :]


@pytest.fixture(scope="module")
def gaussian():
    """The prior of windows of `curved`, moments of its chain."""
    frames = np.asarray(curved(jax.random.key(8), 400))[:, :, 0].reshape(1200, 1, 1, 2)
    steps = (np.arange(400)[:, None] * 10 + np.arange(3)).ravel()
    return fit_prior(frames, steps).over(3)


DEPARTURE = ScoreConfig(3, 2, (32,), 2, 32, kernel=1, padding="edge", coordinates="none")


@pytest.mark.slow
def test_departures_start_at_the_gaussian_denoiser(gaussian):
    params = score.init(DEPARTURE, jax.random.key(0), (1, 1))
    denoise = jax.jit(lambda g, x, t: window_denoiser(DEPARTURE, SCHEDULE, params, g)(x, t))
    x = jax.random.normal(jax.random.key(1), (4, 3, 1, 1, 2))
    for t in (jnp.float32(0.4), jnp.tile(jnp.array([[0.2, 1.0, 0.6]]), (4, 1))):
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        levels = (None, None) if t.ndim == 0 else (0, 0)
        exact = jax.vmap(gaussian.denoise, (0, *levels))(x, alpha, sigma)
        np.testing.assert_allclose(denoise(gaussian, x, t), exact, atol=1e-5)


@pytest.mark.slow
def test_the_untrained_loss_of_departures_is_bounded_at_low_noise(gaussian):
    """The error of the Gaussian denoiser over sigma^2: below that of x_t / alpha."""
    params = score.init(DEPARTURE, jax.random.key(0), (1, 1))
    x = curved(jax.random.key(2), 4096)
    loss = jax.jit(lambda g: score.loss(DEPARTURE, SCHEDULE, params, jax.random.key(1), x, g))
    value, info = loss(gaussian)
    assert 0.3 < float(info["mse_low"]) < 1.1
    assert 0.3 < float(value) < 1.1


@pytest.mark.slow
def test_departures_learn_what_is_not_gaussian(gaussian):
    params = trained(DEPARTURE, curved, 300, gaussian)
    x_0 = curved(jax.random.key(5), 1024)
    eps = jax.random.normal(jax.random.key(6), x_0.shape)
    t = jnp.float32(0.3)
    x_t = SCHEDULE.alpha(t) * x_0 + SCHEDULE.sigma(t) * eps
    found = jax.jit(window_denoiser(DEPARTURE, SCHEDULE, params, gaussian))(x_t, t)
    linear = jax.vmap(gaussian.denoise, (0, None, None))(x_t, SCHEDULE.alpha(t), SCHEDULE.sigma(t))
    missed = lambda x: float(jnp.mean((x - x_0) ** 2))
    assert missed(found) < 0.8 * missed(linear)


@pytest.mark.parametrize(
    "options",
    [{"window": 4}, {"widths": ()}, {"kernel": 2}, {"embedding": 0}, {"channels": 0}],
)
def test_bad_configurations_are_named(options):
    with pytest.raises(InputError, match=f"score {next(iter(options))} must be"):
        small(**options)


def test_bad_calls_are_named():
    config = small()
    params = score.init(config, jax.random.key(0), (4, 6))
    denoise = window_denoiser(config, SCHEDULE, params)
    with pytest.raises(InputError, match="2 frames is shorter than the window"):
        trajectory_denoiser(denoise, 3)(jnp.zeros((2, 4, 6, 2)), jnp.float32(0.5))
    with pytest.raises(InputError, match="expected 3 frames of 2 channels"):
        denoise(jnp.zeros((1, 3, 4, 6, 1)), jnp.float32(0.5))
    with pytest.raises(InputError, match="takes 3 noise levels per window, got 2"):
        denoise(jnp.zeros((1, 3, 4, 6, 2)), jnp.full((1, 2), 0.5))
    departing = window_denoiser(DEPARTURE, SCHEDULE, params)
    with pytest.raises(InputError, match="departures from a Gaussian prior: give it"):
        departing(jnp.zeros((1, 3, 1, 1, 2)), jnp.float32(0.5))
    with pytest.raises(InputError, match="chunk must be"):
        trajectory_denoiser(denoise, 3, chunk=0)
