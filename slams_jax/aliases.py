"""Names for arrays, and the protocols that connect the parts of the library."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Key, PyTree

# One frame is (latitude, longitude, channel); a trajectory has time in front. Channels come last.
Frame = Float[Array, "lat lon channel"]
Trajectory = Float[Array, "time lat lon channel"]
Scalar = Float[Array, ""]
PRNGKey = Key[Array, ""]
Params = PyTree[Float[Array, "..."]]


@runtime_checkable
class Denoiser(Protocol):
    """E[x_0 | x_t] as a function of x_t and a scalar t in [0, 1], with the shape of `x_t`."""

    def __call__(self, x_t: Array, t: Array, /) -> Array:
        """Return the posterior mean of the clean array given the noisy one."""
        ...


@runtime_checkable
class ObservationOperator(Protocol):
    """H, from a trajectory of states (time, lat, lon, channel) to observations (time, ...)."""

    def __call__(self, state: Array, /) -> Array:
        """Return the observed quantities in `state`."""
        ...


@runtime_checkable
class Forecast(Protocol):
    """From a state, any pytree, to the state some steps later; pure, random only through `key`."""

    def __call__(self, state: PyTree, key: PRNGKey, /) -> PyTree:
        """Return the later state."""
        ...
