"""Composition: a denoiser of trajectories of any length from a denoiser of windows.

A window slides over the trajectory (Rozet & Louppe 2023, arXiv 2306.10574, section 3.2): each frame
is taken from the window that it is the centre of, the first and last frames from the first and last
window. Or the scores of all windows are added, less those of their overlaps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Denoiser, Scalar
from slams_jax.errors import InputError
from slams_jax.mesh import DATA, SPACE, devices_along, split

WindowDenoiser = Callable[
    [Float[Array, "window frame lat lon channel"], Scalar],
    Float[Array, "window frame lat lon channel"],
]


def trajectory_denoiser(
    denoise: WindowDenoiser,
    window: int,
    *,
    overlap: WindowDenoiser | None = None,
    chunk: int | None = None,
    remat: bool = True,
) -> Denoiser:
    """Compose a denoiser of windows into one of trajectories.

    Of the n - k + 1 windows, the first gives its first (k + 1) / 2 frames, each inner one its
    centre frame, and the last one its last (k + 1) / 2 frames. With `overlap`, the scores of all
    windows are added, and those of the k - 1 frames that successive windows share are taken away:
    the density of a Markov chain of order k - 1 without noise, p(x) = prod p(window) / prod
    p(overlap). That costs twice as much, and loses less where frames depend strongly on each
    other, but adds up the errors of an inexact denoiser. Reads the ambient mesh: devices along
    "data" share the windows, along "space" the latitudes.

    Args:
        denoise: denoiser of windows, (window, frame, lat, lon, channel).
        window: number of frames k in a window, odd.
        overlap: denoiser of windows of k - 1 frames, to add scores instead of taking centres.
        chunk: number of windows that each device evaluates at a time; None evaluates all at once.
        remat: recompute the activations of a chunk for gradients, so that memory does not grow
            with the trajectory; otherwise keep them, which saves a third of the work.

    Returns:
        A denoiser of trajectories (time, lat, lon, channel) of k frames or more.

    Raises:
        InputError: an even window, overlaps of single frames, or a chunk below 1; when called, a
            trajectory shorter than the window.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window must be odd and positive, got {window}")
    if overlap is not None and window == 1:
        raise InputError("windows of one frame have no overlap: leave it out")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1 window, got {chunk}")
    half = window // 2

    def every(of: WindowDenoiser, x_t: Array, t: Array, starts: np.ndarray, length: int) -> Array:
        """What `of` makes of the `length` frames from each of `starts` on."""
        count, devices = len(starts), devices_along(DATA)
        parts = -(-count // (chunk * devices if chunk else count))
        size = -(-count // (parts * devices)) * devices
        # Parts of equal size: the last window is repeated to fill them.
        filled = starts[np.minimum(np.arange(parts * size), count - 1)].reshape(parts, size)
        index = jnp.asarray(filled[:, :, None] + np.arange(length)[None, None, :])

        def part(rows: Array) -> Array:
            return of(split(x_t[rows], DATA, None, SPACE), t)

        if parts == 1:
            return part(index[0])[:count]
        x_0 = jax.lax.map(jax.checkpoint(part) if remat else part, index)
        return x_0.reshape(parts * size, *x_0.shape[2:])[:count]

    def denoise_trajectory(x_t: Array, t: Array) -> Array:
        frames = x_t.shape[0]
        if frames < window:
            raise InputError(
                f"a trajectory of {frames} frames is shorter than the window, {window}: lengthen it"
            )
        x_t = split(x_t, None, SPACE)
        starts = np.arange(frames - window + 1)
        x_0 = every(denoise, x_t, t, starts, window)
        if len(starts) == 1:
            return x_0[0]
        if overlap is None:
            x_0 = jnp.concatenate([x_0[0, : half + 1], x_0[1:-1, half], x_0[-1, half:]])
        else:
            # One window more than overlaps holds each frame: denoised frames add up as scores do.
            shared = every(overlap, x_t, t, starts[1:], window - 1)
            rows = lambda of, length: of[:, None] + np.arange(length)
            x_0 = jnp.zeros_like(x_t).at[rows(starts, window)].add(x_0)
            x_0 = x_0.at[rows(starts[1:], window - 1)].add(-shared)
        return split(x_0, None, SPACE)

    return denoise_trajectory
