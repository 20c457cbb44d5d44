"""A trained model: its networks, its parameters and statistics, and how it is read from disk."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax import autoencoder, score
from slams_jax.aliases import Denoiser, Params, Trajectory
from slams_jax.autoencoder import AutoencoderConfig
from slams_jax.data import Statistics
from slams_jax.diffusion import CosineSchedule
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.observe import PriorCovariance, Separable
from slams_jax.schema import Channel
from slams_jax.score import ScoreConfig
from slams_jax.training import restore_model

SCORE, AUTOENCODER = "score", "autoencoder"  # the folders of the two stages in a work directory


@dataclasses.dataclass(frozen=True)
class Networks:
    """The static half of a model. Hashable: what is compiled depends on it."""

    schedule: CosineSchedule
    score: ScoreConfig
    autoencoder: AutoencoderConfig | None
    shape: tuple[int, int]

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Shape (lat, lon, channel) of one frame of what is diffused."""
        if self.autoencoder is None:
            return (*self.shape, self.score.channels)
        return self.autoencoder.latent_shape(self.shape)


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model and all that it needs to be used; `load_model` reads one.

    Attributes:
        networks: the static configuration.
        grid: of the state.
        channels: of the state.
        arrays: parameters and statistics: `score`, `autoencoder` and `model_state` (parameters);
            `std` (channel) of the state; `latent_mean`, `latent_std` (latent channel); `prior`,
            the `PriorCovariance` of what is diffused.
        statistics: climatology and standard deviation of each input field, by name.
        state_error: standard deviation of the reconstruction D(E(x)) - x, in the units of each
            channel; zero without autoencoder, the default.
        increment_error: likewise where the background tells what the autoencoder cannot represent.
        background_error: covariance of background minus truth on the training period and its mean.
        latent_error: likewise of the latent observation z_y - z, from `latent_inputs`, on the
            validation period.
        latent_inputs: names of the fields of which z_y = E(...) is made.
    """

    networks: Networks
    grid: Grid
    channels: tuple[Channel, ...]
    arrays: Mapping[str, Any]
    statistics: Mapping[str, Statistics]
    state_error: Float[np.ndarray, " #channel"] = dataclasses.field(
        default_factory=lambda: np.zeros(1, np.float32)
    )
    increment_error: Float[np.ndarray, " #channel"] = dataclasses.field(
        default_factory=lambda: np.zeros(1, np.float32)
    )
    background_error: tuple[Separable, np.ndarray] | None = None
    latent_error: tuple[Separable, np.ndarray] | None = None
    latent_inputs: tuple[str, ...] = ()


def encode(networks: Networks, arrays: Mapping[str, Any], inputs: Mapping[str, Array]) -> Array:
    """Standardised fields -> standardised latents (time, lat, lon, channel); pure."""
    assert networks.autoencoder is not None
    z = autoencoder.encode(
        networks.autoencoder, arrays["autoencoder"], arrays["model_state"], inputs
    )
    mean, std = (arrays[n][None, None, None, :] for n in ("latent_mean", "latent_std"))
    return (z - mean) / std


def decode(
    networks: Networks,
    arrays: Mapping[str, Any],
    latent: Float[Array, "time latent_lat latent_lon latent"],
) -> Trajectory:
    """Standardised latents -> state as an anomaly in physical units (add the climate); pure."""
    scaled = latent
    if networks.autoencoder is not None:
        mean, std = (arrays[n][None, None, None, :] for n in ("latent_mean", "latent_std"))
        scaled = autoencoder.decode(
            networks.autoencoder,
            arrays["autoencoder"],
            arrays["model_state"],
            latent * std + mean,
            networks.shape,
        )
    return scaled * arrays["std"][None, None, None, :]


def residual(networks: Networks, arrays: Mapping[str, Any], states: Trajectory) -> Trajectory:
    """x - D(E(x)) of standardised states, in physical units: what the latent cannot represent."""
    rebuilt = decode(networks, arrays, encode(networks, arrays, {autoencoder.STATE: states}))
    return states * arrays["std"][None, None, None, :] - rebuilt


def trajectory_prior(
    networks: Networks, params: Params, window_chunk: int | None = None, *, remat: bool = True
) -> Denoiser:
    """The denoiser of trajectories of latents (or states), composed of windows."""
    window = score.window_denoiser(networks.score, networks.schedule, params)
    return score.trajectory_denoiser(window, networks.score.window, chunk=window_chunk, remat=remat)


def describe(
    networks: Networks, grid: Grid, channels: Sequence[Channel], latent_inputs: Sequence[str]
) -> dict[str, Any]:
    """The static half of a model as JSON, from which `load_model` makes it again."""
    return {
        "schedule": dataclasses.asdict(networks.schedule),
        "score": dataclasses.asdict(networks.score),
        "autoencoder": networks.autoencoder and dataclasses.asdict(networks.autoencoder),
        "grid": dataclasses.asdict(grid),
        "channels": [[c.variable, c.level] for c in channels],
        "latent_inputs": list(latent_inputs),
    }


def load_model(directory: str | Path) -> Model:
    """Read what `experiments.train` left in `directory`.

    Raises:
        InputError: no trained model there.
    """
    directory = Path(directory)
    if not (directory / "score").is_dir():
        raise InputError(
            f"no trained model in {directory}: train one (python -m experiments.train "
            "--config=...), or check the path"
        )
    params, _, statistics, metadata = restore_model(directory / "score")
    about = metadata["model"]
    arrays = {
        "score": params,
        "std": statistics["fields"]["state"]["std"],
        "prior": _prior(statistics["prior"]),
    }
    encoder = None
    if about["autoencoder"] is not None:
        encoder = AutoencoderConfig(**_tuples(about["autoencoder"]))
        arrays["autoencoder"], arrays["model_state"], _, _ = restore_model(
            directory / "autoencoder"
        )
        arrays |= {n: statistics[n] for n in ("latent_mean", "latent_std")}
    grid = Grid.of(about["grid"]["latitude"], about["grid"]["longitude"])
    networks = Networks(
        CosineSchedule(**about["schedule"]), ScoreConfig(**_tuples(about["score"])), encoder,
        grid.shape,
    )  # fmt: skip
    return Model(
        networks,
        grid,
        tuple(Channel(v, p) for v, p in about["channels"]),
        jax.tree.map(jnp.asarray, arrays),
        {n: Statistics(**s) for n, s in statistics["fields"].items()},
        np.asarray(statistics["state_error"]),
        np.asarray(statistics.get("increment_error", statistics["state_error"])),
        _error(statistics.get("background_error")),
        _error(statistics.get("latent_error")),
        tuple(about["latent_inputs"]),
    )


def _error(saved: Mapping[str, Any] | None) -> tuple[Separable, np.ndarray] | None:
    if not saved:
        return None
    return _separable(saved), np.asarray(saved["bias"])


def _prior(saved: Mapping[str, Any]) -> PriorCovariance:
    return PriorCovariance(_separable(saved["frame"]), jnp.asarray(saved["lags"]))


def _separable(saved: Mapping[str, Any]) -> Separable:
    return Separable(**{f.name: jnp.asarray(saved[f.name]) for f in dataclasses.fields(Separable)})


def _tuples(values: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(values, dict):
        return {k: _tuples(v) for k, v in values.items()}
    return tuple(_tuples(v) for v in values) if isinstance(values, list) else values
