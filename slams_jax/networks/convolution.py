"""Convolutions with padding, and how to compile them well.

`conv2d(x, w) = sum_ij w[i, j] . pad(x)[s p + i, s q + j]` for stride s: what lies beyond an edge
comes from `padding.pad`, only as far as the kernel reads. Reverse differentiation (to any order),
vmap and sharding work; forward differentiation does not on CPU (see `_valid_on_cpu`).
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
# XLA:CPU hands convolutions to a library that is slow at their kernel gradients and at input
# gradients of strided ones. An empty list of library fusions keeps XLA's own (Eigen) kernels:
# gradients of the U-Net take about half the time. GPU and TPU have no such option.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` around anything that convolves.

    They change the speed on CPU, not the results. The option is experimental: where this jax or
    this back end does not know it, there are none.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jax.jit(lambda: jnp.zeros(()), compiler_options=_CPU_OPTIONS).lower().compile()
    except Exception:  # jaxlib raises its own kinds for an unknown option, not one type
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
        x: the fields.
        kernel: odd height and width.
        padding: what the kernel reads beyond the edges.
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
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=_DIMENSIONS
    )


def _turned(kernel: Array) -> Array:
    """The kernel of the input gradient."""
    return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


def _kernel_gradient(x: Array, kernel: Array, stride: int, cotangent: Array) -> Array:
    (gradient,) = jax.linear_transpose(lambda k: _plain(x, k, stride), kernel)(cotangent)
    return gradient


def _valid(x: Array, kernel: Array, stride: int = 1) -> Array:
    function: Any = _valid_on_cpu if jax.default_backend() == "cpu" else _plain
    return function(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _valid_on_cpu(x: Array, kernel: Array, stride: int) -> Array:
    """A convolution without padding whose input gradient is one of the same form.

    The gradient that JAX derives has its kernel in another layout. XLA:CPU turns that around at
    the top level of a program, but not inside a loop, where a sampler spends its time, and there
    takes ten times as long.
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
    gradient = _valid(spread, _turned(kernel))
    return gradient, _kernel_gradient(x, kernel, stride, cotangent)


_valid_on_cpu.defvjp(_valid_forward, _valid_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _around_on_cpu(x: Array, kernel: Array, padding: Padding) -> Array:
    """A convolution of stride 1, periodic in longitude, whose input gradient is one too.

    The gradient by way of the padded input is evaluated in its halo as well, and that is added
    back: on a coarse level of a U-Net, of 8 x 16 points, 40 % more work.
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
    turned = _turned(kernel)
    if padding == "torus":
        return conv2d(cotangent, turned, padding), kernel_gradient
    # In latitude by way of the padded rows: what lies beyond a pole is no continuation of it.
    lat, lon = (k // 2 for k in kernel.shape[:2])
    spread = jnp.pad(cotangent, ((0, 0), (2 * lat, 2 * lat), (0, 0), (0, 0)))
    padded = _valid(pad(spread, ((0, 0), (lon, lon)), padding), turned)
    like = jax.ShapeDtypeStruct((*cotangent.shape[:3], wide.shape[3]), wide.dtype)
    (gradient,) = jax.linear_transpose(lambda x: pad(x, ((lat, lat), (0, 0)), padding), like)(
        padded
    )
    return gradient, kernel_gradient


_around_on_cpu.defvjp(_around_forward, _around_backward)


def upsample_conv2d(
    x: Float[Array, "batch lat lon input"],
    kernel: Float[Array, "height width input output"],
    padding: Padding,
) -> Float[Array, "batch lat_twice lon_twice output"]:
    """Double the resolution by nearest neighbour, then convolve.

    A kernel of 3 is evaluated on the coarse grid (2.25 times fewer operations, same result): of
    the three fine points that it reads in each direction, two are the same coarse point. At the
    corner between coarse points p - 1 and p sit the fine points 2p - 1 and 2p, with weights
    (w0 + w1, w2) and (w0, w1 + w2).
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
    """Three taps along `axis` -> two taps, with a new last axis for the two fine points."""
    w0, w1, w2 = jnp.moveaxis(kernel, axis, 0)
    odd, even = jnp.stack([w0 + w1, w2], axis), jnp.stack([w0, w1 + w2], axis)
    return jnp.stack([odd, even], -1)


def _repeat(x: Array) -> Array:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def space_to_depth(
    x: Float[Array, "batch lat lon channel"], factor: int
) -> Float[Array, "batch lat_out lon_out patch"]:
    """Gather square patches of `factor` x `factor` points into channels; sizes must divide."""
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
        channels: of the output.
        kernel: odd size in both directions.
        padding: what lies beyond the edges.
        stride: of the output points, in input points.
        upsample: double the resolution by nearest neighbour first.
        zero: start from zero (the last convolution of a correction).
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
