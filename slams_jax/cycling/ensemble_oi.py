"""Ensemble optimal interpolation: the covariance of a static ensemble (Evensen 2003, section 4.4).

    x_a - x_b = (ρ_xy ∘ A Y^T) (ρ_yy ∘ Y Y^T + R)^-1 (y - H(x_b))

The columns of A are the departures of states of a long run from their mean, scaled so that
B = A A^T; those of Y are the departures of what would be observed, H(x). The localisation ρ damps
the sampling error of covariances over long distances (Houtekamer & Mitchell 2001). An increment is
a combination of states of the model with weights that vary smoothly in space, so that it is nearly
as balanced as they are.

Evensen (2003), Ocean Dynamics 53, 343-367. Houtekamer & Mitchell (2001), Mon. Wea. Rev. 129,
123-137.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from slams_jax.errors import InputError
from slams_jax.grid import EARTH_RADIUS
from slams_jax.products import product


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EnsembleOI:
    """An analysis scheme for a fixed network of stations; build it with `ensemble_oi`.

    Attributes:
        anomalies: A, whose leaves have the members in front and the places, such as (lat, lon),
            behind.
        observed: Y over the errors of the observations.
        inverse: of ρ_yy ∘ Y Y^T + R, in units of the errors.
        error: standard deviation of the observations of a station.
        nearness: ρ_xy between stations and places.
    """

    anomalies: PyTree[Float[Array, "member ..."]]
    observed: Float[Array, "member station value"]
    inverse: Float[Array, "point point"]
    error: Float[Array, " value"]
    nearness: Float[Array, "station ..."]

    def increment(self, departure: Float[Array, "station value"]) -> PyTree[Float[Array, "..."]]:
        """x_a - x_b, given y - H(x_b)."""
        solved = product("ij,j->i", self.inverse, (departure / self.error[None]).reshape(-1))
        of_station = product("msv,sv->ms", self.observed, solved.reshape(departure.shape))
        weights = product("ms,s...->m...", of_station, self.nearness)

        def combine(a):
            inner = (1,) * (a.ndim - weights.ndim)
            shape = (weights.shape[0], *inner, *weights.shape[1:])
            return jnp.sum(weights.reshape(shape) * a, axis=0)

        return jax.tree.map(combine, self.anomalies)


def ensemble_oi(
    states: PyTree[Float[Array, "member ..."]],
    operator: Callable[[PyTree], Float[Array, "station value"]],
    error: Float[Array, " value"],
    *,
    variance: float,
    nearness: Float[Array, "station ..."],
    between: Float[Array, "station station"],
) -> EnsembleOI:
    """The scheme whose background covariance is `variance` times that of `states`.

    Args:
        states: of the model; at least two.
        operator: H, from a state to what is observed at each station.
        error: standard deviation of the observations of a station, independent of one another.
        variance: of the background's error over that of the states.
        nearness: ρ_xy, the localisation between stations and places; ones for none.
        between: ρ_yy, the localisation between stations.

    Raises:
        InputError: a single state, or a variance that is not positive.
    """
    count = len(jax.tree.leaves(states)[0])
    if count < 2 or not variance > 0:
        raise InputError(
            f"ensemble OI needs at least 2 states and a variance > 0, got {count} and {variance}"
        )
    size = (variance / (count - 1)) ** 0.5

    def departures(x):
        return size * (x - x.mean(axis=0, keepdims=True))

    observed = departures(jax.lax.map(operator, states)) / error[None, None]
    values = len(error)
    flat = observed.reshape(count, -1)
    localised = jnp.kron(between, jnp.ones((values, values), flat.dtype))
    covariance = localised * product("mi,mj->ij", flat, flat)
    inverse = jnp.linalg.inv(covariance + jnp.eye(len(covariance), dtype=flat.dtype))
    return EnsembleOI(jax.tree.map(departures, states), observed, inverse, error, nearness)


def localisation(
    first: tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]],
    second: tuple[Float[np.ndarray, "*m"], Float[np.ndarray, "*m"]],
    radius: float,
) -> Float[np.ndarray, "..."]:
    """exp(-d² / 2 r²) between places on the sphere, for d the length of the chord.

    As a Gaussian function in space it is positive definite on the sphere too.

    Args:
        first: latitudes and longitudes, degrees.
        second: the same, of the other places; their axes follow those of `first`.
        radius: r, km.
    """
    chord = 2.0 - 2.0 * np.tensordot(_unit(*first), np.moveaxis(_unit(*second), -1, 0), 1)
    return np.exp(-0.5 * (EARTH_RADIUS / (1e3 * radius)) ** 2 * chord).astype(np.float32)


def _unit(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
