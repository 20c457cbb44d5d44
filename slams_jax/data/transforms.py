"""Transforms that are applied to modalities before they are standardised.

`log1p`: y = log(1 + x / scale), for variables that are never negative, such as precipitation.
`log1p+wet`: as well as that, a channel of its own that is 1 where x is above zero and 0 where it is
not. Standardisation, which takes off the climatology of a point, leaves no other sign of the many
days on which it is exactly dry.

The state has an `anamorphosis` instead, which is undone: analyses are in physical units.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.lazy import LazyArray, computed
from slams_jax.schema import VARIABLES

Transform = Literal["log1p", "log1p+wet"]
WET = "_wet"  # added to the name of a variable
_NOISE = 1e-3  # of the scale: packing leaves values this far below zero, which count as zero


@dataclasses.dataclass(frozen=True)
class InputTransform:
    """How a modality is transformed; it goes with a model, whose inputs are to be made alike.

    Attributes:
        kind: "log1p" or "log1p+wet".
        scale: log(1 + x / scale), in the library's units of the variable.
    """

    kind: str
    scale: float = 1.0


def transform(
    dataset: xr.Dataset, kind: str, scale: float | int = 1.0, *, name: str = "field"
) -> xr.Dataset:
    """`dataset` transformed, computed when it is read; "" leaves it unchanged.

    Args:
        dataset: any variables.
        kind: of `Transform`, or "".
        scale: in the library's units of the variable.
        name: name of the field in error messages.

    Raises:
        InputError: an unknown transform or a scale that is not positive; on reading, a negative
            value.
    """
    if not kind:
        return dataset
    if kind not in get_args(Transform):
        raise InputError(f"{name}: unknown transform {kind!r}: choose from {get_args(Transform)}")
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"{name}: the scale of log1p must be a positive number, got {scale}")
    of = lambda function: computed(
        dataset,
        lambda a: _Scaled(a, scale, name, function),
        f"{kind} {scale}",
        attrs={"units": "1"},
    )
    found = of(np.log1p)
    if kind == "log1p+wet":
        wet = of(_above_zero)
        found = found.assign({f"{variable}{WET}": wet[variable] for variable in wet})
    return found


def _above_zero(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.nan, values > 0.0)


class _Scaled(LazyArray):
    """A function of values that are divided by a scale, and are not negative."""

    def __init__(
        self,
        array: xr.DataArray,
        scale: float | int,
        name: str,
        function: Callable[[np.ndarray], np.ndarray],
    ):
        self._array, self._scale, self._name, self._function = array, scale, name, function
        self.shape = array.shape

    def block(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """The values at the outer product of one index vector for each dimension."""
        picked = self._array.isel(dict(zip(self._array.dims, indices, strict=True)))
        values = picked.values.astype(np.float64) / self._scale
        lowest = float(np.min(values, initial=0.0, where=np.isfinite(values)))
        if lowest < -_NOISE:
            standard = VARIABLES.get(str(self._array.name))
            units = f" {standard.units}" if standard else ""
            raise InputError(
                f"{self._name}: {self._array.name} is as low as {lowest * self._scale:.4g}{units}, "
                "but log1p needs values from 0 up: declare the fill value, or set no transform"
            )
        return self._function(np.maximum(values, 0.0)).astype(np.float32)
