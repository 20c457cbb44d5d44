"""Spread calibration: the factor on the error variances that makes an ensemble neither too sure
nor too unsure, fitted on data that are not those of the verification.
"""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slams_jax.errors import InputError
from slams_jax.verify.metrics import spread_skill

LOG = logging.getLogger(__name__)

Members = Float[np.ndarray, "member *points channel"]


class Inflation(NamedTuple):
    """What was found.

    Attributes:
        factor: on the error variances, for `assimilate(..., inflation=factor)`.
        before: spread over skill with a factor of one.
        after: with `factor`.
        tried: spread over skill of each factor that was tried.
    """

    factor: float
    before: float
    after: float
    tried: dict[float, float]


def fit_inflation(
    analyse: Callable[[float], Members],
    truth: Float[np.ndarray, "*points channel"],
    *,
    weights: Float[np.ndarray, "..."] | None = None,
    bounds: tuple[float, float] = (0.25, 16.0),
    tolerance: float = 0.02,
) -> Inflation:
    """The inflation for which the spread equals the error of the ensemble mean.

    Each factor costs one analysis: six or so. Where no factor within `bounds` does, the better end
    of them is taken, which `after` tells.

    Args:
        analyse: factor -> an analysis of validation data with it, always with the same key, so
            that two factors differ by nothing else.
        truth: what is analysed.
        weights: areas (lat, lon) of the axes before the last, as in `verify.metrics`.
        bounds: of the factor.
        tolerance: of the spread over skill.

    Raises:
        InputError: bounds that do not hold one; members without any spread, or without any error.
    """
    from scipy.optimize import brentq  # slow to import

    low, high = bounds
    if not 0 < low < 1 < high:
        raise InputError(f"bounds of the inflation must be positive and hold 1, got {bounds}")
    tried: dict[float, float] = {}

    def excess(log_factor: float) -> float:
        factor = math.exp(log_factor)
        if factor not in tried:
            tried[factor] = _ratio(analyse(factor), truth, weights)
            LOG.info("inflation %.3f: spread over skill %.3f", factor, tried[factor])
        ratio = tried[factor]
        return 0.0 if abs(ratio - 1.0) < tolerance else math.log(ratio)

    before = excess(0.0)
    end = math.log(high if before < 0 else low)
    if before != 0.0 and excess(end) * before < 0:
        brentq(excess, *sorted((0.0, end)), xtol=0.02, maxiter=20)
    factor = min(tried, key=lambda f: abs(math.log(tried[f])))
    return Inflation(factor, tried[1.0], tried[factor], tried)


def _ratio(members: Members, truth: np.ndarray, weights: np.ndarray | None) -> float:
    """The geometric mean over channels, which have units of their own."""
    if len(members) < 2:
        raise InputError(f"an inflation needs 2 members at least for a spread, got {len(members)}")
    ratio = np.asarray(spread_skill(members, truth, weights))
    if not np.all(np.isfinite(ratio) & (ratio > 0)):
        raise InputError(
            f"spread over skill is {np.round(ratio, 6).tolist()} (by channel): an inflation needs "
            "members that differ from one another and from the truth in every channel"
        )
    return float(np.exp(np.mean(np.log(ratio))))
