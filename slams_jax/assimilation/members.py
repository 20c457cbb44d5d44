"""Members of an ensemble on disk as they are drawn, so that a run that was killed goes on.

<folder>/states.npy   (member, ...), of which the rows that the index names are whole
<folder>/index.json   the identity of what is drawn; for each part its rows, their digest and
                      whatever is to be remembered of it
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slams_jax.errors import RunError

LOG = logging.getLogger(__name__)

STATES, INDEX = "states.npy", "index.json"


class MemberStore:
    """The members that are drawn already.

    Attributes:
        states: (member, ...), float32, memory-mapped; rows that are not in a part are undefined.
    """

    def __init__(self, folder: Path, shape: Sequence[int], identity: str):
        """Open the store of a folder, or begin it anew.

        Args:
            folder: made if need be; nobody else is in it (`slams_jax.lock`).
            shape: of all members, the member first.
            identity: a digest of everything that the members follow from. What was left in the
                folder by an ensemble of another one is removed.

        Raises:
            RunError: no room for all members, or a folder that cannot be written.
        """
        self._folder, self._shape, self._identity = folder, tuple(shape), identity
        try:
            self._parts = self._found()
            if self._parts is None:
                self._parts = {}
                self._begin()
            self.states = np.load(folder / STATES, mmap_mode="r")
        except OSError as error:
            raise self._refused(error) from error

    def get(self, first: int, last: int) -> dict[str, Any] | None:
        """What was remembered of the part of these rows; None where it is not there, or damaged."""
        assert self._parts is not None
        part = self._parts.get(f"{first}:{last}")
        if part is None:
            return None
        if _digest(self.states[first:last]) != part["digest"]:
            LOG.warning(
                "%s: members %d to %d do not match their digest: drawn again",
                self._folder,
                first,
                last - 1,
            )
            return None
        return part["about"]

    def put(self, first: int, states: np.ndarray, about: dict[str, Any]) -> None:
        """Write the part that begins at row `first`, and what is to be remembered of it (JSON).

        Raises:
            RunError: the disk refuses; the parts before stay.
        """
        assert self._parts is not None
        last = first + len(states)
        try:
            # Not through the map, where a disk that refuses ends the process without a word.
            with (self._folder / STATES).open("r+b") as file:
                file.seek(self.states.offset + first * self.states.strides[0])
                file.write(np.ascontiguousarray(states, "<f4").data)
                file.flush()
                os.fsync(file.fileno())
            self._parts[f"{first}:{last}"] = {"digest": _digest(states), "about": about}
            self._write_index()
        except OSError as error:
            raise self._refused(error) from error

    def _found(self) -> dict[str, Any] | None:
        """The parts in the folder; None where there are none of this ensemble."""
        try:
            index = json.loads((self._folder / INDEX).read_text())
            states = np.load(self._folder / STATES, mmap_mode="r")
            same = index["identity"] == self._identity and states.shape == self._shape
            if same and states.dtype == np.float32:
                return index["parts"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, EOFError) as error:
            LOG.warning("%s: damaged, begun anew (%s)", self._folder, error)
            return None
        LOG.info("%s: left by another analysis, begun anew", self._folder)
        return None

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / INDEX).unlink(missing_ok=True)
        with (self._folder / STATES).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_1_0(file, header)
            # All of it now: a disk that is too small is known before the first member is drawn.
            os.posix_fallocate(file.fileno(), file.tell(), 4 * int(np.prod(self._shape)))
        self._write_index()

    def _write_index(self) -> None:
        part = self._folder / f"{INDEX}.part"
        part.write_text(json.dumps({"identity": self._identity, "parts": self._parts}))
        os.replace(part, self._folder / INDEX)

    def _refused(self, error: OSError) -> RunError:
        size = 4 * int(np.prod(self._shape)) / 2**30
        return RunError(
            f"{self._folder} cannot hold the members, {size:.2g} GiB in all "
            f"({error.strerror or error}): make room, and run it again"
        )


def holds_members(folder: Path) -> bool:
    """Whether there is a part in the folder of a store."""
    try:
        return bool(json.loads((folder / INDEX).read_text())["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(states: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(states).tobytes()).hexdigest()
