"""Encoders and decoders: the library's own and those of SLAMS.

The library's own networks turn patches of `compression` x `compression` points into channels, which
is exactly invertible and fast everywhere. Encoder and decoder are each the sum of a linear map
(patch to code; neighbouring codes to patch) and a residual network that starts at zero: training
starts from a linear code and learns a correction to it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.grid import Padding
from slams_jax.networks.convolution import Conv, depth_to_space, space_to_depth
from slams_jax.networks.padding import Coordinates, pad
from slams_jax.networks.unet import Compute, ResidualBlock, normalise, with_coordinates

# Noise variance, for codes of unit variance, that the initial decoder is regularised with: it
# bounds how much the decoder amplifies errors of the code.
RIDGE = 1e-3


class Trunk(nn.Module):
    """A convolution, residual blocks, and a final convolution that starts at zero.

    Attributes:
        channels: number of output channels.
        width: number of channels of the blocks.
        blocks: number of residual blocks.
        kernel: size of the convolutions.
        padding: rule for values beyond the edges.
        coordinates: position channels to append to the input.
        compute: dtype of convolutions and activations; the result is float32.
    """

    channels: int
    width: int
    blocks: int
    kernel: int
    padding: Padding
    coordinates: Coordinates
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch lat lon input"]
    ) -> Float[Array, "batch lat lon output"]:
        """Evaluate the correction to the linear map of `x`."""
        x = with_coordinates(x, self.padding, self.coordinates).astype(self.compute)
        x = Conv(self.width, self.kernel, self.padding)(x)
        for _ in range(self.blocks):
            x = ResidualBlock(self.kernel, self.padding)(x)
        x = nn.silu(normalise(x))
        return Conv(self.channels, self.kernel, self.padding, zero=True)(x).astype(jnp.float32)


class _Half(nn.Module):
    """What encoder and decoder have in common.

    Attributes:
        channels: number of channels of the code (encoder) or of the state (decoder).
        compression: points of the state per point of the code, in each direction.
        width: number of channels of the residual blocks.
        blocks: number of residual blocks.
        kernel: size of the convolutions.
        padding: rule for values beyond the edges.
        coordinates: position channels to append to the input.
        compute: dtype of convolutions and activations; the result is float32.
    """

    channels: int
    compression: int
    width: int
    blocks: int
    kernel: int
    padding: Padding
    coordinates: Coordinates
    compute: Compute

    def _correction(self, x: Array, channels: int) -> Array:
        """The residual network, with `channels` output channels; part of `__call__`."""
        shared = (self.width, self.blocks, self.kernel, self.padding, self.coordinates)
        return Trunk(channels, *shared, self.compute)(x)


class Encoder(_Half):
    """From a first guess of the state and all inputs to the code."""

    @nn.compact
    def __call__(
        self,
        guess: Float[Array, "batch lat lon state"],
        features: Float[Array, "batch lat lon feature"],
    ) -> Float[Array, "batch latent_lat latent_lon latent"]:
        """Encode. Sizes that `compression` does not divide are padded first.

        Args:
            guess: the state, or the best substitute for it, without missing values.
            features: values (0 where missing) and masks of every input.
        """
        shape = guess.shape[1:3]
        extra = [-n % self.compression for n in shape]
        halo = ((0, extra[0]), (0, extra[1]))
        guess, features = (
            space_to_depth(pad(x, halo, self.padding), self.compression) for x in (guess, features)
        )
        code = nn.Dense(self.channels, use_bias=False, name="linear")(guess)
        return code + self._correction(features, self.channels)


class Decoder(_Half):
    """From the code to the state."""

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "batch latent_lat latent_lon latent"],
        shape: tuple[int, int],
        *,
        linear: bool = False,
    ) -> Float[Array, "batch lat lon state"]:
        """Decode to `shape` = (lat, lon), or apply the linear part alone."""
        channels = self.channels * self.compression**2
        patch = Conv(channels, self.kernel, self.padding, bias=False, name="linear")(z)
        if not linear:
            patch = patch + self._correction(z, channels)
        return depth_to_space(patch, self.compression)[:, : shape[0], : shape[1]]


class _Chain(nn.Module):
    """Convolutions with batch normalisation and ReLU in between."""

    channels: tuple[int, ...]
    kernel: int
    padding: Padding

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        for i, channels in enumerate(self.channels):
            x = Conv(channels, self.kernel, self.padding)(x)
            if i < len(self.channels) - 1:
                x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return x


class SlamsEncoder(nn.Module):
    """The encoder of SLAMS: all inputs as channels, full resolution, no masks.

    Attributes:
        channels: output channels of each convolution; the last is the number of the code.
        kernel: size of the convolutions.
        padding: rule for values beyond the edges.
    """

    channels: tuple[int, ...]
    kernel: int
    padding: Padding

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch lat lon value"], *, train: bool = False
    ) -> Float[Array, "batch lat lon latent"]:
        """Encode; `train` uses batch statistics and updates their running averages."""
        return _Chain(self.channels, self.kernel, self.padding)(values, train=train)


class SlamsDecoder(nn.Module):
    """The decoder of SLAMS. A transposed convolution of stride 1 is a convolution.

    Attributes:
        channels: output channels of each convolution; the last is the number of the state.
        kernel: size of the convolutions.
        padding: rule for values beyond the edges.
    """

    channels: tuple[int, ...]
    kernel: int
    padding: Padding

    @nn.compact
    def __call__(
        self, z: Float[Array, "batch lat lon latent"], *, train: bool = False
    ) -> Float[Array, "batch lat lon state"]:
        """Decode; `train` uses batch statistics and updates their running averages."""
        return _Chain(self.channels, self.kernel, self.padding)(z, train=train)


def linear_code(
    key: PRNGKey,
    channels: int,
    latent_channels: int,
    compression: int,
    kernel: int,
    padding: Padding,
    states: Float[np.ndarray, "sample lat lon channel"] | None,
) -> tuple[Float[Array, "patch latent"], Float[Array, "kernel kernel latent patch"]]:
    """Initial kernels of the linear maps from patch to code and from neighbouring codes to patch.

    The code spans the leading principal components of the patches (random directions without
    `states`), rotated so that all channels have nearly the same variance, one on average. Noise on
    the code then has nearly the same size in every direction of the state. The way back is the
    regression of patches on the codes around them: fields are smooth, so neighbouring codes hold
    much of the information that a patch's own code lacks.

    Args:
        key: for the random directions.
        channels: number of channels of the state.
        latent_channels: number of channels of the code.
        compression: size of a patch.
        kernel: size of the neighbourhood of codes.
        padding: rule for values beyond the edges.
        states: standardised states; NaN counts as 0.

    Returns:
        (kernel from patch to code, kernel from neighbouring codes to patch), float32.
    """
    size = channels * compression**2
    rank = min(size, latent_channels)
    fill = ((0, 0), (0, latent_channels - rank))
    middle = kernel // 2
    if states is None:
        directions = jnp.linalg.qr(jax.random.normal(key, (size, size)))[0][:, :rank]
        down = jnp.pad(directions, fill)
        up = jnp.zeros((kernel, kernel, latent_channels, size))
        return down, up.at[middle, middle].set(down.T)
    frames = [_patches(frame, compression) for frame in np.nan_to_num(states)]
    rows = [frame.reshape(-1, size).astype(np.float64) for frame in frames]
    variance, vectors = np.linalg.eigh(sum(r.T @ r for r in rows) / sum(map(len, rows)))
    angle = 2 * np.pi * np.outer(np.arange(rank), np.arange(rank)) / rank
    hartley = (np.cos(angle) + np.sin(angle)) / np.sqrt(rank)
    scale = np.sqrt(rank / max(float(variance[-rank:].sum()), 1e-6))
    down = np.pad(scale * vectors[:, : -rank - 1 : -1] @ hartley, fill)
    gram, moment = 0.0, 0.0  # of the normal equations
    for frame, row in zip(frames, rows, strict=True):
        codes = _neighbours(frame @ down.astype(np.float32), kernel, padding)
        gram, moment = gram + codes.T @ codes, moment + codes.T @ row
    ridge = RIDGE * sum(map(len, rows)) * np.eye(kernel**2 * latent_channels)
    up = np.linalg.solve(gram + ridge, moment).reshape(kernel, kernel, latent_channels, size)
    return jnp.asarray(down, jnp.float32), jnp.asarray(up, jnp.float32)


def _patches(frame: np.ndarray, factor: int) -> np.ndarray:
    """The complete patches of a frame, (lat, lon, patch), in the order of `space_to_depth`."""
    lat, lon = (n - n % factor for n in frame.shape[:2])
    with jax.ensure_compile_time_eval():  # on the host, even if the caller is being compiled
        return np.asarray(space_to_depth(jnp.asarray(frame[None, :lat, :lon]), factor))[0]


def _neighbours(codes: np.ndarray, kernel: int, padding: Padding) -> np.ndarray:
    """The codes around each point, one row per point, in the order of a convolution's kernel."""
    lat, lon = codes.shape[:2]
    half = (kernel // 2, kernel // 2)
    with jax.ensure_compile_time_eval():
        wide = np.asarray(pad(jnp.asarray(codes[None]), (half, half), padding))[0]
    shifts = [wide[i : i + lat, j : j + lon] for i in range(kernel) for j in range(kernel)]
    return np.concatenate(shifts, axis=-1).reshape(lat * lon, -1).astype(np.float64)
