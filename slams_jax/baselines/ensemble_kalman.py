r"""Ensemble Kalman filters: analyses for `slams_jax.cycling.cycle`.

With the departures A of the members from their mean, and Y those of what they predict for the
observations, over the errors of these, every analysis combines members:

    x_i + sum_j w_ij A_j.

- `etkf`: the symmetric square root in the space of the ensemble (Bishop, Etherton & Majumdar 2001,
  Mon. Wea. Rev. 129; Hunt, Kostelich & Szunyogh 2007, Physica D 230, eqs. 20 to 23),
- `letkf`: the same for each place of the state by itself, with the precision of the observations
  damped by their distance from it (Hunt et al. 2007, section 2.3),
- `stochastic_enkf`: perturbed observations (Burgers, van Leeuwen & Evensen 1998, Mon. Wea. Rev.
  126), whose mean is that of the observations,
- `iterative_enkf`: the square root iterated to the minimum of the cost in the space of the ensemble
  (Bocquet & Sakov 2014, Q. J. R. Meteorol. Soc. 140, the iEnKS).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int

from slams_jax.aliases import PRNGKey
from slams_jax.errors import InputError
from slams_jax.gaussian.linalg import after, spectral
from slams_jax.products import product

Ensemble = Float[Array, "member ..."]
# H: from a member to what is observed.
Operator = Callable[[Array], Float[Array, " observation"]]
# background, observations (NaN where missing), key -> analysis; see `slams_jax.cycling.Analyse`.
Filter = Callable[[Ensemble, Float[Array, " observation"], PRNGKey], Ensemble]
# A factor of the departures of the analysis, or one of those of the background that is estimated
# from each set of observations.
Inflation = float | str
RANGE, SEARCHES = (-1.5, 3.0), 40  # of the logarithm of the adaptive factor, and its search
TOGETHER = 64  # places that the LETKF analyses at a time: each holds all that is predicted


def etkf(
    operator: Operator,
    error: Float[Array, " observation"],
    *,
    inflation: Inflation = 1.0,
    rotate: bool = True,
) -> Filter:
    """The ensemble transform Kalman filter.

    Args:
        operator: H, of one member.
        error: standard deviations of the observations, independent of one another; not traced.
        inflation: factor of the departures of the analysis from its mean; or "adaptive", for the
            finite-size filter, which needs no tuning: the departures of the background count as
            a sample of an unknown covariance, and are enlarged by what makes the observations
            likeliest (Bocquet, Raanes & Hannart 2015, Nonlin. Processes Geophys. 22; Raanes,
            Bocquet & Carrassi 2019, Q. J. R. Meteorol. Soc. 145).
        rotate: rotate the departures at random, which leaves mean and covariance alone and keeps
            single members from drifting off (Sakov & Oke 2008, Mon. Wea. Rev. 136).

    Raises:
        InputError: an error or an inflation that is not positive.
    """
    _check(error, inflation, adaptive=True)

    def combine(departures: Array, predicted: Array, innovation: Array, key: PRNGKey) -> Array:
        rotation = _rotation(key, departures, rotate)
        weights = _transform(predicted, innovation, inflation, rotation)
        return product("mn,nv->mv", weights, departures)

    return _filter(operator, error, combine)


def letkf(
    operator: Operator,
    error: Float[Array, " observation"],
    nearness: Float[Array, "place observation"],
    *,
    inflation: Inflation = 1.0,
    rotate: bool = True,
) -> Filter:
    """The local ensemble transform Kalman filter, `etkf` for each place of the state.

    The values of a place, such as those of a column of the atmosphere, share one analysis.

    Args:
        operator: as for `etkf`, as are `error`, `inflation` and `rotate`.
        error: see there.
        nearness: factors of the precision of each observation where each place is analysed, such
            as `gaspari_cohn` of their distances; in [0, 1]. A state has its places on the first
            axes, and the values of a place on the last ones, if it has several.
        inflation: see there.
        rotate: see there; one rotation for all places.

    Raises:
        InputError: an error or an inflation that is not positive; when it is called, a state that
            has another number of places.
    """
    _check(error, inflation, adaptive=True)
    root, places = jnp.sqrt(nearness), len(nearness)

    def combine(departures: Array, predicted: Array, innovation: Array, key: PRNGKey) -> Array:
        count, size = departures.shape
        rotation = _rotation(key, departures, rotate)

        def of_place(columns: tuple[Array, Array]) -> Array:
            departures, near = columns
            seen, told = predicted * near[None], innovation * near
            return product("mn,nv->mv", _transform(seen, told, inflation, rotation), departures)

        columns = jnp.moveaxis(departures.reshape(count, places, -1), 0, 1)
        analysed = jax.lax.map(of_place, (columns, root), batch_size=min(TOGETHER, places))
        return jnp.moveaxis(analysed, 1, 0).reshape(count, size)

    analyse_all = _filter(operator, error, combine)

    def analyse(background: Ensemble, observations: Array, key: PRNGKey) -> Ensemble:
        if places not in np.cumprod(background.shape[1:]):
            raise InputError(
                f"nearness has {places} rows, and the state of a member the shape "
                f"{background.shape[1:]}: give a row for each value, or for each place, with the "
                "values of a place on the last axes"
            )
        return analyse_all(background, observations, key)

    return analyse


def stochastic_enkf(
    operator: Operator, error: Float[Array, " observation"], *, inflation: float = 1.0
) -> Filter:
    """The ensemble Kalman filter with perturbed observations; arguments as for `etkf`.

    Raises:
        InputError: an error or an inflation that is not positive.
    """
    _check(error, inflation)

    def combine(departures: Array, predicted: Array, innovation: Array, key: PRNGKey) -> Array:
        noise = _departures(jax.random.normal(key, predicted.shape, predicted.dtype))
        misfit = innovation[None] + noise - predicted
        told = product("mo,no->mn", predicted, misfit)
        weights = jax.scipy.linalg.solve(_gram(predicted), told, assume_a="pos")
        analysis = departures + product("nm,nv->mv", weights, departures)
        return _mean(analysis) + inflation * _departures(analysis)

    return _filter(operator, error, combine)


def iterative_enkf(
    operator: Operator,
    error: Float[Array, " observation"],
    *,
    inflation: float = 1.0,
    rotate: bool = True,
    iterations: int = 10,
    tolerance: float = 1e-3,
) -> Filter:
    """The iterative ensemble Kalman filter, or smoother.

    Gauss-Newton for nonlinear operators: members go through the operator about each new estimate,
    already contracted to the spread of the analysis. With a linear one it is `etkf`. Where the
    operator is a forecast followed by what observes it, the analysis is of the time at which that
    forecast starts: the iterative ensemble Kalman smoother. In a cycle, the background is then the
    state before, and forecasts of the analyses are those of a filter.

    Args:
        operator: H, of one member.
        error: standard deviations of the observations, independent of one another; not traced.
        inflation: factor of the departures of the analysis from its mean.
        rotate: as for `etkf`.
        iterations: number of Gauss-Newton steps at most, each an evaluation of all members.
        tolerance: they end when the weights of the departures in the mean change by less than this,
            in the root mean square.

    Raises:
        InputError: as `etkf`, no iteration, or a negative tolerance.
    """
    _check(error, inflation)
    if iterations < 1 or tolerance < 0:
        raise InputError(
            "the iterative filter needs at least one iteration and a tolerance that is not "
            f"negative, got {iterations=}, {tolerance=}"
        )

    def analyse(background: Ensemble, observations: Array, key: PRNGKey) -> Ensemble:
        flat = background.reshape(len(background), -1)
        mean, departures = _mean(flat), _departures(flat)
        rotation = _rotation(key, flat, rotate)
        count = len(flat)

        def members(of_mean: Array, root: Array) -> Ensemble:
            added = product("mn,nv->mv", of_mean[None] + root, departures)
            return (mean + added).reshape(background.shape)

        def step(carry):
            of_mean, root, inverse, _, taken = carry
            seen, innovation = _whitened(operator, members(of_mean, root), observations, error)
            # As the background's departures would be seen: about the estimate, not about the mean.
            predicted = product("mn,no->mo", inverse, seen)
            values, vectors = jnp.linalg.eigh(after(rotation, _gram(predicted)))
            downhill = product("mo,o->m", predicted, innovation) - (count - 1) * of_mean
            move = product("mi,i->m", vectors, product("mi,m->i", vectors, downhill) / values)
            scale = jnp.sqrt((count - 1) / values)
            moved = (of_mean + move, spectral(vectors, scale), spectral(vectors, 1.0 / scale))
            return (*moved, jnp.sqrt(jnp.mean(move**2)), taken + 1)

        def further(carry):
            *_, moved, taken = carry
            return (moved > tolerance) & (taken < iterations)

        eye = jnp.eye(count, dtype=flat.dtype)
        start = (jnp.zeros_like(eye[0]), eye, eye, jnp.full((), jnp.inf, flat.dtype), 0)
        of_mean, root, *_ = jax.lax.while_loop(further, step, start)
        return members(of_mean, inflation * product("mn,ni->mi", rotation, root))

    return analyse


def gaspari_cohn(
    distance: Float[np.ndarray, "..."] | Int[np.ndarray, "..."], radius: float
) -> Float[np.ndarray, "..."]:
    """A taper from 1 at no distance to 0 at `radius`, in the units of the distance.

    Gaspari & Cohn (1999), Q. J. R. Meteorol. Soc. 125, eq. 4.10: nearly a Gaussian with a standard
    deviation of 0.27 `radius`, and a correlation function in up to three dimensions.

    Raises:
        InputError: a radius that is not positive.
    """
    if not radius > 0:
        raise InputError(f"the radius of a taper must be positive, got {radius}")
    r = 2.0 * np.abs(np.asarray(distance, float)) / radius
    inner = 1 - 5 / 3 * r**2 + 5 / 8 * r**3 + r**4 / 2 - r**5 / 4
    far = np.maximum(r, 1.0)  # where it is used
    outer = 4 - 5 * far + 5 / 3 * far**2 + 5 / 8 * far**3 - far**4 / 2 + far**5 / 12
    outer = outer - 2 / (3 * far)
    return np.where(r < 1, inner, np.where(r < 2, outer, 0.0)).clip(0.0, 1.0)


def _filter(
    operator: Operator,
    error: Float[Array, " observation"],
    combine: Callable[[Array, Array, Array, PRNGKey], Array],
) -> Filter:
    """The filter whose analysis departs from the mean of the background as `combine` says.

    That is a function of A, Y, the innovation of the mean over the errors, and a key.
    """

    def analyse(background: Ensemble, observations: Array, key: PRNGKey) -> Ensemble:
        flat = background.reshape(len(background), -1)
        predicted, innovation = _whitened(operator, background, observations, error)
        added = combine(_departures(flat), predicted, innovation, key)
        return (_mean(flat) + added).reshape(background.shape)

    return analyse


def _check(
    error: Float[Array, " observation"], inflation: Inflation, *, adaptive: bool = False
) -> None:
    check_errors(error)
    if adaptive and inflation == "adaptive":
        return
    if isinstance(inflation, str) or not inflation > 0:
        other = ', "adaptive" estimates it' if adaptive else ""
        raise InputError(f"inflation must be positive, got {inflation!r}: 1 changes nothing{other}")


def check_errors(error: Float[Array, " observation"]) -> None:
    """Check the standard deviations of observations.

    Raises:
        InputError: one that is not positive.
    """
    if not np.all(np.asarray(error) > 0):
        raise InputError("the errors of the observations must be positive standard deviations")


def _mean(members: Float[Array, "member value"]) -> Float[Array, "1 value"]:
    return jnp.mean(members, axis=0, keepdims=True)


def _departures(members: Float[Array, "member value"]) -> Float[Array, "member value"]:
    return members - _mean(members)


def _whitened(
    operator: Operator, background: Ensemble, observations: Array, error: Array
) -> tuple[Float[Array, "member observation"], Float[Array, " observation"]]:
    """Y, and y - mean H(x), both over the errors; zero where an observation is missing."""
    predicted = jax.vmap(operator)(background)
    seen = jnp.isfinite(observations)
    innovation = jnp.where(seen, observations - jnp.mean(predicted, axis=0), 0.0) / error
    return jnp.where(seen[None], _departures(predicted) / error[None], 0.0), innovation


def _transform(
    predicted: Array, innovation: Array, inflation: Inflation, rotation: Array
) -> Float[Array, "member member"]:
    """Weights of the departures in each member of the analysis, about the mean."""
    count, gram = len(predicted), _gram(predicted)
    values, vectors = jnp.linalg.eigh(after(rotation, gram))
    told = product("ni,no,o->i", vectors, predicted, innovation)
    # Factors of the departures before and after the analysis.
    before, factor = jnp.ones_like(values[0]), 1.0
    if isinstance(inflation, str):  # adaptive
        # Rounding may leave them below zero, which a large factor would tell.
        variances = jnp.maximum(values - (count - 1), 0.0)
        before = _finite_size(variances, told)
        values = before**2 * variances + (count - 1)
    else:
        factor = inflation
    of_mean = product("ni,i->n", vectors, before**2 * told / values)
    root = spectral(vectors, before * jnp.sqrt((count - 1) / values))
    return of_mean[None] + factor * product("mn,ni->mi", rotation, root)


def _finite_size(variances: Float[Array, " mode"], told: Float[Array, " mode"]) -> Array:
    """The factor l of the background's departures of the smallest dual cost.

        sum_i u_i^2 / (l^2 s_i^2 + n - 1) + e / l^2 + c log l^2

    for n members, singular values s_i of what they predict, and u_i of the innovation along these
    (Raanes et al. 2019, eq. 34, with the correction of the mode of Bocquet et al. 2015, eq. 36: 1
    without observations).

    Args:
        variances: s_i^2.
        told: s_i u_i.
    """
    count = len(variances)
    seen = variances > 1e-5 * jnp.max(variances)
    square = jnp.where(seen, told**2 / jnp.where(seen, variances, 1.0), 0.0)
    of_zero, of_log = (count + 1) / count, count / (count - 1)
    left = jnp.mean((count - 1) / (variances + count - 1))
    correction = (of_zero / of_log) ** (0.5 * left)

    def cost(log: Array) -> Array:
        ratio = jnp.exp(2.0 * log)
        misfit = jnp.sum(square / (ratio * variances + count - 1))
        return misfit + of_zero / correction / ratio + of_log * correction * 2.0 * log

    def narrow(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        golden = 0.5 * (5**0.5 - 1.0)
        first, second = high - golden * (high - low), low + golden * (high - low)
        left = cost(first) < cost(second)
        return jnp.where(left, low, first), jnp.where(left, second, high)

    ends = tuple(jnp.asarray(end, variances.dtype) for end in RANGE)
    low, high = jax.lax.fori_loop(0, SEARCHES, narrow, ends)
    return jnp.exp(0.5 * (low + high))


def _gram(predicted: Float[Array, "member observation"]) -> Float[Array, "member member"]:
    """Y Y^T + (n - 1) I, for n members."""
    gram = product("mo,no->mn", predicted, predicted)
    return gram + (len(gram) - 1) * jnp.eye(len(gram), dtype=gram.dtype)


def _rotation(
    key: PRNGKey, members: Float[Array, "member value"], rotate: bool
) -> Float[Array, "member member"]:
    """A random rotation of departures that leaves their mean at zero."""
    count, dtype = len(members), members.dtype
    if not rotate:
        return jnp.eye(count, dtype=dtype)
    basis = jnp.asarray(scipy.linalg.helmert(count), dtype)  # orthogonal to the mean
    mean = jnp.full((count, count), 1.0 / count, dtype)
    turned = jax.random.orthogonal(key, count - 1, dtype=dtype)
    return mean + product("im,ij,jn->mn", basis, turned, basis)
