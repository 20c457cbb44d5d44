"""The score network: a denoiser of short windows of a trajectory.

A network predicts the noise eps or the velocity v in a window of k frames, and `to_denoised` turns
that into D(x_t) = E[x_0 | x_t]; or it predicts the departure from the denoiser G of a Gaussian
prior N(0, P), fitted before,

    D(x_t) = G(x_t) + r F(c (x_t - alpha G), G, t),   r^2 = mean var(x_0 | x_t) under N(0, P),
    c = (sigma^2 + alpha^2 r^2)^(-1/2),               G(x_t) = E[x_0 | x_t] under N(0, P),

a preconditioning (Karras et al. 2022, arXiv 2206.00364, section 5) whose linear part is already the
best one: the network F starts at zero and learns what is not Gaussian.
`slams_jax.diffusion.compose` makes a denoiser of long trajectories of one of windows.

The frames of a window may have diffusion times of their own (Chen et al. 2024, Diffusion Forcing,
arXiv 2407.01392). A frame at t = 1 is pure noise and thus absent: one network denoises windows of
k frames or fewer, and frames given others.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.aliases import Params, PRNGKey, Scalar, Trajectory
from slams_jax.diffusion.compose import WindowDenoiser
from slams_jax.diffusion.schedule import CosineSchedule, target, to_denoised
from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPosterior
from slams_jax.grid import Padding
from slams_jax.networks import Compute, Coordinates, UNet, initialise

Prediction = Literal["departure", "v", "eps"]


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Shape of the score network. Hashable.

    Attributes:
        window: frames k in a window, odd.
        channels: of one frame.
        widths: channels of each level of the U-Net; every level after the first halves the
            resolution.
        blocks: residual blocks on the way down, and on the way up, at each level.
        embedding: size of the embedding of time.
        kernel: size of the convolutions, odd; 1 on a grid of one point.
        padding: what lies beyond the edges of the grid.
        coordinates: position channels beside the frames.
        prediction: what the network predicts: "departure" from a Gaussian prior, "v" or "eps".
        frame_noise: whether each frame of a window has a noise level of its own, or all have one.
        compute: what convolutions and activations are in, "float32" or "bfloat16"; parameters,
            norms, the embedding of time and the result are float32 always.

    Raises:
        InputError: a value out of its range.
    """

    window: int
    channels: int
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 3
    embedding: int = 64
    kernel: int = 3
    padding: Padding = "sphere"
    coordinates: Coordinates = "latitude"
    prediction: Prediction = "departure"
    frame_noise: bool = True
    compute: Compute = "float32"

    def __post_init__(self):
        checks = (
            ("window", self.window, self.window >= 1 and self.window % 2 == 1, "odd and positive"),
            ("channels", self.channels, self.channels >= 1, "at least 1"),
            (
                "widths",
                self.widths,
                bool(self.widths) and min(self.widths, default=0) >= 1,
                "a non-empty tuple of positive numbers",
            ),
            ("blocks", self.blocks, self.blocks >= 0, "not negative"),
            ("embedding", self.embedding, self.embedding >= 1, "at least 1"),
            ("kernel", self.kernel, self.kernel >= 1 and self.kernel % 2 == 1, "odd and positive"),
            (
                "prediction",
                self.prediction,
                self.prediction in get_args(Prediction),
                f"one of {get_args(Prediction)}",
            ),
            (
                "compute",
                self.compute,
                self.compute in get_args(Compute),
                f"one of {get_args(Compute)}",
            ),
        )
        for name, value, good, expected in checks:
            if not good:
                raise InputError(f"score {name} must be {expected}, got {value!r}")

    @property
    def levels(self) -> int:
        """Number of noise levels of a window."""
        return self.window if self.frame_noise else 1

    @property
    def inputs(self) -> int:
        """Number of channels of a frame that the network reads."""
        return 2 * self.channels if self.prediction == "departure" else self.channels


def _network(config: ScoreConfig) -> UNet:
    return UNet(
        channels=config.window * config.channels,
        widths=config.widths,
        blocks=config.blocks,
        embedding=config.embedding,
        kernel=config.kernel,
        padding=config.padding,
        coordinates=config.coordinates,
        compute=config.compute,
    )


def init(config: ScoreConfig, key: PRNGKey, shape: tuple[int, int]) -> Params:
    """Fresh parameters for a grid of `shape` (lat, lon); they fit any other shape too."""
    x = jnp.zeros((1, *shape, config.window * config.inputs))
    return initialise(_network(config).init, key, x, jnp.zeros((1, config.levels)))["params"]


def predict(
    config: ScoreConfig,
    params: Params,
    inputs: Float[Array, "window frame lat lon input"],
    t: Float[Array, "window level"],
) -> Float[Array, "window frame lat lon channel"]:
    """The network: its output for windows, at `config.levels` times each."""
    n, k, lat, lon, c = inputs.shape
    if t.shape[1] != config.levels:
        raise InputError(
            f"the score network takes {config.levels} noise levels per window, got {t.shape[1]}: "
            "give one, or train with frame_noise"
        )
    flat = inputs.transpose(0, 2, 3, 1, 4).reshape(n, lat, lon, k * c)
    y = jnp.asarray(_network(config).apply({"params": params}, flat, t))
    return y.reshape(n, lat, lon, k, config.channels).transpose(0, 3, 1, 2, 4)


def loss(
    config: ScoreConfig,
    schedule: CosineSchedule,
    params: Params,
    key: PRNGKey,
    windows: Float[Array, "batch frame lat lon channel"],
    gaussian: GaussianPosterior | None = None,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Mean squared error of D over sigma^2 at random times: of the velocity, or of the departure.

    Of "eps" it is the error of the noise, sigma^2 / alpha^2 of that.

    t ~ U(0, 1), stratified over the batch: each sample's time is uniform, and together they cover
    the interval evenly, which takes variance from the gradient. With `frame_noise`, three
    quarters of the windows have this time in all frames, as analyses do. In an eighth each frame is
    absent (t = 1) with probability one half, and in the last eighth frames have independent times
    ~ U(0, 1), as in Diffusion Forcing (Chen et al. 2024, algorithm 1).

    Args:
        config: the network.
        schedule: alpha(t), sigma(t).
        params: of the network.
        key: for this step.
        windows: clean windows of unit variance.
        gaussian: the prior of windows, `GaussianPrior.over(config.window)`, for "departure".

    Returns:
        The loss, and scalars: `mse_low`, `mse_middle`, `mse_high`, the error over the thirds of
        [0, 1] in t (0 where the batch has no sample).
    """
    return error(config, params, noisy(config, schedule, key, windows, gaussian))


def noisy(
    config: ScoreConfig,
    schedule: CosineSchedule,
    key: PRNGKey,
    windows: Float[Array, "batch frame lat lon channel"],
    gaussian: GaussianPosterior | None = None,
) -> dict[str, Array]:
    """All of `loss` that does not depend on parameters, and all that is random.

    That is the network's `inputs` and times `t` (window, level), the `scale` (window, frame) of its
    output and the `goal`. Drawn for a whole batch, they are the same however the batch is then
    taken in parts.
    """
    key_time, key_noise = jax.random.split(key)
    t = _times(config, key_time, windows.shape[0])
    eps = jax.random.normal(key_noise, windows.shape, windows.dtype)
    time = _of_frames(t)
    sigma = schedule.sigma(time)
    x_t = schedule.alpha(time) * windows + sigma * eps
    if config.prediction == "departure":
        inputs, centre, spread = _gaussian(schedule, gaussian, x_t, t)
        goal, scale = (windows - centre) / sigma, spread / sigma
    else:
        inputs, scale = x_t, jnp.ones_like(time)
        goal = target(schedule, config.prediction, windows, eps, time)
    return {"inputs": inputs, "t": t, "scale": scale, "goal": goal}


def error(
    config: ScoreConfig, params: Params, batch: Mapping[str, Array]
) -> tuple[Scalar, dict[str, Scalar]]:
    """The `loss` of a batch from `noisy`: a mean over its samples, without randomness."""
    predicted = predict(config, params, batch["inputs"], batch["t"])
    mse = jnp.mean(jnp.square(batch["scale"] * predicted - batch["goal"]), axis=(2, 3, 4))
    third = jnp.broadcast_to(jnp.minimum(jnp.floor(3.0 * batch["t"]), 2.0), mse.shape)
    info = {}
    for i, name in enumerate(("low", "middle", "high")):
        member = (third == i).astype(mse.dtype)
        info[f"mse_{name}"] = jnp.sum(mse * member) / jnp.maximum(jnp.sum(member), 1.0)
    return jnp.mean(mse), info


def window_denoiser(
    config: ScoreConfig,
    schedule: CosineSchedule,
    params: Params,
    gaussian: GaussianPosterior | None = None,
) -> WindowDenoiser:
    """The denoiser of windows: (x_t, t) -> E[x_0 | x_t].

    `t` is one time for all frames or, with `frame_noise`, an array of times (window, frame).
    `gaussian` is as in `loss`.
    """

    def denoise(x_t: Array, t: Array) -> Array:
        n, k, c = x_t.shape[0], x_t.shape[1], x_t.shape[-1]
        if (k, c) != (config.window, config.channels):
            raise InputError(
                f"score windows have {k} frames of {c} channels, expected {config.window} frames "
                f"of {config.channels} channels"
            )
        times = jnp.full((n, config.levels), t) if t.ndim == 0 else t
        if config.prediction == "departure":
            one = jnp.full((n, 1), t) if t.ndim == 0 else t
            inputs, centre, spread = _gaussian(schedule, gaussian, x_t, one)
            return centre + spread * predict(config, params, inputs, times)
        prediction = predict(config, params, x_t, times)
        return to_denoised(schedule, prediction, config.prediction, x_t, _of_frames(times))

    return denoise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PosteriorDenoiser:
    """The denoiser of Gaussian statistics: of a prior, or of what it is given observations.

    Attributes:
        gaussian: the statistics of consecutive frames.
        schedule: noise schedule.
    """

    gaussian: GaussianPosterior
    schedule: CosineSchedule = dataclasses.field(metadata={"static": True})

    def __call__(self, x_t: Trajectory, t: Array) -> Trajectory:
        """E[x_0 | x_t], and given what is absorbed."""
        return self.gaussian.denoise(x_t, self.schedule.alpha(t), self.schedule.sigma(t))


def _gaussian(
    schedule: CosineSchedule,
    gaussian: GaussianPosterior | None,
    x_t: Float[Array, "window frame lat lon channel"],
    t: Float[Array, "window level"],
) -> tuple[Array, Array, Array]:
    """Inputs of a network that predicts departures; what it departs from, and r."""
    if gaussian is None:
        raise InputError("the score network predicts departures from a Gaussian prior: give it")
    # One level costs less than one for every frame.
    levels = t[:, 0] if t.shape[1] == 1 else t
    alpha, sigma = schedule.alpha(levels), schedule.sigma(levels)
    centre = jax.vmap(gaussian.denoise)(x_t, alpha, sigma)
    spread = jnp.sqrt(_of_frames(jax.vmap(gaussian.variance)((sigma / alpha) ** 2)))
    alpha, sigma = schedule.alpha(_of_frames(t)), schedule.sigma(_of_frames(t))
    innovation = (x_t - alpha * centre) * jax.lax.rsqrt(sigma**2 + (alpha * spread) ** 2)
    return jnp.concatenate([innovation, centre], axis=-1), centre, spread


def _times(config: ScoreConfig, key: PRNGKey, count: int) -> Float[Array, "window level"]:
    """Times of training windows, as `loss` describes them."""
    key, key_kind, key_absent, key_own = jax.random.split(key, 4)
    offset = jax.random.uniform(key, (count, 1))
    common = (jnp.arange(count, dtype=jnp.float32)[:, None] + offset) / count
    if config.levels == 1:
        return common
    shape = (count, config.levels)
    absent = jax.random.bernoulli(key_absent, 0.5, shape)
    fewer = jnp.where(absent, 1.0, common)
    own = jax.random.uniform(key_own, shape)
    kind = jax.random.uniform(key_kind, (count, 1))
    return jnp.where(kind < 0.75, common, jnp.where(kind < 0.875, fewer, own))


def _of_frames(values: Float[Array, "window level"]) -> Float[Array, "window level 1 1 1"]:
    """Values of frames in the shape that broadcasts over windows."""
    return values[:, :, None, None, None]
