r"""Path weights: how far guided draws are from the posterior, and a cure in few dimensions.

A step of an exponential solver with fresh noise goes to N(m(D), s^2) from the denoised estimates D
of the prior, and to N(m(G), s^2) from guided ones G. A guided path is thus one of the prior whose
noises xi are shifted by zeta = (m(G) - m(D)) / s, and the weight

    w = p(y | x_0) dP/dQ,   log dP/dQ = -sum (<zeta, xi> + |zeta|^2 / 2),

of a path from Q (guided) relative to P (the prior) is exact for the discretised prior: means with
weights w are means under the posterior. Were guidance exact, all weights would be equal up to
the error of the steps. What their logarithms vary by says how far it is from that:

    KL(Q | posterior) = log E[w] - E[log w],

which is var(log w) / 2 to second order, and exactly so where log w is normal: within a tenth for
0.1 nats an observation, and within a half for 0.3. It is the divergence of paths, which that of x_0
cannot exceed, and the finite steps are part of it: what the same steps take with the Gaussian
surrogate, whose guidance is exact, says how much. With thousands of observations no finite sample
can be reweighted, but the divergence per observation still tells how much of what each says is
lost.

Girsanov weights of diffusion posteriors: Wu et al. 2023, "Practical and asymptotically exact
conditional sampling in diffusion models", arXiv 2306.17775.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slams_jax.aliases import PRNGKey
from slams_jax.errors import InputError

FEWEST = 2  # members that have a variance


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What the weights of an ensemble say of it.

    Attributes:
        members: number of weights.
        observations: number of observed values.
        log_weight_variance: var(log w), unbiased.
        effective: effective share of the ensemble, (sum w)^2 / (sum w^2) / members.
    """

    members: int
    observations: int
    log_weight_variance: float
    effective: float

    @property
    def divergence(self) -> float:
        """var(log w) / 2, in nats: KL(paths | posterior) to second order."""
        return 0.5 * self.log_weight_variance

    @property
    def divergence_error(self) -> float:
        """Standard error of `divergence` from so few members, for normal log weights."""
        return self.divergence * (2.0 / (self.members - 1)) ** 0.5

    @property
    def divergence_per_observation(self) -> float:
        """`divergence` over the number of observed values."""
        return self.divergence / self.observations


def certify(log_weights: Float[np.ndarray, " member"], observations: int) -> Certificate:
    """The certificate of an ensemble with these weights.

    Args:
        log_weights: log w of each member, up to a constant common to all.
        observations: number of observed values.

    Raises:
        InputError: fewer than two members, no observation, or weights that are not finite.
    """
    values = np.asarray(log_weights, np.float64)
    count = len(values)
    if count < FEWEST or observations < 1 or not np.isfinite(values).all():
        raise InputError(
            f"a certificate needs the finite weights of at least {FEWEST} members and an "
            f"observation, got {int(np.isfinite(values).sum())} of {count} finite weights and "
            f"{observations} observations"
        )
    weights = np.exp(values - values.max())
    return Certificate(
        members=count,
        observations=observations,
        log_weight_variance=float(values.var(ddof=1)),
        effective=float(weights.sum() ** 2 / np.square(weights).sum() / count),
    )


def resample(key: PRNGKey, log_weights: Float[Array, " path"], count: int) -> Int[Array, " draw"]:
    """Indices of `count` draws from weighted paths (`systematic_resampling`).

    The draws that follow from few effective paths repeat them: see `Certificate.effective`.
    """
    return systematic_resampling(key, jax.nn.softmax(log_weights), count)


def systematic_resampling(
    key: PRNGKey, weights: Float[Array, " particle"], count: int | None = None
) -> Int[Array, " draw"]:
    """`count` = n indices, ascending; i appears n w_i times, randomly rounded up or down.

    One random number shifts n equidistant points on the cumulative weights, so that the expected
    number of copies is exactly n w_i (Kitagawa 1996, J. Comput. Graph. Stat. 5).

    Args:
        key: of the random number.
        weights: w; they sum to one.
        count: n; None for as many as there are weights.
    """
    count = len(weights) if count is None else count
    sums = jnp.cumsum(weights)
    offset = jax.random.uniform(key, (), weights.dtype)
    points = (jnp.arange(count, dtype=weights.dtype) + offset) / count
    # In single precision the last sum may differ slightly from one.
    index = jnp.searchsorted(sums, points * sums[-1], side="right")
    return jnp.minimum(index, len(weights) - 1)
