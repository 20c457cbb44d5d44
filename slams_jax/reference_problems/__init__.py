"""Reference problems with known posteriors, for testing guidance rules and solvers.

    from slams_jax.reference_problems import Guidance, Method, field_cases, run_case

    method = Method(Guidance("mmps"), SamplerConfig())
    for case in field_cases():
        row = run_case(case, method, 512, jax.random.key(0))
        print(row.rule, row.score.mean_error, row.score.variance_ratio)

Any function from a `Problem` to a denoiser can replace `Guidance`.
"""

from slams_jax.reference_problems.cases import (
    Case,
    Guidance,
    Method,
    Oracle,
    Problem,
    Row,
    count_evaluations,
    run_case,
)
from slams_jax.reference_problems.exact import Exact, Score, score
from slams_jax.reference_problems.fields import field_cases
from slams_jax.reference_problems.latents import latent_cases
from slams_jax.reference_problems.lorenz import LorenzCase, ScorePrior, lorenz_cases
from slams_jax.reference_problems.lorenz_draws import Ranks, calibrate_ranks, ranks_of, run_lorenz
from slams_jax.reference_problems.mixtures import mixture_cases
from slams_jax.reference_problems.noisy_lorenz import noisy_lorenz_cases
from slams_jax.reference_problems.priors import (
    GaussianDenoiser,
    Mixture,
    MixturePrior,
    WindowedPrior,
)
from slams_jax.reference_problems.rain import rain_case
from slams_jax.reference_problems.trajectories import predictable_cases, trajectory_cases

__all__ = [
    "Case",
    "Exact",
    "GaussianDenoiser",
    "Guidance",
    "LorenzCase",
    "Method",
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
    "latent_cases",
    "lorenz_cases",
    "mixture_cases",
    "noisy_lorenz_cases",
    "predictable_cases",
    "rain_case",
    "ranks_of",
    "run_case",
    "run_lorenz",
    "score",
    "trajectory_cases",
]
