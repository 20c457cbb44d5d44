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
        divergence: var(log w) / 2, in nats: KL(paths | posterior) to second order.
        divergence_per_observation: the same over the number of observed values.
        divergence_error: standard error of `divergence` from so few members, for normal log
            weights.
        effective: effective share of the ensemble, (sum w)^2 / (sum w^2) / members.
    """

    members: int
    observations: int
    log_weight_variance: float
    divergence: float
    divergence_per_observation: float
    divergence_error: float
    effective: float


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
    variance = float(values.var(ddof=1))
    weights = np.exp(values - values.max())
    return Certificate(
        members=count,
        observations=observations,
        log_weight_variance=variance,
        divergence=0.5 * variance,
        divergence_per_observation=0.5 * variance / observations,
        divergence_error=0.5 * variance * (2.0 / (count - 1)) ** 0.5,
        effective=float(weights.sum() ** 2 / np.square(weights).sum() / count),
    )


def resample(key: PRNGKey, log_weights: Float[Array, " path"], count: int) -> Int[Array, " draw"]:
    """Indices of `count` draws from weighted paths, by systematic resampling.

    A path of weight w is taken floor or ceil(count w / sum w) times (Carpenter, Clifford &
    Fearnhead 1999, IEE Proc. Radar Sonar Navig. 146, 2-7). The draws that follow from few
    effective paths repeat them: see `Certificate.effective`.
    """
    shares = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(count, dtype=shares.dtype) + jax.random.uniform(key)) / count
    return jnp.minimum(jnp.searchsorted(shares, points), len(log_weights) - 1)
