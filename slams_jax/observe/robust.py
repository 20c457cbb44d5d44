"""Distributions of errors that include gross ones: losses that grow more slowly than r^2."""

import dataclasses
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array

from slams_jax.errors import InputError

Kind = Literal["huber", "student_t"]


@dataclasses.dataclass(frozen=True)
class Robust:
    """A loss function of the whitened residual r (in standard deviations). Hashable.

    Attributes:
        kind: "huber": r^2 / 2 up to |r| = `parameter`, linear beyond (Huber 1964; Tavolato &
            Isaksen 2015 for weather observations). "student_t": (n + 1) / 2 log(1 + r^2 / n), with
            n = `parameter` degrees of freedom.
        parameter: see `kind`; positive.

    Raises:
        InputError: an unknown kind or a parameter that is not positive.
    """

    kind: Kind
    parameter: float

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise InputError(f"unknown robust kind {self.kind!r}: choose from {get_args(Kind)}")
        if not self.parameter > 0:
            raise InputError(f"robust parameter must be positive, got {self.parameter}")

    def loss(self, r: Array) -> Array:
        """-log p(r), up to a constant."""
        c = self.parameter
        if self.kind == "student_t":
            return 0.5 * (c + 1.0) * jnp.log1p(r**2 / c)
        return jnp.where(jnp.abs(r) <= c, 0.5 * r**2, c * jnp.abs(r) - 0.5 * c**2)

    def weight(self, r: Array) -> Array:
        """(d loss / dr) / r: weight relative to a Gaussian error."""
        c = self.parameter
        if self.kind == "student_t":
            return (c + 1.0) / (c + r**2)
        return c / jnp.maximum(jnp.abs(r), c)
