"""The two protocols of experiments.ablation: one analysis of one model with one setting, scored.

*released*: what was published with SLAMS. The target is the true latent E(truth, modalities),
degraded by the setting; there is no background; the score is W1 between the pooled standardised
values of analysis and truth, at every `every`-th time of each window. The pixel model has no
encoder: there the true state is degraded.

*corrected*: the setting degrades the true state, in physical units; the background, which is
wrong, enters with its error covariance; modalities enter as their own observation of the latent,
z_y = E(modalities). The scores are those of the field, at every time, and paired between models by
window, or by time where there is one window.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configuration.analysis import analyse
from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.observations import (
    degrading,
    frames_of,
    open_streams,
    simulated,
)
from experiments.configuration.settings import Settings
from experiments.evaluation.references import (
    Study,
    linear_analysis,
    tuned_interpolation,
    validation_frames,
)
from slams_jax.assimilation.observations import Observations, simulate
from slams_jax.baselines import Background, Baseline, LinearAnalysis
from slams_jax.data.channels import stack_members
from slams_jax.errors import InputError
from slams_jax.models.model import Model, encode
from slams_jax.observe import Diagonal, Stream, make_stream
from slams_jax.verify import metrics, summary

Row = dict[str, Any]
ENCODED = 32  # frames encoded at a time
TARGET = "target"  # name of what is observed, the same in all settings: they share programs


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the target of an analysis is degraded.

    Attributes:
        name: unique.
        kind: block means, or sparse samples.
        factor: of the blocks or the samples, on the grid of the state.
        error: standard deviation of the noise, in climatological standard deviations.
        every: times between observations.
    """

    name: str
    kind: Literal["coarse", "stride"]
    factor: int
    error: float
    every: int


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model with its configuration and data.

    Attributes:
        settings: the configuration.
        data: its data.
        model: the model.
        windows: indices of the times of each analysis.
        every: times between observations of block means, and between those that W1 pools.
    """

    settings: Settings
    data: Inputs
    model: Model
    windows: Sequence[np.ndarray]
    every: int

    def fits(self, protocol: str, setting: Setting) -> bool:
        """Whether the setting can degrade the latents (or the states) of this model."""
        if protocol == "released":
            if setting.factor % self.compression:
                return False
            lat, lon, _ = self.model.networks.frame_shape
            factor = setting.factor // self.compression
        else:
            (lat, lon), factor = self.data.archive.grid.shape, setting.factor
        return lat % factor == 0 and lon % factor == 0

    @property
    def compression(self) -> int:
        """Points of the state to one of the latents."""
        encoder = self.model.networks.autoencoder
        return 1 if encoder is None else encoder.compression


def settings_of(
    coarsening: Sequence[int],
    noise: Sequence[float],
    stride: Sequence[int],
    error: float,
    every: int,
) -> list[Setting]:
    """The settings of the paper's figure: coarsening, noise, sparse sampling."""
    return [
        *(Setting(f"coarsening {f}", "coarse", f, error, every) for f in coarsening),
        *(Setting(f"noise {e:g}", "coarse", min(coarsening), e, every) for e in noise),
        *(Setting(f"stride {f}", "stride", f, error, 1) for f in stride),
    ]


def windows_of(settings: Settings, data: Inputs, count: int) -> list[np.ndarray]:
    """Indices of the times of `count` analyses of the configuration's length, evenly spread.

    Raises:
        InputError: an unknown period, or one too short for windows that do not overlap.
    """
    length = len(frames_of(settings, data))
    frames = data.frames(settings.assimilation.period)
    if count * length > len(frames):
        raise InputError(
            f"ablation.windows is {count}, but {len(frames) // length} windows of {length} times "
            f"fit into the period {settings.assimilation.period!r}: take fewer"
        )
    starts = np.linspace(0, len(frames) - length, count).astype(int)
    return [frames[start : start + length] for start in starts]


def released(subject: Subject, setting: Setting) -> Row:
    """W1 of each channel, the mean over the draws."""
    operator = degrading(setting.kind, setting.factor // subject.compression)
    error = Diagonal(jnp.full((1,) * 4, setting.error**2))

    def target(frames: np.ndarray) -> Stream:
        true = _true_latents(subject, frames)
        key = _key(subject, frames)
        values = simulate(key, operator, true, setting.error, every=setting.every)
        return make_stream(TARGET, values, operator, error, space="latent")

    alone = dataclasses.replace(subject.settings.assimilation, background=False, latent_inputs=())
    settings = dataclasses.replace(subject.settings, assimilation=alone)
    members, costs = _members(settings, subject, target)
    seen = np.concatenate([np.arange(len(f)) % subject.every == 0 for f in subject.windows])
    std = subject.data.physical_statistics.std
    truth = _truth(subject)
    w1 = [metrics.wasserstein(m[seen] / std, truth[seen] / std) for m in members]
    return {
        "levels": [c.level for c in subject.model.channels],
        "w1": np.mean(w1, axis=0).tolist(),
        "w1_of_draws": np.mean(w1, axis=1).tolist(),
        **costs,
    }


def corrected(subject: Subject, setting: Setting) -> Row:
    """The scores of the field of each channel, over all times and of each case."""
    target = lambda frames: _observations(subject, setting, frames)
    members, costs = _members(subject.settings, subject, target)
    return {**_field_scores(subject, members), **costs}


def baseline_row(
    subject: Subject, setting: Setting, name: str, linear: Callable[[], LinearAnalysis]
) -> Row:
    """As `corrected`, of the background alone, of optimal interpolation or of the smoother.

    They observe what the setting does and the streams of the subject's configuration. Optimal
    interpolation has the variance of B that is best on validation days.
    """
    study = Study(subject.settings, subject.data, subject.model, [], [])
    baseline: Baseline = Background()
    if name == "OI":
        days = validation_frames(subject.data)
        tuned = tuned_interpolation(study, (days, _all_observations(subject, setting, days)))
        baseline = dataclasses.replace(tuned, ensemble=True)
    elif name == "smoother":
        baseline = linear()
    count, parts = subject.settings.assimilation.members, []
    for frames in subject.windows:
        seen = _all_observations(subject, setting, frames)
        key = jax.random.key(_seed(subject, frames))
        window = study.window(frames, baseline.uses, seen)
        parts.append(study.members(baseline, key, window, count))
    return _field_scores(subject, np.concatenate(parts, axis=1))


def linear_of(subject: Subject) -> LinearAnalysis:
    """The linear smoother of the subject's training period."""
    return linear_analysis(Study(subject.settings, subject.data, subject.model, [], []))


def _all_observations(subject: Subject, setting: Setting, frames: np.ndarray) -> list[Observations]:
    streams, _ = open_streams(subject.settings, subject.data, frames)
    return [_observations(subject, setting, frames), *streams]


PROTOCOLS: dict[str, Callable[[Subject, Setting], Row]] = {
    "released": released,
    "corrected": corrected,
}


def _seed(subject: Subject, frames: np.ndarray) -> int:
    """Of the draws of a window, which are independent of those of others."""
    return subject.settings.seed + 1 + int(frames[0])


def _key(subject: Subject, frames: np.ndarray) -> jax.Array:
    """Of the noise of a window's observations: the same for all models."""
    return jax.random.fold_in(jax.random.key(_seed(subject, frames)), 1)


def _truth(subject: Subject) -> np.ndarray:
    """The true state at all times that are analysed (time, lat, lon, channel)."""
    return np.asarray(subject.data.archive.fields[STATE].array[np.concatenate(subject.windows)])


def _times(subject: Subject) -> np.ndarray:
    """All times that are analysed (time,)."""
    return subject.data.archive.times[np.concatenate(subject.windows)]


def _true_latents(subject: Subject, frames: np.ndarray) -> np.ndarray:
    """E(truth, modalities), standardised, or the standardised truth itself."""
    networks, data = subject.model.networks, subject.data
    names = (STATE, *subject.model.latent_inputs)
    names = names if networks.autoencoder else (STATE,)
    run = jax.jit(lambda arrays, inputs: encode(networks, arrays, inputs))
    arrays = subject.model.arrays
    parts = [frames[i : i + ENCODED] for i in range(0, len(frames), ENCODED)]
    return np.concatenate(
        [np.asarray(run(arrays, {n: data.standardised(n, p) for n in names})) for p in parts]
    )


def _observations(subject: Subject, setting: Setting, frames: np.ndarray) -> Observations:
    """The true state degraded, in physical units."""
    std = np.asarray(subject.data.physical_statistics.std, np.float32)
    return simulated(
        _key(subject, frames),
        subject.data,
        frames,
        TARGET,
        degrading(setting.kind, setting.factor),
        setting.error * std,
        variable=subject.model.channels[0].variable,
        every=setting.every,
    )


def _members(
    settings: Settings, subject: Subject, target: Callable[[np.ndarray], Observations | Stream]
) -> tuple[np.ndarray, Row]:
    """Members (member, time, lat, lon, channel) of all windows, and what they took."""
    costs: Row = dict.fromkeys(("evaluations", "derivative_evaluations", "seconds"), 0)
    parts = []
    for frames in subject.windows:
        own = dataclasses.replace(settings, seed=_seed(subject, frames))
        analysis = analyse(own, subject.data, subject.model, [target(frames)], frames=frames)
        parts.append(stack_members(analysis, subject.model.channels))
        costs = {name: n + np.asarray(analysis.attrs[name]).item() for name, n in costs.items()}
    return np.concatenate(parts, axis=1), costs


def _field_scores(subject: Subject, members: np.ndarray) -> Row:
    data, truth = subject.data, _truth(subject)
    std, weights = np.asarray(data.physical_statistics.std), data.archive.grid.area_weights()
    scores = summary.field_scores(truth, {"": members}, weights, std)[""]
    # As of infinitely many members: deterministic and ensemble systems are compared.
    error = lambda x, y: metrics.asymptotic_rmse(x, y, weights)
    scores["rmse"] = np.asarray(error(members, truth), np.float64).tolist()
    cases = _cases(subject)
    mse = [np.square(np.asarray(error(members[:, c], truth[c])) / std) for c in cases]
    crps = [np.asarray(metrics.crps(members[:, c], truth[c], weights)) / std for c in cases]
    return {
        "levels": [c.level for c in subject.model.channels],
        **scores,
        # In climatological standard deviations, so that levels can be averaged.
        "scaled_rmse": summary.in_climatological_std(scores["rmse"], std),
        "scaled_crps": summary.in_climatological_std(scores["crps"], std),
        # By case and level, to compare systems on the same cases.
        "times_of_cases": [str(t) for t in _times(subject)[[c[0] for c in cases]]],
        "scaled_mse_of_cases": np.asarray(mse, np.float64).tolist(),
        "scaled_crps_of_cases": np.asarray(crps, np.float64).tolist(),
    }


def _cases(subject: Subject) -> list[np.ndarray]:
    """Indices, among all times that are analysed, of what is taken as one case.

    A window, or a time where there is only one window.
    """
    count = len(np.concatenate(subject.windows))
    return np.split(np.arange(count), len(subject.windows) if len(subject.windows) > 1 else count)
