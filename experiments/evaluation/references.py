"""References for an analysis: background, persistence, climatology, optimal interpolation."""

import dataclasses
from collections.abc import Collection

import jax
import numpy as np
from jaxtyping import Float

from experiments.configuration.inputs import BACKGROUND, STATE, Inputs
from experiments.configuration.observations import Withheld, open_streams
from experiments.configuration.settings import FieldSettings, Settings, overlap
from slams_jax.aliases import PRNGKey
from slams_jax.assimilation.observations import Observations, to_stream
from slams_jax.assimilation.streams import of_gaussian
from slams_jax.baselines import (
    Background,
    BackgroundCovariance,
    Baseline,
    Climatology,
    LinearAnalysis,
    OptimalInterpolation,
    Persistence,
    Window,
    fit_background,
    fit_linear,
    tuned,
)
from slams_jax.data import Statistics, climatology
from slams_jax.data.anamorphosis import physical
from slams_jax.errors import InputError
from slams_jax.models.error_statistics import background_errors
from slams_jax.models.model import Model
from slams_jax.observe import Separable
from slams_jax.schema import TIME

CLIMATE_MEMBERS = 50
ANOMALIES = 500  # training days of the climatological ensemble
TUNED = 24  # validation days on which B is chosen


def climate_of(model: Model, data: Inputs, frames: np.ndarray) -> np.ndarray:
    """Climatology at the times of the analysis (time, lat, lon, channel), as the model has it."""
    return _at(model.statistics[STATE], data, frames)


def physical_climate(model: Model, data: Inputs, frames: np.ndarray) -> np.ndarray:
    """The same in physical units, which an anamorphosis changes."""
    return _at(physical_statistics(model, data), data, frames)


def physical_statistics(model: Model, data: Inputs) -> Statistics:
    """Climatology and standard deviations of the state, physical units."""
    return model.statistics[STATE] if data.physical is None else data.physical


def _at(statistics: Statistics, data: Inputs, frames: np.ndarray) -> np.ndarray:
    shape = data.archive.fields[STATE].array.shape[1:]
    climate = climatology(statistics, data.archive.times[frames])
    return np.broadcast_to(climate, (len(frames), *shape))


def training_anomalies(data: Inputs) -> np.ndarray:
    """Departures from the climatology on training days, after any anamorphosis."""
    train = data.frames("train")
    some = train[:: max(1, len(train) // ANOMALIES)]
    return data.standardised(STATE, some) * data.statistics[STATE].std


@dataclasses.dataclass(frozen=True)
class Study:
    """A trained model, its data, and observations: what baselines are made of.

    Attributes:
        settings: the configuration.
        data: its data.
        model: trained.
        observations: at all times that are analysed.
        withheld: stations, likewise.
        inputs: those of the latent inputs that are seen; None for all.
    """

    settings: Settings
    data: Inputs
    model: Model
    observations: list[Observations]
    withheld: list[Withheld]
    inputs: tuple[str, ...] | None = None

    @property
    def latent_inputs(self) -> tuple[str, ...]:
        """What enters through the encoder."""
        return self.settings.assimilation.latent_inputs if self.inputs is None else self.inputs

    @property
    def modalities(self) -> dict[str, FieldSettings]:
        """Gridded fields beside state and background, less latent inputs that are not seen."""
        unseen = {*self.settings.assimilation.latent_inputs} - {*self.latent_inputs}
        return {n: m for n, m in self.settings.data.modalities.items() if n not in unseen}

    @property
    def background(self) -> bool:
        """Whether analyses have a background."""
        return self.settings.assimilation.background and BACKGROUND in self.data.archive.fields

    @property
    def background_error(self) -> tuple[Separable, np.ndarray]:
        """Covariance and mean of the background's errors.

        Raises:
            InputError: a model without background.
        """
        if self.model.background_error is None:
            raise InputError(
                "this model was trained without a background: it has no error covariance"
            )
        return self.model.background_error

    def window(
        self,
        frames: np.ndarray,
        uses: Collection[str],
        observations: list[Observations] | None = None,
    ) -> Window:
        """What is known at some times, as far as a baseline uses it, after any anamorphosis."""
        model, data = self.model, self.data
        climate = climate_of(model, data, frames)
        std = np.asarray(model.arrays.std)
        about = physical_climate(model, data, frames).mean(axis=0)
        streams = [
            to_stream(
                o,
                model.grid,
                model.channels,
                data.archive.times[frames],
                climate=about,
                std=np.asarray(physical_statistics(model, data).std),
                transforms=model.transforms,
            )
            for o in self.observed(frames, observations)
            if "streams" in uses
        ]
        fields = {n: data.standardised(n, frames) for n in uses if n != "streams"}
        return Window(climate, std, of_gaussian(streams, model.transforms), fields)

    def members(
        self, baseline: Baseline, key: PRNGKey, window: Window, count: int
    ) -> Float[np.ndarray, "member time lat lon channel"]:
        """The ensemble of a baseline in a window, physical units."""
        return physical(self.model.transforms, np.asarray(baseline(key, window, members=count)))

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


def tuned_interpolation(
    study: Study,
    validation: tuple[np.ndarray, list[Observations]] | None = None,
    *,
    thorough: bool = False,
) -> OptimalInterpolation:
    """Optimal interpolation with the B that is best in the validation period.

    It is a covariance of the training period times one of some factors.

    Args:
        study: with a model that has a background.
        validation: indices of times of that period and observations at them; those of the
            configuration if not given.
        thorough: whether to try a covariance that is not separable too, which takes as long again.
    """
    data = study.data
    if validation is None:
        frames = validation_frames(data)
        validation = frames, open_streams(study.settings, data, frames)[0]
    frames, observations = validation
    covariance, bias = study.background_error
    baseline = OptimalInterpolation(covariance, bias)
    truth = data.gaussian(STATE, frames)
    window = study.window(frames, baseline.uses, observations)
    choices: list[BackgroundCovariance] = [covariance]
    if thorough:
        errors = background_errors(data)
        choices.append(fit_background(errors, periodic=data.archive.grid.periodic))
    weights = data.archive.grid.area_weights()
    return tuned(baseline, window, truth, weights, covariances=choices)


def validation_frames(data: Inputs) -> np.ndarray:
    """Indices of some times of the validation period, evenly spread."""
    frames = data.frames("validation")
    return frames[:: max(1, len(frames) // TUNED)][:TUNED]


def linear_analysis(study: Study) -> LinearAnalysis:
    """Filter or smoother: streams, and what is not among them as gridded inputs."""
    streams = study.settings.assimilation.streams.values()
    free = [
        name
        for name, modality in study.modalities.items()
        if not any(overlap(s.path, modality.path) for s in streams)
    ]
    return LinearAnalysis(_fitted(study, free, memory=True))


def modality_regression(study: Study) -> LinearAnalysis:
    """Regression on all gridded fields but those with stations withheld for verification."""
    streams = study.settings.assimilation.streams.values()
    fair = [
        name
        for name, modality in study.modalities.items()
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


def references(study: Study, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Background, persistence, climatology and optimal interpolation, as ensembles by name."""
    settings, key = study.settings, jax.random.key(study.settings.seed)

    def members(baseline: Baseline, count: int = settings.assimilation.members) -> np.ndarray:
        return study.members(baseline, key, study.window(frames, baseline.uses), count)

    anomalies = training_anomalies(study.data)
    systems = {"climatology": members(Climatology(anomalies), min(CLIMATE_MEMBERS, len(anomalies)))}
    if not study.background:
        return systems
    analysis = tuned_interpolation(study)
    return {
        "background": members(Background()),
        "persistence": members(Persistence(study.background_error[1])),
        **systems,
        "oi": members(dataclasses.replace(analysis, ensemble=True)),
        "oi_analysis": members(analysis),
    }
