"""One training step and one guided evaluation, in the library and in PyTorch."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import pytorch_twin as twin
from experiments.benchmark.machine import Machine, load, medians
from slams_jax.aliases import Denoiser, Params
from slams_jax.diffusion import CosineSchedule, guide
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.errors import RunError
from slams_jax.models import score
from slams_jax.models.score import ScoreConfig
from slams_jax.networks import compiler_options
from slams_jax.observe import Coarsen, Diagonal, Stream, make_stream, whitened_innovations
from slams_jax.training import OptimiserConfig
from slams_jax.training.devices import data_mesh
from slams_jax.training.state import init_state
from slams_jax.training.step import make_step

SCHEDULE = CosineSchedule()
ERROR, GAMMA, BLOCK = 0.5, 1e-2, 4  # of the observations: standard deviation, rule, block means
TIME = 0.5
# Of outputs and gradients against PyTorch, relative to the largest. On a GPU both round the factors
# of products to 11 bits.
TOLERANCES = {"cpu": 1e-4, "gpu": 2e-2}
OPTIMISER = OptimiserConfig(
    steps=10**6, learning_rate=2e-4, decay="linear", weight_decay=1e-3, clip_norm=None
)
# The networks of configs/slams_reference.py: as published on five latent channels, and of the same
# widths, with the library's padding and prediction, on ten channels of the state itself.
LATENT = ScoreConfig(
    window=5,
    channels=5,
    widths=(32, 64, 128),
    blocks=3,
    embedding=64,
    kernel=3,
    padding="torus",
    coordinates="none",
    prediction="eps",
    frame_noise=False,
)
PIXEL = dataclasses.replace(
    LATENT, channels=10, padding="sphere", coordinates="latitude", prediction="v"
)
NETWORKS = {"latent": LATENT, "pixel": PIXEL}
FRAMES = 9  # of the trajectory of a guided evaluation: five windows
BATCH = {(32, 64): 16, (120, 240): 4}  # of a training step


class Measured(NamedTuple):
    """What one case has to show: two things to call, and two to compare.

    Attributes:
        ours: runs the compiled program once.
        theirs: runs PyTorch once; None without it.
        difference: largest difference of outputs and gradients, relative to the largest value.
        operations: floating-point operations of the convolutions and products.
        compiled: the compiled program.
        compile_seconds: what it took.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any] | None
    difference: float | None
    operations: float
    compiled: Any
    compile_seconds: float


def run_networks(machine: Machine, repetitions: int, shapes: tuple[tuple[int, int], ...]):
    """The rows of both networks, one at a time."""
    for network, config in NETWORKS.items():
        for shape in shapes:
            params = _params(config, shape)
            for kind, prepare in (("training step", _training), ("guided", _guided)):
                name = f"{kind}, {network}, {shape[0]} x {shape[1]}"
                yield _row(name, prepare(config, params, shape), machine, repetitions)


def _row(case: str, found: Measured, machine: Machine, repetitions: int) -> dict[str, Any]:
    tolerance = TOLERANCES["cpu" if jax.default_backend() == "cpu" else "gpu"]
    if found.difference is not None and not found.difference < tolerance:
        raise RunError(
            f"{case}: the library and PyTorch differ by {found.difference:.1e} of the largest "
            f"value, more than {tolerance:g}: their times cannot be compared"
        )
    functions = [found.ours] if found.theirs is None else [found.ours, found.theirs]
    seconds, *other = medians(functions, repetitions)
    analysis = found.compiled.cost_analysis() or {}
    traffic = analysis.get("bytes accessed")
    return {
        "case": case,
        "seconds": seconds,
        "percent_of_peak": 100.0 * found.operations / seconds / machine.flops,
        "throughput_over_pytorch": other[0] / seconds if other else None,
        "pytorch_seconds": other[0] if other else None,
        "largest_difference": found.difference,
        "gflops": found.operations / 1e9,
        "percent_of_bandwidth": traffic and 100.0 * traffic / seconds / machine.bandwidth,
        "temporary_bytes": found.compiled.memory_analysis().temp_size_in_bytes,
        "compile_seconds": found.compile_seconds,
        "dtype": "float32",
        "device": machine.device,
        "load": load(),
    }


def guided_denoiser(
    config: ScoreConfig,
    params: Params,
    stream: Stream,
    *,
    chunk: int | None = None,
    remat: bool = True,
) -> Denoiser:
    """The trajectory's denoiser given the stream, by the rule of the reference."""
    window = score.window_denoiser(config, SCHEDULE, params)
    prior = trajectory_denoiser(window, config.window, chunk=chunk, remat=remat)
    innovations = lambda z, extra: whitened_innovations((stream,), z, lambda v: v, extra)
    return guide(prior, innovations, SCHEDULE, rule="sda", gamma=GAMMA)


def observe(values: np.ndarray) -> Stream:
    """Block means (time, lat, lon, channel) as a stream."""
    variance = Diagonal(jnp.full((1,), ERROR**2, jnp.float32))
    return make_stream("coarse", values, Coarsen(BLOCK), variance, space="latent")


def compile_program(function: Any, *args: Any) -> tuple[Any, float]:
    """The compiled function and the seconds for it, compiled as the library does."""
    if not hasattr(function, "lower"):
        function = jax.jit(function, compiler_options=compiler_options() or None)
    begun = time.perf_counter()
    compiled = function.lower(*args).compile()
    return compiled, time.perf_counter() - begun


def _guided(config: ScoreConfig, params: Params, shape: tuple[int, int]) -> Measured:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(FRAMES, *shape, config.channels)).astype(np.float32)
    coarse = (FRAMES, shape[0] // BLOCK, shape[1] // BLOCK, config.channels)
    y = rng.normal(size=coarse).astype(np.float32)
    stream = observe(y)
    arguments = (params, jnp.asarray(x), jnp.float32(TIME))
    compiled, seconds = compile_program(
        lambda params, x, t: guided_denoiser(config, params, stream)(x, t), *arguments
    )
    ours = lambda: jax.block_until_ready(compiled(*arguments))
    theirs, difference = None, None
    if twin.available():
        other = twin.guided(
            config,
            twin.copy_params(params),
            twin.tensor(y),
            eta=SCHEDULE.eta,
            error=ERROR,
            gamma=GAMMA,
        )
        at = twin.tensor(np.asarray(TIME, np.float32))
        theirs = functools.partial(twin.done, other, twin.tensor(x), at)
        difference = _difference(ours(), twin.array(theirs()))
    # Forward, and the gradient with respect to the input.
    operations = 2 * _forward_operations(config, params, shape, FRAMES - config.window + 1)
    return Measured(ours, theirs, difference, operations, compiled, seconds)


def _training(config: ScoreConfig, params: Params, shape: tuple[int, int]) -> Measured:
    batch = BATCH[shape]
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(batch, config.window, *shape, config.channels)).astype(np.float32)

    def loss(params, model_state, key, windows):
        value, info = score.loss(config, SCHEDULE, params, key, windows)
        return value, (model_state, info)

    step = make_step(
        loss,
        OPTIMISER,
        mesh=data_mesh(jax.devices()[:1]),
        compiler_options=compiler_options() or None,
    )
    fresh = jax.tree.map(jnp.copy, params)
    state = [init_state(jax.random.key(0), lambda key: (fresh, {}), OPTIMISER)]
    on_device = jnp.asarray(windows)
    compiled, seconds = compile_program(step, state[0], on_device)

    def ours():
        state[0], info = compiled(state[0], on_device)
        jax.block_until_ready((state[0].params, info))

    theirs, difference = None, None
    if twin.available():
        difference = _gradient_difference(config, params, windows)
        other = twin.make_step(
            config,
            twin.copy_params(params),
            eta=SCHEDULE.eta,
            learning_rate=OPTIMISER.learning_rate,
            weight_decay=OPTIMISER.weight_decay,
        )
        theirs = functools.partial(twin.done, other, twin.windows(windows))
    # Forward, and the gradients with respect to input and parameters.
    operations = 3 * _forward_operations(config, params, shape, batch)
    return Measured(ours, theirs, difference, operations, compiled, seconds)


def _gradient_difference(config: ScoreConfig, params: Params, windows: np.ndarray) -> float:
    """Of the loss's gradients, for one sample with the same noise in both."""
    x, eps = windows[:1], np.flip(windows[:1], axis=2).copy()
    t = jnp.full((1, 1), TIME)
    alpha, sigma = float(SCHEDULE.alpha(t[0, 0])), float(SCHEDULE.sigma(t[0, 0]))
    goal = eps if config.prediction == "eps" else alpha * eps - sigma * x

    def loss(params):
        predicted = score.predict(config, params, jnp.asarray(alpha * x + sigma * eps), t)
        return jnp.mean(jnp.square(predicted - goal))

    ours = jax.jit(jax.grad(loss), compiler_options=compiler_options() or None)(params)
    copied = twin.copy_params(params)
    theirs = twin.gradients(config, copied, twin.windows(x), twin.windows(eps), TIME, SCHEDULE.eta)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(_difference(a, b) for a, b in pairs)


def _difference(a: Any, b: Any) -> float:
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))) / np.max(np.abs(np.asarray(b))))


def _params(config: ScoreConfig, shape: tuple[int, int]) -> Params:
    """Parameters with nothing left at zero, so that every path counts in the comparison."""
    rng = np.random.default_rng(1)
    params = score.init(config, jax.random.key(0), shape)
    return jax.tree.map(
        lambda p: p + np.float32(0.02) * rng.normal(size=p.shape).astype("f4"), params
    )


def _forward_operations(
    config: ScoreConfig, params: Params, shape: tuple[int, int], windows: int
) -> float:
    """Of the convolutions and products of one pass, as the library evaluates them."""
    x = jax.ShapeDtypeStruct((windows, config.window, *shape, config.channels), jnp.float32)
    t = jax.ShapeDtypeStruct((windows, config.levels), jnp.float32)
    return _operations(jax.make_jaxpr(functools.partial(score.predict, config))(params, x, t).jaxpr)


def _operations(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        out = equation.outvars[0].aval
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape  # (lat, lon, input, output)
            total += 2.0 * out.size * np.prod(kernel[:-1])
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * out.size * np.prod([shape[i] for i in contracted])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += _operations(inner)
    return total
