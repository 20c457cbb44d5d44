"""docs/errors.md: every input of the corpus with its error message, kept true by the tests.

A test passes the message it got, which must be the one on the page. To rewrite the page:

    SLAMS_WRITE_ERRORS=1 python -m pytest -p no:xdist tests/test_errors.py \\
        tests/commands/test_bad_input.py
"""

import atexit
import os
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
HEAD = """# Error messages

Every input below is invalid and ends in one line that names what is wrong, what was expected and
what to do: an `InputError` in the library, exit status 2 from a command. The tests try each input
and keep this page true. `…` stands for text added by a file reader or the operating system.
"""
_rows: dict[tuple[str, str], str] = {}


def plain(message: str, folder: Path) -> str:
    """A message without the parts that differ between machines."""
    text = message.replace(f"{folder}/", "").replace(str(folder), ".")
    # Other libraries may change their own messages about damaged files.
    text = re.sub(r"cannot be read( as \w+)? \(.*\): ", r"cannot be read\1 (…): ", text)
    text = re.sub(
        r"no Zarr store that can be read \(.*\): ", "no Zarr store that can be read (…): ", text
    )
    text = re.sub(r"not a readable CSV file \(.*\): ", "not a readable CSV file (…): ", text)
    text = re.sub(
        r"cannot read the analysis (\S+) \(.*\): ", r"cannot read the analysis \1 (…): ", text
    )
    text = re.sub(r"\b[0-9a-f]{20}\b", "…", text)  # digests, among them those of file times
    text = re.sub(r"cannot be written \([^)]*\)", "cannot be written (…)", text)
    return text.replace("|", "\\|")


def row(group: str, what: str, message: str) -> str:
    """One row of the page."""
    return f"| {group} | {what} | {message} |"


def keep(group: str, what: str, message: str, folder: Path) -> None:
    """Compare a message with the page, or collect it to rewrite the page."""
    text = row(group, what, plain(message, folder))
    if os.environ.get("SLAMS_WRITE_ERRORS"):
        if not _rows:
            atexit.register(_write)
        _rows[group, what] = text
        return
    known = PAGE.read_text().splitlines()
    assert text in known, f"docs/errors.md has no such line (to rewrite it: {__doc__}):\n{text}"


def known_rows() -> list[tuple[str, str]]:
    """(group, what) of every row of the page."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    return [(cells[0], cells[1]) for line in lines for cells in [line[2:].split(" | ")]]


def _write() -> None:
    table = ["| | Input | Message |", "|---|---|---|", *_rows.values()]
    PAGE.write_text(f"{HEAD}\n{len(_rows)} inputs:\n\n" + "\n".join(table) + "\n")
