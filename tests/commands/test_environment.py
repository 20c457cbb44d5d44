"""Environments that JAX, or a scheduler, sets wrongly or in part: one line, no traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.process import distributed
from slams_jax.errors import InputError

REPOSITORY = Path(__file__).parents[2]
OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in (*OURS, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two' .* must be a number"),
        ({"SLURM_STEP_NUM_TASKS": "2(x2)"}, "SLURM_STEP_NUM_TASKS='2.x2.' .* must be a number"),
        ({"OMPI_COMM_WORLD_SIZE": "-1"}, "OMPI_COMM_WORLD_SIZE='-1' .* must be a number"),
        (
            {"JAX_NUM_PROCESSES": "2"},
            "set without JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID: set all",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "localhost:1"},
            "set without JAX_NUM_PROCESSES, JAX_PROCESS_ID",
        ),
        ({"JAX_PROCESS_ID": "0"}, "set without JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"),
        (
            dict(zip(OURS, ("localhost:1", "2", "first"), strict=True)),
            "JAX_PROCESS_ID='first' .* must be a number",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "cannot join the other processes .*: start all of them"),
    ],
)
def test_half_a_cluster_is_one_line(environment, said, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said) as error:
        distributed.join()
    assert "\n" not in str(error.value)


def test_one_process_is_no_cluster(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "")
    distributed.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("JAX_ENABLE_X64", "maybe", "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
        ("JAX_PLATFORMS", "abacus", "JAX finds no device .*'abacus'.*: check JAX_PLATFORMS"),
    ],
)
def test_what_jax_cannot_read_is_one_line(variable, value, said, tmp_path):
    command = [sys.executable, "-m", "experiments.generate", "--config=configs/nature_lorenz63.py"]
    done = subprocess.run(
        [*command, "--config.nature.days=20", f"--config.nature.cache={tmp_path}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, variable: value},
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert "Traceback" not in done.stderr
    assert line.startswith("error: ")
    assert re.search(said, line), line
    assert list(tmp_path.iterdir()) == []
