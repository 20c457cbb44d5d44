"""Reports: one self-contained HTML file with text, figures and tables.

`render` is pure. Jinja2 (from the extra `plot`) fills in the template `report.html` beside this
file and escapes everything; a content security policy keeps browsers from loading anything that is
not in the file.
"""

import base64
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slams_jax.errors import InputError

TEMPLATE = Path(__file__).with_name("report.html")
Cell = str | int | float | None


class Table(NamedTuple):
    """A table with sortable rows; `None` and NaN are empty cells, floats have three decimals.

    Attributes:
        caption: title of the table.
        header: one or two words per column; the first column names the row.
        rows: cells, as many as in the header.
        note: text below the table, such as units.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


class Picture(NamedTuple):
    """A PNG image, an alternative text for readers who cannot see it, and a caption."""

    png: bytes
    alt: str
    caption: str


class Listing(NamedTuple):
    """Lines of code or configuration, folded below their title."""

    title: str
    text: str


class Section(NamedTuple):
    """A section of the page: heading, paragraphs, tables, pictures and listings, in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    listings: Sequence[Listing] = ()


class Report(NamedTuple):
    """A page: title, facts as pairs of name and value, and sections."""

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def render(report: Report) -> str:
    """The report as one HTML document.

    Raises:
        InputError: a table whose rows and header differ in length, or no Jinja2.
    """
    for table in (t for s in report.sections for t in s.tables):
        for row in table.rows:
            if len(row) != len(table.header):
                raise InputError(
                    f"a row of the table {table.caption!r} has {len(row)} cells, but its header "
                    f"has {len(table.header)}"
                )
    try:
        jinja2 = importlib.import_module("jinja2")
    except ImportError as error:
        raise InputError(
            "reports need Jinja2: install it with `pip install 'slams-jax[plot]'`"
        ) from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": cell, "number": is_number, "png": _data_url}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report)


def markdown(table: Table) -> str:
    """The table in Markdown, without its caption and note."""
    lines = ["| " + " | ".join(table.header) + " |", "|---" * len(table.header) + "|"]
    lines += ["| " + " | ".join(cell(c) for c in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def chapters(tables: Sequence[Table]) -> str:
    """Tables in Markdown, each below its caption and note."""
    parts = []
    for table in tables:
        parts += [f"### {table.caption}", "", table.note, "", markdown(table)]
    return "\n".join(parts)


def cell(value: Cell) -> str:
    """The text of a cell."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{round(value, 3) + 0.0:.3f}"  # no negative zero


def difference_cells(difference: Mapping[str, Sequence[float]]) -> list[str]:
    """Differences of scores as `summary.listed` has them: half-widths, bold where beyond chance.

    Without intervals, the differences alone.
    """
    cells = [f"{d:+.3f}" for d in difference["difference"]]
    if "low" not in difference:
        return cells
    ranges = zip(cells, difference["low"], difference["high"], strict=True)
    marked = ((f"{c} ± {(high - low) / 2:.3f}", low * high > 0) for c, low, high in ranges)
    return [f"**{text}**" if clear else text for text, clear in marked]


def is_number(value: Cell) -> bool:
    """Whether a cell is aligned right, as a number; "+1.5" is one too."""
    try:
        float("nan" if value is None else value)
    except ValueError:
        return False
    return True


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
