"""Networks: padded convolutions, the U-Net, encoders and decoders.

Flax Linen modules for arrays (batch, lat, lon, channel) of any size and any padding rule of
`slams_jax.grid.Padding`. Compile functions that call them with `compiler_options()`.
"""

from slams_jax.networks.codec import Decoder, Encoder, SlamsDecoder, SlamsEncoder, linear_code
from slams_jax.networks.convolution import (
    Conv,
    compiler_options,
    conv2d,
    depth_to_space,
    space_to_depth,
    upsample_conv2d,
)
from slams_jax.networks.initialise import initialise
from slams_jax.networks.padding import Coordinates, coordinate_channels, pad
from slams_jax.networks.unet import Compute, UNet

__all__ = [
    "Compute",
    "Conv",
    "Coordinates",
    "Decoder",
    "Encoder",
    "SlamsDecoder",
    "SlamsEncoder",
    "UNet",
    "compiler_options",
    "conv2d",
    "coordinate_channels",
    "depth_to_space",
    "initialise",
    "linear_code",
    "pad",
    "space_to_depth",
    "upsample_conv2d",
]
