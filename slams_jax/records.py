"""The record of a run: JSON with its own digest, compared field by field."""

import hashlib
import json
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from slams_jax.errors import InputError


def as_json(value: Any, *, name: str) -> Any:
    """`value` as JSON gives it back: tuples become lists, keys strings.

    Raises:
        InputError: something in it has no form in JSON.
    """
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold what JSON can: {error}") from None


def first_difference(theirs: Any, ours: Any, name: str = "") -> str | None:
    """The first field, in order of names, in which two trees of JSON differ; None if equal."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            inner = f"{name}.{key}" if name else key
            if key not in theirs or key not in ours:
                return f"{inner} is {'set' if key in theirs else 'not set'} there"
            found = first_difference(theirs[key], ours[key], inner)
            if found:
                return found
        return None
    return None if theirs == ours else f"{name} is {theirs!r} there and {ours!r} here"


def record_digest(record: Any) -> str:
    """SHA-256 of a record, or of anything that JSON can hold, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def arrays_digest(tree: PyTree) -> str:
    """SHA-256 of the values of all arrays of a tree, in its order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
