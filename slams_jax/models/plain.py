"""Gaussian statistics as plain arrays by name, which files hold, and back.

Complex arrays are stored as real ones with the parts in a last axis of two.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from slams_jax.gaussian import GaussianPrior, Modes, Regression, Spectrum

Plain = dict[str, Any]


def plain_prior(prior: GaussianPrior) -> Plain:
    """The arrays of a prior."""
    return {
        "shape": np.asarray(prior.modes.shape, np.int32),
        "periodic": np.asarray(prior.modes.periodic, np.int32),
        "vectors": _real(prior.modes.vectors),
        "spectra": {
            str(i): {"variance": np.asarray(s.variance), **_plain_lags(s.lags)}
            for i, s in enumerate(prior.spectra)
        },
    }


def prior_of(saved: Mapping[str, Any]) -> GaussianPrior:
    """The prior of its arrays.

    Raises:
        KeyError: something is missing.
    """
    lat, lon, channel = (int(n) for n in saved["shape"])
    periodic = bool(saved["periodic"])
    back = _complex if periodic else jnp.asarray
    spectra = tuple(
        Spectrum(jnp.asarray(s["variance"]), _lags(s, back))
        for _, s in sorted(saved["spectra"].items())
    )
    return GaussianPrior(Modes(back(saved["vectors"]), (lat, lon, channel), periodic), spectra)


def plain_regression(regression: Regression) -> Plain:
    """The arrays of a regression, but for its modes, which are those of the prior."""
    parts = zip(regression.slope, regression.variance, regression.lags, strict=True)
    return {
        "parts": {
            str(i): {"slope": _real(m), "variance": np.asarray(v), **_plain_lags(c)}
            for i, (m, v, c) in enumerate(parts)
        },
        "offset": np.asarray(regression.offset),
    }


def regression_of(saved: Mapping[str, Any] | None, modes: Modes) -> Regression | None:
    """The regression of its arrays; None for None.

    Raises:
        KeyError: something is missing.
    """
    if not saved:
        return None
    back = _complex if modes.periodic else jnp.asarray
    parts = [part for _, part in sorted(saved["parts"].items())]
    return Regression(
        modes,
        tuple(back(p["slope"]) for p in parts),
        tuple(jnp.asarray(p["variance"]) for p in parts),
        tuple(_lags(p, back) for p in parts),
        jnp.asarray(saved["offset"]),
    )


def _plain_lags(lags: Any) -> Plain:
    """Correlations in time; left out where there are none, as files hold no empty arrays."""
    return {"lags": _real(lags)} if np.size(lags) else {}


def _lags(part: Mapping[str, Any], back: Callable[[Any], Any]) -> Any:
    if "lags" in part:
        return back(part["lags"])
    shape = np.shape(part["variance"])[-2:]
    return jnp.zeros((*shape, 0), back(np.zeros((1, 2))).dtype)


def _real(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if not np.iscomplexobj(values):
        return values
    return np.stack([values.real, values.imag], axis=-1)


def _complex(values: Any) -> jnp.ndarray:
    values = np.asarray(values)
    return jnp.asarray(values[..., 0] + 1j * values[..., 1], jnp.complex64)
