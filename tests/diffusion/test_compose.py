"""The scores of windows less those of their overlaps; centres are in tests/models/test_score.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slams_jax.diffusion import CosineSchedule, trajectory_denoiser
from slams_jax.errors import InputError
from slams_jax.reference_problems import predictable_cases

SCHEDULE = CosineSchedule()


def mixing(length):
    """A stand-in for a denoiser: frames of a window are mixed, differently at every place."""
    matrix = jax.random.normal(jax.random.key(length), (length, length))
    return lambda x, t: jnp.tensordot(x, matrix, ((1,), (1,))).transpose(0, 4, 1, 2, 3) * t


@pytest.mark.parametrize(("window", "extra", "chunk"), [(3, 0, None), (3, 4, None), (5, 4, 2)])
def test_windows_are_added_and_overlaps_taken_away(window, extra, chunk):
    denoise, overlap = mixing(window), mixing(window - 1)
    x, t = jax.random.normal(jax.random.key(0), (window + extra, 2, 3, 1)), jnp.float32(0.4)
    expected = np.zeros(x.shape)
    for start in range(extra + 1):
        expected[start : start + window] += denoise(x[None, start : start + window], t)[0]
        if start > 0:
            shared = slice(start, start + window - 1)
            expected[shared] -= overlap(x[None, shared], t)[0]
    composed = jax.jit(trajectory_denoiser(denoise, window, overlap=overlap, chunk=chunk))
    np.testing.assert_allclose(composed(x, t), expected, atol=1e-5)


def test_single_frames_have_no_overlap():
    with pytest.raises(InputError, match="windows of one frame have no overlap"):
        trajectory_denoiser(mixing(1), 1, overlap=mixing(1))


def denoising_error(case, t):
    """Mean square distance from the exact denoiser of the whole trajectory, over its variance."""
    prior, shape = case.problem.covariance, case.problem.shape
    key_state, key_noise = jax.random.split(jax.random.key(0))
    white = lambda key: jax.random.normal(key, (64, *shape))
    # The root of the covariance: what is left of it given nothing.
    x_0 = jax.vmap(lambda w: prior.sample_root(w, jnp.float32(1e6)))(white(key_state))
    x_t = SCHEDULE.alpha(t) * x_0 + SCHEDULE.sigma(t) * white(key_noise)
    exact = jax.vmap(lambda x: prior(x, t))(x_t)
    found = jax.vmap(lambda x: case.problem.denoiser(x, t))(x_t)
    return float(jnp.mean((found - exact) ** 2) / jnp.mean((x_0 - exact) ** 2))


@pytest.mark.slow
def test_overlaps_lose_less_where_frames_hang_together():
    centres, overlaps, exact = predictable_cases(((2, False), (2, True), (None, False)))[:3]
    t = jnp.float32(0.01)  # where the noise is that of the chain
    assert denoising_error(exact, t) < 1e-6
    assert denoising_error(overlaps, t) < 0.2 * denoising_error(centres, t)
