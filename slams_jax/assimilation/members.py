"""Members of an ensemble: drawn part by part, and kept on disk so that a killed run resumes.

<folder>/states.npy   (member, ...), of which the rows that the index names are complete
<folder>/index.json   the identity of what is drawn; for each part its rows, their digest and
                      what it took to draw them
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from slams_jax.aliases import PRNGKey
from slams_jax.assimilation.posterior import Drawn
from slams_jax.diffusion import DrawInfo
from slams_jax.diffusion.solvers import UNTOLD
from slams_jax.errors import RunError
from slams_jax.mesh import to_host
from slams_jax.records import record_digest
from slams_jax.storage import replacing
from slams_jax.training.arrays import manifest, nested

LOG = logging.getLogger(__name__)

STATES, INDEX = "states.npy", "index.json"


class MemberStore:
    """The members drawn so far.

    Attributes:
        states: (member, ...), float32, memory-mapped; rows that are not in a part are undefined.
    """

    def __init__(self, folder: Path, shape: Sequence[int], identity: str):
        """Open the store in a folder, or start a new one.

        Args:
            folder: created if necessary; for one process at a time (`slams_jax.storage.locked`).
            shape: of all members, the member first.
            identity: a digest of everything that the members follow from. Members of another
                identity are removed from the folder.

        Raises:
            RunError: no room for all members, or a folder that cannot be written.
        """
        self._folder, self._shape, self._identity = folder, tuple(shape), identity
        self._parts: dict[str, Any] = {}
        try:
            left = self._left()
            if left is None:
                self._begin()
            else:
                self._parts = left
            self.states = np.load(folder / STATES, mmap_mode="r")
        except OSError as error:
            raise self._refused(error) from error

    def get(self, first: int, last: int) -> dict[str, Any] | None:
        """What was noted about the part of these rows; None where it is absent or damaged."""
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
        return part["note"]

    def put(self, first: int, states: np.ndarray, note: dict[str, Any]) -> None:
        """Write the part that begins at row `first`, with a note about it (JSON).

        Raises:
            RunError: the disk refuses; the parts before stay.
        """
        last = first + len(states)
        try:
            # Not through the map: a write that the disk refuses there kills the process silently.
            with (self._folder / STATES).open("r+b") as file:
                file.seek(self.states.offset + first * self.states.strides[0])
                file.write(np.ascontiguousarray(states, "<f4").data)
                file.flush()
                os.fsync(file.fileno())
            self._parts[f"{first}:{last}"] = {"digest": _digest(states), "note": note}
            self._write_index()
        except OSError as error:
            raise self._refused(error) from error

    def _left(self) -> dict[str, Any] | None:
        """The parts of this ensemble that an earlier run left; None where there are none."""
        try:
            index = json.loads((self._folder / INDEX).read_text())
            states = np.load(self._folder / STATES, mmap_mode="r")
            same = index["identity"] == self._identity and states.shape == self._shape
            if same and states.dtype == np.float32:
                return index["parts"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, EOFError) as error:
            LOG.warning("%s: damaged, starting over (%s)", self._folder, error)
            return None
        LOG.info("%s: left by another analysis, starting over", self._folder)
        return None

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / INDEX).unlink(missing_ok=True)
        with (self._folder / STATES).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_1_0(file, header)
            # Allocate all of it now, so that a full disk fails before the first member is drawn.
            os.posix_fallocate(file.fileno(), file.tell(), 4 * int(np.prod(self._shape)))
        self._write_index()

    def _write_index(self) -> None:
        index = {"identity": self._identity, "parts": self._parts}
        with replacing(self._folder / INDEX) as temporary:
            temporary.write_text(json.dumps(index))

    def _refused(self, error: OSError) -> RunError:
        size = 4 * int(np.prod(self._shape)) / 2**30
        return RunError(
            f"{self._folder} cannot hold the members, {size:.2g} GiB in all "
            f"({error.strerror or error}): make room, and run it again"
        )


class Cost(NamedTuple):
    """What members took.

    Attributes:
        evaluations: the most of any of them, moves left out.
        seconds: of all.
        accepted: number of the moves of all that were accepted.
        residual: the largest of any (`DrawInfo`); `UNTOLD` where none is told.
        log_weights: of all their paths, up to a constant; none where a path has none.
    """

    evaluations: int = 0
    seconds: float = 0.0
    accepted: int = 0
    residual: float = UNTOLD
    log_weights: Sequence[float] = ()

    def with_more(self, other: "Cost") -> "Cost":
        """Of these members and others."""
        return Cost(
            max(self.evaluations, other.evaluations),
            self.seconds + other.seconds,
            self.accepted + other.accepted,
            max(self.residual, other.residual),
            [*self.log_weights, *other.log_weights],
        )


def draw_members(
    draw: Callable[[int], Drawn],
    members: int,
    size: int,
    store: MemberStore | None,
) -> tuple[Float[np.ndarray, "member time lat lon channel"], Cost]:
    """All members, `size` at a time; those in the store are not drawn again.

    Args:
        draw: index of the first member -> `size` members from there on.
        members: number of members.
        size: members in a part; those beyond the last one are discarded.
        store: where parts are kept as they are drawn; None keeps them in memory alone.

    Returns:
        The states, and what they took.

    Raises:
        RunError: members that are not finite; earlier parts stay in the store.
    """
    drawn, total = [], Cost()
    for first in range(0, members, size):
        last = min(first + size, members)
        kept = None if store is None else store.get(first, last)
        if kept is None:
            begun = time.perf_counter()
            used = slice(last - first)
            part = jax.tree.map(lambda x, used=used: to_host(x)[used], draw(first))
            states = np.asarray(part.states, np.float32)  # float64 where the user computes in it
            _require_finite(states, part.info, first, members)
            weights = np.ravel(part.log_weights)
            cost = Cost(
                int(part.info.evaluations.max()),
                time.perf_counter() - begun,
                int(part.accepted.sum()),
                float(part.info.residual.max()),
                weights.tolist() if np.isfinite(weights).all() else [],
            )
            if store is None:
                drawn.append(states)
            else:
                store.put(first, states, cost._asdict())
            if size < members:
                LOG.info("%d of %d members drawn", last, members)
        else:
            cost = Cost(**kept)
        total = total.with_more(cost)
    return np.concatenate(drawn) if store is None else store.states, total


def identity(config: Any, key: PRNGKey, *rest: Any) -> str:
    """A digest of all that members follow from: configuration, key, arrays, and the back end.

    `config` is told by its `repr`.
    """
    arrays = nested([jax.random.key_data(key), *rest])
    by = [jax.__version__, jax.default_backend()]
    return record_digest(
        {
            "config": repr(config),
            "structure": str(jax.tree.structure(rest)),
            "arrays": manifest(arrays),
            "by": by,
        }
    )


def holds_members(folder: Path) -> bool:
    """Whether the folder of a store holds any members."""
    try:
        return bool(json.loads((folder / INDEX).read_text())["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(states: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(states).tobytes()).hexdigest()


def _require_finite(
    states: Float[np.ndarray, "member time lat lon channel"],
    info: DrawInfo,
    first: int,
    members: int,
) -> None:
    bad = [i for i in range(len(states)) if not np.isfinite(states[i]).all()]
    if bad:
        failed = info.failed_at[bad].max()
        when = f" from diffusion time t = {failed:.3f}" if failed >= 0 else ""
        raise RunError(
            f"members {[first + i for i in bad]} of {members} are not finite{when}: take more "
            "sampler steps or guidance rule 'gaussian', or check the errors of the observations"
        )
