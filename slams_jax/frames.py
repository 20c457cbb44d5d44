"""Frames of trajectories that were observed."""

import numpy as np
from jaxtyping import Bool

from slams_jax.errors import InputError


def whole_frames(seen: Bool[np.ndarray, "time ..."], name: str) -> Bool[np.ndarray, " time"]:
    """Which frames were seen, each as a whole: errors that are correlated in space need that.

    Args:
        seen: what has a value.
        name: what to call it in errors.

    Raises:
        InputError: a frame of which only a part was seen.
    """
    frames = seen.reshape(len(seen), -1)
    known = np.asarray(frames.all(axis=1))
    if np.any(frames.any(axis=1) != known):
        raise InputError(
            f"{name} has correlated errors but incomplete frames: fill the missing values, or set "
            "all values of those frames to NaN"
        )
    return known
