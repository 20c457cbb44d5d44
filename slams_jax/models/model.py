"""A trained model: its networks, its parameters and statistics, and what they compute."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Denoiser, Params, Trajectory
from slams_jax.data import Anamorphosis, InputTransform, Statistics
from slams_jax.data.anamorphosis import Transforms
from slams_jax.diffusion import CosineSchedule
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.gaussian import GaussianPosterior, GaussianPrior, Regression
from slams_jax.grid import Grid
from slams_jax.models import autoencoder, score
from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.score import ScoreConfig
from slams_jax.observe import Separable
from slams_jax.schema import Channel


@dataclasses.dataclass(frozen=True)
class Networks:
    """The static half of a model. Hashable: what is compiled depends on it."""

    schedule: CosineSchedule
    score: ScoreConfig
    autoencoder: AutoencoderConfig | None
    shape: tuple[int, int]

    @property
    def corrects(self) -> bool:
        """Whether the decoder corrects a linear part of its own (`decode_increment`)."""
        return self.autoencoder is not None and self.autoencoder.architecture == "conv"

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Shape (lat, lon, channel) of one frame of what is diffused."""
        if self.autoencoder is None:
            return (*self.shape, self.score.channels)
        return self.autoencoder.latent_shape(self.shape)


class ModelArrays(NamedTuple):
    """The arrays that a model computes with, a pytree.

    Attributes:
        std: standard deviation of each channel of the state, in its units.
        score: parameters of the score network; None before it is trained.
        prior: Gaussian statistics of what is diffused; None likewise.
        autoencoder: parameters of the autoencoder; None without one.
        model_state: its mutable collections; None likewise.
        latent_mean: of what is diffused, by channel or point; None for zero.
        latent_std: likewise, None for one.
    """

    std: Float[Array, " channel"]
    score: Params | None = None
    prior: GaussianPrior | None = None
    autoencoder: Params | None = None
    model_state: Params | None = None
    latent_mean: Float[Array, "*point latent"] | None = None
    latent_std: Float[Array, "*point latent"] | None = None


# Of a size that broadcasts to that of fields: one number a channel is an error that is the same
# everywhere.
ErrorSample = Float[np.ndarray, "sample #lat #lon #channel"]


def _no_error() -> ErrorSample:
    return np.zeros((1, 1, 1, 1), np.float32)


@dataclasses.dataclass(frozen=True)
class LatentInput:
    """What an input of the encoder is made of.

    Attributes:
        channels: of the field, after its transform.
        transform: of the data; None for none.
    """

    channels: tuple[Channel, ...]
    transform: InputTransform | None = None


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model and all that it needs to be used; `load_model` reads one.

    Attributes:
        networks: the static configuration.
        grid: of the state.
        channels: of the state.
        arrays: parameters, scales and prior covariance.
        statistics: climatology and standard deviation of each input field, by name; those of the
            state after the anamorphosis, if there is one.
        state_error: a sample of reconstruction errors D(E(x)) - x, in the units of each channel,
            from the validation period; zero without autoencoder, the default.
        increment_error: likewise where the background tells what the autoencoder cannot represent.
        background_error: covariance of background minus truth on the training period and its mean.
        background: what the code of the background (itself, without an autoencoder) tells of the
            state's, on the training period.
        latent: what the latent observation z_y = E(`latent_inputs`) tells of it, on the validation
            period; a pattern for each of `latent_patterns`.
        latent_inputs: names of the fields of which z_y is made.
        latent_patterns: the sets of them for which there are statistics.
        time_step: between successive frames of a window; None where it was not recorded.
        calendar: of the times that it was trained on, in CF's words; None likewise.
        units: variable -> units of the state; empty likewise.
        provenance: data, periods and training, in JSON, for the model card; empty likewise.
        anamorphosis: from the state and the background in physical units to what the networks and
            all statistics are of; None where that is the same.
        inputs: how each of `latent_inputs` is made of data; empty where it was not recorded.
    """

    networks: Networks
    grid: Grid
    channels: tuple[Channel, ...]
    arrays: ModelArrays
    statistics: Mapping[str, Statistics]
    state_error: ErrorSample = dataclasses.field(default_factory=_no_error)
    increment_error: ErrorSample = dataclasses.field(default_factory=_no_error)
    background_error: tuple[Separable, np.ndarray] | None = None
    background: Regression | None = None
    latent: Regression | None = None
    latent_inputs: tuple[str, ...] = ()
    latent_patterns: tuple[tuple[str, ...], ...] = ()
    time_step: np.timedelta64 | None = None
    calendar: str | None = None
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    anamorphosis: Anamorphosis | None = None
    inputs: Mapping[str, LatentInput] = dataclasses.field(default_factory=dict)

    @property
    def transforms(self) -> Transforms:
        """Of each channel of the state; () where there are none."""
        return () if self.anamorphosis is None else self.anamorphosis.transforms


def encode(networks: Networks, arrays: ModelArrays, inputs: Mapping[str, Array]) -> Array:
    """Standardised fields -> what is diffused, standardised (time, lat, lon, channel); pure.

    Without an autoencoder, that is the state among the `inputs`.
    """
    if networks.autoencoder is None:
        z = inputs[autoencoder.STATE]
    else:
        z = autoencoder.encode(networks.autoencoder, arrays.autoencoder, arrays.model_state, inputs)
    mean, std = _latent_scales(arrays)
    return (z - mean) / std


def decode(
    networks: Networks,
    arrays: ModelArrays,
    latent: Float[Array, "time latent_lat latent_lon latent"],
) -> Trajectory:
    """Standardised latents -> state as an anomaly in physical units (add the climate); pure.

    With an anamorphosis, in the units of what it makes of the state.
    """
    mean, std = _latent_scales(arrays)
    return _decoded(networks, arrays, latent * std + mean)


def decode_increment(
    networks: Networks,
    arrays: ModelArrays,
    increment: Float[Array, "time latent_lat latent_lon latent"],
) -> Trajectory:
    """Increment of the latents -> of the state, by the linear part of the decoder alone; pure.

    The architecture "slams" has none.
    """
    return _decoded(networks, arrays, increment * _latent_scales(arrays)[1], linear=True)


def _decoded(
    networks: Networks, arrays: ModelArrays, code: Array, *, linear: bool = False
) -> Trajectory:
    if networks.autoencoder is not None:
        code = autoencoder.decode(
            networks.autoencoder,
            arrays.autoencoder,
            arrays.model_state,
            code,
            networks.shape,
            linear=linear,
        )
    return code * arrays.std[None, None, None, :]


def _latent_scales(arrays: ModelArrays) -> tuple[Array, Array]:
    """Mean and standard deviation of what is diffused, for (time, lat, lon, channel)."""
    along = lambda a: a[None] if a.ndim == 3 else a[None, None, None, :]
    mean = jnp.zeros((1,)) if arrays.latent_mean is None else arrays.latent_mean
    std = jnp.ones((1,)) if arrays.latent_std is None else arrays.latent_std
    return along(mean), along(std)


def residual(networks: Networks, arrays: ModelArrays, states: Trajectory) -> Trajectory:
    """x - D(E(x)) of standardised states, in physical units: what the latent cannot represent."""
    rebuilt = decode(networks, arrays, encode(networks, arrays, {autoencoder.STATE: states}))
    return states * arrays.std[None, None, None, :] - rebuilt


def window_prior(networks: Networks, arrays: ModelArrays) -> GaussianPosterior | None:
    """The Gaussian prior of windows that the network departs from; None if it does not."""
    if networks.score.prediction != "departure":
        return None
    assert arrays.prior is not None
    return arrays.prior.over(networks.score.window)


def trajectory_prior(
    networks: Networks,
    arrays: ModelArrays,
    window_chunk: int | None = None,
    *,
    remat: bool = True,
    gaussian: GaussianPosterior | None = None,
) -> Denoiser:
    """The denoiser of trajectories of latents (or states), composed of windows.

    Reads the ambient mesh, as `trajectory_denoiser` does. `gaussian` is `window_prior`, solved
    before; it is solved here unless given.
    """
    if gaussian is None:
        gaussian = window_prior(networks, arrays)
    window = score.window_denoiser(networks.score, networks.schedule, arrays.score, gaussian)
    return trajectory_denoiser(window, networks.score.window, chunk=window_chunk, remat=remat)
