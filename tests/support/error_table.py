"""docs/errors.md: every bad input with its error message, kept true by the tests.

A test passes on each message that it gets, and the page must hold the same. To update the page
(rows of inputs that no longer exist are removed by hand):

    SLAMS_WRITE_ERRORS=1 python -m pytest -p no:xdist tests/test_errors.py \\
        tests/commands/test_bad_input.py
"""

import atexit
import os
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
_rows: dict[tuple[str, str], str] = {}


def plain(message: str, folder: Path) -> str:
    """A message without the parts that differ from machine to machine."""
    text = message.replace(f"{folder}/", "").replace(str(folder), ".")
    # Other libraries may change what they say of a damaged file.
    text = re.sub(r"cannot be read( as \w+)? \(.*\): ", r"cannot be read\1 (…): ", text)
    text = re.sub(
        r"no Zarr store that can be read \(.*\): ", "no Zarr store that can be read (…): ", text
    )
    text = re.sub(r"not a readable CSV file \(.*\): ", "not a readable CSV file (…): ", text)
    text = re.sub(
        r"cannot read the analysis (\S+) \(.*\): ", r"cannot read the analysis \1 (…): ", text
    )
    text = re.sub(r"\b[0-9a-f]{20}\b", "…", text)  # digests, of times of files among others
    text = re.sub(r"a damaged one \(.*\): ", "a damaged one (…): ", text)
    text = re.sub(r"(pip install 'slams-jax\[moist\]') \(.*\)", r"\1 (…)", text)
    text = re.sub(r"lacks what it needs \(.*\): ", "lacks what it needs (…): ", text)
    text = re.sub(r"slams_jax \d+\.\d+\.\d+", "slams_jax …", text)
    text = re.sub(r"cannot be written \([^)]*\)", "cannot be written (…)", text)
    return text.replace("|", "\\|")


def row(group: str, what: str, message: str) -> str:
    """One row of the page."""
    return f"| {group} | {what} | {message} |"


def keep(group: str, what: str, message: str, folder: Path) -> None:
    """Compare a message with the page, or note it for an update of the page."""
    text = row(group, what, plain(message, folder))
    if os.environ.get("SLAMS_WRITE_ERRORS"):
        if not _rows:
            atexit.register(_write)
        _rows[group, what] = text
        return
    lines = PAGE.read_text().splitlines()
    assert text in lines, f"docs/errors.md lacks this row (to update it: {__doc__}):\n{text}"


def known_rows() -> list[tuple[str, str]]:
    """(group, what) of every row of the page."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    return [(cells[0], cells[1]) for line in lines for cells in [line[2:].split(" | ")]]


def _write() -> None:
    """Update the page: rows by group, in their present order, new ones at the end of the group."""
    lines = PAGE.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|---")) + 1
    rows = dict(zip(known_rows(), lines[first:], strict=True)) | _rows
    groups = list(dict.fromkeys(group for group, _ in rows))
    table = [rows[key] for key in sorted(rows, key=lambda key: groups.index(key[0]))]
    head = re.sub(r"^\d+ inputs:$", f"{len(rows)} inputs:", "\n".join(lines[:first]), flags=re.M)
    PAGE.write_text(head + "\n" + "\n".join(table) + "\n")
