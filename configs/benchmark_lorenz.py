"""Filters of Lorenz-63 and Lorenz-96, each tuned on other observations: docs/benchmarks.md.

    python -m experiments.cycle --config=configs/benchmark_lorenz.py --output=runs/benchmark

Takes about a quarter of an hour on two cores. Repeat the command to resume.
"""

from ml_collections import ConfigDict

from configs import base

CYCLES = {"seed": 8, "cycles": 1000, "spin_up": 100, "every": 200}


def get_config() -> ConfigDict:
    of = lambda method, **changes: {"method": method, **changes}
    inflated = lambda method, *values, **changes: [
        of(method, inflation=value, **changes) for value in values
    ]
    factors = (1.02, 1.05, 1.1)
    lorenz63 = {
        "3D-Var": [of("3dvar", variance=v) for v in (0.05, 0.1, 0.2)],
        "ETKF, 10 members": inflated("etkf", *factors, members=10),
        "EnKF, 20 members": inflated("enkf", *factors, members=20),
        "iEnKS, 10 members": inflated("iterative", *factors, members=10, smooth=True),
        "particle filter, 800": [of("particle filter", members=800)],
        "score, 20 members": inflated("score", *factors, members=20),
        "score, smoothed, 20 members": inflated("score", *factors, members=20, smooth=True),
        "the same, Gaussian prior": inflated(
            "score", *factors, members=20, smooth=True, training=0
        ),
    }
    local, factors = {"members": 20, "radius": 14.0}, (1.01, 1.03, 1.06)
    lorenz96 = {
        "3D-Var": [of("3dvar", variance=v) for v in (0.02, 0.05, 0.1)],
        "ETKF, 24 members": inflated("etkf", *factors, members=24),
        "EnKF, 40 members": inflated("enkf", *factors, members=40),
        "LETKF, 20 members": inflated("letkf", *factors, **local),
        "iEnKS, 24 members": inflated("iterative", *factors, members=24, smooth=True),
        "particle filter, 800": [of("particle filter", members=800)],
        "score, 20 members": inflated("score", *factors, **local),
        "the same, Gaussian prior": inflated("score", *factors, training=0, **local),
    }
    cases = {
        "Lorenz-63": {
            "cycle": base.cycle(system="lorenz63", dt=0.01, substeps=25, error=2.0**0.5, **CYCLES),
            "filters": lorenz63,
        },
        "Lorenz-96": {"cycle": base.cycle(**CYCLES), "filters": lorenz96},
        "Lorenz-96, arctan of every second variable": {
            "cycle": base.cycle(operator="arctan", **CYCLES),
            "filters": lorenz96,
        },
    }
    return ConfigDict({"benchmark": {"tuning_seed": 1, "tuning_cycles": 400, "cases": cases}})
