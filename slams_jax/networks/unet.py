"""The time-modulated residual U-Net of score-based data assimilation.

The network of Rozet & Louppe (2023, arXiv 2306.10574) that SLAMS uses, for grids of any size and
any padding: residual blocks `x + f(x + m(t))` at each level on the way down and up, convolutions
of stride 2 on the way down, nearest neighbour and convolution on the way up, added skips.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.grid import Padding
from slams_jax.networks.convolution import Conv
from slams_jax.networks.padding import Coordinates, coordinate_channels

# Dtype in which convolutions compute. Parameters are float32.
Compute = Literal["float32", "bfloat16"]
_FREQUENCIES = np.pi * np.arange(1, 17, dtype=np.float32)


def normalise(x: Float[Array, "batch lat lon channel"]) -> Float[Array, "batch lat lon channel"]:
    """Subtract the mean over channels at each point and divide by the standard deviation.

    Computed in float32; the result has the dtype of `x`.
    """
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    centred = wide - mean
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-5)).astype(x.dtype)


def with_coordinates(
    x: Float[Array, "batch lat lon channel"], padding: Padding, coordinates: Coordinates
) -> Float[Array, "batch lat lon extended"]:
    """Append the channels of `coordinate_channels`."""
    if coordinates == "none":
        return x
    position = jnp.asarray(coordinate_channels((x.shape[1], x.shape[2]), padding, coordinates))
    return jnp.concatenate([x, jnp.broadcast_to(position, (x.shape[0], *position.shape))], axis=-1)


class TimeEmbedding(nn.Module):
    """Sixteen harmonics of each diffusion time, followed by a small perceptron.

    Attributes:
        features: size of the embedding.
    """

    features: int

    @nn.compact
    def __call__(self, t: Float[Array, "batch level"]) -> Float[Array, "batch features"]:
        """Embed times in [0, 1], one or several per element of the batch."""
        angle = t[:, :, None] * jnp.asarray(_FREQUENCIES)[None, None, :]
        angle = angle.reshape(t.shape[0], -1)
        y = nn.Dense(256)(jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1))
        return nn.Dense(self.features)(nn.silu(y))


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(normalise(x + m)))), where `m` is a linear map of the time embedding.

    Attributes:
        kernel: size of both convolutions.
        padding: rule for values beyond the edges.
        zero: initialise as the identity.
    """

    kernel: int
    padding: Padding
    zero: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch lat lon channel"],
        modulation: Float[Array, "batch features"] | None = None,
    ) -> Float[Array, "batch lat lon channel"]:
        """Add the block's correction to `x`."""
        channels = x.shape[-1]
        y = x
        if modulation is not None:
            y = y + nn.Dense(channels)(modulation)[:, None, None, :].astype(x.dtype)
        y = Conv(channels, self.kernel, self.padding)(normalise(y))
        return x + Conv(channels, self.kernel, self.padding, zero=self.zero)(nn.silu(y))


class UNet(nn.Module):
    """A U-Net with additive time modulation; its output starts at zero.

    Attributes:
        channels: number of output channels.
        widths: number of channels of each level; each level after the first halves the resolution.
        blocks: number of residual blocks at each level, on the way down and again on the way up.
        embedding: size of the time embedding.
        kernel: size of every convolution, odd.
        padding: rule for values beyond the edges.
        coordinates: position channels to append to the input.
        compute: dtype of convolutions and activations; the result is float32.
    """

    channels: int
    widths: tuple[int, ...]
    blocks: int
    embedding: int
    kernel: int
    padding: Padding
    coordinates: Coordinates = "none"
    compute: Compute = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch lat lon input"], t: Float[Array, "batch level"]
    ) -> Float[Array, "batch lat lon output"]:
        """Evaluate the network at times `t` in [0, 1], one or several per element."""
        modulation = TimeEmbedding(self.embedding)(t)
        x = with_coordinates(x, self.padding, self.coordinates).astype(self.compute)
        skips = []
        for level, width in enumerate(self.widths):
            x = Conv(width, self.kernel, self.padding, stride=2 if level else 1)(x)
            x = self._blocks(x, modulation)
            skips.append(x)
        skips.pop()
        x = self._blocks(x, modulation)
        for width in self.widths[-2::-1]:
            skip = skips.pop()
            up = Conv(width, self.kernel, self.padding, upsample=True)(normalise(x))
            # An odd size was rounded up on the way down.
            x = self._blocks(up[:, : skip.shape[1], : skip.shape[2]] + skip, modulation)
        return Conv(self.channels, self.kernel, self.padding, zero=True)(x).astype(jnp.float32)

    def _blocks(self, x: Array, modulation: Array) -> Array:
        for _ in range(self.blocks):
            x = ResidualBlock(self.kernel, self.padding)(x, modulation)
        return x
