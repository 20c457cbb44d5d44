"""Start several processes of one command on this machine, as a cluster would on many.

    python -m experiments.launch --processes=2 experiments.train --config=configs/demo.py

With `--devices=N` each process gets N virtual CPU devices, to try a mesh without the hardware. If
one process fails, the others are stopped; the exit status is that of the first that failed.
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

GRACE = 5.0  # seconds between asking a process to stop and making it
VIRTUAL = "--xla_force_host_platform_device_count"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of the command `argv` (sys.argv)."""
    parser = argparse.ArgumentParser("experiments.launch", description="Start several processes.")
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    parser.add_argument("--devices", type=int, default=0, help="virtual CPU devices of each")
    parser.add_argument("module", help="what to run, such as experiments.train")
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
    """0 when all have ended well; at the first that has not, stop the rest."""
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
