"""What `import slams_jax` does to the process that imports it: nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import slams_jax

# Slow to import, or with effects: log handlers, flags, a look for GPUs.
RARELY_NEEDED = {
    *("dask", "dinosaur", "grain", "jinja2", "matplotlib", "ml_collections", "orbax", "playwright"),
    *("scipy.optimize", "scipy.spatial", "scipy.stats", "tensorboardX", "tensorflow", "torch"),
}
# The state of a process that others rely on.
STATE = """
import logging, os, signal, sys

def state():
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [(l.name, h) for l in loggers for h in getattr(l, "handlers", [])]
    absl = sys.modules.get("absl.flags")
    return dict(
        handlers=[(n, h) for n, h in handlers if not isinstance(h, logging.NullHandler)],
        level=logging.root.level,
        logger_class=logging.getLoggerClass(),
        environment=dict(os.environ),
        settings=dict(jax.config.values),
        signals=[signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)],
        hooks=(sys.excepthook, sys.unraisablehook),
        flags_parsed=bool(absl and absl.FLAGS.is_parsed()),
    )
"""


def run(program, **environment):
    """The output of a Python program in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | environment,
        cwd=Path(slams_jax.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_importing_the_library_imports_nothing_else():
    before = run("import ast, importlib, pathlib, typing, sys; print(*sys.modules)")
    after = run("import slams_jax, sys; print(*sys.modules)")
    assert set(after) - set(before) <= {"slams_jax"}


@pytest.mark.slow
def test_the_analysis_imports_nothing_that_it_rarely_needs():
    imported = run("from slams_jax import assimilate, load_model; import sys; print(*sys.modules)")
    assert "jax" in imported
    assert not set(imported) & RARELY_NEEDED


@pytest.mark.slow
@pytest.mark.parametrize("names", ["assimilate", "assimilate, fit_inflation, load_model, training"])
def test_importing_changes_no_state(names):
    program = (
        f"import jax, xarray\n{STATE}\nbefore = state()\nfrom slams_jax import {names}\n"
        "after = state()\nfor key in before: assert before[key] == after[key], key\n"
        "import jax._src.xla_bridge as bridge\nassert not bridge.backends_are_initialized()"
    )
    run(program)


@pytest.mark.slow
def test_works_beside_the_settings_of_a_user():
    program = """
import logging
import jax
import jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
records = []
handler = logging.Handler()
handler.emit = records.append
logging.basicConfig(level="INFO", handlers=[handler])
from slams_jax import CosineSchedule, preset
from slams_jax.diffusion import sample
schedule = CosineSchedule()
denoiser = lambda x, t: x * schedule.alpha(t) / (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
mesh = jax.make_mesh((2,), ("mine",), axis_types=(jax.sharding.AxisType.Auto,))
with jax.set_mesh(mesh):
    draw = sample(jax.random.key(0), denoiser, (4, 3, 5, 1), schedule, preset("fast").sampler)
assert jnp.isfinite(draw).all()
assert jax.config.jax_enable_x64 and jnp.zeros(()).dtype == "float64"
assert jax.device_count() == 2
assert logging.root.handlers == [handler] and logging.root.level == logging.INFO
"""
    run(program, XLA_FLAGS="--xla_force_host_platform_device_count=2")


def test_every_public_name_is_there_and_every_room():
    rooms = {p.parent.name for p in Path(slams_jax.__file__).parent.glob("*/__init__.py")}
    assert rooms <= set(slams_jax.__all__)
    for name in slams_jax.__all__:
        value = getattr(slams_jax, name)
        assert value.__name__.rpartition(".")[2] == name
    assert set(slams_jax.__all__) <= set(dir(slams_jax))
    with pytest.raises(AttributeError, match="has no attribute 'assimilation_of'"):
        slams_jax.assimilation_of  # noqa: B018
