import os

# Eight virtual devices, so that sharding is put to the test on any machine.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, from SLAMS_REAL_DATA; tests that need it skip where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("SLAMS_REAL_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set SLAMS_REAL_DATA to its folder")
    return path
