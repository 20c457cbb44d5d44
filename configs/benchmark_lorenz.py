"""Filters of Lorenz-63 and Lorenz-96, each tuned on other observations: docs/benchmarks.md.

    python -m experiments.cycle --config=configs/benchmark_lorenz.py --output=runs/benchmark

Takes about an hour on one core. Repeat the command to resume.
"""

from ml_collections import ConfigDict

from configs import base

CYCLES = {"seed": 9, "cycles": 2000, "spin_up": 100, "every": 500}


def get_config() -> ConfigDict:
    of = lambda method, **changes: {"method": method, **changes}
    inflated = lambda method, *values, **changes: [
        of(method, inflation=value, **changes) for value in values
    ]
    located = lambda method, *values, **changes: [
        choice
        for radius in (8.0, 14.0, 20.0)
        for choice in inflated(method, *values, radius=radius, members=20, **changes)
    ]
    factors = (1.0, 1.02, 1.05, 1.1, 1.2)
    lorenz63 = {
        "3D-Var": [of("3dvar", variance=v) for v in (0.05, 0.1, 0.2)],
        "ETKF, 10 members": inflated("etkf", *factors, "adaptive", members=10),
        "EnKF, 20 members": inflated("enkf", *factors, members=20),
        "iEnKS, 10 members": inflated("iterative", *factors, members=10, smooth=True),
        "particle filter, 800": [of("particle filter", members=800)],
        "score, 20 members": inflated("score", *factors, members=20),
        "score, smoothed, 20 members": inflated("score", *factors, members=20, smooth=True),
        "the same, Gaussian prior": inflated(
            "score", *factors, members=20, smooth=True, training=0
        ),
    }
    factors, few = (1.01, 1.02, 1.04, 1.07, 1.1), (1.01, 1.03, 1.07)
    fewer = (0.98, 1.0, 1.03)  # members of the score filter depart enough by themselves
    lorenz96 = {
        "3D-Var": [of("3dvar", variance=v) for v in (0.02, 0.05, 0.1, 0.2)],
        "ETKF, 24 members": inflated("etkf", *factors, "adaptive", members=24),
        "EnKF, 40 members": inflated("enkf", *factors, members=40),
        "LETKF, 20 members": located("letkf", *few, "adaptive"),
        "iEnKS, 24 members": inflated("iterative", *factors, members=24, smooth=True),
        "particle filter, 800": [of("particle filter", members=800)],
        "score, 20 members": located("score", *fewer),
        "the same, Gaussian prior": located("score", *fewer, training=0),
    }
    of_system = lambda **changes: base.cycle(**changes, **CYCLES)
    cases = {
        "Lorenz-63": {
            "cycle": of_system(system="lorenz63", dt=0.01, substeps=25, error=2.0**0.5),
            "filters": lorenz63,
        },
        "Lorenz-96": {"cycle": of_system(), "filters": lorenz96},
        "Lorenz-96, arctan of every second variable": {
            "cycle": of_system(operator="arctan"),
            "filters": lorenz96,
        },
        "Lorenz-96 of two scales, squares of every second variable": {
            "cycle": of_system(system="two-scale", variables=36, operator="square"),
            "filters": lorenz96,
        },
    }
    return ConfigDict({"benchmark": {"tuning_seed": 1, "tuning_cycles": 1500, "cases": cases}})
