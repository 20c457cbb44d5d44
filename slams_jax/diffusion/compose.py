"""Composition: a denoiser of trajectories of any length from a denoiser of windows.

A window slides over the trajectory (Rozet & Louppe 2023, arXiv 2306.10574, section 3.2): each frame
is taken from the window that it is the centre of, the first and last frames from the first and last
window.
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
    denoise: WindowDenoiser, window: int, *, chunk: int | None = None, remat: bool = True
) -> Denoiser:
    """Compose a denoiser of windows into one of trajectories.

    Of the n - k + 1 windows, the first gives its first (k + 1) / 2 frames, each inner one its
    centre frame, and the last one its last (k + 1) / 2 frames. Reads the ambient mesh: devices
    along "data" share the windows, along "space" the latitudes.

    Args:
        denoise: denoiser of windows, (window, frame, lat, lon, channel).
        window: number of frames k in a window, odd.
        chunk: number of windows that each device evaluates at a time; None evaluates all at once.
        remat: recompute the activations of a chunk for gradients, so that memory does not grow
            with the trajectory; otherwise keep them, which saves a third of the work.

    Returns:
        A denoiser of trajectories (time, lat, lon, channel) of k frames or more.

    Raises:
        InputError: an even window or a chunk below 1; when called, a trajectory shorter than the
            window.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window must be odd and positive, got {window}")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1 window, got {chunk}")
    half = window // 2

    def denoise_trajectory(x_t: Array, t: Array) -> Array:
        frames = x_t.shape[0]
        if frames < window:
            raise InputError(
                f"a trajectory of {frames} frames is shorter than the window, {window}: lengthen it"
            )
        count = frames - window + 1
        devices = devices_along(DATA)
        parts = -(-count // (chunk * devices if chunk else count))
        size = -(-count // (parts * devices)) * devices
        # Parts of equal size: the last window is repeated to fill them.
        starts = np.minimum(np.arange(parts * size), count - 1).reshape(parts, size)
        index = jnp.asarray(starts[:, :, None] + np.arange(window)[None, None, :])

        trajectory = split(x_t, None, SPACE)

        def part(rows: Array) -> Array:
            return denoise(split(trajectory[rows], DATA, None, SPACE), t)

        if parts == 1:
            x_0 = part(index[0])
        else:
            x_0 = jax.lax.map(jax.checkpoint(part) if remat else part, index)
            x_0 = x_0.reshape(parts * size, *x_0.shape[2:])
        inner = x_0[1 : count - 1, half]
        if count == 1:
            return x_0[0]
        x_0 = jnp.concatenate([x_0[0, : half + 1], inner, x_0[count - 1, half:]])
        return split(x_0, None, SPACE)

    return denoise_trajectory
