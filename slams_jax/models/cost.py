"""What training and analyses cost: operations, memory and bytes between devices, on paper.

Counts follow the networks layer by layer and are compared with those of compiled programs in
`tests/test_cost.py`. Times are those of the slowest of three limits, arithmetic, memory and links,
of which a real program reaches a part (`utilisation`).
"""

import dataclasses
import re

from slams_jax.errors import InputError
from slams_jax.models.score import ScoreConfig

FLOAT = 4  # bytes
# Arrays of its own size that a residual block leaves for its gradient: input, normalised input and
# the argument of silu, and of what both convolutions read the padded copies.
KEPT_BY_BLOCK = 6
# Arrays of the first level that are alive at once without gradients.
ALIVE = 4
# Bytes that a training step moves to and from memory, in units of what it keeps.
TRAFFIC = 16
# The same for a forward pass.
FORWARD_TRAFFIC = 4
# Arrays of a trajectory that a draw holds: state, last two estimates, noise, conjugate gradients.
TRAJECTORIES = 9
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, from the maker's data sheet.

    Attributes:
        name: of the device.
        flops: peak of dense products in bfloat16, per second.
        memory: bytes.
        bandwidth: of the memory, bytes per second.
        near: to the devices of one machine or slice, bytes per second and direction.
        far: to those of other machines, likewise.
        group: devices that are near one another.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    near: float
    far: float
    group: int


CHIPS = (
    Chip("H100 SXM", 989e12, 80e9, 3.35e12, 450e9, 50e9, 8),
    Chip("TPU v5p", 459e12, 95e9, 2.77e12, 600e9, 600e9, 8960),
)


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """Of one evaluation of a score network on one window.

    Attributes:
        parameters: their number.
        flops: of the forward pass; its gradient costs twice that on top.
        kept: values kept for the gradient.
        alive: values alive at once without one.
    """

    parameters: int
    flops: float
    kept: float
    alive: float


def network_cost(config: ScoreConfig, shape: tuple[int, int]) -> NetworkCost:
    """The cost of a window on a grid of `shape` (lat, lon)."""
    taps, features = config.kernel**2, config.window * config.channels
    position = {"none": 0, "latitude": 2, "both": 4}[config.coordinates]
    read = config.window * config.inputs + position
    embedding = (32 * config.levels + 1) * 256 + (256 + 1) * config.embedding
    parameters, flops, kept = embedding, 2.0 * embedding, 0.0
    lat, lon = shape
    sizes = []
    for level, width in enumerate(config.widths):
        if level:
            lat, lon = -(-lat // 2), -(-lon // 2)
        sizes.append((lat, lon))
        points = lat * lon
        blocks = 2 * config.blocks
        weights = taps * (read * width + blocks * 2 * width**2)
        parameters += weights + width * (1 + 2 * blocks) + blocks * width * (config.embedding + 1)
        flops += 2.0 * points * weights
        kept += points * width * (KEPT_BY_BLOCK * blocks + 1)
        read = width
    for (lat, lon), width, below in zip(sizes, config.widths, config.widths[1:], strict=False):
        parameters += taps * below * width + width
        # A kernel of 3 is evaluated as four of 2 on the coarse grid.
        coarse = (-(-lat // 2) + 1) * (-(-lon // 2) + 1)
        flops += 2.0 * below * width * (16 * coarse if config.kernel == 3 else taps * lat * lon)
    last, (lat, lon) = taps * config.widths[0] * features, sizes[0]
    parameters += last + features
    flops += 2.0 * lat * lon * last
    alive = float(ALIVE) * lat * lon * max(config.widths[0], features)
    return NetworkCost(parameters, flops, kept, alive)


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Of one training step, on each device.

    Attributes:
        flops: operations.
        memory: bytes held at once.
        traffic: bytes to and from memory.
        sent: bytes sent to other devices, by rings.
    """

    flops: float
    memory: float
    traffic: float
    sent: float


def training_cost(
    config: ScoreConfig,
    shape: tuple[int, int],
    *,
    batch: int,
    devices: int = 1,
    accumulate: int = 1,
    sharded: bool = False,
) -> StepCost:
    """The cost of a step with `batch` windows on all devices together.

    Raises:
        InputError: a batch that does not divide.
    """
    if batch % (devices * accumulate):
        raise InputError(
            f"a batch of {batch} does not divide over {devices} devices in {accumulate} parts"
        )
    one, own = network_cost(config, shape), batch // devices
    size = FLOAT if config.compute == "float32" else 2
    kept = size * one.kept * own
    # Parameters, their average and two moments, which devices may share; a gradient, and where
    # they are shared the gathered parameters.
    share = devices if sharded else 1
    state = FLOAT * one.parameters * (4 / share + 1 + sharded)
    inputs = 3 * FLOAT * own * config.window * config.channels * shape[0] * shape[1]
    ring = (devices - 1) / devices * FLOAT * one.parameters
    return StepCost(
        flops=3 * one.flops * own,
        memory=state + inputs + kept / accumulate,
        traffic=TRAFFIC * kept + 2 * state,
        # A sum over devices is two passes of the ring, for every part; parameters are gathered.
        sent=ring * (2 * accumulate + sharded),
    )


def analysis_memory(
    config: ScoreConfig,
    shape: tuple[int, int],
    state: tuple[int, int, int],
    *,
    frames: int,
    rank: int = 200,
    windows: int | None = None,
    space: int = 1,
) -> float:
    """Bytes that a device needs for one member without derivatives of the network.

    Args:
        config: the network.
        shape: (lat, lon) of what is diffused.
        state: (lat, lon, channel) of the state.
        frames: of the trajectory.
        rank: patterns of the prior and of the background error.
        windows: evaluated at a time; all unless given.
        space: devices that share the latitudes.
    """
    network = evaluation_cost(config, shape, windows or frames - config.window + 1)
    parameters = FLOAT * network_cost(config, shape).parameters
    latent, points = shape[0] * shape[1] * config.channels, state[0] * state[1]
    fields = (
        network.memory
        - parameters
        + FLOAT * frames * TRAJECTORIES * latent
        + FLOAT * frames * 4 * points * state[2]  # climate, background, decoded state, innovations
        + FLOAT * rank * (shape[0] * shape[1] + points)
    )
    return parameters + fields / space


def evaluation_cost(config: ScoreConfig, shape: tuple[int, int], windows: int) -> StepCost:
    """The cost of evaluating a network on some windows, on one device, without derivatives."""
    one = network_cost(config, shape)
    size = FLOAT if config.compute == "float32" else 2
    return StepCost(
        flops=one.flops * windows,
        memory=size * one.alive * windows + FLOAT * one.parameters,
        traffic=FORWARD_TRAFFIC * size * one.kept * windows,
        sent=0.0,
    )


def step_seconds(cost: StepCost, chip: Chip, *, devices: int, utilisation: float = 1.0) -> float:
    """The time of a step on `devices` of a chip, its sums not hidden behind anything."""
    busy = max(cost.flops / chip.flops, cost.traffic / chip.bandwidth) / utilisation
    return busy + sum_seconds(cost, chip, devices=devices)


def sum_seconds(cost: StepCost, chip: Chip, *, devices: int) -> float:
    """The part of `step_seconds` that is spent on sums over devices."""
    return cost.sent / (chip.near if devices <= chip.group else chip.far)


def collectives_in(program: str) -> dict[str, tuple[int, int]]:
    """What the devices tell each other in a compiled program: kind -> (number, bytes of results).

    Args:
        program: as `jax.stages.Compiled.as_text` gives it.
    """
    found: dict[str, tuple[int, int]] = {}
    pattern = re.compile(rf" = (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
    for result, kind in pattern.findall(program):
        count, size = found.get(kind, (0, 0))
        for bits, dims in re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", result):
            values = 1
            for n in filter(None, dims.split(",")):
                values *= int(n)
            size += values * int(bits) // 8
        found[kind] = (count + 1, size)
    return found
