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
# Need no other time of the window.
ALONE = ("climatology", "background", "oi", "oi ensemble")


class System(NamedTuple):
    """One column of the comparison.

    Attributes:
        sees: whether its window ends at the time of the analysis, or goes on after it.
        baseline: whether it is what the network must beat.
        make: fits it; the result analyses a window.
        kind: its name without what it is given.
        inputs: the latent inputs that it is given.
    """

    sees: Sees
    baseline: bool
    make: Callable[[], Run]
    kind: str
    inputs: frozenset[str] = frozenset()

    def knows(self, other: "System") -> bool:
        """Whether this system is given whatever the other one is."""
        later = self.sees == "smoother" or other.sees == "filter"
        return later and other.inputs <= self.inputs


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
    latent = set(study.settings.assimilation.latent_inputs)
    if unknown := sorted({name for seen in options.inputs for name in seen} - latent):
        raise InputError(
            f"compare.inputs names {unknown[0]!r}, which is not among assimilation.latent_inputs: "
            f"choose from {sorted(latent)}"
        )
    found = _without_inputs(study)
    for seen in options.inputs or (study.latent_inputs,):
        given = "".join(f" + {name}" for name in seen) if options.inputs else ""
        systems = _with_inputs(dataclasses.replace(study, inputs=seen))
        found |= {f"{s.kind}{given}": s for s in systems}
    background = study.settings.data.background
    leaks = study.background and background is not None and background.path == "previous"
    # Without later times a smoother is a filter; and the background of the next time is no
    # forecast but the truth of this one where it is the state before.
    if not options.after or leaks:
        found = {name: s for name, s in found.items() if s.sees == "filter"}
    kinds = {s.kind for s in found.values()}
    if unknown := [n for n in options.systems if n not in kinds]:
        raise InputError(
            f"compare.systems names {unknown[0]!r}, which is unknown or needs what the "
            f"configuration lacks: choose from {sorted(kinds)}"
        )
    return {n: s for n, s in found.items() if not options.systems or s.kind in options.systems}


def _without_inputs(study: Study) -> dict[str, System]:
    """Baselines that have no use for what the encoder sees."""
    interpolation = functools.cache(lambda: tuned_interpolation(study, thorough=True))
    baselines: Mapping[str, Callable[[], Baseline]] = {
        "climatology": lambda: Climatology(training_anomalies(study.data))
    }
    if study.background:
        baselines |= {
            "background": Background,
            "persistence": lambda: Persistence(study.background_error[1]),
            "oi": interpolation,
            "oi ensemble": lambda: dataclasses.replace(interpolation(), ensemble=True),
        }
    nothing = dataclasses.replace(study, inputs=())
    return {name: _baseline(nothing, name, "filter", make) for name, make in baselines.items()}


def _with_inputs(study: Study) -> list[System]:
    """Systems that see the study's latent inputs: baselines as gridded fields, as they are."""
    linear = functools.cache(lambda: linear_analysis(study))  # one fit for filter and smoother
    views: tuple[Sees, ...] = ("filter", "smoother")
    system = lambda score, kind, sees: System(
        sees,
        score == "gaussian",
        lambda: _model(study, score),
        kind,
        frozenset(study.latent_inputs),
    )
    return [
        _baseline(study, "regression", "filter", lambda: modality_regression(study)),
        *(_baseline(study, f"linear {sees}", sees, linear) for sees in views),
        *(system("gaussian", f"surrogate {sees}", sees) for sees in views),
        *(system("network", f"network {sees}", sees) for sees in views),
    ]


def _baseline(study: Study, kind: str, sees: Sees, fitted: Callable[[], Baseline]) -> System:
    members = study.settings.compare.members

    def make() -> Run:
        baseline = fitted()

        def run(frames: np.ndarray, at: int) -> np.ndarray:
            if kind in ALONE:
                frames, at = frames[at : at + 1], 0
            window = study.window(frames, baseline.uses)
            return study.members(baseline, _key(study, frames), window, members)[:, at]

        return run

    return System(sees, True, make, kind, frozenset(study.latent_inputs))


def _model(study: Study, score: ScoreKind) -> Run:
    """The model, or its own Gaussian statistics in place of its network."""
    options = dataclasses.replace(
        study.settings.assimilation,
        members=study.settings.compare.members,
        score=score,
        latent_inputs=study.latent_inputs,
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
