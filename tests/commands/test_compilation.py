"""The compilation cache of the commands, each start in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
# A command with programs large and small, a loop and a random draw among them.
COMMAND = """
import jax, jax.numpy as jnp
from absl import flags
from experiments.process import cli

def main():
    x = jax.random.normal(jax.random.key(0), (8, 8))
    y = jax.lax.scan(lambda c, _: (jnp.tanh(c @ x), None), x, None, length=3)[0]
    print("cache:", jax.config.jax_compilation_cache_dir)
    print("sum:", float(jnp.sum(y) + jnp.linalg.norm(x)))

cli.run(main, flags.FlagValues(), ["command"])
"""


def start(cache: Path, **environment: str) -> tuple[int, int, str]:
    """Programs compiled, programs found, output."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment = {**kept, "XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu", **environment}
    run = subprocess.run(
        [sys.executable, "-c", COMMAND],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    found = re.search(r"(\d+) programs compiled and (\d+) found in the cache", run.stderr)
    assert found, run.stderr
    return int(found[1]), int(found[2]), run.stdout


def test_the_second_start_of_a_command_compiles_nothing(tmp_path):
    compiled, found, first = start(tmp_path)
    assert compiled > 3
    assert found == 0
    assert f"cache: {tmp_path / 'slams_jax' / 'compiled'}" in first
    again = start(tmp_path)
    assert again == (0, compiled, first)


@pytest.mark.parametrize("setting", ["JAX_COMPILATION_CACHE_DIR", "unwritable"])
def test_the_cache_is_where_jax_is_told_or_nowhere(tmp_path, setting):
    if setting == "unwritable":
        (tmp_path / "file").touch()
        _, found, output = start(tmp_path / "file")
        assert "cache: None" in output
        assert found == 0
    else:
        elsewhere = tmp_path / "elsewhere"
        _, _, output = start(tmp_path, JAX_COMPILATION_CACHE_DIR=str(elsewhere))
        assert f"cache: {elsewhere}" in output
        assert not (tmp_path / "slams_jax").exists()
