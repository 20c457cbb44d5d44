r"""How an analysis fits its observations, and whether its spread agrees with that.

For a linear, Gaussian analysis of n observations with the true error covariances (W^T W = R^-1, A
the analysis error covariance, d degrees of freedom for signal, the trace of H A H^T R^-1)

    E |W (y - H(x_a))|^2 = n - d,    E (H(x_a) - H(x_b))^T W^T W (y - H(x_a)) = d.

The first says how well observations should be fitted, the second how wide the ensemble should be
(Desroziers et al. 2005, Q. J. R. Meteorol. Soc. 131, eqs. 1 to 4).
"""

import dataclasses
import logging
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Trajectory
from slams_jax.observe import Stream, innovation

LOG = logging.getLogger(__name__)

FIT, SPREAD = 1.5, 2.0  # how far from one the ratios may be before they are worth a warning
ENOUGH = 50  # observations, below which the ratios are noise
BIASED = 0.9  # share of the mean in the root mean square, above which it is the misfit


@dataclasses.dataclass(frozen=True)
class StreamDiagnostics:
    """Of one stream in state space.

    Attributes:
        name: of the stream.
        count: number of observations n.
        innovation_rms: root mean square of y - H(x_b), units of the observations; None without a
            background.
        innovation_mean: its mean.
        residual_rms: root mean square of y - H(x_a), x_a the ensemble mean.
        residual_mean: its mean.
        chi_squared: |W (y - H(x_a))|^2 / n.
        degrees_of_freedom: for signal, d, from the ensemble's spread of W H(x).
        fit: chi_squared over what it should be, 1 - d / n (and d / (n M) for the mean of only M
            members); above one the fit is too loose.
        spread: the standard deviation of the ensemble of W H(x) over that which the innovations
            imply; None without a background or where they imply none.
    """

    name: str
    count: int
    innovation_rms: float | None
    innovation_mean: float | None
    residual_rms: float
    residual_mean: float
    chi_squared: float
    degrees_of_freedom: float
    fit: float
    spread: float | None


def diagnose(
    streams: Sequence[Stream],
    states: Float[np.ndarray, "member time lat lon channel"],
    background: Float[np.ndarray, "time lat lon channel"] | None = None,
) -> list[StreamDiagnostics]:
    """Diagnostics of the streams in state space that observe anything.

    Latent streams have none, since an analysis keeps no latent.

    Args:
        streams: as they were assimilated, less any inflation.
        states: the analysis ensemble, physical units.
        background: physical units.
    """
    mean = jnp.asarray(states.mean(axis=0))
    before = None if background is None else jnp.asarray(background)
    observed = [s for s in streams if s.space == "state" and bool(s.mask.any())]
    return [_of_stream(s, states, mean, before) for s in observed]


def warn_of(found: Sequence[StreamDiagnostics]) -> None:
    """Log one line for each stream whose fit or spread is not consistent with its errors."""
    for d in found:
        if d.count < ENOUGH:
            continue
        if d.fit > FIT:
            LOG.warning(
                "stream %r: the analysis does not fit its %d observations within their errors "
                "(chi-squared %.2f each, expected %.2f): %s",
                d.name,
                d.count,
                d.chi_squared,
                d.chi_squared / d.fit,
                _advice(d),
            )
        if d.spread is not None and not 1.0 / SPREAD < d.spread < SPREAD:
            LOG.warning(
                "stream %r: the spread of the ensemble is %.2f times what its innovations imply: "
                "check the errors of the observations and the background, or fit an inflation",
                d.name,
                d.spread,
            )


def _advice(d: StreamDiagnostics) -> str:
    """What to do about a stream that is not fitted, by what the misfit is made of."""
    if abs(d.residual_mean) > BIASED * d.residual_rms:
        return (
            f"they differ from it by {d.residual_mean:.3g} on average: check the units and the "
            "bias of the stream and of the background"
        )
    return "its errors are too small, or take more guidance iterations"


def _of_stream(
    stream: Stream,
    states: Float[np.ndarray, "member time lat lon channel"],
    mean: Trajectory,
    before: Trajectory | None,
) -> StreamDiagnostics:
    sums = {name: float(value) for name, value in _sums(stream, mean, before).items()}
    count = int(sums["count"])
    spread, chi_squared = _spread(stream, states), sums["misfit"] / count
    # The mean of a finite ensemble has some of its spread left.
    expected = 1.0 - spread / count * (1.0 - 1.0 / len(states))
    expected = max(expected, 1.0 / count)
    return StreamDiagnostics(
        name=stream.name,
        count=count,
        innovation_rms=None if before is None else math.sqrt(sums["innovation_2"] / count),
        innovation_mean=None if before is None else sums["innovation"] / count,
        residual_rms=math.sqrt(sums["residual_2"] / count),
        residual_mean=sums["residual"] / count,
        chi_squared=chi_squared,
        degrees_of_freedom=spread,
        fit=chi_squared / expected,
        spread=math.sqrt(spread / sums["implied"]) if sums.get("implied", 0.0) > 0 else None,
    )


def _spread(stream: Stream, states: Float[np.ndarray, "member time lat lon channel"]) -> float:
    """The variance of W H(x) over the ensemble, summed over the observations.

    One member after the other is on the device (Welford 1962, Technometrics 4, 419).
    """
    mean = _white(stream, jnp.asarray(states[0]))
    square = jnp.zeros_like(mean)
    for n, state in enumerate(states[1:], start=2):
        mean, square = _with_member(stream, jnp.asarray(state), jnp.float32(n), mean, square)
    return float(jnp.sum(square)) / max(len(states) - 1, 1)


@jax.jit
def _white(stream: Stream, state: Trajectory) -> Array:
    """W (y - H(x)), zero where nothing is observed."""
    return stream.covariance.whiten(innovation(stream, state), jnp.zeros(()))


@jax.jit
def _with_member(stream: Stream, state: Trajectory, n: Array, mean: Array, square: Array):
    """Mean and summed squared deviation of n members, from those of n - 1 and the next one."""
    white = _white(stream, state)
    moved = mean + (white - mean) / n
    return moved, square + (white - mean) * (white - moved)


@jax.jit
def _sums(stream: Stream, mean: Trajectory, before: Trajectory | None) -> dict[str, Array]:
    """Sums over the observations, from which all else but the spread follows."""
    zero = jnp.zeros(())
    white = lambda r: stream.covariance.whiten(r, zero)
    residual = innovation(stream, mean)
    sums = {
        "count": jnp.sum(stream.mask),
        "misfit": jnp.sum(white(residual) ** 2),
        "residual": jnp.sum(residual),
        "residual_2": jnp.sum(residual**2),
    }
    if before is not None:
        # Only missing values of the background itself could make an innovation missing.
        first = jnp.nan_to_num(innovation(stream, before))
        sums["innovation"] = jnp.sum(first)
        sums["innovation_2"] = jnp.sum(first**2)
        sums["implied"] = jnp.sum(white(first - residual) * white(residual))
    return sums
