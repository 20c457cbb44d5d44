"""The pictures of an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.inputs import STATE, Inputs
from experiments.observations import Withheld
from experiments.settings import Settings
from slams_jax.data.observations import Observations
from slams_jax.model import AUTOENCODER, SCORE
from slams_jax.schema import VARIABLES, Channel
from slams_jax.training import read_metrics
from slams_jax.verify import plots
from slams_jax.verify.maps import Observed, analysis_maps

MAP_LEVELS = (850.0, 500.0, 50.0)  # hPa, those nearest to which are drawn
STATIONS = 11  # drawn one by one at most, beside all of them together


def draw(
    settings: Settings,
    data: Inputs,
    frames: np.ndarray,
    truth: np.ndarray,
    systems: dict[str, np.ndarray],
    observations: list[Observations],
    withheld: list[Withheld],
    scores: dict[str, Any],
) -> None:
    """Maps, profiles, rank histograms, spread and skill, stations, training: into the workdir."""
    folder = Path(settings.workdir)
    channels = data.archive.fields[STATE].channels
    for stage in (AUTOENCODER, SCORE):
        records = read_metrics(folder / stage / "metrics.jsonl")
        if records:
            plots.save(
                plots.training_curves(records, title=stage), folder / f"{stage}_training.png"
            )
    if channels[0].level is None:
        return
    _profiles(folder, channels, scores)
    if "background" in systems:
        _maps(folder, data, frames, truth, systems, observations)
    if withheld:
        names = [n for w in withheld for n in w.names]
        _stations(folder, names, scores["stations"])


def _stations(folder: Path, names: list[str], stations: dict[str, Any]) -> None:
    about = stations["analysis"]
    plots.save(
        plots.station_scores(
            ["all", *names[:STATIONS]],
            {
                name: np.array([s["rmse"], *s["station_rmse"][:STATIONS]])
                for name, s in stations.items()
            },
            counts=[about["count"], *about["station_count"][:STATIONS]],
            title=f"{len(names)} withheld stations",
        ),
        folder / "stations.png",
    )


def _profiles(folder: Path, channels: tuple[Channel, ...], scores: dict[str, Any]) -> None:
    variable = channels[0].variable
    index = [i for i, c in enumerate(channels) if c.variable == variable]
    units = VARIABLES[variable].units
    levels = np.array([channels[i].level for i in index], np.float64)
    pick = lambda name, score: np.array(scores[name][score])[index]
    names = [n for n in ("background", "climatology", "oi", "analysis") if n in scores]
    plots.save(
        plots.profiles(
            levels,
            {
                label: {name: pick(name, label.lower()) for name in names}
                for label in ("RMSE", "CRPS", "Bias")
            },
            spread=pick("analysis", "spread"),
            units=units,
        ),
        folder / "profiles.png",
    )
    plots.save(
        plots.spread_skill(
            levels,
            rmse=pick("analysis", "rmse"),
            spread=pick("analysis", "spread"),
            ratio=pick("analysis", "spread_skill"),
            units=units,
        ),
        folder / "spread_skill.png",
    )
    some = index[:: max(1, len(index) // 4)][:4]
    plots.save(
        plots.rank_histograms(
            np.array([scores["analysis"]["rank_histogram"][i] for i in some]),
            [str(channels[i]) for i in some],
        ),
        folder / "rank_histogram.png",
    )


def _maps(
    folder: Path,
    data: Inputs,
    frames: np.ndarray,
    truth: np.ndarray,
    systems: dict[str, np.ndarray],
    observations: list[Observations],
) -> None:
    channels = data.archive.fields[STATE].channels
    middle = len(frames) // 2
    variable = channels[0].variable
    time: np.datetime64 = data.archive.times[frames][middle]
    levels = [c.level for c in channels if c.variable == variable and c.level is not None]
    for wanted in MAP_LEVELS:
        level = min(levels, key=lambda v: abs(np.log(v / wanted)))
        i = channels.index(Channel(variable, level))
        members = systems["analysis"][:, middle, :, :, i]
        figure = analysis_maps(
            data.archive.grid,
            truth=truth[middle, :, :, i],
            background=systems["background"][0, middle, :, :, i],
            analysis=members.mean(axis=0),
            spread=members.std(axis=0, ddof=1),
            observations=[
                seen for o in observations if (seen := _seen(o, variable, level, time)) is not None
            ],
            title=f"{VARIABLES[variable].long_name} {level:g} hPa, {str(time)[:10]}",
            units=VARIABLES[variable].units,
        )
        plots.save(figure, folder / f"maps_{level:g}hPa.png")


def _seen(
    observations: Observations, variable: str, level: float, time: np.datetime64
) -> Observed | None:
    """What a stream shows of a variable near a level at a time; None for other quantities."""
    data = observations.data
    if observations.variable != variable or time not in np.asarray(data["time"]):
        return None
    values = data[variable].sel(time=time)
    lat, lon = (np.asarray(data[n], np.float64) for n in ("latitude", "longitude"))
    if observations.kind == "points":
        if level < 800.0:  # stations stand near the ground
            return None
        return Observed(lat, lon, np.asarray(values, np.float32) - observations.bias)
    if "level" in values.dims:
        if level not in np.asarray(data["level"]):
            return None
        values = values.sel(level=level)
    return Observed(lat, lon, np.asarray(values.transpose("latitude", "longitude"), np.float32))
