"""Two real processes on this machine, against one: training, its resumption, an analysis."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from experiments import assimilate, launch, train
from experiments.process.cli import PREEMPTED
from slams_jax.training import read_metrics, restore_model
from support.small_world import run_command, small_config, tree, write_config

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def file(world, tmp_path_factory):
    """A configuration trained by two processes of two devices each, which share the state."""
    folder = tmp_path_factory.mktemp("distributed")
    config = small_config(world, folder / "run")
    config.autoencoder = config.autoencoder_training = None
    with config.unlocked():
        del config.assimilation.streams.sounder, config.data.modalities.sounder
    config.score_training.update(steps=4, checkpoint_every=2, log_every=2, shard_state=True)
    # Many iterations with an untrained network magnify rounding a million times, on one device too.
    config.guidance.iterations = 3
    file = write_config(config, folder / "config.py")
    with pytest.MonkeyPatch.context() as patch:
        # Not the cache of the tests: who shares it with other devices has nothing from it.
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
        assert launched("experiments.train", f"--config={file}") == 0
    return file


def launched(*command):
    return launch.main(["--processes=2", "--devices=2", *map(str, command)])


def test_a_run_of_two_processes_goes_on_in_one(file, tmp_path):
    """On another number of devices, to the same parameters."""
    workdir = tmp_path / "run"
    shutil.copytree(file.parent / "run", workdir)
    shutil.rmtree(workdir / "score" / "checkpoint" / "last" / "4")
    shutil.rmtree(workdir / "score" / "checkpoint" / "best")
    assert run_command(train.main, f"--config={file}", f"--config.workdir={workdir}") == 0
    ours, theirs = (
        restore_model(Path(d) / "score", "last") for d in (workdir, file.parent / "run")
    )
    for a, b in zip(jax.tree.leaves(ours[:3]), jax.tree.leaves(theirs[:3]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    losses = [
        [r["loss"] for r in read_metrics(d / "score" / "metrics.jsonl")]
        for d in (workdir, file.parent / "run")
    ]
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_two_processes_write_one_analysis_and_it_is_that_of_one(file, tmp_path):
    together, alone = tmp_path / "together" / "analysis.nc", tmp_path / "alone.nc"
    space = "--config.assimilation.space_devices=2"
    assert (
        launched("experiments.assimilate", f"--config={file}", f"--output={together}", space) == 0
    )
    assert tree(together.parent) == ["analysis.nc"]
    assert run_command(assimilate.main, f"--config={file}", f"--output={alone}") == 0
    found, expected = (xr.load_dataset(p, engine="h5netcdf") for p in (together, alone))
    np.testing.assert_allclose(found["temperature"], expected["temperature"], atol=2e-3)
    assert found.attrs["streams"] == expected.attrs["streams"]


def test_the_help_of_the_launcher_has_an_example(capsys):
    with pytest.raises(SystemExit):
        launch.main(["--help"])
    assert "python -m experiments.launch --processes=2 experiments.train" in capsys.readouterr().out


def test_when_one_process_fails_all_are_stopped(tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(
        "import os, sys, time\n"
        "if os.environ['JAX_PROCESS_ID'] == '1':\n"
        "    sys.exit(3)\n"
        "time.sleep(300)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert launch.main(["--processes=2", "failing"]) == 3


def test_when_one_process_is_preempted_all_save_the_same_step(file, tmp_path):
    """By the preemption service: only one of them has the signal."""
    workdir = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "experiments.launch",
        "--processes=2",
        "--devices=2",
        "experiments.train",
        f"--config={file}",
        f"--config.workdir={workdir}",
        "--config.score_training.steps=100000",
        "--config.score_training.log_every=5",
        "--config.score_training.checkpoint_every=100000",
    ]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(file.parent / "compiled")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as launcher:
        records = workdir / "score" / "metrics.jsonl"
        until = time.monotonic() + 300
        while not (records.exists() and records.stat().st_size) and time.monotonic() < until:
            assert launcher.poll() is None
            time.sleep(0.2)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGTERM)
        said = launcher.communicate(timeout=120)[1].decode()
    assert launcher.returncode == PREEMPTED
    steps = re.findall(r"stopped: at step (\d+) of 100000, which is saved", said)
    assert len(steps) == 2
    assert steps[0] == steps[1]
    assert [p.name for p in (workdir / "score" / "checkpoint" / "last").iterdir()] == [steps[0]]
