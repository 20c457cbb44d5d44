"""Start several processes of one command on this machine, as a cluster would on many.

    python -m experiments.launch --processes=2 experiments.train --config=configs/demo.py

With `--devices=N` each process gets N virtual CPU devices, to try a device mesh without the
hardware. If a process fails, the others are stopped, and its exit status is that of the command.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from experiments.process.distributed import COORDINATOR, PROCESS, PROCESSES

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
VIRTUAL = "--xla_force_host_platform_device_count"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default `sys.argv`) and return the exit status."""
    parser = argparse.ArgumentParser(
        "experiments.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    parser.add_argument("--devices", type=int, default=0, help="virtual CPU devices per process")
    parser.add_argument("module", help="module to run, such as experiments.train")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its flags")
    options = parser.parse_args(argv)
    if options.processes < 1 or options.devices < 0:
        parser.error("--processes must be at least 1 and --devices not negative")
    command = [sys.executable, "-m", options.module, *options.arguments]
    base = {**os.environ, COORDINATOR: f"localhost:{_free_port()}"}
    if options.devices:
        others = re.sub(rf"{VIRTUAL}=\d+", "", base.get("XLA_FLAGS", ""))
        base |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{others} {VIRTUAL}={options.devices}"}
    return _wait_for(
        [
            subprocess.Popen(
                command, env={**base, PROCESSES: str(options.processes), PROCESS: str(i)}
            )
            for i in range(options.processes)
        ]
    )


def _wait_for(running: Sequence[subprocess.Popen]) -> int:
    """Exit status: 0 once all succeed, or that of the first to fail, which stops the others."""
    try:
        while True:
            found = [process.poll() for process in running]
            failed = [status for status in found if status]
            if failed:
                return failed[0] if failed[0] > 0 else 128 - failed[0]
            if None not in found:
                return 0
            time.sleep(0.1)
    finally:
        _stop([process for process in running if process.poll() is None])


def _stop(running: Sequence[subprocess.Popen]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
