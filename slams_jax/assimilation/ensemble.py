"""An ensemble drawn part by part, each part kept on disk as soon as it is there."""

import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from slams_jax.assimilation.members import MemberStore
from slams_jax.diffusion import DrawInfo
from slams_jax.errors import RunError
from slams_jax.mesh import to_host
from slams_jax.training.arrays import manifest, nested
from slams_jax.training.records import record_digest

LOG = logging.getLogger(__name__)


def draw_members(
    draw: Callable[[int], tuple[Array, DrawInfo]],
    members: int,
    size: int,
    store: MemberStore | None,
) -> tuple[Float[np.ndarray, "member time lat lon channel"], int, float]:
    """All members, `size` at a time, but for those that the store has.

    Args:
        draw: index of the first member -> `size` members from there on, and what happened.
        members: number of members.
        size: of a part; what is drawn beyond the last member is thrown away.
        store: where parts are kept as they are drawn, and found again.

    Returns:
        The states; the most evaluations that one of them took; the seconds that all took.

    Raises:
        RunError: members that are not finite; the parts before stay in the store.
    """
    drawn, count, seconds = [], 0, 0.0
    for first in range(0, members, size):
        last = min(first + size, members)
        about = None if store is None else store.get(first, last)
        if about is None:
            begun = time.perf_counter()
            used = slice(last - first)
            states, info = jax.tree.map(lambda x, used=used: to_host(x)[used], draw(first))
            _require_finite(states, info, first, members)
            about = {
                "evaluations": int(info.evaluations.max()),
                "seconds": time.perf_counter() - begun,
            }
            if store is None:
                drawn.append(states)
            else:
                store.put(first, states, about)
            if size < members:
                LOG.info("%d of %d members drawn", last, members)
        count, seconds = max(count, about["evaluations"]), seconds + about["seconds"]
    return np.concatenate(drawn) if store is None else store.states, count, seconds


def identity(config: tuple[Any, ...], arguments: tuple[Any, ...]) -> str:
    """A digest of all that members follow from: configuration, arrays, and who computes them."""
    key, *rest = arguments
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


def _require_finite(
    states: Float[np.ndarray, "member time lat lon channel"],
    info: DrawInfo,
    first: int,
    members: int,
) -> None:
    bad = [i for i in range(len(states)) if not np.isfinite(states[i]).all()]
    if bad:
        failed = info.failed_at[bad]
        when = f" from diffusion time t = {np.nanmax(failed):.3f}" if np.any(failed >= 0) else ""
        raise RunError(
            f"members {[first + i for i in bad]} of {members} are not finite{when}: take more "
            "sampler steps or guidance rule 'gaussian', or check the errors of the observations"
        )
