"""Meshes of a few of the virtual devices."""

import jax
import numpy as np

from slams_jax.mesh import analysis_mesh


def mesh_of(**axes):
    """A mesh of so many devices along `member`, `windows` and `space`."""
    count = int(np.prod(list(axes.values())))
    return analysis_mesh(axes.pop("member", 1), **axes, devices=jax.devices()[:count])
