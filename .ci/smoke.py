"""What the wheel does without any extra: all of it can be imported, and an analysis be drawn."""

import importlib
import pkgutil
import sys
import time

start = time.perf_counter()
import slams_jax  # noqa: E402

seconds = time.perf_counter() - start
assert "site-packages" in slams_jax.__file__, slams_jax.__file__
assert seconds < 2, f"importing slams_jax takes {seconds:.1f} s"
assert "jax" not in sys.modules

for module in pkgutil.walk_packages(slams_jax.__path__, "slams_jax."):
    importlib.import_module(module.name)
for name in slams_jax.__all__:
    getattr(slams_jax, name)

import jax  # noqa: E402

from slams_jax.reference_problems import Guidance, Method, run_case, trajectory_cases  # noqa: E402

case = trajectory_cases([None])[0]
method = Method(Guidance("mmps"), slams_jax.SamplerConfig())
row = run_case(case, method, 256, jax.random.key(0))
assert 0.8 < row.score.variance_ratio < 1.25, row

print(f"slams_jax {slams_jax.__version__} with jax {jax.__version__}, imported in {seconds:.2f} s")
