"""The built wheel alone, in an environment of its own, runs the tutorial about training."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytest.importorskip("hatchling")  # builds the wheel without a network

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorials" / "from_python.py"
ALONE = """
import importlib.util, pathlib, sys
import slams_jax
assert pathlib.Path(slams_jax.__file__).is_relative_to(sys.prefix), slams_jax.__file__
for name in ("experiments", "configs", "tests"):
    assert importlib.util.find_spec(name) is None, name
slams_jax.demo_model()
"""


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    kept = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "XLA_FLAGS")}
    result = subprocess.run(
        [str(c) for c in command],
        cwd=folder,
        env=kept | {"MPLBACKEND": "agg"} | environment,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment that has the wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    # The builder may come from the path of this process alone.
    run(sys.executable, *build, folder=ROOT, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    site = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder
    )
    # A path in a .pth file is searched, but editable installs behind it are not followed.
    (Path(site.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 8e6
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    run(sys.executable, *install, folder=folder)
    return python


@pytest.mark.slow
def test_the_wheel_stands_alone(python, tmp_path):
    run(python, "-c", ALONE, folder=tmp_path)


@pytest.mark.slow
def test_the_tutorial_needs_nothing_else(python, tmp_path):
    """Training, saving, loading, assimilating and scoring; its checks are asserted."""
    said = run(python, TUTORIAL, folder=tmp_path)
    assert "step" in said  # the progress of the training
    assert "analysis" in said
