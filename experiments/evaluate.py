"""Score an analysis against the truth, withheld stations and classical methods.

    python -m experiments.evaluate --config=configs/demo.py --analysis=runs/demo/analysis.nc

Writes `metrics.json` and pictures (`*.png`) into the work directory.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from absl import flags, logging

from experiments import cli, inputs, pictures
from experiments.files import write_text
from experiments.inputs import STATE, Inputs
from experiments.models import open_model
from experiments.observations import Withheld, frames_of, open_streams
from experiments.references import optimal_interpolation_of
from experiments.settings import CONFIG, Settings, read
from slams_jax.baselines import climatological_ensemble
from slams_jax.data import climatology
from slams_jax.data.fields import stack_channels, stack_members
from slams_jax.data.observations import Observations
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.model import Model
from slams_jax.verify import summary

ANALYSIS = flags.DEFINE_string("analysis", None, "What experiments.assimilate wrote.")
CLIMATE_MEMBERS = 50
# What an analysis says of itself, and the scores repeat.
COUNTS = ("evaluations", "derivative_evaluations", "seconds", "peak_memory_bytes")


def main() -> None:
    """Evaluate what the flags say."""
    settings = read(CONFIG.value)
    if ANALYSIS.value is None:
        raise InputError("--analysis is missing: give the file that experiments.assimilate wrote")
    evaluate(settings, Path(ANALYSIS.value))


def evaluate(settings: Settings, path: Path) -> dict[str, Any]:
    """Scores of the analysis at `path`; written, drawn and returned."""
    data = inputs.load(settings)
    model = open_model(settings, data)
    frames = frames_of(settings, data)
    analysis = open_analysis(path, data.archive.times[frames], data.archive.grid)
    observations, withheld = open_streams(settings, data, frames)
    systems = _references(settings, model, data, frames, observations)
    systems["analysis"] = stack_members(analysis, model.channels)
    truth = np.asarray(data.archive.fields[STATE].array[frames])
    scores = _scores(settings, model, data, truth, systems, withheld)
    for name in COUNTS:
        scores[name] = np.asarray(analysis.attrs[name]).item()
    target = Path(settings.workdir) / "metrics.json"
    write_text(json.dumps(scores, indent=1), target)
    pictures.draw(settings, data, frames, truth, systems, observations, withheld, scores)
    text = table(model, scores)
    write_text(text, target.with_name("table.md"))
    print(text)
    logging.info("scores in %s, pictures beside it", target)
    return scores


def open_analysis(path: Path, times: np.ndarray, grid: Grid) -> xr.Dataset:
    """An analysis file.

    Raises:
        InputError: no such file, or one of other times or another grid than the configuration's.
    """
    try:
        analysis = xr.open_zarr(path, consolidated=False) if path.suffix == ".zarr" else (
            xr.open_dataset(path, engine="h5netcdf")
        )  # fmt: skip
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"cannot read the analysis {path} ({first}): write it with experiments.assimilate"
        ) from None
    lacks = [n for n in ("member", "time", "latitude", "longitude") if n not in analysis.coords]
    lacks += [n for n in COUNTS if n not in analysis.attrs]
    if lacks:
        raise InputError(
            f"{path} is no analysis, it lacks {lacks[0]!r}: write it with experiments.assimilate"
        )
    if Grid.of(analysis["latitude"].values, analysis["longitude"].values) != grid:
        raise InputError(
            f"{path} is an analysis on another grid than the configuration's data: assimilate again"
        )
    have = np.asarray(analysis["time"], "datetime64[ns]")
    if not np.array_equal(have, times.astype("datetime64[ns]")):
        raise InputError(
            f"{path} is an analysis of {len(have)} times from {str(have[0])[:10]}, the "
            f"configuration asks for {len(times)} from {str(times[0])[:10]}: assimilate again"
        )
    return analysis


def _references(
    settings: Settings,
    model: Model,
    data: Inputs,
    frames: np.ndarray,
    observations: list[Observations],
) -> dict[str, np.ndarray]:
    """Background, climatology and optimal interpolation, as ensembles."""
    times = data.archive.times
    shape = data.archive.fields[STATE].array.shape[1:]
    climate = np.broadcast_to(
        climatology(model.statistics[STATE], times[frames]), (len(frames), *shape)
    )
    train = data.frames("train")
    some = train[:: max(1, len(train) // 500)]
    anomalies = data.standardised(STATE, some) * data.statistics[STATE].std
    systems = {
        "climatology": climatological_ensemble(
            anomalies,
            climate,
            members=min(CLIMATE_MEMBERS, len(some)),
            seed=settings.seed,
        )
    }
    if not settings.assimilation.background or model.background_error is None:
        return systems
    background = stack_channels(data.background(frames), model.channels)
    oi = optimal_interpolation_of(settings, model, data, frames, observations)
    return {"background": background[None], **systems, "oi": oi}


def _scores(
    settings: Settings,
    model: Model,
    data: Inputs,
    truth: np.ndarray,
    systems: dict[str, np.ndarray],
    withheld: list[Withheld],
) -> dict[str, Any]:
    weights = data.archive.grid.area_weights()
    std = np.asarray(model.arrays["std"])
    scores: dict[str, Any] = {
        "levels": [c.level for c in model.channels],
        "variables": [c.variable for c in model.channels],
        **summary.field_scores(truth, systems, weights),
        "reconstruction_rmse": (model.state_error / std).tolist(),
        "climatological_std": std.tolist(),
    }
    key = jax.random.key(settings.seed)
    for name in ("oi", "analysis"):
        if name in systems:
            more = summary.ensemble_scores(key, truth, systems[name], weights, std)
            scores[name] |= more
    if withheld:
        values = np.concatenate([w.values for w in withheld], axis=1)
        forecasts = {
            name: np.concatenate(
                [np.asarray(w.operator(jnp.asarray(members.mean(axis=0)))) for w in withheld],
                axis=1,
            )
            for name, members in systems.items()
        }
        scores["stations"] = summary.station_scores(values, forecasts)
    return scores


def table(model: Model, scores: dict[str, Any]) -> str:
    """The scores as a table in Markdown: a row for each channel, and the withheld stations."""
    names = [n for n in ("background", "climatology", "oi", "analysis") if n in scores]
    more = ["CRPS oi", "CRPS analysis", "spread/skill oi", "spread/skill analysis", "W1"]
    if "oi" not in names:
        more = [m for m in more if not m.endswith(" oi")]
    columns = ["RMSE", *names, *more, "reconstruction"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for i, channel in enumerate(model.channels):
        cells = [f"{scores[n]['rmse'][i]:.3f}" for n in names]
        for label in more:
            score, _, name = label.partition(" ")
            key = {"CRPS": "crps", "spread/skill": "spread_skill", "W1": "w1"}[score]
            cells.append(f"{scores[name or 'analysis'][key][i]:.3f}")
        cells.append(f"{scores['reconstruction_rmse'][i]:.3f}")
        lines.append("| " + " | ".join([str(channel), *cells]) + " |")
    if "stations" in scores:
        stations = scores["stations"]
        cells = [f"{stations[n]['rmse']:.3f}" for n in names]
        label = f"{stations['analysis']['count']} values at withheld stations"
        lines.append("| " + " | ".join([label, *cells, *[""] * (len(more) + 1)]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
