"""Verification: scores of analyses and ensembles, and the pictures of them.

`metrics` is pure array code; `plots`, `diagrams` and `maps` turn arrays into matplotlib figures and
load matplotlib only when a figure is drawn; `report` makes one HTML page of it all.
"""

from slams_jax.verify import metrics, plots

__all__ = ["metrics", "plots"]
