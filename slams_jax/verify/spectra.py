"""At which scales there is variance, and error."""

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
    """Power of each zonal wavenumber, averaged over area and all axes before the latitudes.

    With x̂ₘ the discrete Fourier transform of a row of N longitudes,

        Pₘ = cₘ ⟨|x̂ₘ|²⟩ / N² ,   cₘ = 2, but 1 for m = 0 and for m = N/2 ,   Σₘ Pₘ = ⟨x²⟩ ,

    so that the spectrum of an error sums to the square of its RMSE (Parseval). A region has no
    period: there the rows are taken apart into cosines, of m half waves along the row (the
    discrete cosine transform of Denis, Côté and Laprise 2002, Mon. Wea. Rev. 130, 1812-1829),
    which keeps the sum and leaks nothing from one edge to the other.

    Args:
        fields: values or errors, float64 is used inside; take the climate off values first, or
            m = 0 is all that shows.
        weights: areas, the same along a row.
        periodic: whether the rows go around the globe.

    Returns:
        (wavenumber, channel), the square of the units of `fields`; m = 0 first. NaN for a channel
        with a value missing.

    Raises:
        InputError: weights of another shape than the rows and columns.
    """
    fields = np.asarray(fields, np.float64)
    if weights.shape != fields.shape[-3:-1]:
        raise InputError(
            f"weights have shape {weights.shape}, the fields (lat, lon) {fields.shape[-3:-1]}"
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
