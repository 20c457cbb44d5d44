"""What is compared: classical methods fitted to the training period, and the model."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

import jax
import numpy as np

from experiments.configuration.analysis import analyse
from experiments.configuration.inputs import BACKGROUND, STATE, Inputs
from experiments.configuration.observations import Withheld, open_streams
from experiments.configuration.settings import Settings, overlap
from experiments.evaluation.references import climate_of, training_anomalies
from slams_jax.assimilation.observations import Observations, to_stream
from slams_jax.baselines import (
    Background,
    Baseline,
    Climatology,
    LinearAnalysis,
    OptimalInterpolation,
    Persistence,
    Window,
    fit_linear,
    tuned,
)
from slams_jax.data.channels import stack_members
from slams_jax.errors import InputError
from slams_jax.models.model import Model
from slams_jax.schema import TIME

Sees = Literal["filter", "smoother"]
# frames of the window -> members (member, time, lat, lon, channel), physical units
Run = Callable[[np.ndarray], np.ndarray]

TUNED = 24  # validation days on which the variance of B is tuned
FITTED = 500  # training days of the climatological ensemble


class System(NamedTuple):
    """One column of the comparison.

    Attributes:
        sees: whether its window ends at the time of the analysis, or goes on after it.
        baseline: whether it is a classical method.
        make: fits it; the result analyses a window.
    """

    sees: Sees
    baseline: bool
    make: Callable[[], Run]


@dataclasses.dataclass(frozen=True)
class Study:
    """A trained model, its data, and the observations of the test period.

    Attributes:
        settings: the configuration, with the members of the comparison.
        data: its data.
        model: trained.
        observations: of all test times.
        withheld: stations, at all test times.
    """

    settings: Settings
    data: Inputs
    model: Model
    observations: list[Observations]
    withheld: list[Withheld]

    @classmethod
    def of(cls, settings: Settings, data: Inputs, model: Model) -> "Study":
        """Open the observations of the test period, once for all windows."""
        observations, withheld = open_streams(settings, data, data.frames("test"))
        loaded = [dataclasses.replace(o, data=o.data.load()) for o in observations]
        return cls(settings, data, model, loaded, withheld)

    @property
    def background(self) -> bool:
        """Whether analyses have a background."""
        return self.settings.assimilation.background and BACKGROUND in self.data.archive.fields

    def window(
        self,
        frames: np.ndarray,
        uses: Collection[str],
        observations: list[Observations] | None = None,
    ) -> Window:
        """What is known at some times, as far as a baseline uses it."""
        model, data = self.model, self.data
        climate = climate_of(model, data, frames)
        std = np.asarray(model.arrays.std)
        streams = [
            to_stream(
                o,
                model.grid,
                model.channels,
                data.archive.times[frames],
                climate=climate.mean(axis=0),
                std=std,
            )
            for o in self.observed(frames, observations)
            if "streams" in uses
        ]
        fields = {n: data.standardised(n, frames) for n in uses if n != "streams"}
        return Window(climate, std, tuple(streams), fields)

    def observed(
        self, frames: np.ndarray, observations: list[Observations] | None = None
    ) -> list[Observations]:
        """The streams with a value at some times."""
        times = self.data.archive.times[frames].astype("datetime64[ns]")

        def there(o: Observations) -> bool:
            values = o.data[o.variable]
            common = np.isin(np.asarray(values[TIME], "datetime64[ns]"), times)
            return bool(values.isel({TIME: common}).notnull().any())

        return [
            o for o in (self.observations if observations is None else observations) if there(o)
        ]


def systems_of(study: Study) -> dict[str, System]:
    """All systems that the configuration allows, the baselines first.

    Raises:
        InputError: an unknown name in `compare.systems`.
    """
    options = study.settings.compare
    linear = functools.cache(lambda: _linear(study))  # one fit for filter and smoother
    baselines: Mapping[str, tuple[Sees, Callable[[], Baseline]]] = {
        "climatology": ("filter", lambda: Climatology(training_anomalies(study.data, FITTED))),
        **(_of_background(study) if study.background else {}),
        "regression": ("filter", lambda: _regression(study)),
        "linear filter": ("filter", linear),
        "linear smoother": ("smoother", linear),
    }
    found = {
        name: System(sees, True, lambda make=make: _baseline(study, make()))
        for name, (sees, make) in baselines.items()
    }
    for sees in ("filter", "smoother"):
        found[f"network {sees}"] = System(sees, False, lambda: _network(study))
    if not options.after:  # without later times a smoother is a filter
        found = {name: s for name, s in found.items() if s.sees == "filter"}
    if unknown := [n for n in options.systems if n not in found]:
        raise InputError(
            f"compare.systems names {unknown[0]!r}, which is unknown or needs what the "
            f"configuration lacks: choose from {list(found)}"
        )
    return {n: s for n, s in found.items() if not options.systems or n in options.systems}


def _of_background(study: Study) -> dict[str, tuple[Sees, Callable[[], Baseline]]]:
    """Baselines that need a background."""
    if study.model.background_error is None:
        raise InputError("this model was trained without a background: it has no error covariance")
    covariance, bias = study.model.background_error

    @functools.cache
    def interpolation() -> OptimalInterpolation:
        return _tuned(study, OptimalInterpolation(covariance, bias))

    return {
        "background": ("filter", Background),
        "persistence": ("filter", lambda: Persistence(bias)),
        "oi": ("filter", interpolation),
        "oi ensemble": ("filter", lambda: dataclasses.replace(interpolation(), ensemble=True)),
    }


def _baseline(study: Study, baseline: Baseline) -> Run:
    members = study.settings.compare.members

    def run(frames: np.ndarray) -> np.ndarray:
        window = study.window(frames, baseline.uses)
        return np.asarray(baseline(_key(study, frames), window, members=members))

    return run


def _network(study: Study) -> Run:
    options = dataclasses.replace(
        study.settings.assimilation, members=study.settings.compare.members
    )

    def run(frames: np.ndarray) -> np.ndarray:
        # A seed of its own for each window, so that the draws of different ones are independent.
        settings = dataclasses.replace(
            study.settings, assimilation=options, seed=study.settings.seed + 1 + int(frames[0])
        )
        analysis = analyse(settings, study.data, study.model, study.observed(frames), frames=frames)
        return stack_members(analysis, study.model.channels)

    return run


def _key(study: Study, frames: np.ndarray) -> jax.Array:
    return jax.random.fold_in(jax.random.key(study.settings.seed), int(frames[0]))


def _tuned(study: Study, baseline: OptimalInterpolation) -> OptimalInterpolation:
    """With the variance of B that is best in the validation period."""
    data = study.data
    frames = data.frames("validation")
    frames = frames[:: max(1, len(frames) // TUNED)][:TUNED]
    observations, _ = open_streams(study.settings, data, frames)
    truth = np.asarray(data.archive.fields[STATE].array[frames])
    window = study.window(frames, baseline.uses, observations)
    return tuned(baseline, window, truth, data.archive.grid.area_weights())


def _linear(study: Study) -> LinearAnalysis:
    """Filter or smoother: streams, and what is not among them as gridded inputs."""
    streams = study.settings.assimilation.streams.values()
    free = [
        name
        for name, modality in study.settings.data.modalities.items()
        if not any(overlap(s.path, modality.path) for s in streams)
    ]
    return LinearAnalysis(_fitted(study, free, memory=True))


def _regression(study: Study) -> LinearAnalysis:
    """Regression on all gridded fields but those with stations withheld for verification."""
    streams = study.settings.assimilation.streams.values()
    fair = [
        name
        for name, modality in study.settings.data.modalities.items()
        if not any(s.withhold and overlap(s.path, modality.path) for s in streams)
    ]
    return LinearAnalysis(_fitted(study, fair, memory=False), streams=False)


def _fitted(study: Study, names: list[str], *, memory: bool):
    data = study.data
    train, validation = data.frames("train"), data.frames("validation")
    frames = np.concatenate([train, validation])
    names = [BACKGROUND, *names] if study.background else names
    return fit_linear(
        data.standardised(STATE, frames),
        {n: data.standardised(n, frames) for n in names},
        np.arange(len(train)),
        np.arange(len(train), len(frames)),
        periodic=data.archive.grid.periodic,
        times=data.archive.times[frames],
        memory=memory,
        rank=study.settings.compare.rank,
    )
