"""The figures of an evaluation, with alternative texts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.observations import Withheld
from experiments.configuration.settings import Settings
from experiments.evaluation.diagrams import diagrams
from experiments.evaluation.scores import LABELS
from slams_jax.assimilation.observations import Observations, places_of
from slams_jax.models.saved import AUTOENCODER, SCORE
from slams_jax.schema import VARIABLES, Channel
from slams_jax.training import read_metrics
from slams_jax.verify import plots
from slams_jax.verify.diagrams import zonal_sections
from slams_jax.verify.figures import STYLES
from slams_jax.verify.maps import Observed, analysis_maps, error_maps, field_maps

if TYPE_CHECKING:
    import matplotlib.figure

MAP_LEVELS = (850.0, 500.0, 50.0)  # hPa; the nearest levels are drawn
STATIONS = 11  # drawn one by one, at most, beside the total


class Drawn(NamedTuple):
    """A figure in the work directory.

    Attributes:
        path: of the PNG file.
        topic: "maps", "scores", "spread", "spectra", "stations" or "training".
        alt: alternative text: what it shows.
        caption: how to read it.
    """

    path: Path
    topic: str
    alt: str
    caption: str


Made = tuple[str, "matplotlib.figure.Figure", str, str, str]  # stem, figure, topic, alt, caption


def draw(
    settings: Settings,
    data: Inputs,
    frames: np.ndarray,
    truth: np.ndarray,
    systems: dict[str, np.ndarray],
    observations: list[Observations],
    withheld: list[Withheld],
    scores: dict[str, Any],
    coastlines: bool,
) -> list[Drawn]:
    """Write all figures of an evaluation to the work directory, one open at a time."""
    folder = Path(settings.workdir)
    channels = data.archive.fields[STATE].channels

    def made() -> Iterator[Made]:
        if channels[0].level is not None:
            if "background" in systems:
                yield from _maps(data, frames, truth, systems, observations, coastlines)
            yield from _modalities(settings, data, frames, coastlines)
            yield from _sections(data, truth, systems)
            yield from diagrams(channels, scores, periodic=data.archive.grid.periodic)
            if withheld:
                yield _stations([n for w in withheld for n in w.names], scores["stations"])
        yield from _training(folder)

    found = []
    for name, figure, topic, alt, caption in made():
        path = plots.save(figure, folder / f"{name}.png")
        found.append(Drawn(path, topic, alt, caption))
    return found


def _training(folder: Path) -> Iterator[Made]:
    for stage in (AUTOENCODER, SCORE):
        records = read_metrics(folder / stage / "metrics.jsonl")
        if records:
            yield (
                f"{stage}_training",
                plots.training_curves(records, title=stage),
                "training",
                f"Losses of the {stage} against the training step, on a logarithmic scale.",
                f"Training of the {stage}: losses of batches, and of the validation period.",
            )


def _stations(names: list[str], stations: dict[str, Any]) -> Made:
    about = stations["analysis"]
    figure = plots.station_scores(
        ["all", *names[:STATIONS]],
        {
            name: np.array([s["rmse"], *s["station_rmse"][:STATIONS]])
            for name, s in stations.items()
        },
        counts=[about["count"], *about["station_count"][:STATIONS]],
        title=f"{len(names)} withheld stations",
    )
    sizes = ", ".join(f"{LABELS[n]} {s['rmse']:.2f}" for n, s in stations.items())
    return (
        "stations",
        figure,
        "stations",
        f"Bars of RMSE at withheld stations; over all of them: {sizes}.",
        "RMSE against reports withheld from the analysis, observation error included.",
    )


def _maps(
    data: Inputs,
    frames: np.ndarray,
    truth: np.ndarray,
    systems: dict[str, np.ndarray],
    observations: list[Observations],
    coastlines: bool,
) -> Iterator[Made]:
    channels = data.archive.fields[STATE].channels
    middle = len(frames) // 2
    variable = channels[0].variable
    known, grid = VARIABLES[variable], data.archive.grid
    time: np.datetime64 = data.archive.times[frames][middle]
    levels = [c.level for c in channels if c.variable == variable and c.level is not None]
    nearest = [min(levels, key=lambda v: abs(np.log(v / wanted))) for wanted in MAP_LEVELS]
    for level in dict.fromkeys(nearest):
        i = channels.index(Channel(variable, level))
        at = {name: members[:, middle, :, :, i] for name, members in systems.items()}
        title = f"{known.long_name} {level:g} hPa, {str(time)[:10]}"
        figure = analysis_maps(
            grid,
            truth=truth[middle, :, :, i],
            background=at["background"][0],
            analysis=at["analysis"].mean(axis=0),
            spread=at["analysis"].std(axis=0, ddof=1),
            observations=[
                shown
                for o in observations
                if (shown := seen(o, variable, level, levels, time)) is not None
            ],
            title=title,
            units=known.units,
            coastlines=coastlines,
        )
        yield (
            f"maps_{level:g}hPa",
            figure,
            "maps",
            f"Six maps of {title}: truth, background, observations, analysis mean, its error and "
            "its spread.",
            f"{title}. Truth, background, analysis and observations share one colour scale; "
            "dots mark direct observations to which this of the state's levels is the nearest.",
        )
        errors = {
            STYLES[name]["label"]: at[name].mean(axis=0) - truth[middle, :, :, i]
            for name in ("background", "oi", "analysis")
            if name in at
        }
        figure = error_maps(grid, errors, title=title, units=known.units, coastlines=coastlines)
        yield (
            f"errors_{level:g}hPa",
            figure,
            "maps",
            f"Maps of the errors of {', '.join(errors)}: {title}.",
            f"{title}. Errors of the means on one scale, red where too warm.",
        )


def _modalities(
    settings: Settings, data: Inputs, frames: np.ndarray, coastlines: bool
) -> Iterator[Made]:
    """What the encoder sees beside the background, at the time of the other maps."""
    names = [n for n in settings.assimilation.latent_inputs if n in settings.data.modalities]
    if not names:
        return
    index = frames[len(frames) // 2]
    fields, units = {}, {}
    for name in names:
        field = data.archive.fields[name]
        variable = field.channels[0].variable
        known, transform = VARIABLES.get(variable), data.described[name]["transform"]
        fields[name] = np.asarray(field.array[index][..., 0])
        unit = f"{known.long_name} ({known.units})" if known else variable
        units[name] = transform.partition(",")[0] if transform else unit
    time = str(data.archive.times[index])[:10]
    title = f"Inputs of the encoder, {time}"
    yield (
        "latent_inputs",
        field_maps(data.archive.grid, fields, units=units, title=title, coastlines=coastlines),
        "maps",
        f"Maps of {', '.join(names)} on {time}.",
        f"{title}; white where nothing is known. They enter as one observation of the latent.",
    )


def _sections(data: Inputs, truth: np.ndarray, systems: dict[str, np.ndarray]) -> Iterator[Made]:
    """Zonal sections of RMSE and bias."""
    field, grid = data.archive.fields[STATE], data.archive.grid
    variable = field.channels[0].variable
    index = [i for i, c in enumerate(field.channels) if c.variable == variable]
    levels = np.array([field.channels[i].level for i in index], np.float64)
    if len(levels) < 2 or grid.shape[0] < 2:
        return
    units = VARIABLES[variable].units
    errors = {
        STYLES[name]["label"]: (systems[name].mean(axis=0) - truth)[..., index]
        for name in ("background", "oi", "analysis")
        if name in systems
    }
    for name, diverging, label, value, caption in (
        (
            "zonal_rmse",
            False,
            f"RMSE ({units})",
            lambda e: np.sqrt(np.mean(e**2, axis=(0, 2))),
            "Root mean square error of the means over time and longitude.",
        ),
        (
            "zonal_bias",
            True,
            f"Bias ({units})",
            lambda e: np.mean(e, axis=(0, 2)),
            "Mean error over time and longitude, red where too warm.",
        ),
    ):
        sections = {system: value(error) for system, error in errors.items()}
        yield (
            name,
            zonal_sections(grid.latitude, levels, sections, diverging=diverging, label=label),
            "maps",
            f"Sections of latitude and pressure of the {label} of {', '.join(sections)}.",
            caption,
        )


def seen(
    observations: Observations,
    variable: str,
    level: float,
    levels: Sequence[float],
    time: np.datetime64,
) -> Observed | None:
    """A stream's observations of a variable at a time to which `level` is the nearest of `levels`.

    None for other quantities, and where there are none.
    """
    data = observations.data
    if observations.variable != variable or time not in np.asarray(data["time"]):
        return None
    values = data[variable].sel(time=time)
    if observations.kind == "points":
        lat, lon, pressure = places_of(data)
        values = np.asarray(values, np.float32) - observations.bias
        if pressure is not None:
            apart = np.abs(np.log(pressure[..., None] / np.asarray(levels)))
            values = np.where(apart.argmin(axis=-1) == levels.index(level), values, np.nan)
        return Observed(lat, lon, values) if np.isfinite(values).any() else None
    lat, lon = (np.asarray(data[n], np.float64) for n in ("latitude", "longitude"))
    if "level" in values.dims:
        if level not in np.asarray(data["level"]):
            return None
        values = values.sel(level=level)
    return Observed(lat, lon, np.asarray(values.transpose("latitude", "longitude"), np.float32))
