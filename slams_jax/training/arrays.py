"""Trees of arrays as they stand in a checkpoint: nested dictionaries, and their digests.

Every container becomes a dictionary of strings (fields, keys, positions) and an empty one
vanishes, so that a checkpoint is read without the code that wrote it. The manifest mirrors that
dictionary with [dtype, shape, sha256] for each array.
"""

import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from slams_jax.mesh import to_host

Nested = dict[str, Any]


class Damage(Exception):
    """What was read is not what was written."""


def _names(path: tuple[Any, ...]) -> list[str]:
    """The strings of a path into a tree: keys, fields, positions."""
    return [jax.tree_util.keystr((entry,), simple=True) for entry in path]


def nested(tree: PyTree) -> Nested:
    """A tree of arrays -> nested dictionaries of host arrays, copied: the devices may go on."""
    result: Nested = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = _names(path)
        node = result
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = np.array(to_host(leaf))
    return result


def like(target: PyTree, arrays: Nested) -> PyTree:
    """The arrays of nested dictionaries in the structure of `target`.

    Raises:
        KeyError: an array of `target` is absent; its argument is the name.
        ValueError: an array has another shape or dtype than in `target`.
    """

    def find(path: tuple[Any, ...], wanted: Any) -> np.ndarray:
        names = _names(path)
        node: Any = arrays
        for name in names:
            if not isinstance(node, dict) or name not in node:
                raise KeyError(".".join(names))
            node = node[name]
        if node.shape != wanted.shape or node.dtype != wanted.dtype:
            raise ValueError(
                f"{'.'.join(names)} is {node.dtype}{list(node.shape)} there "
                f"and {wanted.dtype}{list(wanted.shape)} here"
            )
        return node

    return jax.tree_util.tree_map_with_path(find, target)


def manifest(arrays: Nested) -> Nested:
    """[dtype, shape, sha256] of every array."""
    return {
        name: manifest(value)
        if isinstance(value, dict)
        else [str(value.dtype), list(value.shape), _digest(value)]
        for name, value in arrays.items()
    }


def blank(described: Nested) -> Nested:
    """Arrays of the dtypes and shapes of a manifest, for a reader that wants to know them."""
    return {
        name: blank(value) if isinstance(value, dict) else np.zeros(value[1], np.dtype(value[0]))
        for name, value in described.items()
    }


def verify(arrays: Nested, described: Nested, *, where: str) -> None:
    """Compare arrays with the manifest written beside them.

    Raises:
        Damage: names the first array that differs.
    """
    found = manifest(arrays)
    for name, value in described.items():
        inner = f"{where}.{name}"
        if isinstance(value, dict):
            verify(arrays.get(name, {}), value, where=inner)
        elif found.get(name) != value:
            raise Damage(f"{inner} does not match its digest")


def first_not_finite(arrays: Nested) -> str | None:
    """The name of the first array with a NaN or an infinity in it; None if all are well."""
    for path, x in jax.tree_util.tree_leaves_with_path(arrays):
        if jax.numpy.issubdtype(x.dtype, np.floating) and not np.all(np.isfinite(x)):
            return ".".join(_names(path))
    return None


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
