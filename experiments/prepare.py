"""Turn the sources of a configuration into one training set, and say what it holds.

    python -m experiments.prepare --config=configs/prepare_era5.py [--output=FOLDER]

Opens state, background and modalities wherever they are, brings them onto one grid and the times of
the state, and writes the memory-mapped archive that `experiments.train` uses. Into the archive's
folder, or into --output, go `summary.md`, `summary.json` and `overview.png` (with matplotlib). The
same command goes on where it was killed; see docs/data.md.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from experiments.configuration import inputs
from experiments.configuration.inputs import BACKGROUND, STATE, Inputs
from experiments.configuration.settings import read
from experiments.process import cli
from slams_jax.data.store import Field
from slams_jax.data.summary import FieldSummary, field_summary, sample
from slams_jax.data.windows import read_rows
from slams_jax.errors import InputError
from slams_jax.schema import VARIABLES
from slams_jax.storage import write_text
from slams_jax.verify import plots
from slams_jax.verify.overview import Shown, overview
from slams_jax.verify.report import Table, markdown

SOURCES = (
    "field",
    "source",
    "grid before",
    "times before",
    "regridding",
    "matching",
    "transform",
)
CHANNELS = ("field", "channel", "units", "missing", "minimum", "mean", "maximum", "std")

FLAGS = flags.FlagValues()
CONFIG = cli.config_flag(FLAGS)
OUTPUT = cli.path_flag(FLAGS, "output", "Folder for the summary; the archive's own if not given.")


def main() -> None:
    """Prepare what the flags say."""
    prepare(inputs.load(read(CONFIG.value)), OUTPUT.value)


def prepare(data: Inputs, output: Path | None = None) -> dict[str, Any]:
    """Write summary and picture of a training set; returns the summary.

    Raises:
        InputError: a folder that cannot be written.
    """
    folder = cli.folder(output or data.archive.path)
    weights = data.archive.grid.area_weights()
    summaries = {name: field_summary(field, weights) for name, field in data.archive.fields.items()}
    summary = summarise(data, summaries)
    write_text(json.dumps(summary, indent=1) + "\n", folder / "summary.json")
    text = as_text(summary)
    write_text(text, folder / "summary.md")
    print(text)
    try:
        plots.save(_picture(data, summaries), folder / "overview.png")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    logging.info("summary and overview.png are in %s", folder)
    return summary


def summarise(data: Inputs, summaries: dict[str, FieldSummary]) -> dict[str, Any]:
    """What the archive holds, as plain numbers."""
    archive = data.archive
    times = archive.times
    fields = {}
    for name in _ordered(archive.fields):
        field = archive.fields[name]
        numbers = summaries[name]
        fields[name] = data.described.get(name, {}) | {
            "units": _units(field, data.described.get(name, {})),
            "channels": [
                {
                    "name": _label(field, i),
                    **{
                        k: _plain(getattr(numbers, k)[i])
                        for k in ("missing", "minimum", "mean", "maximum", "std")
                    },
                }
                for i in range(len(field.channels))
            ],
        }
    return {
        "archive": str(archive.path),
        "bytes": sum(int(f.array.nbytes) for f in archive.fields.values()),
        "grid": list(archive.grid.shape),
        "times": [str(times[0])[:16], str(times[-1])[:16], int(times.size)],
        "periods": {
            n: int(s.stop - s.start)
            for n, s in sorted(data.spans.items(), key=lambda i: i[1].start)
        },
        "fields": fields,
    }


def as_text(summary: dict[str, Any]) -> str:
    """The summary as Markdown."""
    first, last, count = summary["times"]
    lat, lon = summary["grid"]
    periods = ", ".join(f"{n} {v}" for n, v in summary["periods"].items())
    text = (
        f"{count} times, {first} to {last} ({periods}), on {lat} x {lon} points, "
        f"{summary['bytes'] / 2**20:.1f} MiB in `{summary['archive']}`."
    )
    fields = summary["fields"]
    sources = [_source(name, field) for name, field in fields.items()]
    channels = [
        [name, c["name"], field["units"], f"{c['missing']:.1%}", *map(_short, _numbers(c))]
        for name, field in fields.items()
        for c in field["channels"]
    ]
    tables = [Table("", SOURCES, sources), Table("", CHANNELS, channels)]
    return "\n".join(["# Training set", "", text, "", *map(markdown, tables)])


def _source(name: str, field: dict[str, Any]) -> list[str]:
    before = field.get("grid_before", "")
    shift = f", {field['shift_hours']:+g} h" if field.get("shift_hours") else ""
    return [
        name,
        f"`{field.get('source', '')}`",
        before if isinstance(before, str) else " x ".join(map(str, before)),
        "{} to {}, {}".format(*field["source_times"]) if "source_times" in field else "",
        field.get("method") or "none",
        field.get("matching", "") + shift,
        field.get("transform") or "none",
    ]


def _numbers(channel: dict[str, Any]) -> list[float | None]:
    return [channel[k] for k in ("minimum", "mean", "maximum", "std")]


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _picture(data: Inputs, summaries: dict[str, FieldSummary]):
    archive = data.archive
    middle = len(archive.times) // 2
    shown = []
    for name in _ordered(archive.fields):
        field = archive.fields[name]
        channel = len(field.channels) // 2
        shown.append(
            Shown(
                name,
                _label(field, channel),
                _units(field, data.described.get(name, {})),
                read_rows(field.array, middle, middle + 1)[0, ..., channel],
                str(archive.times[middle])[:16],
                summaries[name].mean_map[..., channel],
                sample(field, channel),
                summaries[name].missing_over_time,
            )
        )
    count = len(archive.fields[STATE].array)
    return overview(archive.grid, archive.times, shown, title=f"Training set, {count} times")


def _ordered(names: Iterable[str]) -> list[str]:
    """The state, the background, then the modalities."""
    first = (STATE, BACKGROUND)
    return sorted(names, key=lambda n: (first.index(n) if n in first else len(first), n))


def _label(field: Field, index: int) -> str:
    channel = field.channels[index]
    alike = [i for i, c in enumerate(field.channels) if c == channel]
    number = f" {alike.index(index) + 1}" if len(alike) > 1 else ""
    known = VARIABLES.get(channel.variable)
    name = known.long_name if known else channel.variable
    return name + number + ("" if channel.level is None else f" {channel.level:g} hPa")


def _units(field: Field, described: dict[str, Any]) -> str:
    """Of its first variable, or what a transform makes of them."""
    known = VARIABLES.get(field.channels[0].variable)
    units = known.units if known else "?"
    return f"{described['transform']}, x in {units}" if described.get("transform") else units


def _plain(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


if __name__ == "__main__":
    cli.run(main, FLAGS)
