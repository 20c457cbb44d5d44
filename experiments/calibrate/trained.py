"""Guidance rules with a trained model, against the truth that the analysis did not see.

Group (e) of `experiments.calibrate`: there is no exact posterior here, and scores take its place.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from absl import logging

from experiments.configuration import inputs
from experiments.configuration.analysis import analyse, with_fitted_inflation
from experiments.configuration.inputs import STATE
from experiments.configuration.models import open_model
from experiments.configuration.settings import Settings
from slams_jax.data.channels import stack_members
from slams_jax.diffusion import SamplerConfig, evaluations
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import RunError
from slams_jax.models.model import Model
from slams_jax.reference_problems import Guidance
from slams_jax.verify import metrics, summary
from slams_jax.verify.report import Cell, Table, markdown

Row = dict[str, Any]

SAMPLER = SamplerConfig("dpmpp_2m", 16)
DEFAULT = GuidanceConfig("gaussian", iterations=30)
TRIALS = (
    (DEFAULT, SAMPLER),
    (GuidanceConfig("gaussian", iterations=10), SAMPLER),
    (DEFAULT, SamplerConfig("dpmpp_2m", 32)),
    (DEFAULT, SamplerConfig("dpmpp_2m_ode", 16)),
    (DEFAULT, SamplerConfig("dpmpp_3m_ode", 16)),
    (DEFAULT, SamplerConfig("ddim", 16)),
    (GuidanceConfig("pigdm", iterations=30, jacobian=False), SAMPLER),
    (GuidanceConfig("pigdm", iterations=30), SAMPLER),
    (GuidanceConfig("tmpd"), SAMPLER),
    (GuidanceConfig("mmps", iterations=1), SAMPLER),
    (GuidanceConfig("mmps", iterations=3), SAMPLER),
    (GuidanceConfig("sda"), SAMPLER),
    (GuidanceConfig("dps"), SAMPLER),
)


def trained_rows(settings: Settings, progress: Callable[[str], None] = logging.info) -> list[Row]:
    """Every trial on the configuration's analysis; the first once more with a fitted inflation."""
    data = inputs.load(settings)
    model = open_model(settings, data)
    rows = []
    for guidance, sampler in TRIALS:
        trial = dataclasses.replace(settings, guidance=guidance, sampler=sampler)
        rows.append(_row(trial, data, model, progress))
    guidance, sampler = TRIALS[0]
    trial = dataclasses.replace(settings, guidance=guidance, sampler=sampler)
    rows.append(_row(with_fitted_inflation(trial, data, model), data, model, progress))
    return rows


def _row(settings: Settings, data: inputs.Inputs, model: Model, progress) -> Row:
    guidance, sampler = settings.guidance, settings.sampler
    count = evaluations(sampler) or 0
    row: Row = {
        "group": "e",
        "case": "trained model",
        "rule": str(Guidance.of(guidance)),
        "solver": sampler.solver,
        "grid": sampler.grid,
        "steps": sampler.steps,
        "forward_evaluations": count,
        "derivative_evaluations": count * guidance.derivatives,
        "members": settings.assimilation.members,
        "inflation": settings.assimilation.inflation,
    }
    begun = time.perf_counter()
    try:
        scores = _scores(data, analyse(settings, data, model), settings)
    except RunError as error:
        scores = {"failed": str(error), "mean_error": None, "variance_ratio": None, "w1": None}
    row |= {"seconds": time.perf_counter() - begun, **scores}
    progress(", ".join(map(str, cells(row))))
    return row


def _scores(data: inputs.Inputs, analysis: xr.Dataset, settings: Settings) -> Row:
    """Means over channels, in climatological standard deviations."""
    frames = np.flatnonzero(np.isin(data.archive.times, analysis["time"].values))
    state = data.archive.fields[STATE]
    truth = np.asarray(state.array[frames])
    members = stack_members(analysis, state.channels)
    std, weights = np.asarray(data.physical_statistics.std), data.archive.grid.area_weights()
    scores = summary.field_scores(truth, {"": members}, weights, std)[""]
    counts = metrics.rank_histogram(jax.random.key(settings.seed), members, truth)
    ranks = np.asarray(counts, np.float64).sum(axis=0)
    return {
        "mean_error": summary.in_climatological_std(scores["rmse"], std),
        "variance_ratio": float(np.square(scores["spread_skill"]).mean()),
        "w1": float(np.mean(scores["w1"])),
        "crps": summary.in_climatological_std(scores["crps"], std),
        "spread_skill": scores["spread_skill"],
        "rank_histogram": (ranks / ranks.sum()).tolist(),
    }


HEADER = (
    "rule",
    "solver",
    "steps",
    "derivatives",
    "inflation",
    "RMSE",
    "CRPS",
    "spread/skill",
    "outer ranks",
    "W1",
    "seconds",
)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    return markdown(Table("", HEADER, [cells(row) for row in rows]))


def cells(row: Row) -> list[Cell]:
    """One row of it."""
    front = [
        row["rule"],
        row["solver"],
        row["steps"],
        row["derivative_evaluations"],
        f"{row['inflation']:.2f}",
    ]
    if row["mean_error"] is None:
        scores = ["not finite", "", "", "", ""]
    else:
        ranks = row["rank_histogram"]
        ratio = row["spread_skill"]
        scores = [
            row["mean_error"],
            row["crps"],
            f"{np.mean(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})",
            f"{(ranks[0] + ranks[-1]) * len(ranks) / 2:.2f}",
            row["w1"],
        ]
    return [*front, *scores, f"{row['seconds']:.0f}"]
