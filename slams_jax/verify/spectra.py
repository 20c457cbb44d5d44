"""Spectra: variance and error by scale."""

import numpy as np
import scipy.fft
from jaxtyping import Float

from slams_jax.errors import InputError
from slams_jax.verify.points import AnyArray


def zonal_spectrum(
    fields: Float[AnyArray, "*points lat lon channel"],
    weights: Float[AnyArray, "..."],
    *,
    periodic: bool = True,
) -> Float[np.ndarray, "wavenumber channel"]:
    """Power of each zonal wavenumber, averaged over area and all axes before latitude.

    With x̂ₘ the discrete Fourier transform of a row of N longitudes,

        Pₘ = cₘ ⟨|x̂ₘ|²⟩ / N² ,   cₘ = 2, but 1 for m = 0 and for m = N/2 ,   Σₘ Pₘ = ⟨x²⟩ ,

    so that the spectrum of an error sums to its mean square (Parseval). Rows of a regional grid are
    not periodic: they are decomposed into cosines of m half waves along the row (the discrete
    cosine transform of Denis, Côté and Laprise 2002, Mon. Wea. Rev. 130, 1812-1829), which
    preserves the sum and causes no leakage between the edges.

    Args:
        fields: values or errors, computed in float64; subtract the climatology from values first,
            or m = 0 dominates.
        weights: areas, constant along a row.
        periodic: whether the rows go around the globe.

    Returns:
        (wavenumber, channel), the square of the units of `fields`; m = 0 first. NaN for a channel
        with a missing value.

    Raises:
        InputError: weights whose shape is not that of the grid.
    """
    fields = np.asarray(fields, np.float64)
    if weights.shape != fields.shape[-3:-1]:
        raise InputError(
            f"weights have shape {weights.shape}, but the grid is {fields.shape[-3:-1]}"
        )
    number = fields.shape[-2]
    if periodic:
        power = np.abs(np.fft.rfft(fields, axis=-2)) ** 2 / number**2
        twice = slice(1, -1) if number % 2 == 0 else slice(1, None)
        power[..., twice, :] *= 2.0
    else:
        power = np.asarray(scipy.fft.dct(fields, axis=-2, norm="ortho")) ** 2 / number
    area = np.asarray(weights, np.float64).sum(axis=1)
    rows = power.reshape(-1, *power.shape[-3:]).mean(axis=0)
    return np.tensordot(area / area.sum(), rows, axes=1)
