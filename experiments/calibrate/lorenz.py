"""Groups (d) and (h): Lorenz-63 with the scores that its configurations train."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPrior
from slams_jax.models.saved import load_model
from slams_jax.reference_problems import (
    LorenzCase,
    Method,
    Ranks,
    ScorePrior,
    calibrate_ranks,
    lorenz_cases,
    noisy_lorenz_cases,
)
from slams_jax.storage import write_text
from slams_jax.verify.figures import label_axis, new_figure, save

MEMBERS, NOISY_MEMBERS = 128, 64  # for each of the truths
PAIRS, RANKED = 160, 63  # truths of the rank histograms, and members for each

Row = dict[str, Any]


def cases(workdir: Path | None) -> list[LorenzCase]:
    """The cases (d), with the model in a work directory.

    Raises:
        InputError: no model, or one of something else.
    """
    return lorenz_cases(*_model(workdir, "d", "configs/lorenz63.py", "--lorenz=runs/lorenz63"))


def noisy_cases(workdir: Path | None) -> list[LorenzCase]:
    """The cases (h), with the model in a work directory.

    Raises:
        InputError: as `cases`.
    """
    model = _model(workdir, "h", "configs/sda_lorenz63.py", "--sda=runs/sda_lorenz63")
    return noisy_lorenz_cases(*model)


def _model(
    workdir: Path | None, group: str, config: str, flag: str
) -> tuple[ScorePrior, GaussianPrior, np.ndarray, np.ndarray]:
    """The score, and covariance, mean and standard deviation of the states that it was trained on.

    `config` and `flag` tell how the model of `group` is trained and given.
    """
    if workdir is None:
        raise InputError(
            f"case {group} needs a trained score: train one (python -m experiments.train "
            f"--config={config}) and set {flag}"
        )
    model = load_model(workdir)
    if model.networks.autoencoder is not None or model.networks.shape != (1, 1):
        raise InputError(
            f"the model in {workdir} is not one of Lorenz-63: set {flag.split('=')[0]} to what "
            f"{config} trained"
        )
    assert model.arrays.prior is not None
    mean = np.asarray(model.statistics["state"].coefficients, np.float64)[0, 0, 0]
    std = np.asarray(model.arrays.std, np.float64)
    return (
        ScorePrior(
            model.arrays.score,
            model.networks.score,
            model.networks.schedule,
            model.arrays.prior.over(model.networks.score.window),
        ),
        model.arrays.prior,
        mean + std * np.asarray(model.arrays.latent_mean, np.float64)[0, 0],
        std * np.asarray(model.arrays.latent_std, np.float64)[0, 0],
    )


def ranks(
    cases: Sequence[LorenzCase],
    chosen: Sequence[Method],
    folder: Path,
    *,
    pairs: int = PAIRS,
) -> list[Row]:
    """Rank histograms of every case and choice, as `ranks.json` and `ranks.png` in `folder`.

    Those with a refinement are of the first case alone.
    """
    # Moves of windows that are composed take too long.
    runs = [
        (case, method)
        for case in cases
        for method in chosen
        if method.refinement is None or case is cases[0]
    ]
    rows: list[Row] = []
    for case, method in runs:
        found = calibrate_ranks(case, method, pairs=pairs, members=RANKED, key=jax.random.key(1))
        rows.append(_row(case, method, found, pairs))
        p_values = ", ".join(f"{p:.2g}" for p in found.p_values)
        logging.info("%s, %s: ranks even with p = %s", case.name, method.label, p_values)
        write_text(json.dumps(rows, indent=1, allow_nan=False), folder / "ranks.json")
        jax.clear_caches()
    draw(rows, folder)
    return rows


def _row(case: LorenzCase, method: Method, found: Ranks, pairs: int) -> Row:
    plain = {n: np.asarray(value).tolist() for n, value in dataclasses.asdict(found).items()}
    return {
        "case": case.name,
        "rule": method.label,
        "solver": method.sampler.solver,
        "grid": method.sampler.grid,
        "steps": method.sampler.steps,
        "members": RANKED,
        "pairs": pairs,
        **plain,
        "effective_particles": case.effective.tolist(),
    }


def draw(rows: Sequence[Row], folder: Path) -> Path:
    """One row of panels for each rule and case; between the lines lie 95 of 100 even bins."""
    figure = new_figure(8.0, 0.8 + 1.7 * len(rows))
    axes = figure.subplots(len(rows), 3, sharex=True, sharey="row", squeeze=False)
    for i, row in enumerate(rows):
        for j, (counts, p) in enumerate(zip(row["counts"], row["p_values"], strict=True)):
            axis = axes[i, j]
            expected = (row["pairs"] - row["left_out"]) / len(counts)
            axis.bar(np.arange(len(counts)) + 0.5, counts, width=0.9, color="#0072B2")
            reach = 1.96 * np.sqrt(expected * (1 - 1 / len(counts)))
            for level in (expected - reach, expected, expected + reach):
                axis.axhline(level, color="0.3", lw=0.8, ls="-" if level == expected else ":")
            title = f"{row['case']}, {row['rule']}\n" if j == 0 else ""
            label_axis(
                axis,
                f"{title}{'xyz'[j]}: p = {p:.2g}",
                "Rank of the truth" if i == len(rows) - 1 else "",
                "Truths" if j == 0 else "",
            )
            axis.set_xticks([])
    return save(figure, folder / "ranks.png")
