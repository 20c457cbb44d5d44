"""What is compared: classical methods fitted to the training period, and the model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import numpy as np

from experiments.configuration.analysis import analyse
from experiments.configuration.inputs import Inputs
from experiments.configuration.observations import open_streams
from experiments.configuration.settings import Settings
from experiments.evaluation.references import (
    Study,
    linear_analysis,
    modality_regression,
    training_anomalies,
    tuned_interpolation,
)
from slams_jax.assimilation.posterior import ScoreKind
from slams_jax.baselines import (
    Background,
    Baseline,
    Climatology,
    Persistence,
)
from slams_jax.data.channels import stack_members
from slams_jax.errors import InputError
from slams_jax.models.model import Model

Sees = Literal["filter", "smoother"]
# frames of a window, position of the analysis in it -> members (member, lat, lon, channel) there
Run = Callable[[np.ndarray, int], np.ndarray]
ALONE = ("climatology", "background", "oi", "oi ensemble")  # need no other time of the window


class System(NamedTuple):
    """One column of the comparison.

    Attributes:
        sees: whether its window ends at the time of the analysis, or goes on after it.
        baseline: whether it is what the network must beat.
        make: fits it; the result analyses a window.
    """

    sees: Sees
    baseline: bool
    make: Callable[[], Run]


def opened(settings: Settings, data: Inputs, model: Model) -> Study:
    """With the observations of the test period, opened once for all windows."""
    observations, withheld = open_streams(settings, data, data.frames("test"))
    loaded = [dataclasses.replace(o, data=o.data.load()) for o in observations]
    return Study(settings, data, model, loaded, withheld)


def systems_of(study: Study) -> dict[str, System]:
    """All systems that the configuration allows, the baselines first.

    Raises:
        InputError: an unknown name in `compare.systems`.
    """
    options = study.settings.compare
    linear = functools.cache(lambda: linear_analysis(study))  # one fit for filter and smoother
    baselines: Mapping[str, tuple[Sees, Callable[[], Baseline]]] = {
        "climatology": ("filter", lambda: Climatology(training_anomalies(study.data))),
        **(_of_background(study) if study.background else {}),
        "regression": ("filter", lambda: modality_regression(study)),
        "linear filter": ("filter", linear),
        "linear smoother": ("smoother", linear),
    }
    found = {
        name: System(sees, True, lambda make=make, n=name: _baseline(study, make(), n in ALONE))
        for name, (sees, make) in baselines.items()
    }
    views: tuple[Sees, ...] = ("filter", "smoother")
    found |= {f"surrogate {s}": System(s, True, lambda: _model(study, "gaussian")) for s in views}
    found |= {f"network {s}": System(s, False, lambda: _model(study, "network")) for s in views}
    background = study.settings.data.background
    leaks = study.background and background is not None and background.path == "previous"
    # Without later times a smoother is a filter; and the background of the next time is no
    # forecast but the truth of this one where it is the state before.
    if not options.after or leaks:
        found = {name: s for name, s in found.items() if s.sees == "filter"}
    if unknown := [n for n in options.systems if n not in found]:
        raise InputError(
            f"compare.systems names {unknown[0]!r}, which is unknown or needs what the "
            f"configuration lacks: choose from {list(found)}"
        )
    return {n: s for n, s in found.items() if not options.systems or n in options.systems}


def _of_background(study: Study) -> dict[str, tuple[Sees, Callable[[], Baseline]]]:
    """Baselines that need a background."""
    interpolation = functools.cache(lambda: tuned_interpolation(study))

    return {
        "background": ("filter", Background),
        "persistence": ("filter", lambda: Persistence(study.background_error[1])),
        "oi": ("filter", interpolation),
        "oi ensemble": ("filter", lambda: dataclasses.replace(interpolation(), ensemble=True)),
    }


def _baseline(study: Study, baseline: Baseline, alone: bool) -> Run:
    members = study.settings.compare.members

    def run(frames: np.ndarray, at: int) -> np.ndarray:
        if alone:
            frames, at = frames[at : at + 1], 0
        window = study.window(frames, baseline.uses)
        return np.asarray(baseline(_key(study, frames), window, members=members))[:, at]

    return run


def _model(study: Study, score: ScoreKind) -> Run:
    """The model, or its own Gaussian statistics in place of its network."""
    options = dataclasses.replace(
        study.settings.assimilation, members=study.settings.compare.members, score=score
    )

    def run(frames: np.ndarray, at: int) -> np.ndarray:
        # A seed of its own for each window, so that the draws of different ones are independent.
        settings = dataclasses.replace(
            study.settings, assimilation=options, seed=study.settings.seed + 1 + int(frames[0])
        )
        analysis = analyse(settings, study.data, study.model, study.observed(frames), frames=frames)
        return stack_members(analysis, study.model.channels)[:, at]

    return run


def _key(study: Study, frames: np.ndarray) -> jax.Array:
    return jax.random.fold_in(jax.random.key(study.settings.seed), int(frames[0]))
