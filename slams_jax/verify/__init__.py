"""Verification: scores of analyses and ensembles, and the pictures of them.

`metrics` is pure array code; `plots` turns arrays into matplotlib figures and loads matplotlib only
when a figure is drawn.
"""

from slams_jax.verify import metrics, plots

__all__ = ["metrics", "plots"]
