"""Satellite observations of a temperature profile: microwave sounder, outgoing longwave radiation.

Both integrate emission over the transmittance 𝒯 to space:

    y = B(T_s) 𝒯(p_s) + ∫ B(T(p)) (-d𝒯/dp) dp,    𝒯(0) = 1,

with B(T) = T for a microwave brightness temperature (Rayleigh-Jeans) and B(T) = σ T^4 for the
longwave flux. B is linear in log-pressure between levels and constant above the top level; the
surface temperature is that of the profile at p_s. The weights of the levels then sum to one.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Trajectory
from slams_jax.errors import InputError
from slams_jax.products import product
from slams_jax.schema import Channel

SOUNDER_PEAKS = (20.0, 60.0, 120.0, 250.0, 450.0, 750.0)  # hPa, as of AMSU-A channels 5 to 11
SURFACE_PRESSURE = 1013.25  # hPa
STEFAN_BOLTZMANN = 5.670374419e-8  # W m-2 K-4, CODATA 2018

# Grey optical depth of Frierson, Held & Zurita-Gotor 2006 (J. Atmos. Sci. 63, 2548-2566), eqs. 2
# and 3: 6 at the equator and 1.5 at the poles, varying with sin² of latitude. Its global mean, and
# the fraction of it that is linear in pressure.
LONGWAVE_DEPTH, LINEAR_PART = 4.5, 0.1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sounder:
    """Brightness temperatures of a microwave temperature sounder. Build it with `Sounder.of`.

    The absorber is well mixed and its lines are pressure-broadened, so that the optical depth in
    the wing of a line grows as p²: channel j has the transmittance exp(-(p / p_j)²), whose
    weighting function -d𝒯/d ln p peaks at p_j (Houghton, Taylor & Rodgers 1984, Remote Sounding of
    Atmospheres).

    Attributes:
        weights: of each temperature level in each sounding channel; rows sum to one.
        index: positions of the temperature levels among the state's channels.
    """

    weights: Float[Array, "sounding level"]
    index: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Float[Array, "time lat lon sounding"]:
        """Return the brightness temperatures (K) of `state` (K)."""
        return product("tijk,sk->tijs", state[..., np.asarray(self.index)], self.weights)

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

    which includes the diffusivity factor and is largest where most of the water vapour is.

    Attributes:
        weights: of each temperature level; they sum to one.
        index: positions of the temperature levels among the state's channels.
    """

    weights: Float[Array, " level"]
    index: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Float[Array, "time lat lon"]:
        """Return the flux (W/m²) of `state` (K)."""
        # σ T⁴ as 1e8 σ (T/100)⁴, whose factors are of order 1 to 100 in float32.
        emission = (STEFAN_BOLTZMANN * 1e8) * (state[..., np.asarray(self.index)] / 100.0) ** 4
        return product("tijk,k->tij", emission, self.weights)

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
            raise InputError(f"depth must be a positive optical depth, got {depth}")
        index, levels = _profile(channels, 300.0, 700.0, "outgoing longwave radiation")

        def transmittance(p):
            s = p / SURFACE_PRESSURE
            return np.exp(-depth * (LINEAR_PART * s + (1.0 - LINEAR_PART) * s**4))

        return cls(jnp.asarray(_weights(levels, transmittance), jnp.float32), index)


def _profile(
    channels: Sequence[Channel], top: float, bottom: float, what: str
) -> tuple[tuple[int, ...], np.ndarray]:
    """Positions and pressures (hPa) of the temperature levels, which must extend to both ends."""
    index = tuple(
        i for i, c in enumerate(channels) if c.variable == "temperature" and c.level is not None
    )
    levels = np.asarray([channels[i].level for i in index], dtype=np.float64)
    if levels.size < 2:
        names = ", ".join(str(c) for c in channels) or "nothing"
        raise InputError(f"{what} needs temperature on pressure levels, but the state has {names}")
    if levels[0] > top or levels[-1] < bottom:
        raise InputError(
            f"{what} needs temperature from {top:g} hPa or above to {bottom:g} hPa or below, but "
            f"the state has it from {levels[0]:g} to {levels[-1]:g} hPa: add levels"
        )
    return index, levels


def _weights(levels: np.ndarray, transmittance: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Weight of each level: its hat function in log-pressure, integrated over the transmittance."""
    edges = np.log(np.geomspace(1e-3 * levels[0], SURFACE_PRESSURE, 4001))
    to_space = np.concatenate([[1.0], transmittance(np.exp(edges))])
    # Emission above the first edge is assigned to it, that of the surface to the last.
    emitted = np.concatenate([to_space[:-1] - to_space[1:], to_space[-1:]])
    places = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    hats = [np.interp(places, np.log(levels), unit) for unit in np.eye(levels.size)]
    return np.stack(hats) @ emitted
