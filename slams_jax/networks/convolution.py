"""Padded convolutions, and the options that compile them well.

`conv2d(x, w) = sum_ij w[i, j] . pad(x)[s p + i, s q + j]` for stride s, where `padding.pad` adds as
many rows and columns beyond the edges as the kernel reads. Reverse-mode differentiation (to any
order), vmap and sharding work; forward-mode differentiation fails on CPU (see `_valid_on_cpu`).
"""

import functools
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.grid import Padding
from slams_jax.networks.padding import pad

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# XLA:CPU delegates convolutions to a library that is slow for kernel gradients and for the input
# gradients of strided convolutions. An empty list of library fusions keeps XLA's own (Eigen)
# kernels, which halves the time of U-Net gradients. GPU and TPU have no such option.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` around code that convolves.

    They affect the speed on CPU, not the results. The option is experimental: the result is empty
    if this version of JAX or this backend does not have it.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jax.jit(lambda: jnp.zeros(()), compiler_options=_CPU_OPTIONS).lower().compile()
    except Exception:  # jaxlib raises various types for an unknown option
        return {}
    return dict(_CPU_OPTIONS)


def conv2d(
    x: Float[Array, "batch lat lon input"],
    kernel: Float[Array, "height width input output"],
    padding: Padding,
    *,
    stride: int = 1,
) -> Float[Array, "batch lat_out lon_out output"]:
    """Convolve with odd kernels centred on every `stride`-th point.

    Args:
        x: input fields.
        kernel: weights, of odd height and width.
        padding: rule for values beyond the edges.
        stride: output point p is centred on input point `stride * p`.

    Returns:
        The convolution at `ceil(lat / stride)` x `ceil(lon / stride)` points.
    """
    size = kernel.shape[:2]
    if size == (1, 1):
        x = x[:, ::stride, ::stride] if stride > 1 else x
        return jnp.einsum("bijc,cd->bijd", x, kernel[0, 0])
    if stride == 1 and padding != "edge" and jax.default_backend() == "cpu":
        return _around_on_cpu(x, kernel, padding)
    halo = []
    for n, k in zip(x.shape[1:3], size, strict=True):
        last_read = (-(-n // stride) - 1) * stride + k // 2
        halo.append((k // 2, max(last_read - (n - 1), 0)))
    return _valid(pad(x, (halo[0], halo[1]), padding), kernel, stride)


def _plain(x: Array, kernel: Array, stride: int) -> Array:
    """XLA's convolution, without padding."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=_DIMENSIONS
    )


def _adjoint(kernel: Array) -> Array:
    """The kernel of the input gradient: flipped, with input and output channels swapped."""
    return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


def _kernel_gradient(x: Array, kernel: Array, stride: int, cotangent: Array) -> Array:
    """Cotangent of the kernel of an unpadded convolution."""
    (gradient,) = jax.linear_transpose(lambda k: _plain(x, k, stride), kernel)(cotangent)
    return gradient


def _valid(x: Array, kernel: Array, stride: int = 1) -> Array:
    """A convolution without padding, differentiated in the way that is fast on this backend."""
    function: Any = _valid_on_cpu if jax.default_backend() == "cpu" else _plain
    return function(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _valid_on_cpu(x: Array, kernel: Array, stride: int) -> Array:
    """A convolution without padding whose input gradient is a convolution of the same form.

    The gradient that JAX derives has its kernel in another layout. XLA:CPU rearranges it at the
    top level of a program but not inside a loop, where samplers spend their time and where that
    gradient takes ten times as long.
    """
    return _plain(x, kernel, stride)


def _valid_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, stride), (x, kernel)


def _valid_backward(
    stride: int, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    halo = [(0, 0, 0)]
    for n, k, out in zip(x.shape[1:3], kernel.shape[:2], cotangent.shape[1:3], strict=True):
        unread = n - ((out - 1) * stride + k)
        halo.append((k - 1, k - 1 + unread, stride - 1))
    spread = jax.lax.pad(cotangent, jnp.zeros((), cotangent.dtype), [*halo, (0, 0, 0)])
    gradient = _valid(spread, _adjoint(kernel))
    return gradient, _kernel_gradient(x, kernel, stride, cotangent)


_valid_on_cpu.defvjp(_valid_forward, _valid_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _around_on_cpu(x: Array, kernel: Array, padding: Padding) -> Array:
    """A convolution of stride 1, periodic in longitude, whose input gradient is periodic too.

    The derived gradient would be evaluated on the padded input, and its halo then added back onto
    the interior: 40 % more work on a coarse U-Net level of 8 x 16 points.
    """
    return _around_forward(x, kernel, padding)[0]


def _around_forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    lat, lon = (k // 2 for k in kernel.shape[:2])
    wide = pad(x, ((lat, lat), (lon, lon)), padding)
    return _plain(wide, kernel, 1), (wide, kernel)


def _around_backward(
    padding: Padding, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    wide, kernel = saved
    kernel_gradient = _kernel_gradient(wide, kernel, 1, cotangent)
    if padding == "torus":
        return conv2d(cotangent, _adjoint(kernel), padding), kernel_gradient
    padded_rows = _padded_row_gradient(kernel, cotangent, padding)
    return _fold_rows(padded_rows, kernel.shape[0] // 2, padding), kernel_gradient


def _padded_row_gradient(kernel: Array, cotangent: Array, padding: Padding) -> Array:
    """Cotangent of the input with its rows padded and its longitudes periodic.

    The convolution reads row r of the padded input for the output rows r - 2 * lat to r, so the
    cotangent is continued by 2 * lat rows of zeros on either side. In longitude, where padding
    is periodic, the adjoint of padding and convolution is again a periodic convolution.
    """
    lat, lon = (k // 2 for k in kernel.shape[:2])
    spread = jnp.pad(cotangent, ((0, 0), (2 * lat, 2 * lat), (0, 0), (0, 0)))
    return _valid(pad(spread, ((0, 0), (lon, lon)), padding), _adjoint(kernel))


def _fold_rows(padded: Array, rows: int, padding: Padding) -> Array:
    """The adjoint of padding by `rows` in latitude: halo rows are added to those they copy.

    Over a pole they copy rows of the opposite meridian, so that this is no convolution.
    """
    batch, height, width, channels = padded.shape
    interior = jax.ShapeDtypeStruct((batch, height - 2 * rows, width, channels), padded.dtype)
    pad_rows = lambda x: pad(x, ((rows, rows), (0, 0)), padding)
    (gradient,) = jax.linear_transpose(pad_rows, interior)(padded)
    return gradient


_around_on_cpu.defvjp(_around_forward, _around_backward)


def upsample_conv2d(
    x: Float[Array, "batch lat lon input"],
    kernel: Float[Array, "height width input output"],
    padding: Padding,
) -> Float[Array, "batch lat_twice lon_twice output"]:
    """Double the resolution by nearest neighbour, then convolve.

    A kernel of 3 is evaluated on the coarse grid (2.25 times fewer operations, same result), since
    two of the three fine points that it reads in each direction are copies of one coarse point. At
    the corner between the coarse points p - 1 and p lie the fine points 2p - 1 and 2p, with the
    weights (w0 + w1, w2) and (w0, w1 + w2).
    """
    if kernel.shape[:2] == (1, 1):
        return _repeat(conv2d(x, kernel, padding))
    if kernel.shape[:2] != (3, 3):
        return conv2d(_repeat(x), kernel, padding)
    lat, lon = x.shape[1:3]
    phases = _phases(_phases(kernel, 0), 1)  # (2, 2, input, output, lat phase, lon phase)
    phases = jnp.moveaxis(phases, 3, 5)
    corners = _valid(pad(x, ((1, 1), (1, 1)), padding), phases.reshape(*phases.shape[:3], -1), 1)
    return depth_to_space(corners, 2)[:, 1 : 2 * lat + 1, 1 : 2 * lon + 1]


def _phases(kernel: Array, axis: int) -> Array:
    """Three taps along `axis` to two coarse taps, with a new last axis for the two fine points."""
    w0, w1, w2 = jnp.moveaxis(kernel, axis, 0)
    odd, even = jnp.stack([w0 + w1, w2], axis), jnp.stack([w0, w1 + w2], axis)
    return jnp.stack([odd, even], -1)


def _repeat(x: Array) -> Array:
    """Double the resolution by nearest neighbour."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def space_to_depth(
    x: Float[Array, "batch lat lon channel"], factor: int
) -> Float[Array, "batch lat_out lon_out patch"]:
    """Gather patches of `factor` x `factor` points into channels; `factor` divides the sizes."""
    b, lat, lon, c = x.shape
    x = x.reshape(b, lat // factor, factor, lon // factor, factor, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, lat // factor, lon // factor, -1)


def depth_to_space(
    x: Float[Array, "batch lat lon patch"], factor: int
) -> Float[Array, "batch lat_out lon_out channel"]:
    """The inverse of `space_to_depth`."""
    b, lat, lon, _ = x.shape
    x = x.reshape(b, lat, lon, factor, factor, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, lat * factor, lon * factor, -1)


class Conv(nn.Module):
    """A convolution with its parameters.

    Attributes:
        channels: number of output channels.
        kernel: size in both directions, odd.
        padding: rule for values beyond the edges.
        stride: spacing of the output points, in input points.
        upsample: double the resolution by nearest neighbour first.
        zero: initialise to zero (for the last convolution of a correction).
        bias: add a bias.
    """

    channels: int
    kernel: int
    padding: Padding
    stride: int = 1
    upsample: bool = False
    zero: bool = False
    bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch lat lon input"]
    ) -> Float[Array, "batch lat_out lon_out output"]:
        """Convolve in the dtype of `x`; the parameters are float32."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
        if self.zero:
            kernel = self.param("kernel_from_zero", nn.initializers.zeros, shape)
        else:
            kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel = kernel.astype(x.dtype)
        if self.upsample:
            y = upsample_conv2d(x, kernel, self.padding)
        else:
            y = conv2d(x, kernel, self.padding, stride=self.stride)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return y + bias[None, None, None, :].astype(x.dtype)
