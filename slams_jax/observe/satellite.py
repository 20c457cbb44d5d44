"""What satellites see of a temperature profile: a microwave sounder and outgoing longwave.

Both are the integral of emission over transmittance 𝒯, seen from above:

    y = B(T_s) 𝒯(p_s) + ∫ B(T(p)) (-d𝒯/dp) dp,    𝒯(0) = 1,

with B(T) = T for a microwave brightness temperature (Rayleigh-Jeans) and B(T) = σ T^4 for the
longwave flux. Between levels B is linear in log-pressure and above the top level constant; the
surface has the temperature of the profile at p_s. The weights of the levels then sum to one.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Trajectory
from slams_jax.errors import InputError
from slams_jax.schema import Channel

SOUNDER_PEAKS = (20.0, 60.0, 120.0, 250.0, 450.0, 750.0)  # hPa, as of AMSU-A channels 5 to 11
SURFACE_PRESSURE = 1013.25  # hPa
STEFAN_BOLTZMANN = 5.670374419e-8  # W m-2 K-4, CODATA 2018

# Grey optical depth of Frierson, Held & Zurita-Gotor 2006 (J. Atmos. Sci. 63, 2548-2566), their
# equations 2 and 3: 6 at the equator, 1.5 at the poles, with sin² of latitude between; its mean
# over the globe, and the part of it that is linear in pressure.
LONGWAVE_DEPTH, LINEAR_PART = 4.5, 0.1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sounder:
    """Brightness temperatures of a microwave temperature sounder. Build it with `Sounder.of`.

    The absorber is well mixed and its lines are broadened by pressure, so that the optical depth
    in the wing of a line grows with p² and channel j has transmittance exp(-(p / p_j)²), whose
    weighting function -d𝒯/d ln p peaks at p_j (Houghton, Taylor & Rodgers 1984, Remote Sounding
    of Atmospheres).

    Attributes:
        weights: of each temperature level in each sounding channel; rows sum to one.
        index: positions of the temperature levels among the state's channels.
    """

    weights: Float[Array, "sounding level"]
    index: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Float[Array, "time lat lon sounding"]:
        """Return the brightness temperatures (K) of `state` (K)."""
        return jnp.einsum("tijk,sk->tijs", state[..., np.asarray(self.index)], self.weights)

    @classmethod
    def of(
        cls, channels: Sequence[Channel], *, peaks: Sequence[float] = SOUNDER_PEAKS
    ) -> "Sounder":
        """The sounder for a state of `channels`, with weighting functions peaking at `peaks` (hPa).

        Raises:
            InputError: no temperature levels, too few of them, or peaks beyond them.
        """
        if not peaks or any(not 0.0 < p < SURFACE_PRESSURE for p in peaks):
            raise InputError(f"peaks must lie in (0, {SURFACE_PRESSURE}) hPa, got {tuple(peaks)}")
        index, levels = _profile(channels, min(peaks) * 1.5, max(peaks), "the sounder")
        weights = [
            _weights(levels, lambda p, peak=peak: np.exp(-((p / peak) ** 2))) for peak in peaks
        ]
        return cls(jnp.asarray(np.stack(weights), jnp.float32), index)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OutgoingLongwave:
    """Outgoing longwave radiation of a grey atmosphere. Build it with `OutgoingLongwave.of`.

    Transmittance is exp(-τ) with the optical depth of Frierson, Held & Zurita-Gotor (2006),

        τ(p) = 4.5 (0.1 s + 0.9 s⁴),    s = p / p_s,

    in which the diffusivity factor is contained: most of it where most of the water vapour is.

    Attributes:
        weights: of each temperature level; they sum to one.
        index: positions of the temperature levels among the state's channels.
    """

    weights: Float[Array, " level"]
    index: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Float[Array, "time lat lon"]:
        """Return the flux (W/m²) of `state` (K)."""
        # σ T⁴ as 1e8 σ (T/100)⁴, whose parts are of order one to a hundred in 32 bits.
        emission = (STEFAN_BOLTZMANN * 1e8) * (state[..., np.asarray(self.index)] / 100.0) ** 4
        return emission @ self.weights

    @classmethod
    def of(
        cls, channels: Sequence[Channel], *, depth: float = LONGWAVE_DEPTH
    ) -> "OutgoingLongwave":
        """The operator for a state of `channels`, with optical depth `depth` at the surface.

        Raises:
            InputError: no temperature levels, none in the upper or the lower troposphere, or a
                depth that is not positive.
        """
        if not depth > 0.0:
            raise InputError(f"the optical depth must be positive, got {depth}")
        index, levels = _profile(channels, 300.0, 700.0, "outgoing longwave radiation")

        def transmittance(p):
            s = p / SURFACE_PRESSURE
            return np.exp(-depth * (LINEAR_PART * s + (1.0 - LINEAR_PART) * s**4))

        return cls(jnp.asarray(_weights(levels, transmittance), jnp.float32), index)


def _profile(
    channels: Sequence[Channel], top: float, bottom: float, what: str
) -> tuple[tuple[int, ...], np.ndarray]:
    """Positions and pressures (hPa) of the temperature levels, which must reach both ends."""
    found = [
        (i, c.level)
        for i, c in enumerate(channels)
        if c.variable == "temperature" and c.level is not None
    ]
    levels = np.asarray([level for _, level in found], dtype=np.float64)
    if levels.size < 2:
        names = ", ".join(str(c) for c in channels) or "nothing"
        raise InputError(f"{what} needs temperature on pressure levels, but the state has {names}")
    if levels[0] > top or levels[-1] < bottom:
        raise InputError(
            f"{what} needs temperature from {top:g} hPa or above to {bottom:g} hPa or below, but "
            f"the state has it from {levels[0]:g} to {levels[-1]:g} hPa: add levels"
        )
    return tuple(i for i, _ in found), levels


def _weights(levels: np.ndarray, transmittance: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Weight of each level: the integral of its hat function in log-pressure over transmittance."""
    edges = np.log(np.geomspace(1e-3 * levels[0], SURFACE_PRESSURE, 4001))
    seen = np.concatenate([[1.0], transmittance(np.exp(edges))])
    # Everything above the first edge counts there, the surface at the last.
    emitted = np.concatenate([seen[:-1] - seen[1:], seen[-1:]])
    places = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    hats = [np.interp(places, np.log(levels), unit) for unit in np.eye(levels.size)]
    return np.stack(hats) @ emitted
