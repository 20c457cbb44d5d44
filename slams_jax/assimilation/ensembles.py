"""An ensemble of forecasts as background: as a covariance of its errors, or where draws start.

*Hybrid*: the errors of a background that is the mean of members have the covariance

    R = (1 - w) S + w L o (X X^T),

with S of the statistics of the model, the members' departures in the columns of X, and a
localisation L that takes off what few members tell of places far from one another. L is a sum of
products of bumps, so that each member gives as many columns as there are bumps: the modulated
ensemble of Bishop, Whitaker & Lei (2017), Mon. Wea. Rev. 145, 4575-4592.

*Inversion*: each member is taken to a noise level, from which the guided sampler leads back. Of the
member there remains what stands above the noise; the prior and the observations say the rest. No
statistics of errors are needed (DAISI, Andrae et al. 2025, does so with a deterministic flow).
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slams_jax.cycling import localisation
from slams_jax.errors import InputError, require_positive
from slams_jax.gaussian import HybridCovariance, ModalCovariance
from slams_jax.grid import EARTH_RADIUS


@dataclasses.dataclass(frozen=True)
class HybridConfig:
    """How the members of a background enter the covariance of its errors.

    Attributes:
        weight: w, of the members; the statistics have the rest. 0 takes the mean of the members,
            with the errors of the statistics.
        inflation: factor of the departures of the members from their mean.
        radius: of localisation, km: correlations over a distance d are multiplied by about
            exp(-d² / 2 radius²); None for none.
        patterns: of the members' covariance that are kept, those that differ most from the
            statistics; the variance of the others is spread evenly. Memory grows with their number,
            and time with its square.

    Raises:
        InputError: a weight outside [0, 1), or a number that is not positive.
    """

    weight: float = 0.5
    inflation: float = 1.0
    radius: float | None = 2000.0
    patterns: int = 400

    def __post_init__(self):
        if not 0.0 <= self.weight < 1.0:
            raise InputError(
                f"weight of HybridConfig must lie in [0, 1), got {self.weight}: members alone "
                "leave most directions without error"
            )
        names = ("inflation", "patterns", *(["radius"] if self.radius is not None else []))
        require_positive({name: getattr(self, name) for name in names}, "HybridConfig")


@dataclasses.dataclass(frozen=True)
class InversionConfig:
    """Draws start from noisy members of the background, in turn, in place of pure noise.

    A draw from member f is one of p(x) N(f + s e; x, s^2) p(y | x), s = sigma / alpha of the level
    and e white noise: all members count the same, however well they fit the observations.

    Attributes:
        level: t of the noise, in (0, 1): the larger, the less is left of the members.

    Raises:
        InputError: a level outside (0, 1).
    """

    level: float = 0.5

    def __post_init__(self):
        if not 0.0 < self.level < 1.0:
            raise InputError(
                f"level of InversionConfig must lie in (0, 1), got {self.level}: at 0 members stay "
                "as they are, at 1 nothing is left of them"
            )


def hybrid_covariance(
    static: ModalCovariance,
    members: Float[np.ndarray, "member time lat lon channel"],
    places: tuple[Float[np.ndarray, " lat"], Float[np.ndarray, " lon"]],
    config: HybridConfig,
) -> ModalCovariance | HybridCovariance:
    """R of the mean of `members`.

    Args:
        static: S.
        members: as they are diffused.
        places: latitudes and longitudes of their points, degrees.
        config: the weight, and how members are localised.

    Raises:
        InputError: members that are all the same.
    """
    if config.weight == 0.0:
        return static
    if np.array_equal(members[1:], members[:-1]):
        raise InputError(
            "the members of the background are all the same: give their mean alone, or set "
            "the weight of HybridConfig to 0"
        )
    departures = members - members.mean(axis=0)
    departures *= config.inflation * math.sqrt(config.weight / (len(members) - 1))
    if config.radius is not None:
        bumps = partition(*places, config.radius)[None, :, None, :, :, None]
        departures = (departures[:, None] * bumps).reshape(-1, *departures.shape[1:])
    return HybridCovariance.of(
        static.inflated(jnp.float32(1.0 - config.weight)), departures, config.patterns
    )


def partition(
    latitude: Float[np.ndarray, " lat"], longitude: Float[np.ndarray, " lon"], radius: float
) -> Float[np.ndarray, "bump lat lon"]:
    """Bumps b on a grid: the sum of b(x) b(y) is 1 for x = y and about exp(-d² / 2 radius²) else.

    Their centres lie a radius apart, on a spiral over the sphere (Swinbank & Purser 2006, Q. J. R.
    Meteorol. Soc. 132, 1769-1793); those far from the grid are left out.

    Args:
        latitude: of the grid, degrees north.
        longitude: degrees east.
        radius: km.
    """
    # Each centre has the area of a hexagon.
    area = math.sqrt(0.75) * (1e3 * radius / EARTH_RADIUS) ** 2
    count = math.ceil(4.0 * math.pi / area)
    turns = np.arange(count) + 0.5
    centres = (
        np.rad2deg(np.arcsin(1.0 - 2.0 * turns / count)),
        np.mod(180.0 * (3.0 - math.sqrt(5.0)) * turns, 360.0),
    )
    points = np.meshgrid(latitude, longitude, indexing="ij")
    bumps = localisation(centres, (points[0], points[1]), radius / math.sqrt(2.0))
    bumps = bumps[bumps.max(axis=(1, 2)) > 1e-3]
    return bumps / np.sqrt(np.sum(bumps**2, axis=0, keepdims=True))
