r"""Score an analysis against the truth, withheld stations and classical methods.

    python -m experiments.evaluate --config=configs/demo.py --analysis=runs/demo/analysis.nc \
        --report=runs/demo/report.html

Writes `metrics.json`, `table.md` and figures (`*.png`) to the work directory and, with `--report`,
one HTML file that contains all of them. `--model=FILE_OR_URL` is the model of the analysis, if not
that in the work directory. `--coastlines` draws the Earth's coastlines on maps, `--nocoastlines`
omits them; by default they are drawn unless the data are a nature run without continents.
docs/verification.md explains every score.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from absl import flags, logging

from experiments.configuration import inputs
from experiments.configuration.inputs import STATE
from experiments.configuration.models import open_model
from experiments.configuration.observations import frames_of, open_streams
from experiments.configuration.settings import Settings, read
from experiments.evaluation import pictures, report
from experiments.evaluation.references import Study, physical_climate, references
from experiments.evaluation.scores import score, tables
from experiments.process import cli
from slams_jax.assimilation.intake import model_fields
from slams_jax.data.channels import stack_members
from slams_jax.dynamics import MoistRun
from slams_jax.errors import InputError
from slams_jax.grid import Grid
from slams_jax.schema import Channel
from slams_jax.storage import write_text
from slams_jax.verify.report import markdown
from slams_jax.verify.summary import without_nan

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
ANALYSIS = cli.path_flag(FLAGS, "analysis", "Analysis written by experiments.assimilate.")
MODEL = cli.model_flag(FLAGS)
REPORT = cli.path_flag(FLAGS, "report", "Self-contained HTML report to write, a .html file.")
COASTLINES = flags.DEFINE_bool(
    "coastlines",
    None,
    "Draw the Earth's coastlines on maps; by default unless of a nature run without continents.",
    flag_values=FLAGS,
)
# What an analysis says of itself, and the scores repeat.
COUNTS = ("evaluations", "derivative_evaluations", "seconds", "peak_memory_bytes")


def main() -> None:
    """Evaluate what the flags say."""
    settings = read(CONFIG.value)
    if ANALYSIS.value is None:
        raise InputError("--analysis is missing: give the file that experiments.assimilate wrote")
    evaluate(
        settings,
        ANALYSIS.value,
        source=MODEL.value,
        report_path=None if REPORT.value is None else _checked(REPORT.value),
        coastlines=COASTLINES.value,
        command=" ".join(["python -m experiments.evaluate", *sys.argv[1:]]),
    )


def evaluate(
    settings: Settings,
    path: Path,
    *,
    source: str | None = None,
    report_path: Path | None = None,
    coastlines: bool | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Scores of the analysis at `path`; written, drawn, reported and returned.

    `source` is the model of the analysis, if not that in the work directory (`open_model`).
    """
    data = inputs.load(settings)
    model = open_model(settings, data, source)
    frames = frames_of(settings, data)
    times = data.archive.times[frames]
    analysis = open_analysis(
        path,
        times,
        data.archive.grid,
        model.channels,
        settings.assimilation.members,
    )
    observations, withheld = open_streams(settings, data, frames)
    climate = physical_climate(model, data, frames)
    systems = references(Study(settings, data, model, observations, withheld), frames)
    systems["analysis"] = stack_members(analysis, model.channels)
    truth = np.asarray(data.archive.fields[STATE].array[frames])
    scores = score(settings, model, data, times, truth, systems, withheld, climate)
    scores["streams"] = json.loads(analysis.attrs["diagnostics"])
    for name in COUNTS:
        scores[name] = np.asarray(analysis.attrs[name]).item()
    target = Path(settings.workdir) / "metrics.json"
    write_text(json.dumps(without_nan(scores), indent=1), target, parents=True)
    if coastlines is None:
        # The moist atmosphere has the Earth's land and sea; the other nature runs have none.
        coastlines = settings.nature is None or isinstance(settings.nature, MoistRun)
    drawn = pictures.draw(
        settings, data, frames, truth, systems, observations, withheld, scores, coastlines
    )
    found = tables(model, scores)
    text = "\n".join(markdown(table) for table in found)
    write_text(text, target.with_name("table.md"))
    print(text)
    logging.info("scores in %s, pictures beside it", target)
    if report_path is not None:
        page = report.page(settings, data, frames, analysis, scores, found, drawn, command)
        write_text(page, report_path, parents=True)
        logging.info("report in %s", report_path)
    return scores


def _checked(path: Path) -> Path:
    """The path of the report.

    Raises:
        InputError: another suffix, a folder, or a place that cannot be written.
    """
    if path.suffix != ".html":
        raise InputError(f"--report {path} must end in .html")
    if path.is_dir():
        raise InputError(f"--report {path} is a folder: give the name of a file in it")
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"--report {path} is in a folder that cannot be written: {parent}")
    return path


def open_analysis(
    path: Path, times: np.ndarray, grid: Grid, channels: Sequence[Channel], members: int
) -> xr.Dataset:
    """An analysis file, read as any data are: in whatever order and units it states.

    Raises:
        InputError: no such file, or one of other times, levels, members or another grid than the
            configuration's.
    """
    try:
        analysis = (
            xr.open_zarr(path, consolidated=False)
            if path.suffix == ".zarr"
            else (xr.open_dataset(path, engine="h5netcdf"))
        )
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"cannot read the analysis {path} ({first}): write it with experiments.assimilate"
        ) from None
    lacks = [n for n in ("member", "time", "latitude", "longitude") if n not in analysis.coords]
    lacks += [n for n in (*COUNTS, "diagnostics") if n not in analysis.attrs]
    if lacks:
        raise InputError(
            f"{path} is no analysis, it lacks {lacks[0]!r}: write it with experiments.assimilate"
        )
    if np.size(analysis["member"]) < 2:
        raise InputError(
            f"{path} has {np.size(analysis['member'])} members, the scores of an ensemble need 2 "
            "at least: assimilate again with --config.assimilation.members=2 or more"
        )
    if np.size(analysis["member"]) != members:
        raise InputError(
            f"{path} has {np.size(analysis['member'])} members, the configuration asks for "
            f"{members}: give --config.assimilation.members={np.size(analysis['member'])}"
        )
    analysis = model_fields(analysis, channels, grid, name=str(path)).assign_attrs(analysis.attrs)
    have = analysis["time"].values
    if not np.array_equal(have, times.astype("datetime64[ns]")):
        raise InputError(
            f"{path} is an analysis of {len(have)} times from {str(have[0])[:10]}, the "
            f"configuration asks for {len(times)} from {str(times[0])[:10]}: assimilate again"
        )
    return analysis


if __name__ == "__main__":
    cli.run(main, FLAGS)
