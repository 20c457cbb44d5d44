"""An ensemble of forecasts as background: as a covariance of its errors, or where draws start.

*Hybrid*: given K members alone, the state is N(m - b, B), with their mean m, its bias b, and

    B = (1 + 1 / K) ((1 - w) v E + w L o (X X^T)).

E is the covariance of the state given one background, of the statistics of the model, and v E has
the mean variance of the members, whose departures are the columns of X. The localisation L takes
off what few members tell of places far from one another. It is a sum of products of bumps, so that
each member gives as many columns as there are bumps: the modulated ensemble of Bishop, Whitaker &
Lei (2017), Mon. Wea. Rev. 145, 4575-4592. 1 / K is for the error of a mean of K members; of modes
that can hardly be forecast the mean is mostly such noise, and counts by the share that is not.
Forecasts come from the climate that the prior describes, N(0, P) in Gaussian terms: it is
N(x; m - b, B) / N(x; 0, P) that an analysis multiplies the prior with.

*Inversion*: each member is taken to a noise level, from which the guided sampler leads back. Of the
member there remains what stands above the noise; the prior and the observations say the rest. No
statistics of errors are needed (DAISI, Andrae et al. 2025, does so with a deterministic flow).
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import Trajectory
from slams_jax.cycling import localisation
from slams_jax.errors import InputError, require_positive
from slams_jax.gaussian import (
    GaussianPrior,
    HybridCovariance,
    ModalCovariance,
    ModalOperator,
    Regression,
    forecast_likelihood,
)
from slams_jax.gaussian.modes import scaled
from slams_jax.grid import EARTH_RADIUS


@dataclasses.dataclass(frozen=True)
class HybridConfig:
    """What the members of a background tell of the errors of their mean.

    Attributes:
        weight: w, of the members; the statistics have the rest. With 0 the members tell no more
            than how large errors are on the whole.
        inflation: factor of the departures of the members from their mean.
        radius: of localisation, km: correlations over a distance d are multiplied by about
            exp(-d² / 2 radius²); None for none.
        patterns: of the members' covariance that are kept, those that differ most from the
            statistics; the variance of the others is added to that of these. Memory grows with
            their number, and time with its square.

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

    level: float = 0.2

    def __post_init__(self):
        if not 0.0 < self.level < 1.0:
            raise InputError(
                f"level of InversionConfig must lie in (0, 1), got {self.level}: at 0 members stay "
                "as they are, at 1 nothing is left of them"
            )


def ensemble_likelihood(
    prior: GaussianPrior,
    background: Regression,
    members: Float[np.ndarray, "member time lat lon channel"],
    known: Bool[np.ndarray, " time"],
    places: tuple[Float[np.ndarray, " lat"], Float[np.ndarray, " lon"]],
    config: HybridConfig,
) -> tuple[Trajectory, ModalOperator, ModalCovariance | HybridCovariance]:
    """y, M and R of several members.

    Args:
        prior: N(0, P).
        background: statistics of a single one.
        members: as they are diffused.
        known: the frames that were forecast.
        places: latitudes and longitudes of their points, degrees.
        config: how the members enter.

    Raises:
        InputError: members that are all the same.
    """
    if np.array_equal(members[1:], members[:-1]):
        raise InputError(
            "the members of the background are all the same: give one of them alone, without the "
            "dimension 'member'"
        )
    count, frames = len(members), np.flatnonzero(known)
    mean = members.mean(axis=0)
    departures = members - mean
    departures *= config.inflation / math.sqrt(count - 1)
    spread = np.mean(np.sum(departures[:, frames] ** 2, axis=0))
    share = background.unexplained(prior)
    usual = tuple((s * p.variance)[..., None] for s, p in zip(share, prior.spectra, strict=True))
    scale = spread / float(prior.modes.mean_variance(usual)[0])
    share = tuple(jnp.float32(scale) * s for s in share)
    more, weight = 1.0 + 1.0 / count, config.weight
    columns = None
    if weight > 0.0:
        columns = _localised(math.sqrt(more * weight) * departures, places, config.radius)
    mean = np.where(known[:, None, None, None], mean - np.asarray(background.offset[0]), 0.0)
    coefficients = prior.modes.coefficients(jnp.asarray(mean, jnp.float32))
    mean = prior.modes.field(scaled(coefficients, tuple(_of_mean(s, count) for s in share)))
    return forecast_likelihood(
        prior,
        tuple(more * (1.0 - weight) * s for s in share),
        mean,
        columns,
        known,
        config.patterns,
    )


def _localised(
    departures: Float[np.ndarray, "member time lat lon channel"],
    places: tuple[Float[np.ndarray, " lat"], Float[np.ndarray, " lon"]],
    radius: float | None,
) -> Float[np.ndarray, "column time lat lon channel"]:
    """Columns of a root of L o (X X^T)."""
    if radius is None:
        return departures
    bumps = partition(*places, radius)[None, :, None, :, :, None]
    return (departures[:, None] * bumps).reshape(-1, *departures.shape[1:])


def _of_mean(share: Array, count: int) -> Float[Array, "block mode 1"]:
    """The share of the variance of a mean of `count` members that is not their noise."""
    told = jnp.maximum(1.0 - share, 0.0)
    return (told / (told + share / count))[..., None]


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
