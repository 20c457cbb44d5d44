"""The score network and its guided evaluation in PyTorch, to measure the library against.

The same mathematics, as one would write it there: `F.pad`, `F.conv2d`, `F.interpolate`, autograd,
on the kind of device that JAX uses and in the layout that is fastest there, channels first on a CPU
and last on a GPU. There both libraries round the factors of products to TensorFloat-32.
Functions over the parameters of the Flax network, whose tree and names are kept (`copy_params`).
PyTorch is an extra (`pip install slams-jax[torch]`); without it this module can only be imported.
"""

import functools
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from slams_jax.errors import RunError
from slams_jax.models.score import ScoreConfig


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch, F = _module("torch"), _module("torch.nn.functional")

Params = Mapping[str, Any]
Tensor = Any  # torch.Tensor, where there is one


def available() -> bool:
    """Whether PyTorch is installed."""
    return torch is not None


@functools.cache
def on_gpu() -> bool:
    """Whether it runs on a GPU: where JAX does and this PyTorch can; asked once, also to set it up.

    Raises:
        RunError: JAX is on a GPU that this PyTorch cannot use.
    """
    if jax.default_backend() != "gpu":
        return False
    if not torch.cuda.is_available():
        raise RunError(
            "JAX is on a GPU and PyTorch is not: install PyTorch with CUDA, or uninstall it to "
            "measure the library alone"
        )
    torch.set_float32_matmul_precision("high")
    return True


def done(function: Callable[..., Tensor], *args: Tensor) -> Tensor:
    """What the function gives, when the device has done it."""
    result = function(*args)
    if on_gpu():
        torch.cuda.synchronize()
    return result


def _placed(x: Tensor) -> Tensor:
    """On the device, in its layout."""
    if not on_gpu():
        return x
    return x.to("cuda", memory_format=torch.channels_last if x.ndim == 4 else torch.preserve_format)


def copy_params(params: Params) -> Params:
    """The parameters of the Flax network as leaves that autograd knows."""

    def convert(x: Any) -> Tensor:
        x = np.asarray(x)
        order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[x.ndim]
        return _placed(torch.tensor(np.ascontiguousarray(x.transpose(order)))).requires_grad_()

    return jax.tree.map(convert, params)


def to_arrays(tensors: Params) -> Params:
    """Tensors of the parameters' shapes in the layout of the Flax network."""

    def convert(x: Tensor) -> np.ndarray:
        order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[x.ndim]
        return x.detach().cpu().numpy().transpose(order)

    return jax.tree.map(convert, tensors)


def predict(config: ScoreConfig, params: Params, x_t: Tensor, t: Tensor) -> Tensor:
    """The prediction for windows (window, frame * channel, lat, lon) at times (window,).

    On a GPU by `torch.compile`, which fuses what lies between the convolutions; without it starting
    one small program after the other takes most of the time.
    """
    return (_compiled() if on_gpu() else _predict)(config, params, x_t, t)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_predict, dynamic=False)


def _predict(config: ScoreConfig, params: Params, x_t: Tensor, t: Tensor) -> Tensor:
    frequencies = math.pi * torch.arange(1, 17, dtype=torch.float32, device=t.device)
    angle = t[:, None] * frequencies
    y = _dense(params["TimeEmbedding_0"]["Dense_0"], torch.cat([angle.cos(), angle.sin()], dim=1))
    modulation = _dense(params["TimeEmbedding_0"]["Dense_1"], F.silu(y))
    convolutions = iter(range(2 * len(config.widths)))
    blocks = iter(range(2 * config.blocks * len(config.widths)))

    def conv(x: Tensor, stride: int = 1) -> Tensor:
        return _conv(params[f"Conv_{next(convolutions)}"], x, config.padding, stride)

    def residual(x: Tensor) -> Tensor:
        for _ in range(config.blocks):
            p = params[f"ResidualBlock_{next(blocks)}"]
            y = x + _dense(p["Dense_0"], modulation)[:, :, None, None]
            y = _conv(p["Conv_0"], _normalise(y), config.padding)
            x = x + _conv(p["Conv_1"], F.silu(y), config.padding)
        return x

    x = _with_coordinates(config, x_t)
    skips = []
    for level in range(len(config.widths)):
        x = residual(conv(x, stride=2 if level else 1))
        skips.append(x)
    skips.pop()
    x = residual(x)
    for skip in reversed(skips):
        up = conv(F.interpolate(_normalise(x), scale_factor=2, mode="nearest"))
        x = residual(up[:, :, : skip.shape[2], : skip.shape[3]] + skip)
    return conv(x)


def _dense(p: Params, x: Tensor) -> Tensor:
    return F.linear(x, p["kernel"], p["bias"])


def _conv(p: Params, x: Tensor, padding: str, stride: int = 1) -> Tensor:
    kernel = p["kernel"] if "kernel" in p else p["kernel_from_zero"]
    return F.conv2d(_pad(x, kernel.shape[-1] // 2, padding), kernel, p["bias"], stride=stride)


def _pad(x: Tensor, halo: int, padding: str) -> Tensor:
    if padding == "torus":
        return F.pad(x, (halo,) * 4, mode="circular")
    if padding != "sphere":
        raise NotImplementedError(f"the twin pads 'torus' and 'sphere', not {padding!r}")
    turn = x.shape[3] // 2
    north, south = x[:, :, :halo].flip(2), x[:, :, -halo:].flip(2)
    x = torch.cat([north.roll(turn, dims=3), x, south.roll(turn, dims=3)], dim=2)
    return F.pad(x, (halo, halo, 0, 0), mode="circular")


def _normalise(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def _with_coordinates(config: ScoreConfig, x: Tensor) -> Tensor:
    if config.coordinates == "none":
        return x
    if config.coordinates != "latitude":
        raise NotImplementedError("the twin has no coordinates of longitude")
    lat = x.shape[2]
    row = torch.pi * ((torch.arange(lat, device=x.device) + 0.5) / lat - 0.5)
    position = torch.stack([row.sin(), row.cos()])[None, :, :, None]
    return torch.cat([x, position.expand(x.shape[0], 2, lat, x.shape[3])], dim=1)


def scales(t: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """alpha(t) and sigma(t) of the cosine schedule."""
    angle = math.acos(math.sqrt(eta)) * t
    alpha = angle.cos() ** 2
    return alpha, torch.sqrt(angle.sin() ** 2 * (1 + angle.cos() ** 2) + eta**2)


def target(config: ScoreConfig, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network learns to predict."""
    return eps if config.prediction == "eps" else alpha * eps - sigma * x


def guided(
    config: ScoreConfig, params: Params, observed: Tensor, *, eta: float, error: float, gamma: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """The denoiser of trajectories (time, channel, lat, lon) given their 4 x 4 block means.

    One forward and one backward pass: rule "sda" of `slams_jax.diffusion.guide`, windows composed
    as by `slams_jax.trajectory_denoiser`.
    """
    k, half = config.window, config.window // 2
    frozen = jax.tree.map(lambda p: p.detach(), params)

    def denoise(x_t: Tensor, alpha: Tensor, sigma: Tensor, t: Tensor) -> Tensor:
        count = x_t.shape[0] - k + 1
        windows = torch.stack([x_t[i : i + k] for i in range(count)])
        flat = windows.flatten(1, 2)
        predicted = predict(config, frozen, flat, t.expand(count))
        if config.prediction == "eps":
            clean = (flat - sigma * predicted) / alpha
        else:
            clean = (alpha * flat - sigma * predicted) / (alpha**2 + sigma**2)
        clean = clean.view_as(windows)
        return torch.cat([clean[0, : half + 1], clean[1 : count - 1, half], clean[-1, half:]])

    def evaluate(x_t: Tensor, t: Tensor) -> Tensor:
        x_t = x_t.detach().requires_grad_(True)
        alpha, sigma = scales(t, eta)
        x_0 = denoise(x_t, alpha, sigma, t)
        variance = error**2 + gamma * (sigma / alpha) ** 2
        misfit = 0.5 * ((observed - F.avg_pool2d(x_0, 4)) ** 2).sum() / variance
        (gradient,) = torch.autograd.grad(misfit, x_t)
        return (x_0 - sigma**2 / alpha * gradient).detach()

    return evaluate


def make_step(
    config: ScoreConfig, params: Params, *, eta: float, learning_rate: float, weight_decay: float
) -> Callable[[Tensor], Tensor]:
    """A training step on clean windows (batch, frame * channel, lat, lon); updates `params`.

    AdamW on noise and times drawn anew, and a moving average of the parameters.
    """
    leaves = jax.tree.leaves(params)
    average = [p.detach().clone() for p in leaves]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in leaves if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in leaves if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )

    def step(windows: Tensor) -> Tensor:
        n = windows.shape[0]
        device = windows.device
        t = (torch.arange(n, device=device) + torch.rand(n, device=device)) / n
        value = loss(config, params, windows, torch.randn_like(windows), t, eta=eta)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, leaves, 1e-3)
        return value.detach()

    return step


def loss(
    config: ScoreConfig,
    params: Params,
    windows: Tensor,
    eps: Tensor,
    t: Tensor,
    *,
    eta: float,
    network: Callable[..., Tensor] = predict,
) -> Tensor:
    """The loss of a training step, for given noise and times."""
    alpha, sigma = (s[:, None, None, None] for s in scales(t, eta))
    predicted = network(config, params, alpha * windows + sigma * eps, t)
    return F.mse_loss(predicted, target(config, windows, eps, alpha, sigma))


def gradients(
    config: ScoreConfig, params: Params, windows: Tensor, eps: Tensor, time: float, eta: float
) -> Params:
    """The gradients of `loss`, in the layout of the Flax network."""
    t = torch.full((windows.shape[0],), time, device=windows.device)
    # One sample, once: not worth compiling for.
    loss(config, params, windows, eps, t, eta=eta, network=_predict).backward()
    return to_arrays(jax.tree.map(lambda p: p.grad, params))


def tensor(x: np.ndarray) -> Tensor:
    """(time, lat, lon, channel), or a number, channels first and contiguous."""
    x = np.asarray(x)
    return _placed(
        torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x)
    )


def array(x: Tensor) -> np.ndarray:
    """The inverse of `tensor` for trajectories."""
    return x.detach().cpu().numpy().transpose(0, 2, 3, 1)


def windows(x: np.ndarray) -> Tensor:
    """(batch, frame, lat, lon, channel) as (batch, frame * channel, lat, lon)."""
    return _placed(torch.tensor(np.ascontiguousarray(x.transpose(0, 1, 4, 2, 3))).flatten(1, 2))
