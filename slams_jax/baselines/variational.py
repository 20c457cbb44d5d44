"""3D-Var and strong-constraint 4D-Var of one state: an analysis for `slams_jax.cycling.cycle`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.baselines.ensemble_kalman import check_errors
from slams_jax.baselines.optimal_interpolation import gauss_newton
from slams_jax.errors import InputError

State = Float[Array, "..."]
# background, observations (NaN where missing), key -> analysis; see `slams_jax.cycling.Analyse`.
Analysis = Callable[[State, Float[Array, " observation"], PRNGKey], State]


def variational(
    operator: Callable[[State], Float[Array, " observation"]],
    error: Float[Array, " observation"],
    root: Callable[[State], State],
    *,
    iterations: int = 50,
    outer: int = 3,
) -> Analysis:
    """The state x = x_b + B^(1/2) v of the smallest cost |v|^2 + |(y - H(x)) / error|^2.

    Where H observes the state of its own time, this is 3D-Var; where it observes a forecast that
    starts there, at one time or at several, strong-constraint 4D-Var, and the analysis is of the
    time at which the forecast starts (Courtier, Thepaut & Hollingsworth 1994, Q. J. R. Meteorol.
    Soc. 120: the incremental form, preconditioned by B). H is differentiated by JAX.

    Args:
        operator: H; linearised anew about each estimate.
        error: standard deviations of the observations, independent of one another; not traced.
        root: B^(1/2), linear, from white noise of the state's shape to departures, such as the
            `sample_root` of a covariance.
        iterations: of conjugate gradients, at most, for each linearised problem.
        outer: linearised problems (Gauss-Newton steps), each shortened if in full it would not
            lower the cost; one suffices where H is linear.

    Raises:
        InputError: an error that is not positive, or no iteration.
    """
    check_errors(error)
    if iterations < 1 or outer < 1:
        raise InputError(f"it takes at least one iteration, got {iterations=}, {outer=}")

    def analyse(background: State, observations: Array, key: PRNGKey) -> State:
        del key  # nothing is random
        seen = jnp.isfinite(observations)

        def residuals(v: State) -> tuple[State, Array]:
            misfit = observations - operator(background + root(v))
            return v, jnp.where(seen, misfit, 0.0) / error

        step = lambda _, v: gauss_newton(residuals, v, iterations)
        return background + root(jax.lax.fori_loop(0, outer, step, jnp.zeros_like(background)))

    return analyse
