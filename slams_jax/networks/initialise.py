"""Fast initialisation of parameters."""

import math
from collections.abc import Callable
from typing import Any

import jax

from slams_jax.aliases import PRNGKey


def initialise(init: Callable[..., Any], key: PRNGKey, *args: Any) -> Any:
    """The variables of `init(key, *args)` of a Linen module, with all kernels from one random draw.

    Compiling a draw for each of a network's many shapes takes ten seconds or more. Leaves named
    "kernel" are normal with variance 1 / fan-in (LeCun); all others are as `init` makes them.

    Args:
        init: the module's `init`, or a function that calls it.
        key: for the draw.
        args: arrays for `init`.
    """

    def start(key: PRNGKey, *args: Any) -> Any:
        variables = init(key, *args)
        leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
        drawn = [path[-1].key == "kernel" for path, _ in leaves]
        size = sum(leaf.size for (_, leaf), draw in zip(leaves, drawn, strict=True) if draw)
        noise = jax.random.normal(key, (size,))
        result, at = [], 0
        for (_, leaf), draw in zip(leaves, drawn, strict=True):
            if draw:  # the compiler removes the draw of `init`, which nothing reads
                values = noise[at : at + leaf.size].reshape(leaf.shape)
                result.append(values / math.sqrt(leaf.size / leaf.shape[-1]))
                at += leaf.size
            else:
                result.append(leaf)
        return jax.tree.unflatten(tree, result)

    return jax.jit(start)(key, *args)
