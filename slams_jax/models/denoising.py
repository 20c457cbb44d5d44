"""Has a score network earned its place? Its denoising errors beside its Gaussian prior's."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Params
from slams_jax.data import window_starts
from slams_jax.data.training_data import TrainingSet
from slams_jax.gaussian import GaussianPosterior
from slams_jax.mesh import place, whole
from slams_jax.models import score
from slams_jax.models.autoencoder import STATE
from slams_jax.models.model import ModelArrays, Networks, encode
from slams_jax.networks import compiler_options
from slams_jax.verify.denoising import LOG_SNR, denoising_errors

LOG = logging.getLogger(__name__)

WINDOWS = 48  # that errors are measured on, at most
NETWORK, GAUSSIAN = "network", "Gaussian prior"
_GROUPS = {NETWORK: "denoising", GAUSSIAN: "denoising_gaussian"}  # names in a run's records

Windows = Float[Array, "window frame lat lon channel"]
Errors = Mapping[str, Float[np.ndarray, " level"]]  # of the network and of its Gaussian prior


def errors_at_levels(
    networks: Networks, params: Params, gaussian: GaussianPosterior, windows: Windows
) -> dict[str, Float[Array, " level"]]:
    """Mean square errors of the network and of the Gaussian prior, at equal noise; pure.

    Args:
        networks: the configuration.
        params: of the score network.
        gaussian: the prior of windows, `GaussianPrior.over(window)`.
        windows: of what is diffused, withheld from training.

    Returns:
        "network" and "Gaussian prior" -> errors at the noise levels `LOG_SNR`.
    """
    schedule = networks.schedule
    t = schedule.time(jnp.array(LOG_SNR))
    prior = jax.vmap(score.PosteriorDenoiser(gaussian, schedule), (0, None))
    network = score.window_denoiser(networks.score, schedule, params, gaussian)
    measure = lambda denoise: denoising_errors(
        jax.random.key(0), denoise, windows, t, schedule.alpha(t), schedule.sigma(t)
    )
    return {NETWORK: measure(network), GAUSSIAN: measure(prior)}


def errors_on(networks: Networks, arrays: ModelArrays, data: TrainingSet, period: str) -> Errors:
    """`errors_at_levels` of a trained model on windows of a period that trained nothing.

    Raises:
        InputError: a period without a window.
    """
    windows = withheld_windows(networks, arrays, data, period)
    assert arrays.prior is not None
    gaussian = jax.jit(arrays.prior.over, static_argnums=0)(networks.score.window)
    return jax.device_get(_compiled()(networks, arrays.score, gaussian, windows))


def withheld_windows(
    networks: Networks, arrays: ModelArrays, data: TrainingSet, period: str
) -> Windows:
    """Up to `WINDOWS` windows of what is diffused, evenly spread over a period; as `errors_on`."""
    size, times = networks.score.window, data.archive.times
    starts = window_starts(times, len(times), length=size, span=data.spans[period])
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, WINDOWS).round().astype(int))]
    codes = jax.jit(
        lambda arrays, x: jnp.nan_to_num(encode(networks, arrays, {STATE: x})),
        compiler_options=compiler_options() or None,
    )
    kept = arrays._replace(score=None, prior=None)
    read = lambda start: jnp.asarray(data.standardised(STATE, slice(start, start + size)))
    return jnp.stack([codes(kept, read(start)) for start in chosen])


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a validation pass tells of a network in training, by its denoising errors.

    Attributes:
        networks: the configuration.
        gaussian: the prior of windows.
        windows: withheld from training.
    """

    networks: Networks
    gaussian: GaussianPosterior
    windows: Windows

    def __call__(self, params: Params) -> dict[str, float]:
        """Log the errors of these parameters; return them by "denoising/LOG_SNR", for records."""
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        others = place((self.gaussian, self.windows), mesh, whole)
        errors = jax.device_get(_compiled()(self.networks, params, *others))
        log_errors(errors)
        return {
            f"{group}/{level:g}": float(value)
            for name, group in _GROUPS.items()
            for level, value in zip(LOG_SNR, errors[name], strict=True)
        }


def recorded(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The errors that `Measured` left in the last of a run's records that has them, by denoiser.

    Empty if none has: a run without validation, or of an earlier version.
    """
    keys = {n: [f"validation/{g}/{level:g}" for level in LOG_SNR] for n, g in _GROUPS.items()}
    found: dict[str, list[float]] = {}
    for record in records:
        if all(record.get(key) is not None for row in keys.values() for key in row):
            found = {name: [record[key] for key in row] for name, row in keys.items()}
    return found


def log_errors(errors: Errors) -> None:
    """One line with the network's errors over the prior's; a warning where it is no better."""
    ratio = np.asarray(errors[NETWORK]) / np.asarray(errors[GAUSSIAN])
    mean = float(np.exp(np.mean(np.log(ratio))))
    LOG.log(
        logging.INFO if mean < 1.0 else logging.WARNING,
        "denoising error over that of the Gaussian prior: %s at log-SNR %s%s",
        " ".join(f"{value:.3f}" for value in ratio),
        " ".join(f"{level:g}" for level in LOG_SNR),
        "" if mean < 1.0 else ": the network has not earned its place: train it longer, or on more",
    )


@functools.cache
def _compiled() -> Callable[..., dict[str, Array]]:
    return jax.jit(errors_at_levels, static_argnums=0, compiler_options=compiler_options() or None)
