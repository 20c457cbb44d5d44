"""The model card: what a saved model is, in Markdown, for whoever finds the file."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from slams_jax.verify.denoising import denoising_table
from slams_jax.verify.report import Table, markdown

UNKNOWN = "not recorded"
_NOTHING = f"{UNKNOWN.capitalize()}."


def model_card(
    header: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    name: str,
    scores: Mapping[str, Mapping[str, float]] | None,
    licence: str,
    description: str,
) -> str:
    """The card of a saved model.

    Args:
        header: of the file, as `save_model` writes it.
        tensors: what the file holds.
        name: of the file.
        scores: system -> score -> value; None for none.
        licence: of the model.
        description: what it is for.
    """
    parts = [
        f"# {name.partition('.')[0]}\n",
        description or f"A trained model for slams_jax {header['library']}.",
        _load(name),
        "## What it represents\n",
        _table(("", "value"), _represents(header)),
        "## Data\n",
        _data(header["provenance"]),
        "## Networks\n",
        _table(("", "value"), _networks(header["networks"], tensors)),
        "## Training\n",
        _training(header["provenance"]),
        "## Denoising errors\n",
        _denoising(header["provenance"]),
        "## Scores\n",
        _scores(scores),
        "## Licence\n",
        licence or f"{UNKNOWN.capitalize()}: ask whoever gave you the file.",
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _load(name: str) -> str:
    return f'```python\nimport slams_jax\n\nmodel = slams_jax.load_model("{name}")\n```\n'


def _represents(header: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    levels: dict[str, list[str]] = {}
    for variable, level in header["channels"]:
        levels.setdefault(variable, []).append("" if level is None else f"{level:g}")
    for variable, found in levels.items():
        units = header["units"].get(variable, UNKNOWN)
        where = f" on {', '.join(found)} hPa" if all(found) else ""
        censored = header.get("transforms", {}).get(variable)
        how = "" if censored is None else _censored(censored, units)
        yield variable, f"{units}{where}{how}"
    latitude, longitude = header["grid"]["latitude"], header["grid"]["longitude"]
    yield (
        "grid",
        f"{len(latitude)} x {len(longitude)} points, {latitude[0]:g} to {latitude[-1]:g} degrees "
        f"north, {longitude[0]:g} to {longitude[-1]:g} degrees east",
    )
    seconds = header["time_step_seconds"]
    yield "time step", UNKNOWN if seconds is None else f"{seconds / 3600:g} h"
    yield "calendar", header["calendar"] or UNKNOWN
    yield "latent inputs", ", ".join(header["latent_inputs"]) or "none"


def _censored(options: Mapping[str, float], units: str) -> str:
    return (
        f", censored: {options['scale']:g} {units} to the power {options['power']:g} of a normal "
        f"variable, dry up to {options['trace']:g} {units}"
    )


def _data(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return _NOTHING
    fields = _table(
        ("field", "channels"), ((n, ", ".join(c)) for n, c in provenance["fields"].items())
    )
    periods = _table(
        ("period", "first", "last", "times"),
        ((name, *bounds) for name, bounds in provenance["periods"].items()),
    )
    return f"{fields}\n{periods}"


def _networks(
    networks: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, str]]:
    for part in ("autoencoder", "score"):
        if networks[part] is None:
            yield part, "none"
            continue
        mine = [x for n, x in tensors.items() if n.startswith(f"{part}/")]
        kinds = ", ".join(sorted({str(x.dtype) for x in mine}))
        yield part, f"{sum(x.size for x in mine):,} parameters, {kinds}"
        for name, value in networks[part].items():
            yield f"{part}.{name}", str(value)


def _training(provenance: Mapping[str, Any]) -> str:
    rows = [
        (f"{stage}.{name}", str(value))
        for stage, options in provenance.get("training", {}).items()
        for name, value in {**options.get("optimiser", {}), **options}.items()
        if name != "optimiser"
    ]
    return _table(("", "value"), rows) if rows else _NOTHING


def _denoising(provenance: Mapping[str, Any]) -> str:
    errors = provenance.get("denoising")
    if not errors:
        return _NOTHING
    table = denoising_table(errors)
    return f"{table.note}\n\n{markdown(table)}"


def _scores(scores: Mapping[str, Mapping[str, float]] | None) -> str:
    if not scores:
        return "None given."
    names = list(dict.fromkeys(name for row in scores.values() for name in row))
    return _table(
        ("system", *names),
        ((system, *(row.get(n) for n in names)) for system, row in scores.items()),
    )


def _table(header: tuple[str, ...], rows: Any) -> str:
    return markdown(Table("", header, [tuple(row) for row in rows]))
