"""What this machine can do, and how things are measured on it."""

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.mesh import cores

# Size of matrices whose product is compute-bound and takes milliseconds or more, and float32 values
# that are beyond any cache: on a CPU, and on an accelerator.
SIZES, STREAMS = (2048, 8192), (1 << 26, 1 << 29)


class Machine(NamedTuple):
    """The limits, as measured.

    Attributes:
        device: its name.
        flops: float32 operations per second in a matrix product.
        bandwidth: bytes per second that are read and written.
    """

    device: str
    flops: float
    bandwidth: float


def measure_machine(repetitions: int) -> tuple[Machine, list[dict[str, Any]]]:
    """The limits of the first device, by its fastest repetitions, and their rows."""
    device = jax.devices()[0]
    n, values_count = (both[device.platform != "cpu"] for both in (SIZES, STREAMS))
    a = jax.random.normal(jax.random.key(0), (n, n))
    product = jax.jit(lambda a: a @ a)
    seconds = min(times([lambda: jax.block_until_ready(product(a))], repetitions)[0])
    # In place: fresh memory would measure how fast the system clears pages.
    values = [jnp.ones((values_count,))]
    scale = jax.jit(lambda x: 0.5 * x + 1.0, donate_argnums=0)

    def stream_once():
        values[0] = jax.block_until_ready(scale(values[0]))

    stream = min(times([stream_once], repetitions)[0])
    size = values[0].nbytes
    name = device.device_kind if device.platform != "cpu" else _processor()
    machine = Machine(name, 2.0 * n**3 / seconds, 2.0 * size / stream)
    about = {
        "device": name,
        "dtype": "float32",
        "percent_of_peak": 100.0,
        "throughput_over_pytorch": None,
    }
    rows = [
        {
            "case": f"limit: product of {n} x {n} matrices",
            "seconds": seconds,
            "gflops": machine.flops / 1e9,
            **about,
        },
        {
            "case": f"limit: memory, {size >> 20} MiB read and written",
            "seconds": stream,
            "gigabytes_per_second": machine.bandwidth / 1e9,
            **about,
            "percent_of_peak": None,
        },
    ]
    return machine, rows


def _processor() -> str:
    """The name of the CPU and the number of cores that this process may use."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return f"{name}, {cores()} cores"


def times(functions: Sequence[Callable[[], Any]], repetitions: int) -> list[list[float]]:
    """Seconds of each call, the functions taking turns, so that a busy moment meets them all.

    Each is called once before, to be warm.
    """
    for function in functions:
        function()
    found: list[list[float]] = [[] for _ in functions]
    for _ in range(repetitions):
        for seconds, function in zip(found, functions, strict=True):
            begun = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - begun)
    return found


def medians(functions: Sequence[Callable[[], Any]], repetitions: int) -> list[float]:
    """The median of `times` for each of the functions."""
    return [float(np.median(seconds)) for seconds in times(functions, repetitions)]


def peak_of(function: Callable[[], Any]) -> int | None:
    """Bytes by which the resident memory of this process rose at most while `function` ran.

    None where the system cannot tell (it is Linux that can), or where the work is elsewhere, on an
    accelerator.
    """
    if jax.default_backend() != "cpu":
        function()
        return None
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
        before = int(_field(status, "VmRSS"))
        function()
        return (int(_field(status, "VmHWM")) - before) * 1024
    except OSError:
        function()
        return None


def _field(status: Path, name: str) -> str:
    found = re.search(rf"{name}:\s*(\d+) kB", status.read_text())
    if found is None:
        raise OSError(f"{status} has no {name}")
    return found[1]


def load() -> float | None:
    """Processes that want to run, averaged over the last minute, less than 1 for this one."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
