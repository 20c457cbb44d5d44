"""Variational analyses for `slams_jax.cycling.cycle`: of one state, or of an ensemble's mean."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import PRNGKey
from slams_jax.baselines.ensemble_kalman import Ensemble, Filter, check_errors
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
    windows: Bool[np.ndarray, "window given"] | None = None,
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
        windows: which observations each of some linearised problems before these has. With ones
            that grow from the first times on, the minimum is followed from short windows, which
            have one, to long ones, which have many (quasi-static 4D-Var: Pires, Vautard & Talagrand
            1996, Tellus A 48). None for none.

    Raises:
        InputError: an error that is not positive, no iteration, or windows of other observations.
    """
    if windows is not None and np.shape(windows)[1:] != error.shape:
        raise InputError(
            f"windows must be (window, {len(error)} observations), got {np.shape(windows)}"
        )
    minimum = _minimum_of(operator, error, iterations, outer, windows)

    def analyse(background: State, observations: Array, key: PRNGKey) -> State:
        del key  # nothing is random
        return minimum(background, observations, root, jnp.zeros_like(background))

    return analyse


def hybrid(
    departures: Filter,
    operator: Callable[[State], Float[Array, " observation"]],
    error: Float[Array, " observation"],
    root: Callable[[State], State],
    localisation: Callable[[State], State],
    *,
    weight: float = 0.5,
    iterations: int = 50,
    outer: int = 1,
) -> Filter:
    """Hybrid EnVar: `variational` for the mean, with a B that is partly the ensemble's.

        B = (1 - weight) B_s + weight L o P

    for the static covariance B_s, that of the members P, and its taper L, through a control
    variable for each member (Lorenc 2003, Q. J. R. Meteorol. Soc. 129; Buehner 2005, ibid. 131).
    The departures from the mean are those of an ensemble filter (Wang, Barker, Snyder & Hamill
    2008, Mon. Wea. Rev. 136). An H that observes a forecast makes it 4D, as in `variational`.

    Args:
        departures: the filter, such as `letkf` of the same observations.
        operator: H, of one member.
        error: standard deviations of the observations, independent of one another; not traced.
        root: B_s^(1/2), as in `variational`.
        localisation: L^(1/2), likewise; L has ones where it does not taper.
        weight: of the ensemble's covariance, in [0, 1].
        iterations: as in `variational`, as is `outer`.
        outer: see there.

    Raises:
        InputError: as `variational`, or a weight out of range.
    """
    if not 0.0 <= weight <= 1.0:
        raise InputError(f"the weight of the ensemble must lie in [0, 1], got {weight}")
    minimum = _minimum_of(operator, error, iterations, outer)

    def analyse(background: Ensemble, observations: Array, key: PRNGKey) -> Ensemble:
        mean, count = jnp.mean(background, axis=0), len(background)
        columns = (background - mean[None]) * (weight / (count - 1)) ** 0.5

        def mixed(v: Float[Array, "control ..."]) -> State:
            of_members = jnp.sum(columns * jax.vmap(localisation)(v[1:]), axis=0)
            return (1.0 - weight) ** 0.5 * root(v[0]) + of_members

        controls = jnp.zeros((1 + count, *mean.shape), mean.dtype)
        members = departures(background, observations, key)
        members = members - jnp.mean(members, axis=0, keepdims=True)
        return members + minimum(mean, observations, mixed, controls)[None]

    return analyse


def _minimum_of(
    operator: Callable[[State], Float[Array, " observation"]],
    error: Float[Array, " observation"],
    iterations: int,
    outer: int,
    windows: Bool[np.ndarray, "window given"] | None = None,
) -> Callable[[State, Array, Callable[[Array], State], Array], State]:
    """From a background, observations, B^(1/2) and its control of zero to the best state.

    Raises:
        InputError: an error that is not positive, or no iteration.
    """
    check_errors(error)
    if iterations < 1 or outer < 1:
        raise InputError(f"it takes at least one iteration, got {iterations=}, {outer=}")

    def minimum(
        background: State, observations: Array, root: Callable[[Array], State], nothing: Array
    ) -> State:
        seen = jnp.isfinite(observations)

        def step(v: Array, used: Array) -> tuple[Array, None]:
            def residuals(v: Array) -> tuple[Array, Array]:
                misfit = observations - operator(background + root(v))
                return v, jnp.where(used, misfit, 0.0) / error

            return gauss_newton(residuals, v, iterations), None

        used = jnp.broadcast_to(seen[None], (outer, *seen.shape))
        if windows is not None:
            used = jnp.concatenate([jnp.asarray(windows) & seen[None], used])
        return background + root(jax.lax.scan(step, nothing, used)[0])

    return minimum
