r"""Optimal interpolation, in the form of a variational analysis (3D-Var).

The analysis x = x_b + B^(1/2) v minimises, over the control variable v,

    J(v) = 1/2 |v|^2 + 1/2 sum_k |W_k (y_k - H_k(x_b + B^(1/2) v))|^2,    W_k^T W_k = R_k^-1,

where x_b is the background, B the covariance of its errors, and y_k, H_k, R_k are the observations.
For a linear H it is x_b + B H^T (H B H^T + R)^-1 (y - H x_b) (Gandin 1963; Lorenc 1986, QJRMS 112);
otherwise H is linearised again in each outer iteration (Courtier et al. 1994, QJRMS 120). Each
frame is analysed separately: B has no correlation in time.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PyTree

from slams_jax.aliases import PRNGKey, Trajectory
from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPosterior, fit_prior
from slams_jax.observe import Separable, Stream, whitened_innovations
from slams_jax.observe.streams import identity_decode


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NonSeparable:
    """B = S P S, not separable; build it with `fit_background`.

    Attributes:
        std: S, in the units of the field.
        prior: P, of one frame.
    """

    std: Float[Array, "lat lon channel"]
    prior: GaussianPosterior

    def sample_root(
        self, white: Float[Array, "time lat lon channel"]
    ) -> Float[Array, "time lat lon channel"]:
        """B^(1/2) applied to white noise."""
        alone = jax.vmap(lambda w: self.prior.sample_root(w[None])[0])
        return self.std[None] * alone(white)

    def inflated(self, factor: Array) -> "NonSeparable":
        """`factor` B."""
        return dataclasses.replace(self, std=self.std * jnp.sqrt(factor))


BackgroundCovariance = Separable | NonSeparable


def fit_background(
    errors: Float[np.ndarray, "time lat lon channel"], *, periodic: bool, rank: int = 400
) -> NonSeparable:
    """Estimate B from errors of backgrounds, less their mean.

    Standard deviations are local; correlations depend on scale, latitude and channel, in EOFs of
    each zonal wavenumber or, where the grid is not periodic, of the whole frame.

    Args:
        errors: background minus truth; NaN where unknown.
        periodic: whether the grid goes round a latitude circle.
        rank: largest number of EOFs of a wavenumber.

    Raises:
        InputError: fewer than 20 frames, or errors that do not vary.
    """
    departures = errors - np.nanmean(errors, axis=0, keepdims=True)
    std = np.maximum(np.nanstd(departures, axis=0), np.finfo(np.float32).tiny)
    prior = fit_prior(departures / std, periodic=periodic, rank=rank, order=0)
    return NonSeparable(jnp.asarray(std, jnp.float32), prior.over(1))


def optimal_interpolation(
    background: Float[Array, "time lat lon channel"],
    streams: Sequence[Stream],
    covariance: BackgroundCovariance,
    *,
    iterations: int = 100,
    outer: int = 1,
) -> Float[Array, "time lat lon channel"]:
    """The analysis of a background and observations.

    Pure; can be jitted with static `iterations` and `outer`. The caller removes a bias of the
    background.

    Args:
        background: x_b, in physical units.
        streams: observations in state space.
        covariance: B, of the errors of the background.
        iterations: largest number of conjugate-gradient iterations per outer iteration.
        outer: number of linearisations of the operators; linear ones need one.

    Returns:
        The analysis, in physical units; without streams, the background.

    Raises:
        InputError: a stream in latent space, a covariance of another grid, or no iteration.
    """
    _check(background, streams, covariance, iterations, outer)
    if not streams:
        return background

    def residuals(v: Trajectory) -> PyTree[Array]:
        state = background + covariance.sample_root(v)
        # J is the sum of squares of the control variable and the whitened innovations.
        return v, whitened_innovations(streams, state, identity_decode, jnp.zeros(()))

    step = lambda _, v: gauss_newton(residuals, v, iterations)
    v = jax.lax.fori_loop(0, outer, step, jnp.zeros_like(background))
    return background + covariance.sample_root(v)


def optimal_interpolation_ensemble(
    key: PRNGKey,
    background: Float[Array, "time lat lon channel"],
    streams: Sequence[Stream],
    covariance: BackgroundCovariance,
    *,
    members: int,
    batch: int | None = None,
    iterations: int = 100,
    outer: int = 1,
) -> Float[Array, "member time lat lon channel"]:
    """Analyses of perturbed backgrounds and observations.

    For linear operators the members are draws from N(analysis, (B^-1 + H^T R^-1 H)^-1), the
    uncertainty that optimal interpolation implies (Burgers et al. 1998, MWR 126). Member i uses
    `fold_in(key, i)`, for any number of members and batches.

    Args:
        key: of all perturbations.
        background: x_b, in physical units.
        streams: observations in state space.
        covariance: B, of the errors of the background.
        members: number of analyses.
        batch: number of analyses at a time; None computes all at once.
        iterations: as in `optimal_interpolation`.
        outer: as in `optimal_interpolation`.

    Returns:
        The ensemble, in physical units.

    Raises:
        InputError: as `optimal_interpolation`, or fewer than one member or batch.
    """
    _check(background, streams, covariance, iterations, outer)
    if members < 1 or (batch is not None and batch < 1):
        raise InputError(f"members and batch must be at least 1, got {members} and {batch}")

    def member(index: Array) -> Trajectory:
        key_background, key_streams = jax.random.split(jax.random.fold_in(key, index))
        white = jax.random.normal(key_background, background.shape)
        keys = jax.random.split(key_streams, max(len(streams), 1))
        return optimal_interpolation(
            background + covariance.sample_root(white),
            [perturbed(k, stream) for k, stream in zip(keys, streams, strict=False)],
            covariance,
            iterations=iterations,
            outer=outer,
        )

    return jax.lax.map(member, jnp.arange(members), batch_size=min(batch or members, members))


def _check(
    background: Array,
    streams: Sequence[Stream],
    covariance: BackgroundCovariance,
    iterations: int,
    outer: int,
) -> None:
    """Reject inputs that cannot be analysed."""
    if iterations < 1 or outer < 1:
        raise InputError(
            f"optimal interpolation needs at least one iteration, got {iterations=}, {outer=}"
        )
    if background.shape[1:] != covariance.std.shape:
        raise InputError(
            f"the background has frames of shape {background.shape[1:]}, but the covariance of its "
            f"errors has {covariance.std.shape}: estimate it on the same grid and channels"
        )
    for stream in streams:
        if stream.space != "state":
            raise InputError(
                f"stream {stream.name!r} is in {stream.space} space: optimal interpolation takes "
                "only observations in state space: leave it out"
            )


def gauss_newton(
    residuals: Callable[[Float[Array, "..."]], PyTree[Array]],
    v: Float[Array, "..."],
    iterations: int,
) -> Float[Array, "..."]:
    """One Gauss-Newton step from `v` towards the minimum of |residuals(v)|^2.

    The step solves J^T J step = -J^T residuals. It is shortened if in full it would not reduce the
    sum of squares, down to zero for operators so nonlinear that no length helps.
    """
    value, jacobian = jax.linearize(residuals, v)
    transpose = jax.linear_transpose(jacobian, v)
    downhill = -transpose(value)[0]
    step, _ = cg(lambda p: transpose(jacobian(p))[0], downhill, tol=1e-6, maxiter=iterations)
    lengths = jnp.array([1.0, 0.5, 0.25, 0.125, 0.0])
    squares = lambda tree: sum((jnp.sum(r**2) for r in jax.tree.leaves(tree)), start=jnp.zeros(()))
    costs = jax.lax.map(lambda length: squares(residuals(v + length * step)), lengths[:-1])
    costs = jnp.append(costs, squares(value))
    return v + lengths[jnp.nanargmin(costs)] * step


def perturbed(key: PRNGKey, stream: Stream) -> Stream:
    """`stream` with a draw of its error added to the values."""
    error = stream.covariance.sample_root(jax.random.normal(key, stream.values.shape))
    return dataclasses.replace(stream, values=stream.values + jnp.where(stream.mask, error, 0.0))
