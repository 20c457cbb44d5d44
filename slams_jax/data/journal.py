"""What of a draft is finished, so that a writer that was killed is gone on with.

The journal has a line for each block of rows that is on disk, with its checksum. A block counts
when its line is whole and its bytes still match; writing goes on after the last one that counts.
"""

import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

NAME = "journal.jsonl"
_READ_BYTES = 2**24  # of a file, read at once


class Finished(NamedTuple):
    """How far a field is: what is before these rows is on disk."""

    rows: int
    checksum: int  # CRC-32 of their bytes


def record(draft: Path, field: str, start: int, stop: int, checksum: int) -> None:
    """Note that the rows start to stop of a field are on disk, after they are."""
    line = {"field": field, "start": start, "stop": stop, "crc32": checksum}
    with (draft / NAME).open("ab") as file:
        file.write((json.dumps(line) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def finished(draft: Path, field: str, header: bytes, row_bytes: int) -> Finished:
    """The rows of `<field>.npy` in a draft that are there and intact, from the first.

    Args:
        draft: the folder.
        field: its name.
        header: that the file must begin with.
        row_bytes: of one row.
    """
    rows, checksum = 0, 0
    try:
        with (draft / f"{field}.npy").open("rb") as file:
            if file.read(len(header)) != header:
                return Finished(0, 0)
            for line in _lines(draft):
                if line.get("field") != field:
                    continue
                start, stop, expected = (int(line[k]) for k in ("start", "stop", "crc32"))
                if start != rows or stop <= start:
                    break
                file.seek(len(header) + start * row_bytes)
                whole, own = _checksums(file, (stop - start) * row_bytes, checksum)
                if own != expected:
                    break
                rows, checksum = stop, whole
    except (OSError, ValueError, KeyError):
        pass  # what cannot be read is written again
    return Finished(rows, checksum)


def _checksums(file, size: int, before: int) -> tuple[int, int | None]:
    """CRC-32 of the next bytes after `before`, and of them alone; None where they are too few."""
    whole, own = before, 0
    while size:
        data = file.read(min(size, _READ_BYTES))
        if not data:
            return whole, None
        whole, own, size = zlib.crc32(data, whole), zlib.crc32(data, own), size - len(data)
    return whole, own


def _lines(draft: Path) -> list[dict]:
    lines = []
    for text in (draft / NAME).read_text().splitlines():
        try:
            lines.append(dict(json.loads(text)))
        except (ValueError, TypeError):
            break  # torn by the kill
    return lines
