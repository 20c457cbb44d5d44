"""Finished analyses, a file each, so that a comparison that was interrupted resumes."""

import json
from pathlib import Path
from typing import Any

from slams_jax.errors import InputError
from slams_jax.storage import write_text

Record = dict[str, Any]


def kept(path: Path, digest: str) -> Record | None:
    """The record that an earlier run left of the same analysis.

    Raises:
        InputError: a file that is no record.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        return found["record"] if found["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it") from None


def keep(path: Path, digest: str, record: Record) -> None:
    """Leave a record for later runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(json.dumps({"digest": digest, "record": record}, allow_nan=False), path)
