"""Verification: scores of analyses and ensembles, figures and reports.

`metrics` is pure array code; `plots`, `diagrams` and `maps` turn arrays into matplotlib figures and
load matplotlib only when a figure is drawn; `report` writes a self-contained HTML page.
"""

from slams_jax.verify import metrics, plots

__all__ = ["metrics", "plots"]
