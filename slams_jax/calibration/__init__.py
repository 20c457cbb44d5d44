"""Reference problems whose posteriors are known, to try guidance rules and solvers on.

    from slams_jax.calibration import Guidance, field_cases, run_case

    for case in field_cases():
        row = run_case(case, Guidance("mmps"), SamplerConfig(), 512, jax.random.key(0))
        print(row.rule, row.score.mean_error, row.score.variance_ratio)

A rule of your own takes the place of `Guidance`: any function from a `Problem` to a denoiser.
"""

from slams_jax.calibration.cases import (
    Case,
    Guidance,
    Oracle,
    Problem,
    Row,
    count_evaluations,
    run_case,
)
from slams_jax.calibration.exact import Exact, Score, score
from slams_jax.calibration.fields import field_cases
from slams_jax.calibration.lorenz import LorenzCase, ScorePrior, lorenz_cases
from slams_jax.calibration.lorenz_draws import Ranks, calibrate_ranks, ranks_of, run_lorenz
from slams_jax.calibration.mixtures import mixture_cases
from slams_jax.calibration.priors import GaussianPrior, Mixture, MixturePrior, WindowedPrior
from slams_jax.calibration.trajectories import trajectory_cases

__all__ = [
    "Case",
    "Exact",
    "GaussianPrior",
    "Guidance",
    "LorenzCase",
    "Mixture",
    "MixturePrior",
    "Oracle",
    "Problem",
    "Ranks",
    "Row",
    "Score",
    "ScorePrior",
    "WindowedPrior",
    "calibrate_ranks",
    "count_evaluations",
    "field_cases",
    "lorenz_cases",
    "mixture_cases",
    "ranks_of",
    "run_case",
    "run_lorenz",
    "score",
    "trajectory_cases",
]
