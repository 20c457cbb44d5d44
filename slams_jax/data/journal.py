"""Progress of an unfinished archive, from which the next writer resumes.

Each line of `journal.jsonl` names a block of rows on disk and its CRC-32. A block counts if its
line is complete and its bytes match; writing resumes after the last block that counts.
"""

import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

NAME = "journal.jsonl"
_READ_BYTES = 2**24  # of a file, read at once


class Finished(NamedTuple):
    """The part of a field that is on disk and intact."""

    rows: int  # counted from the first
    checksum: int  # CRC-32 of their bytes


def record(draft: Path, field: str, start: int, stop: int, checksum: int) -> None:
    """Record that the rows from start to stop of a field are on disk; call it once they are."""
    line = {"field": field, "start": start, "stop": stop, "crc32": checksum}
    with (draft / NAME).open("ab") as file:
        file.write((json.dumps(line) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def finished(draft: Path, field: str, header: bytes, row_bytes: int) -> Finished:
    """The leading rows of `<field>.npy` in a draft that are on disk and intact.

    Args:
        draft: folder of the unfinished archive.
        field: name of the field.
        header: bytes that the file must begin with.
        row_bytes: size of one row in bytes.
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
                extended, own = _checksums(file, (stop - start) * row_bytes, checksum)
                if own != expected:
                    break
                rows, checksum = stop, extended
    except (OSError, ValueError, KeyError):
        pass  # unreadable rows are written again
    return Finished(rows, checksum)


def _checksums(file, size: int, before: int) -> tuple[int, int | None]:
    """CRC-32 of the next bytes, once continuing `before` and once alone; None if too few."""
    extended, own = before, 0
    while size:
        data = file.read(min(size, _READ_BYTES))
        if not data:
            return extended, None
        extended, own = zlib.crc32(data, extended), zlib.crc32(data, own)
        size -= len(data)
    return extended, own


def _lines(draft: Path) -> list[dict]:
    """The complete lines of a journal."""
    lines = []
    for text in (draft / NAME).read_text().splitlines():
        try:
            lines.append(dict(json.loads(text)))
        except (ValueError, TypeError):
            break  # torn when the writer was killed
    return lines
