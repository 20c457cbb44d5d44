r"""The fixed-lag ensemble smoother: a cycle whose state is an ensemble with its recent past.

Observations of the time k also say something of the times before. An ensemble filter that analyses

    (x_k, x_{k-1}, ..., x_{k-L})

as one state, given observations of its first part, combines the members of all times with the same
weights. Its last part is the smoothed state of the time k - L (Evensen & van Leeuwen 2000, Mon.
Wea. Rev. 128, 1852-1867; Khare, Anderson, Hoar & Nychka 2008, Tellus A 60, 97-112).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.aliases import Forecast, PRNGKey
from slams_jax.errors import InputError


def with_past(members: Float[Array, "member ..."], lag: int) -> Float[Array, "member time ..."]:
    """An ensemble (member, 1 + lag, ...) to start a cycle of `fixed_lag` from: its past is itself.

    Until `lag` cycles are done, the oldest part is the start.

    Raises:
        InputError: a negative lag.
    """
    return jnp.repeat(members[:, None], 1 + _checked(lag), axis=1)


def fixed_lag(forecast: Forecast, lag: int, *, inflation: float = 1.0) -> Forecast:
    """A forecast of ensembles with their past (member, 1 + lag, ...), the newest state in front.

    With it, every filter of ensembles is a smoother. Its operator observes the newest state, such
    as `lambda x: H(x[0])` of one member; the `nearness` of `letkf` has a row for each value of the
    whole, `jnp.tile(nearness, (1 + lag, 1))`. A cycle costs one forecast, as without a past.

    Args:
        forecast: of ensembles (member, ...).
        lag: number of cycles of which later observations still change the state.
        inflation: factor of the departures of the newest forecast from its mean. That of the filter
            itself would enlarge the past again in every cycle: leave it at one, or "adaptive".

    Raises:
        InputError: a negative lag, or an inflation that is not positive.
    """
    _checked(lag)
    if not inflation > 0:
        raise InputError(f"inflation must be positive, got {inflation}")

    def shifted(state: Array, key: PRNGKey) -> Array:
        if state.shape[1:2] != (1 + lag,):
            raise InputError(
                f"a forecast with lag {lag} needs an ensemble (member, {1 + lag}, ...), got "
                f"{state.shape}: start from with_past(members, {lag})"
            )
        newest = forecast(state[:, 0], key)
        mean = newest.mean(axis=0, keepdims=True)
        newest = mean + inflation * (newest - mean)
        return jnp.concatenate([newest[:, None], state[:, :lag]], axis=1)

    return shifted


def _checked(lag: int) -> int:
    if lag < 0:
        raise InputError(f"lag must be at least 0, got {lag}")
    return lag
