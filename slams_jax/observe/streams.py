r"""Observation streams and their joint likelihood.

A stream states that y was observed through an operator H with Gaussian errors of covariance R:

    y = H(x) + e,  e ~ N(0, R),      log p(y | x) = -1/2 |W (y - H(x))|^2 + const,  W^T W = R^-1.

The log-likelihoods of independent streams add. A stream is in "state" space (x is the decoded state
in physical units) or in "latent" space (x is the latent itself, as in SLAMS).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import ObservationOperator, Trajectory
from slams_jax.errors import InputError
from slams_jax.observe.correlated import Dense, LowRank
from slams_jax.observe.covariance import Covariance, Diagonal
from slams_jax.observe.operators import Padded
from slams_jax.observe.robust import Robust

Space = Literal["state", "latent"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stream:
    """Observations of one kind. Build it with `make_stream`.

    Attributes:
        values: y, in the units of H(x); zero where missing.
        mask: True where a value was observed.
        operator: H.
        covariance: R.
        scale: climatological standard deviation of the observed quantity, in the same units; it
            scales the dimensionless variances of guidance rules (for unit-variance states).
        name: for messages and diagnostics.
        space: whether H acts on the decoded state or on the latent.
        robust: distribution that allows gross errors; None for Gaussian errors.
    """

    values: Float[Array, "time ..."]
    mask: Bool[Array, "time ..."]
    operator: ObservationOperator
    covariance: Covariance
    scale: Float[Array, "..."]
    name: str = dataclasses.field(metadata={"static": True})
    space: Space = dataclasses.field(default="state", metadata={"static": True})
    robust: Robust | None = dataclasses.field(default=None, metadata={"static": True})


def make_stream(
    name: str,
    values: Float[np.ndarray, "time ..."],
    operator: ObservationOperator,
    covariance: Covariance,
    *,
    scale: Float[np.ndarray, "..."] | float = 1.0,
    space: Space = "state",
    robust: Robust | None = None,
) -> Stream:
    """A stream of `values`, NaN where nothing was observed.

    Raises:
        InputError: no finite value, errors that are not positive, or a covariance that cannot be
            restricted to the observed values (`Separable` with incomplete frames).
    """
    values = np.asarray(values, dtype=np.float32)
    mask = np.isfinite(values)
    require_observed(mask, name)
    return Stream(
        values=jnp.asarray(np.where(mask, values, 0.0), dtype=jnp.float32),
        mask=jnp.asarray(mask),
        operator=operator,
        covariance=covariance.observed(mask, name),
        scale=jnp.asarray(scale, dtype=jnp.float32),
        name=name,
        space=space,
        robust=robust,
    )


def require_observed(mask: Bool[np.ndarray, "time ..."], name: str) -> None:
    """Raise InputError where nothing of the stream `name` was observed."""
    if not mask.any():
        raise InputError(f"stream {name!r} has no finite value: leave it out, or check its times")


def innovation(stream: Stream, x: Trajectory) -> Float[Array, "time ..."]:
    """y - H(x), zero where nothing was observed.

    Raises:
        InputError: a shape of y other than that of H(x).
    """
    predicted = stream.operator(x)
    if predicted.shape != stream.values.shape:
        raise InputError(
            f"stream {stream.name!r} has values of shape {stream.values.shape}, but its operator "
            f"gives {predicted.shape}: give one value for each time and observation, NaN if missing"
        )
    return jnp.where(stream.mask, stream.values - predicted, 0.0)


def whitened_innovations(
    streams: Sequence[Stream],
    latent: Trajectory,
    decode: Callable[[Trajectory], Trajectory],
    extra: Array,
) -> tuple[Array, ...]:
    """W (y - H(x)) for each stream, with W^T W = (R + extra scale^2)^-1.

    Innovations of a robust stream are multiplied by the square roots of their weights, which turns
    rules for Gaussian errors into iteratively reweighted least squares.

    Args:
        streams: the observations.
        latent: trajectory of latents (of states, without an autoencoder).
        decode: from a latent trajectory to a state trajectory in physical units.
        extra: dimensionless variance that a guidance rule adds to every observation.
    """
    residuals = _whitened(streams, latent, decode, extra)
    # With the weights held fixed, half the square has the gradient of the loss.
    return tuple(
        r if s.robust is None else r * jax.lax.stop_gradient(jnp.sqrt(s.robust.weight(r)))
        for s, r in zip(streams, residuals, strict=True)
    )


def log_likelihood(
    streams: Sequence[Stream], latent: Trajectory, decode: Callable[[Trajectory], Trajectory]
) -> Float[Array, ""]:
    """log p(all observations | latent), up to a constant."""
    residuals = _whitened(streams, latent, decode, jnp.zeros(()))
    losses = (
        0.5 * r**2 if s.robust is None else s.robust.loss(r)
        for s, r in zip(streams, residuals, strict=True)
    )
    return -sum((jnp.sum(loss) for loss in losses), start=jnp.zeros(()))


def without_gross_errors(
    stream: Stream,
    state: Trajectory,
    std: Float[Array, "..."],
    *,
    threshold: float = 5.0,
    tangent: bool = True,
) -> Stream:
    """The stream after a background check, which rejects values too far from a background.

    A value is rejected if |y - H(x_b)| exceeds `threshold` times its standard deviation, which
    combines the errors of y and H(x_b) (Lorenc & Hammon 1988, Q. J. R. Meteorol. Soc. 114). The
    latter is taken as |H'(x_b) std|, as for a background error of one sign, which favours keeping
    the observations; or, of an operator without a slope at x_b, as |H(x_b + std) - H(x_b)|.

    Args:
        stream: in state space, with independent errors.
        state: x_b, physical units.
        std: standard deviation of its errors; broadcasts to `state`.
        threshold: in standard deviations.
        tangent: take the slope of the operator; False takes the difference.

    Raises:
        InputError: a stream that is not of this kind, or a threshold that is not positive.
    """
    if threshold <= 0:
        raise InputError(f"the threshold of gross errors must be positive, got {threshold}")
    if stream.space != "state" or not isinstance(stream.covariance, Diagonal):
        raise InputError(
            f"stream {stream.name!r} cannot be checked for gross errors: the check needs "
            "independent errors in state space"
        )
    direction = jnp.broadcast_to(std, state.shape)
    if tangent:
        _, carried = jax.jvp(stream.operator, (state,), (direction,))
    else:
        carried = stream.operator(state + direction) - stream.operator(state)
    total = jnp.broadcast_to(stream.covariance.variance, stream.mask.shape) + carried**2
    good = jnp.abs(innovation(stream, state)) <= threshold * jnp.sqrt(total)
    mask = stream.mask & good
    return dataclasses.replace(stream, mask=mask, values=jnp.where(mask, stream.values, 0.0))


def pad_points(stream: Stream, multiple: int) -> Stream:
    """A stream of `Points` padded with unobserved points to a multiple of `multiple`.

    Station networks grow and shrink; padded to the same shape, they share a compiled program.
    """
    count = stream.mask.shape[1]
    added = -count % multiple
    if not added:
        return stream
    wide = lambda a, **options: jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, added)], **options)
    covariance = stream.covariance
    assert isinstance(covariance, Diagonal)
    full = lambda a: jnp.broadcast_to(a, jnp.broadcast_shapes(a.shape, (count,)))
    return dataclasses.replace(
        stream,
        values=wide(stream.values),
        mask=wide(stream.mask),
        covariance=Diagonal(wide(full(covariance.variance), constant_values=1.0)),
        scale=wide(full(stream.scale), constant_values=1.0),
        operator=jax.tree.map(
            lambda a: jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, added), (0, 0)]), stream.operator
        ),
    )


def pad_times(stream: Stream, frames: int) -> Stream:
    """The stream with times after its own, `frames` in all, at which nothing is observed.

    An own operator with arrays of its own for each time cannot be padded: it must take any number.
    """
    count = stream.mask.shape[0]
    more = frames - count

    def repeated(a: Array) -> Array:
        """The last frame again; what stands for all times as it is."""
        return jnp.concatenate([a, jnp.repeat(a[-1:], more, axis=0)])

    def of_each_time(a: Array) -> Array:
        return repeated(a) if a.ndim == stream.mask.ndim and a.shape[0] == count else a

    zeros = lambda a: jnp.pad(a, [(0, more)] + [(0, 0)] * (a.ndim - 1))
    covariance, operator = stream.covariance, stream.operator
    if isinstance(covariance, Diagonal):
        covariance = Diagonal(of_each_time(covariance.variance))
    elif isinstance(covariance, LowRank | Dense):
        covariance = jax.tree.map(lambda a: repeated(a) if len(a) == count else a, covariance)
    elif isinstance(covariance, Padded):
        covariance = covariance.padded(more)
    if isinstance(operator, Padded):
        operator = operator.padded(more)
    return dataclasses.replace(
        stream,
        values=zeros(stream.values),
        mask=zeros(stream.mask),
        covariance=covariance,
        scale=of_each_time(stream.scale),
        operator=operator,
    )


def _whitened(streams: Sequence[Stream], latent: Trajectory, decode, extra: Array) -> list[Array]:
    """Whitened innovations of each stream, without robust weights."""
    state = decode(latent) if any(s.space == "state" for s in streams) else latent
    at = lambda s: state if s.space == "state" else latent
    return [s.covariance.whiten(innovation(s, at(s)), extra * s.scale**2) for s in streams]


def identity_decode(state: Trajectory) -> Trajectory:
    """The decoder of a model without an autoencoder, whose latent is the state."""
    return state
