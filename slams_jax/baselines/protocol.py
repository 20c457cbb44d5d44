"""What a baseline is: a function from what was observed in a window of times to an ensemble."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import PRNGKey
from slams_jax.observe import Stream

Ensemble = Float[Array | np.ndarray, "member time lat lon channel"]
# What the analysis of one time goes by: data up to that time, or of the complete window.
Sees = Literal["past", "window"]

BACKGROUND = "background"


@dataclasses.dataclass(frozen=True)
class Window:
    """Consecutive times and everything that is known of them.

    Attributes:
        climate: climatology of the state, physical units.
        std: climatological standard deviations of the state.
        streams: observations of the state, without the background.
        fields: standardised gridded fields (time, lat, lon, channel) by name, NaN where missing;
            the background, under its name, with the climatology and the scale of the state.
    """

    climate: Float[np.ndarray, "time lat lon channel"]
    std: Float[np.ndarray, " channel"]
    streams: tuple[Stream, ...] = ()
    fields: Mapping[str, Float[np.ndarray, "time lat lon _"]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def background(self) -> Float[np.ndarray, "time lat lon channel"]:
        """The background, physical units."""
        return self.climate + self.std * self.fields[BACKGROUND]


class Baseline(Protocol):
    """A classical analysis, with all that it estimated from the training period."""

    @property
    def sees(self) -> Sees:
        """Whether the analysis of a time uses data up to it, as a filter, or of all times."""
        ...

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of fields, and "streams" for observations."""
        ...

    def __call__(self, key: PRNGKey, window: Window, *, members: int) -> Ensemble:
        """Draws from the analysis at all times of the window, physical units.

        Deterministic baselines give one member, for any number.
        """
        ...
