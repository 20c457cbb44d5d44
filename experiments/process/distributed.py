"""Several processes, one run: joining the others, and what one of them does first.

Every process runs the same command. `experiments.launch`, Slurm's `srun`, Open MPI's `mpirun` and
several TPU hosts in Kubernetes are recognised by their environment; `--distributed` asks for it
wherever else `jax.distributed` works (a TPU pod slice).
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging

from slams_jax.errors import InputError, first_line
from slams_jax.training.devices import is_writer, wait_for_all

COORDINATOR, PROCESSES, PROCESS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_OURS = (COORDINATOR, PROCESSES, PROCESS)
# The number of processes that a launcher started.
_COUNTS = (PROCESSES, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def join(distributed: bool | None = None) -> None:
    """Join the other processes of the run, if there are any; before a device is used.

    Args:
        distributed: whether there are others; None asks the environment.

    Raises:
        InputError: no cluster is found, or its coordinator does not answer.
    """
    if not (_launched() if distributed is None else distributed):
        return
    try:
        jax.distributed.initialize(**_from_environment())
    except (KeyError, ValueError, RuntimeError) as error:
        reason = f"{error} is not set" if isinstance(error, KeyError) else first_line(error)
        raise InputError(
            f"cannot join the other processes of this run ({reason}): start all of them with "
            f"srun, mpirun or experiments.launch, or set {', '.join(_OURS)}"
        ) from None
    if not is_writer():
        logging.set_verbosity(logging.WARNING)
    logging.info("%d processes, %d devices", jax.process_count(), jax.device_count())


@contextlib.contextmanager
def writer_first(name: str) -> Iterator[None]:
    """Within, the process that writes files goes first; the others find its files."""
    if not is_writer():
        wait_for_all(name)
    try:
        yield
    finally:
        if is_writer():
            wait_for_all(name)


def _launched() -> bool:
    """Whether the environment says that there are several processes.

    Raises:
        InputError: a number that is none, or only some of the variables of JAX: this process would
            otherwise run alone, beside others that do the same.
    """
    counts = [_number(name) for name in _COUNTS]
    given = [name for name in _OURS if os.environ.get(name)]
    if given and len(given) < len(_OURS):
        missing = ", ".join(name for name in _OURS if name not in given)
        raise InputError(f"{given[0]} is set without {missing}: set all of them, or none")
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or any(count is not None and count > 1 for count in counts)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(
            f"{name}={text!r} in the environment must be a number: correct or unset it"
        )
    return int(text)


def _from_environment() -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize` that are set; it finds the others by itself."""
    given = {
        "coordinator_address": os.environ.get(COORDINATOR) or None,
        "num_processes": _number(PROCESSES),
        "process_id": _number(PROCESS),
    }
    return {name: value for name, value in given.items() if value is not None}
