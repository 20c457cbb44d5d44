"""Errors of denoisers by noise level: whether a learned prior is better than its Gaussian."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.verify.report import Table

LOG_SNR = (2.5, 1.5, 0.7, 0.0, -0.7, -1.5, -2.5)  # log(alpha / sigma), from little noise to much
BATCH = 8  # windows denoised at a time


def denoising_errors(
    key: PRNGKey,
    denoise: Callable[[Array, Array], Array],
    windows: Float[Array, "window frame lat lon channel"],
    t: Float[Array, " level"],
    alpha: Float[Array, " level"],
    sigma: Float[Array, " level"],
) -> Float[Array, " level"]:
    """Mean square of D(x_t) - x_0 for x_t = alpha x_0 + sigma eps, at each noise level.

    The lower bound is the mean posterior variance, which the exact denoiser reaches. With one key
    all denoisers meet the same noise.

    Args:
        key: of eps, the same at all levels.
        denoise: (x_t, t) -> E[x_0 | x_t], of windows at one time.
        windows: x_0, withheld from training.
        t: times of the levels.
        alpha: their scales of the signal.
        sigma: their standard deviations of the noise.
    """
    eps = jax.random.normal(key, windows.shape, windows.dtype)

    def at(level: tuple[Array, Array, Array]) -> Array:
        t, alpha, sigma = level

        def missed(pair: tuple[Array, Array]) -> Array:
            x_0, noise = pair
            found = denoise((alpha * x_0 + sigma * noise)[None], t)[0]
            return jnp.mean(jnp.square(found - x_0))

        return jnp.mean(jax.lax.map(missed, (windows, eps), batch_size=BATCH))

    return jax.lax.map(at, (t, alpha, sigma))


def denoising_table(
    errors: Mapping[str, Sequence[float] | Float[np.ndarray, " level"]],
    log_snr: Sequence[float] = LOG_SNR,
) -> Table:
    """A row for each denoiser, by name, and a column for each noise level."""
    return Table(
        "Denoising error",
        ("log-SNR", *(f"{level:g}" for level in log_snr)),
        [[name, *(f"{value:.4f}" for value in row)] for name, row in errors.items()],
        "Mean square of D(x_t) - x_0 on withheld windows, in variances of x_0. A network above its "
        "Gaussian prior has not earned its place.",
    )
