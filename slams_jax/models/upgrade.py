"""Statistics of models that version 0.1 trained, in today's form.

They were separable in space, channel and time. Draws from them are fitted as data are today; what
they did not know (M, errors correlated in time) stays so: M = 1 and errors independent in time.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.gaussian import GaussianPrior, Regression, Spectrum, fit_prior
from slams_jax.gaussian.spectrum import stationary
from slams_jax.models.autoencoder import STATE
from slams_jax.models.model import ModelArrays, Networks, encode
from slams_jax.observe import Separable

DRAWS = 600
ORDER = 2  # of the processes in time


def separable_of(saved: Mapping[str, Any]) -> Separable:
    """The covariance of its arrays; a bias beside them is not taken."""
    return Separable(**{n: jnp.asarray(value) for n, value in saved.items() if n != "bias"})


def upgraded(
    networks: Networks, arrays: ModelArrays, periodic: bool, tree: Mapping[str, Any]
) -> tuple[GaussianPrior, Regression | None, Regression | None]:
    """The prior, and the regressions of the background and of the latent observation.

    Args:
        networks: of the model.
        arrays: its parameters and scales.
        periodic: whether its grid is.
        tree: its arrays by name, "prior", "background_error" and "latent_error" among them.
    """
    shape = networks.frame_shape
    frames = _draws(separable_of(tree["prior"]["frame"]), shape, 0)
    independent = fit_prior(frames, periodic=periodic, rank=int(np.prod(shape)), order=0)
    lags = np.zeros(ORDER)
    found = np.asarray(tree["prior"]["lags"])[1 : ORDER + 1]
    lags[: len(found)] = found
    lags = stationary(lags)
    prior = GaussianPrior(
        independent.modes, tuple(_with_lags(s, lags) for s in independent.spectra)
    )
    background = latent = None
    if tree.get("background_error"):
        covariance = separable_of(tree["background_error"])
        std = np.asarray(arrays.std)
        errors = _draws(covariance, covariance.std.shape, 1) / std
        bias = np.asarray(tree["background_error"]["bias"])[None] / std
        code = lambda x: np.asarray(encode(networks, arrays, {STATE: jnp.asarray(x, jnp.float32)}))
        rest = code(np.zeros_like(bias))
        background = _unbiased(prior, code(errors) - rest, (code(bias) - rest)[0])
    if tree.get("latent_error"):
        errors = _draws(separable_of(tree["latent_error"]), shape, 2)
        latent = _unbiased(prior, errors, np.asarray(tree["latent_error"]["bias"]))
    return prior, background, latent


def _draws(covariance: Separable, shape: tuple[int, ...], seed: int) -> np.ndarray:
    white = jax.random.normal(jax.random.key(seed), (DRAWS, *shape))
    return np.asarray(covariance.sample_root(white))


def _with_lags(spectrum: Spectrum, lags: np.ndarray) -> Spectrum:
    wide = np.broadcast_to(lags, (*spectrum.variance.shape, ORDER))
    return Spectrum(spectrum.variance, jnp.asarray(wide, spectrum.lags.dtype))


def _unbiased(prior: GaussianPrior, errors: np.ndarray, bias: np.ndarray) -> Regression:
    """y = x + bias + e, e with the variance of `errors` in each mode and independent in time."""
    parts = prior.modes.coefficients(jnp.asarray(errors - errors.mean(axis=0), jnp.float32))
    size = prior.modes.vectors.shape[1] - prior.modes.vectors.shape[2]
    variance = [jnp.mean(jnp.abs(parts[0]) ** 2, axis=-1)]
    for rest in parts[1:]:
        power = jnp.sum(jnp.mean(jnp.abs(rest) ** 2, axis=-1), axis=1, keepdims=True)
        variance.append(power / size)
    return Regression(
        prior.modes,
        tuple(jnp.ones_like(v)[None].astype(p.dtype) for v, p in zip(variance, parts, strict=True)),
        tuple(jnp.maximum(v, 1e-8)[None] for v in variance),
        tuple(jnp.zeros((*v.shape, 0), p.dtype) for v, p in zip(variance, parts, strict=True)),
        jnp.asarray(bias, jnp.float32)[None],
    )
