"""The built wheel alone, in an environment of its own; and tutorials, which need nothing else."""

import ast
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytest.importorskip("hatchling")  # builds the wheel without a network

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
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


@pytest.mark.parametrize("tutorial", sorted(TUTORIALS.glob("*.py")), ids=lambda path: path.stem)
def test_tutorials_need_nothing_else(tutorial):
    """They run where the checkout is, in `make docs`, and could take from it what others lack."""
    nodes = list(ast.walk(ast.parse(tutorial.read_text())))
    names = [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    names += [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    assert names
    assert not {n.split(".")[0] for n in names} & {"experiments", "configs", "tests"}
