r"""Observation streams and the one likelihood that they make.

A stream says that y was observed through an operator H with Gaussian errors of covariance R:

    y = H(x) + e,  e ~ N(0, R),      log p(y | x) = -1/2 |W (y - H(x))|^2 + const,  W^T W = R^-1.

Independent streams add up. A stream lives in "state" space (x is the decoded state in physical
units) or in "latent" space (x is the latent itself, as in SLAMS).
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
from slams_jax.observe.covariance import Covariance, Diagonal, Separable

Space = Literal["state", "latent"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stream:
    """One kind of observations. Build it with `make_stream`.

    Attributes:
        values: y, in the units of H(x); zero where missing.
        mask: whether a value was observed.
        operator: H.
        covariance: R.
        scale: the climatological standard deviation of what is observed, in the same units: it
            carries a rule's dimensionless variances (for unit-variance states) to this stream.
        name: for messages and diagnostics.
        space: whether H acts on the decoded state or on the latent.
    """

    values: Float[Array, "time ..."]
    mask: Bool[Array, "time ..."]
    operator: ObservationOperator
    covariance: Covariance
    scale: Float[Array, "..."]
    name: str = dataclasses.field(metadata={"static": True})
    space: Space = dataclasses.field(default="state", metadata={"static": True})


def make_stream(
    name: str,
    values: Float[np.ndarray, "time ..."],
    operator: ObservationOperator,
    covariance: Covariance,
    *,
    scale: Float[np.ndarray, "..."] | float = 1.0,
    space: Space = "state",
) -> Stream:
    """A stream of `values`, NaN where nothing was observed.

    Raises:
        InputError: no value at all, errors that are not positive, or (for correlated errors) a
            frame observed only in part.
    """
    values = np.asarray(values, dtype=np.float32)
    mask = np.isfinite(values)
    if not mask.any():
        raise InputError(f"stream {name!r} holds no finite value: leave it out or check its times")
    if isinstance(covariance, Diagonal):
        variance = np.asarray(covariance.variance)
        if variance.shape == mask.shape:  # what was not observed needs no error
            variance = np.where(mask, variance, 1.0)
        if not np.all(np.isfinite(variance) & (variance > 0)):
            raise InputError(
                f"stream {name!r} has an error that is not positive: errors must be > 0"
            )
        covariance = Diagonal(jnp.asarray(variance, dtype=jnp.float32))
    if isinstance(covariance, Separable):
        frames = mask.reshape(len(mask), -1)
        if np.any(frames.any(axis=1) != frames.all(axis=1)):
            raise InputError(
                f"stream {name!r} has correlated errors but frames with missing values: "
                "fill them or leave the whole frame out"
            )
    return Stream(
        values=jnp.asarray(np.where(mask, values, 0.0), dtype=jnp.float32),
        mask=jnp.asarray(mask),
        operator=operator,
        covariance=covariance,
        scale=jnp.asarray(scale, dtype=jnp.float32),
        name=name,
        space=space,
    )


def innovation(stream: Stream, x: Trajectory) -> Float[Array, "time ..."]:
    """y - H(x), zero where nothing was observed.

    Raises:
        InputError: values that H(x) does not match, in number of times or of observations.
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

    Args:
        streams: the observations.
        latent: a trajectory of latents (of states, where there is no autoencoder).
        decode: latent trajectory -> state trajectory in physical units.
        extra: dimensionless variance added to every observation (a guidance rule's).
    """
    state = decode(latent) if any(s.space == "state" for s in streams) else latent
    return tuple(
        s.covariance.whiten(
            innovation(s, state if s.space == "state" else latent), extra * s.scale**2
        )
        for s in streams
    )


def log_likelihood(
    streams: Sequence[Stream], latent: Trajectory, decode: Callable[[Trajectory], Trajectory]
) -> Float[Array, ""]:
    """log p(all observations | latent), up to a constant."""
    residuals = whitened_innovations(streams, latent, decode, jnp.zeros(()))
    return -0.5 * sum((jnp.sum(r**2) for r in residuals), start=jnp.zeros(()))


def identity_decode(state: Trajectory) -> Trajectory:
    """The decoder of a model without one: its latent is the state."""
    return state
