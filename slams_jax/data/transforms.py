"""Transforms that are applied to modalities before they are standardised.

`log1p`: y = log(1 + x / scale), for variables that are never negative and mostly zero, such as
precipitation. The state is never transformed: analyses are in physical units.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.lazy import LazyArray, computed
from slams_jax.schema import VARIABLES

Transform = Literal["log1p"]
_NOISE = 1e-3  # of the scale: packing leaves values this far below zero, which count as zero


def transform(
    dataset: xr.Dataset, kind: str, scale: float | int = 1.0, *, name: str = "field"
) -> xr.Dataset:
    """`dataset` transformed, computed when it is read; "" leaves it unchanged.

    Args:
        dataset: any variables.
        kind: "log1p" or "".
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
        raise InputError(f"{name}: the scale of {kind} must be a positive number, got {scale}")
    return computed(
        dataset, lambda a: _Log1p(a, scale, name), f"{kind} {scale}", attrs={"units": "1"}
    )


class _Log1p(LazyArray):
    def __init__(self, array: xr.DataArray, scale: float | int, name: str):
        self._array, self._scale, self._name = array, scale, name
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
        return np.log1p(np.maximum(values, 0.0)).astype(np.float32)
