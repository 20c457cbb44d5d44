r"""Gaussian approximation of the prior, which tells guidance how far observations reach.

The covariance of a trajectory of standardised frames is modelled as separable in time, space and
channel, P = T \otimes (Q L Q^T + f (I - Q Q^T)) \otimes (U K U^T). For a Gaussian prior, the
uncertainty of x_0 given x_t = alpha x_0 + sigma eps is

    cov(x_0 | x_t) = (P^-1 + alpha^2 / sigma^2)^-1,

a function of the eigenvalues of P. Only second moments are taken from this approximation: the mean
remains that of the network.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Trajectory
from slams_jax.errors import InputError
from slams_jax.observe.covariance import Separable, fit_separable


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PriorCovariance:
    """The covariance P of a trajectory of standardised frames.

    Attributes:
        frame: of one frame; its standard deviations are one, the patterns carry the variance.
        lags: correlation between frames 0, 1, 2, ... times apart; zero at larger distances.
    """

    frame: Separable
    lags: Float[Array, " lag"]

    def posterior(self, x: Trajectory, ratio: Float[Array, ""]) -> Trajectory:
        """(P^-1 + 1 / ratio)^-1 x, for a noise variance `ratio` = sigma^2 / alpha^2."""
        frame = self.frame
        times, vectors = self._time_modes(x.shape[0])
        y = x.reshape(x.shape[0], -1, x.shape[-1])
        y = jnp.einsum("ts,tpc,cd->spd", vectors, y, frame.channel_vectors)
        patterns = jnp.einsum("pr,tpd->trd", frame.patterns, y)
        shared = times[:, None, None] * frame.channel_variance[None, None, :]
        shrink = lambda variance: variance * ratio / (variance + ratio)
        floor = shrink(shared * frame.floor)
        leading = shrink(shared * frame.pattern_variance[None, :, None])
        y = y * floor + jnp.einsum("pr,trd->tpd", frame.patterns, patterns * (leading - floor))
        y = jnp.einsum("ts,spd,cd->tpc", vectors, y, frame.channel_vectors)
        return y.reshape(x.shape)

    def _time_modes(self, count: int) -> tuple[Array, Array]:
        """Eigenvalues and -vectors of the correlation between `count` times."""
        apart = np.abs(np.arange(count)[:, None] - np.arange(count)[None, :])
        padded = jnp.pad(self.lags, (0, max(0, count - self.lags.shape[0])))
        values, vectors = jnp.linalg.eigh(padded[apart])
        return jnp.maximum(values, 1e-4), vectors


def fit_prior(
    frames: Float[np.ndarray, "time lat lon channel"], *, rank: int = 200, lags: int = 10
) -> PriorCovariance:
    """Estimate a `PriorCovariance` from consecutive standardised frames.

    Correlations in time are tapered to zero at `lags`, beyond which sampling noise dominates.

    Args:
        frames: of the training period; missing values count as zero anomalies.
        rank: largest number of horizontal patterns to keep.
        lags: number of lags, including zero.

    Raises:
        InputError: fewer frames than twice the lags.
    """
    if len(frames) < 2 * lags:
        raise InputError(
            f"a prior covariance needs at least {2 * lags} frames, got {len(frames)}: lengthen the "
            "training period"
        )
    anomalies = np.nan_to_num(frames - np.nanmean(frames, axis=0))
    frame, _ = fit_separable(anomalies, rank=rank, uniform=True)
    products = [np.mean(anomalies[k:] * anomalies[: len(anomalies) - k]) for k in range(lags)]
    taper = 1.0 - np.arange(lags) / lags
    return PriorCovariance(frame, jnp.asarray(taper * products / products[0], jnp.float32))
