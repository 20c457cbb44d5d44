"""Is a cycle healthy? Its innovations, compared with what spread and observation errors predict.

    d_b = y - H(x_b),   d_a = y - H(x_a),   chi-squared = mean d_b² / (s_b² + r²)

over the observations of one time, for the spread s_b of H(x_b) and the errors r; about 1 where both
are right. Their product estimates the variance of the errors, r² = E[d_a d_b] (Desroziers, Berre,
Chapnik & Poli 2005, Q. J. R. Meteorol. Soc. 131, eq. 3).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from slams_jax.cycling.ensembles import WeightedEnsemble, moments, weighted
from slams_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
    """What is observed of a state, as the filters take it.

    Attributes:
        operator: H, from one state (of an ensemble: from one member) to the observations.
        error: standard deviations of the observations, independent of one another.
        ensemble: whether states are ensembles, with the members in front.
        background_error: the standard deviations of H(x_b) that an analysis of single states
            assumes; they have no spread, and without these chi-squared knows of `error` only.

    Raises:
        InputError: errors that are no vector of positive numbers.
    """

    operator: Callable[[PyTree], Float[Array, " observation"]]
    error: Float[Array, " observation"]
    ensemble: bool = True
    background_error: Float[Array, " observation"] | None = None

    def __post_init__(self):
        if jnp.ndim(self.error) != 1 or not bool(jnp.all(jnp.asarray(self.error) > 0)):
            raise InputError(
                "the errors of the observations must be positive standard deviations, one for each"
            )


def diagnosis(
    observed: Observed,
    background: PyTree,
    analysis: PyTree,
    values: Float[Array, " observation"],
) -> dict[str, Num[Array, ""]]:
    """The diagnostics of one cycle; pure.

    Args:
        observed: what is observed, and how accurately.
        background: x_b.
        analysis: x_a.
        values: y, NaN where missing.

    Returns:
        What `slams_jax.cycling.run_cycle` records: `observations` (their number), `innovation_rms`
        and `innovation_mean` of d_b, `residual_rms` of d_a, `chi_squared`, `error_ratio`
        (d_a d_b / r²), `spread` of H(x_b) and `analysis_spread` of H(x_a), missing observations
        included; NaN is what is not known. For a `WeightedEnsemble` also `effective`, the
        effective number of particles once they are weighted by these observations.
    """
    seen = jnp.isfinite(values)
    innovation, variance = departure(observed, background, values)
    if observed.background_error is not None:
        variance = observed.background_error**2
    residual, fitted_variance = departure(observed, analysis, values)
    # A spread that is not known is NaN, and predicts nothing.
    total = observed.error**2 + jnp.nan_to_num(variance)
    mean = lambda x: jnp.mean(x, where=seen)
    found = {
        "observations": jnp.sum(seen),
        "innovation_mean": mean(innovation),
        "innovation_rms": jnp.sqrt(mean(innovation**2)),
        "residual_rms": jnp.sqrt(mean(residual**2)),
        "chi_squared": mean(innovation**2 / total),
        "error_ratio": mean(innovation * residual / observed.error**2),
        "spread": jnp.sqrt(jnp.mean(variance)),
        "analysis_spread": jnp.sqrt(jnp.mean(fitted_variance)),
    }
    if isinstance(background, WeightedEnsemble):
        predicted = jax.vmap(observed.operator)(background.states)
        misfit = (values[None] - predicted) / observed.error[None]
        told = -0.5 * jnp.sum(jnp.where(seen[None], misfit, 0.0) ** 2, axis=1)
        weights = jax.nn.softmax(background.log_weights + told)
        found["effective"] = 1.0 / jnp.sum(weights**2)
    return found


def departure(
    observed: Observed, state: PyTree, values: Float[Array, " observation"]
) -> tuple[Float[Array, " observation"], Float[Array, " observation"]]:
    """y less the mean of H(x), and the variance of H(x), NaN of a single state; pure."""
    if observed.ensemble:
        members, weights = weighted(state)
        predicted, variance = moments(jax.vmap(observed.operator)(members), weights)
    else:
        predicted, variance = observed.operator(state), jnp.full_like(observed.error, jnp.nan)
    return values - predicted, variance
