import ctypes
import gc
import os
import sys
from importlib.metadata import version

# Eight virtual devices, so that sharding is put to the test on any machine. Compiling takes most of
# the time, and most programs run once: optimising them costs ten times what it saves. Modules
# marked `optimised` are about the programs, or compute for long.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_cpu_parallel_codegen_split_count=1"
    # Newer versions refuse to start with this flag.
    + (" --xla_cpu_use_fusion_emitters=false" if int(version("jaxlib").split(".")[1]) < 11 else ""),
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one test compiled serves the others, their processes and the next run, small programs too.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

from pathlib import Path

import jax
import jax.extend
import pytest

if jax.config.jax_compilation_cache_dir is None:
    jax.config.update(
        "jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
    )

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

pytest_plugins = ["support.fixtures"]


# A program takes about 1.5 MB. Few are used by more than a handful of tests.
PROGRAMS = 700


def pytest_collection_modifyitems(items):
    """Commands take longest: begun last, a file of theirs would keep one worker busy alone."""
    items.sort(key=lambda item: "commands" not in item.path.parts)


def pytest_collection_finish():
    """Spare the collector what stays: it would go through all modules again and again."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _forget():
    """Drop all programs. The allocator would keep the gigabytes that they took."""
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="module", autouse=True)
def _programs(request):
    """Compile as the module asks, and keep no programs beyond it."""
    optimised = request.node.get_closest_marker("optimised") is not None
    quick = jax.config.read("jax_disable_most_optimizations")
    if optimised:
        _forget()
        jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", quick)
    _forget()


@pytest.fixture(autouse=True)
def _few_programs():
    """Keep no more than `PROGRAMS` within a module either."""
    yield
    if len(jax.extend.backend.get_backend().live_executables()) > PROGRAMS:
        _forget()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, from SLAMS_REAL_DATA; tests that need it skip where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("SLAMS_REAL_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set SLAMS_REAL_DATA to its folder")
    return path
