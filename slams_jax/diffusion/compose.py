"""Windows into trajectories: a denoiser of any number of frames from one of a few.

A trajectory is denoised by sliding the window over it (Rozet & Louppe 2023, arXiv 2306.10574,
section 3.2): each frame is taken from the window whose middle it is, the first and last frames from
the first and last window.
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

    Reads the ambient mesh: devices along "data" share the windows, along "space" the latitudes.
    Of n - k + 1 windows the first gives its first (k + 1) / 2 frames, each inner one its middle
    frame, the last its last (k + 1) / 2.

    Args:
        denoise: denoiser of windows, (window, frame, lat, lon, channel).
        window: frames k in a window, odd.
        chunk: windows evaluated at a time by each device that shares them. None: all at once.
        remat: compute the activations of a chunk again for gradients, so that memory does not
            grow with the trajectory; else they are kept, which saves a third of the work.

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
            raise InputError(f"a trajectory of {frames} frames is shorter than a window: {window}")
        count = frames - window + 1
        devices = devices_along(DATA)
        parts = -(-count // (chunk * devices if chunk else count))
        size = -(-count // (parts * devices)) * devices
        # Equal parts; windows beyond the last are repetitions of it that nobody reads.
        starts = np.minimum(np.arange(parts * size), count - 1).reshape(parts, size)
        index = jnp.asarray(starts[:, :, None] + np.arange(window)[None, None, :])

        whole = split(x_t, None, SPACE)

        def part(rows: Array) -> Array:
            return denoise(split(whole[rows], DATA, None, SPACE), t)

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
