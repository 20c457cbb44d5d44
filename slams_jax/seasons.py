"""Where in the year a time lies."""

import numpy as np
from jaxtyping import Float

YEAR = 365.2425  # days, mean Gregorian year


def yearly_basis(times: np.ndarray, harmonics: int) -> Float[np.ndarray, "*batch term"]:
    """1, cos, sin, cos 2, ... of the phase of the year at `times` (datetime64, any shape)."""
    days = (times.astype("datetime64[s]") - np.datetime64("1970-01-01", "s")).astype(np.float64)
    phase = 2.0 * np.pi * (days / 86400.0 / YEAR)
    terms = [np.ones_like(phase)]
    for k in range(1, harmonics + 1):
        terms += [np.cos(k * phase), np.sin(k * phase)]
    return np.stack(terms, axis=-1).astype(np.float32)
