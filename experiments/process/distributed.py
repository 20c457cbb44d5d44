"""Several processes, one run: how a command joins the others, and what only one of them does.

Every process runs the same command. `experiments.launch`, Slurm's `srun`, Open MPI's `mpirun` and
several TPU hosts in Kubernetes are recognised by their environment; `--distributed` asks for it
anywhere else that `jax.distributed` knows (a TPU pod slice).
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags, logging

from slams_jax.errors import InputError
from slams_jax.training.devices import is_writer, wait_for_all

COORDINATOR, PROCESSES, PROCESS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Of a launcher, the number of processes that it started.
_COUNTS = (PROCESSES, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")

DISTRIBUTED = flags.DEFINE_bool(
    "distributed", None, "Join the other processes of this run; recognised where it is a cluster's."
)


def join() -> None:
    """Join the other processes of the run, if there are any; before a device is used.

    Raises:
        InputError: no cluster is found, or its coordinator does not answer.
    """
    wanted = _launched() if DISTRIBUTED.value is None else DISTRIBUTED.value
    if not wanted:
        return
    try:
        jax.distributed.initialize(**_from_environment())
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--distributed: cannot join the other processes ({error}): start all of them with "
            f"srun, mpirun or experiments.launch, or set {COORDINATOR}, {PROCESSES}, {PROCESS}"
        ) from None
    if not is_writer():
        logging.set_verbosity(logging.WARNING)
    logging.info("%d processes, %d devices", jax.process_count(), jax.device_count())


@contextlib.contextmanager
def writer_first(name: str) -> Iterator[None]:
    """Within, the process that writes files goes first, and the others find what it left."""
    if not is_writer():
        wait_for_all(name)
    try:
        yield
    finally:
        if is_writer():
            wait_for_all(name)


def _launched() -> bool:
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or any(int(os.environ.get(name, "1")) > 1 for name in _COUNTS)


def _from_environment() -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize` that are set; the rest it finds for itself."""
    arguments: dict[str, Any] = {}
    if COORDINATOR in os.environ:
        arguments["coordinator_address"] = os.environ[COORDINATOR]
    for name, variable in (("num_processes", PROCESSES), ("process_id", PROCESS)):
        if variable in os.environ:
            arguments[name] = int(os.environ[variable])
    return arguments
