r"""Gaussian anamorphosis of the state: rain as a censored normal variable.

Amounts that are never negative, and often exactly zero, are a normal variable z seen from one side:

    x = scale z^power  where z > c,    x = 0 elsewhere,      c = (trace / scale)^(1/power).

Networks, the prior and the errors of the background are of z. What comes out goes through this
formula, so that no draw is negative and dry places are exactly dry (Sigrist et al. 2012, Ann. Appl.
Stat. 6, 1452; Lien et al. 2013, Tellus A 65, 19942, for data assimilation).

A dry value says no more than z < c. In a state, it is drawn at random from N(mean, std^2) below c,
where mean and std of each point follow from how often it rains and how much (`fit_anamorphosis`):
to put all dry days on one number would leave a spike that no normal variable has. The draw depends
on the time, the point and the channel alone, so that data are the same whenever they are read. A
background is what is known, not what is to be drawn: its dry values are the mean of z below c.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import log_ndtr, ndtr, ndtri

from slams_jax.aliases import Trajectory
from slams_jax.errors import InputError
from slams_jax.schema import Channel

_BELOW = 1e-2  # of the scale: packing leaves values this far below zero, which count as zero
_PRIOR = 10  # wet days that a point's own amounts must outweigh
_ROWS = 256  # times read at once
_NODES = 32  # of the quadrature over z

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class Censored:
    """How a variable is censored. Hashable.

    Attributes:
        power: of z; 2 to 3 suit daily rain, the larger the smaller the cells.
        scale: amount at z = 1, in the library's units.
        trace: amount up to which it counts as dry, likewise.

    Raises:
        InputError: a power below one, a scale that is not positive, or a negative trace.
    """

    power: float = 2.5
    scale: float = 1e-3
    trace: float = 1e-4

    def __post_init__(self):
        if not 1.0 <= self.power < math.inf:
            raise InputError(f"the power of a censored variable must be >= 1, got {self.power}")
        if not 0.0 < self.scale < math.inf:
            raise InputError(f"the scale of a censored variable must be > 0, got {self.scale}")
        if not 0.0 <= self.trace < math.inf:
            raise InputError(f"the trace of a censored variable must be >= 0, got {self.trace}")

    @property
    def threshold(self) -> float:
        """c, above which z is wet."""
        return (self.trace / self.scale) ** (1.0 / self.power)


Transforms = tuple[Censored | None, ...]  # of each channel of the state; () for none at all


def transforms_of(channels: Sequence[Channel], given: Mapping[str, Censored]) -> Transforms:
    """The transform of each channel; () if none has one.

    Raises:
        InputError: a transform of a variable that the state does not have.
    """
    names = list(dict.fromkeys(c.variable for c in channels))
    for name in given:
        if name not in names:
            raise InputError(
                f"transforms name {name!r}, which is no variable of the state: choose from {names}"
            )
    return tuple(given.get(c.variable) for c in channels) if given else ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Physical:
    """From states of z to states in physical units, as an operator; other channels stay.

    Attributes:
        transforms: of each channel.
    """

    transforms: Transforms = dataclasses.field(metadata={"static": True})

    def __call__(self, state: Trajectory) -> Trajectory:
        """The state in physical units."""
        return physical(self.transforms, state)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Root:
    """From amounts to max(c, (x / scale)^(1/power)): z where it is wet, and c where it is dry.

    What lies behind the rain of a point is a linear function of it, so that guidance, which goes by
    tangents, does not overshoot as it would by the amounts, the slope of which grows with z.

    Attributes:
        transform: of the variable.
    """

    transform: Censored = dataclasses.field(metadata={"static": True})

    def __call__(self, amount: Array) -> Array:
        """The root of amounts of any shape."""
        lowest = max(self.transform.trace, 1e-6 * self.transform.scale)
        wet = amount > lowest
        # A root of zero has an infinite derivative; NaN is neither wet nor dry.
        root = jnp.where(wet, amount, lowest) / self.transform.scale
        root = root ** (1.0 / self.transform.power)
        root = jnp.where(wet, root, self.transform.threshold)
        return jnp.where(jnp.isnan(amount), jnp.nan, root)

    def errors(self, amount: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Standard deviations of roots: half the difference between those one error up and down."""
        scale, power = self.transform.scale, 1.0 / self.transform.power
        amount = np.maximum(np.nan_to_num(np.asarray(amount, np.float64)), 0.0)
        root = lambda x: np.maximum(x / scale, 0.0) ** power
        return 0.5 * (root(amount + error) - root(amount - error))


def physical(transforms: Transforms, state: ArrayT) -> ArrayT:
    """x of z (..., channel), the inverse of `Anamorphosis.gaussian`; other channels stay.

    Args:
        transforms: of each channel; () returns the state as it is.
        state: with channels last.
    """
    for i, transform in enumerate(transforms):
        if transform is None:
            continue
        if isinstance(state, np.ndarray):
            state = state.copy()
            state[..., i] = _amount(transform, state[..., i], np)
        else:
            state = state.at[..., i].set(_amount(transform, state[..., i], jnp))
    return state


def _amount(transform: Censored, z: Any, xp: Any) -> Any:
    dry = z <= transform.threshold  # not so what is missing
    # A power of what is not positive has no derivative.
    return xp.where(dry, 0.0, transform.scale * xp.where(dry, 1.0, z) ** transform.power)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Anamorphosis:
    """The transforms of a state, and the normal variables that dry values are drawn from.

    Attributes:
        transforms: of each channel.
        mean: of z; zero for channels without a transform.
        std: likewise; one for these.
    """

    transforms: Transforms = dataclasses.field(metadata={"static": True})
    mean: Float[np.ndarray, "lat lon channel"]
    std: Float[np.ndarray, "lat lon channel"]

    def gaussian(
        self, x: np.ndarray, times: np.ndarray | None, *, name: str = "state"
    ) -> np.ndarray:
        """z of x (..., lat, lon, channel), NaN where missing; other channels stay.

        Args:
            x: physical units.
            times: of each field, datetime64 (...): dry values are drawn; None takes their mean.
            name: of the field in error messages.

        Raises:
            InputError: a negative amount.
        """
        x = np.array(x)
        for i, transform in enumerate(self.transforms):
            if transform is None:
                continue
            amount = _checked(transform, x[..., i], name)
            mean, std = (a[..., i].astype(np.float64) for a in (self.mean, self.std))
            dry = amount <= transform.trace
            below = np.broadcast_to((transform.threshold - mean) / std, amount.shape)[dry]
            if times is None:
                # E[z | z < c], by the inverse Mills ratio.
                z = -np.exp(-0.5 * below**2 - log_ndtr(below)) / math.sqrt(2.0 * math.pi)
            else:
                z = ndtri(_uniform(times, amount.shape, i)[dry] * ndtr(below))
            root = (np.maximum(amount, 0.0) / transform.scale) ** (1.0 / transform.power)
            mean, std = (np.broadcast_to(a, amount.shape)[dry] for a in (mean, std))
            # Rounding must not make a dry value wet.
            highest = np.nextafter(np.float32(transform.threshold), np.float32(-np.inf))
            root[dry] = np.minimum(mean + std * np.maximum(z, -8.0), highest)
            x[..., i] = root
        return x

    def moments(
        self, mean: Float[np.ndarray, "lat lon channel"], std: Float[np.ndarray, " channel"]
    ) -> tuple[Float[np.ndarray, "lat lon channel"], Float[np.ndarray, " channel"]]:
        """Mean of x at each point and its standard deviation over all, for z ~ N(mean, std^2)."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        weights = weights / weights.sum()
        mean, std = np.array(mean), np.array(std)
        for i, transform in enumerate(self.transforms):
            if transform is not None:
                z = mean[..., i, None].astype(np.float64) + std[i] * nodes
                x = _amount(transform, z, np)
                mean[..., i] = x @ weights
                square = np.square(x - mean[..., i, None]) @ weights
                std[i] = np.sqrt(square.mean())
        return mean, std


def fit_anamorphosis(
    array: Float[np.ndarray, "time lat lon channel"],
    transforms: Transforms,
    weights: Float[np.ndarray, "lat lon"],
) -> Anamorphosis:
    """The normal variable of each point that has its share of wet times and its mean of (z - c)+.

    With w the share of wet times and m the mean of max(0, z - c) over all times, a normal variable
    of mean c + a s and standard deviation s has Φ(a) = w and s (a Φ(a) + φ(a)) = m. Where few times
    are wet, s is drawn to that of all points.

    Args:
        array: the training period, physical units, NaN where missing; may be memory-mapped.
        transforms: of each channel.
        weights: areas.

    Raises:
        InputError: a negative amount, or a variable that is never wet.
    """
    shape = array.shape[1:]
    mean, std = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    for i, transform in enumerate(transforms):
        if transform is None:
            continue
        count, wet, total = np.zeros(shape[:2]), np.zeros(shape[:2]), np.zeros(shape[:2])
        for start in range(0, len(array), _ROWS):
            amount = _checked(transform, array[start : start + _ROWS, ..., i], "state")
            is_wet = amount > transform.trace
            root = (np.where(is_wet, amount, 0.0) / transform.scale) ** (1.0 / transform.power)
            count += np.isfinite(amount).sum(axis=0)
            wet += is_wet.sum(axis=0)
            total += np.where(is_wet, root - transform.threshold, 0.0).sum(axis=0)
        if not wet.any():
            raise InputError(
                f"channel {i} of the state is never above its trace of {transform.trace:g} in the "
                "training period: check its units, or leave it out"
            )
        # Half a time more of each keeps points that are always wet, or never, finite.
        a = ndtri((wet + 0.5) / (count + 1.0))
        density = np.exp(-0.5 * a**2) / math.sqrt(2.0 * math.pi)
        own = total / np.maximum(count, 1.0) / (a * ndtr(a) + density)
        common = np.sum(weights * wet * own) / np.sum(weights * wet)
        s = (wet * own + _PRIOR * common) / (wet + _PRIOR)
        mean[..., i], std[..., i] = transform.threshold + a * s, s
    return Anamorphosis(transforms, mean, std)


def _checked(transform: Censored, amount: np.ndarray, name: str) -> np.ndarray:
    """The amounts in double precision, of which rounding leaves none below zero."""
    amount = np.asarray(amount, np.float64)
    lowest = float(np.min(amount, initial=0.0, where=np.isfinite(amount)))
    if lowest < -_BELOW * transform.scale:
        raise InputError(
            f"{name}: an amount of {lowest:.4g} is negative, but a censored variable never is: "
            "declare the fill value, or leave out its transform"
        )
    return amount


def _uniform(times: np.ndarray, shape: Sequence[int], channel: int) -> np.ndarray:
    """Numbers in (0, 1) for each value (..., lat, lon): mixed from its time, point and channel."""
    seconds = np.asarray(times, "datetime64[s]").astype(np.int64).astype(np.uint64)
    point = np.arange(math.prod(shape[-2:]), dtype=np.uint64).reshape(shape[-2:])
    key = _mixed(seconds + _mixed(np.full(seconds.shape, channel, np.uint64)))
    bits = _mixed(key[..., None, None] + point) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) / 2.0**53


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014, OOPSLA): a bijection that scatters neighbours."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
