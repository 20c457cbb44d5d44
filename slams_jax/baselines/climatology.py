"""Climatology as an ensemble: the prior knowledge without background and observations."""

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
    """The climatology of each time plus anomalies of random days of the training period.

    Args:
        anomalies: departures from the climatology on training days, physical units.
        climate: climatology at the times of the result.
        members: number of days to draw for each time, without replacement.
        seed: of the draws.

    Raises:
        InputError: fewer days than members.
    """
    if len(anomalies) < members:
        raise InputError(
            f"a climatological ensemble of {members} members needs as many training days, got "
            f"{len(anomalies)}: lower the number of members"
        )
    rng = np.random.default_rng(seed)
    days = np.stack([rng.permutation(len(anomalies))[:members] for _ in climate], axis=1)
    return climate[None] + anomalies[days]
