"""The climate as an ensemble: what is known without background and observations."""

import numpy as np
from jaxtyping import Float

from slams_jax.errors import InputError


def climatological_ensemble(
    anomalies: Float[np.ndarray, "day lat lon channel"],
    climate: Float[np.ndarray, "time lat lon channel"],
    *,
    members: int,
    seed: int = 0,
) -> Float[np.ndarray, "member time lat lon channel"]:
    """The climatology of each time plus anomalies of days drawn from the training period.

    Args:
        anomalies: departures from the climatology on training days, physical units.
        climate: the climatology at the times wanted.
        members: days drawn for each time, without repetition.
        seed: of the drawing.

    Raises:
        InputError: fewer days than members.
    """
    if len(anomalies) < members:
        raise InputError(
            f"a climatological ensemble of {members} members needs as many days, got "
            f"{len(anomalies)}"
        )
    rng = np.random.default_rng(seed)
    days = np.stack([rng.permutation(len(anomalies))[:members] for _ in climate], axis=1)
    return climate[None] + anomalies[days]
