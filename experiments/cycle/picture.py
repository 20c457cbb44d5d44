"""How a run of cycles went: error and spread, and chi-squared, against time."""

from pathlib import Path
from typing import Any

import numpy as np

from slams_jax.verify.figures import label_axis, new_figure, save

POINTS = 1000  # of a curve, at most: means of equal numbers of cycles


def draw(records: list[dict[str, Any]], error: float, path: Path) -> Path:
    """RMSE of the mean and spread above, chi-squared below.

    Args:
        records: of the cycles, with `rmse` and `state_spread`.
        error: standard deviation of the observations.
        path: of the picture.
    """
    figure = new_figure(8.0, 5.0)
    above, below = figure.subplots(2, 1, sharex=True)
    time = _curve(records, "time")
    above.plot(time, _curve(records, "rmse"), color="#D55E00", lw=1.0, label="RMSE of the mean")
    above.plot(time, _curve(records, "state_spread"), color="#0072B2", lw=1.0, label="spread")
    above.axhline(error, color="0.4", lw=0.8, ls=":", label="error of the observations")
    above.legend(fontsize=8, frameon=False)
    below.plot(time, _curve(records, "chi_squared"), color="#009E73", lw=1.0)
    below.axhline(1.0, color="0.4", lw=0.8, ls=":")
    below.set_yscale("log")
    label_axis(above, "", "", "Analysis")
    label_axis(below, "", "Time", "Chi-squared per observation")
    return save(figure, path)


def _curve(records: list[dict[str, Any]], name: str) -> np.ndarray:
    """A field of the records, NaN where it is not known, averaged to `POINTS` values at most."""
    values = np.array([np.nan if r[name] is None else r[name] for r in records])
    block = -(-len(values) // POINTS)
    whole = values[: len(values) // block * block].reshape(-1, block)
    known = np.isfinite(whole)
    total = np.where(known, whole, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
