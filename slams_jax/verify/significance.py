r"""Significance of score differences: intervals of the mean of a short, correlated series.

The differences d_t of two systems' scores are modelled as a stationary first-order autoregression,

    d_t = m + u_t,      cov(u_s, u_t) = v r^|s - t|.

For known r, the mean m given d has Student's t distribution with n - 1 degrees of freedom about
the generalised least-squares estimate. A short series hardly tells r, and an interval that takes
an estimate of it for the truth is too narrow; here the t distributions are averaged over all r,
weighted by their likelihood (flat priors of m, log v and r: Zellner and Tiao 1964, J. Am. Stat.
Assoc. 59, 763-778). Over a year, d_t also has a cycle that another year would repeat: no chance,
but to the autoregression a slow wave. There the sine and cosine of the season are estimated with
m, at the cost of two degrees of freedom. docs/verification.md has the coverage.
"""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

from slams_jax.errors import InputError
from slams_jax.seasons import yearly_basis

FEWEST = 12  # times; with fewer, intervals of strongly correlated series are too narrow
SEASONS = np.timedelta64(300, "D")  # from which length on the annual cycle is estimated
MEMORY = np.linspace(-0.9, 0.97, 60)[:, None]  # r


class Difference(NamedTuple):
    """Difference in score between two systems over the same times, first minus second.

    Attributes:
        value: (channel,), units of the score.
        low: lower end of the confidence interval (channel,).
        high: upper end of the confidence interval (channel,).
        p_value: two-sided, for the hypothesis of no difference (channel,).
        independent: effective number of independent times, n (1 - r)/(1 + r), at most n (channel,).
    """

    value: Float[np.ndarray, " channel"]
    low: Float[np.ndarray, " channel"]
    high: Float[np.ndarray, " channel"]
    p_value: Float[np.ndarray, " channel"]
    independent: Float[np.ndarray, " channel"]


def paired_difference(
    first: Float[np.ndarray, "time channel"],
    second: Float[np.ndarray, "time channel"],
    *,
    times: np.ndarray | None = None,
    root: bool = False,
    confidence: float = 0.95,
) -> Difference:
    """Difference of two mean scores, its confidence interval and its p-value.

    Scores are paired by time, so that common difficulties cancel. The interval is symmetric about
    the difference, and holds the mean of the series with probability `confidence`; the p-value is
    the probability that the mean is further from the difference than zero is.

    Args:
        first: mean score at each time, averaged over area (time, channel); times equally spaced.
        second: scores of the other system at the same times.
        times: the times (time,), datetime64. From the first to the last of them in at least
            `SEASONS`, the annual cycle of the difference does not widen the interval. Without
            them, the times are taken for ones of one season.
        root: the scores are mean squares, and the difference is that of their roots.
        confidence: of the interval.

    Raises:
        InputError: scores of different shapes, at fewer than `FEWEST` times, or other `times`.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or len(first) < FEWEST:
        raise InputError(
            f"paired scores need equal shapes and at least {FEWEST} times, got {first.shape} and "
            f"{second.shape}"
        )
    if times is not None and np.shape(times) != first.shape[:1]:
        raise InputError(f"{len(first)} scores need as many times, got {np.shape(times)}")
    means = first.mean(axis=0), second.mean(axis=0)
    value, slopes = means[0] - means[1], (1.0, 1.0)
    if root:
        value = np.sqrt(means[0]) - np.sqrt(means[1])
        slopes = tuple(0.5 / np.sqrt(np.maximum(m, 1e-30)) for m in means)
    # The contribution of each time to the difference, to first order.
    mean = _mean_of(first * slopes[0] - second * slopes[1], _regressors(len(first), times))
    reach = mean.reach(confidence)
    memory = mean.memory
    independent = len(first) * np.minimum((1.0 - memory) / (1.0 + memory), 1.0)
    return Difference(value, value - reach, value + reach, mean.beyond(np.abs(value)), independent)


class _Mean(NamedTuple):
    """The mean of a series less its sample mean, as a mixture of t distributions.

    Attributes:
        weight: of each r (memory, channel).
        centre: of each t distribution (memory, channel).
        scale: likewise.
        freedom: their degrees of freedom.
    """

    weight: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    freedom: int

    @property
    def memory(self) -> np.ndarray:
        """Mean of r (channel,)."""
        return (self.weight * MEMORY).sum(axis=0)

    def beyond(self, distance: np.ndarray) -> np.ndarray:
        """Probability that the mean is further than `distance` from the sample mean (channel,)."""
        tail = lambda x: scipy.special.stdtr(self.freedom, -x / self.scale)
        tails = tail(distance + self.centre) + tail(distance - self.centre)
        return (self.weight * tails).sum(axis=0)

    def density(self, distance: np.ndarray) -> np.ndarray:
        """Minus the derivative of `beyond` (channel,)."""
        freedom = self.freedom
        norm = np.sqrt(freedom) * scipy.special.beta(0.5 * freedom, 0.5)
        power = lambda x: (1.0 + (x / self.scale) ** 2 / freedom) ** (-0.5 * (freedom + 1))
        both = power(distance + self.centre) + power(distance - self.centre)
        return (self.weight * both / (norm * self.scale)).sum(axis=0)

    def reach(self, confidence: float) -> np.ndarray:
        """The distance within which the mean is with probability `confidence` (channel,)."""
        quantile = scipy.special.stdtrit(self.freedom, 0.5 + 0.5 * confidence)
        high = (np.abs(self.centre) + quantile * self.scale).max(axis=0)
        low, distance = np.zeros_like(high), 0.5 * high
        for _ in range(60):  # Newton's method, and bisection where that leaves the bracket
            excess = self.beyond(distance) - (1.0 - confidence)
            low, high = np.where(excess > 0, distance, low), np.where(excess > 0, high, distance)
            before, distance = distance, distance + excess / self.density(distance)
            inside = (low <= distance) & (distance <= high)
            distance = np.where(inside, distance, 0.5 * (low + high))
            if np.all(np.abs(distance - before) <= 1e-12 * distance):
                break
        return distance


def _regressors(number: int, times: np.ndarray | None) -> np.ndarray:
    """A constant, and the season where there are enough of it, about its mean (time, term)."""
    if times is None or np.ptp(times) < SEASONS:
        return np.ones((number, 1))
    basis = yearly_basis(times, 1).astype(np.float64)
    return np.concatenate([basis[:, :1], basis[:, 1:] - basis[:, 1:].mean(axis=0)], axis=1)


def _mean_of(series: np.ndarray, regressors: np.ndarray) -> _Mean:
    """What a series (time, channel) says of the coefficient of the first of its regressors."""
    y, x = _whitened(series - series.mean(axis=0)), _whitened(regressors)
    gram = np.linalg.inv(np.einsum("rti,rtj->rij", x, x))
    moments = np.einsum("rti,rtc->ric", x, y)
    coefficients = gram @ moments
    # Equal systems differ by nothing: no interval, but no division by zero either.
    rest = np.maximum((y**2).sum(axis=1) - (moments * coefficients).sum(axis=1), 1e-300)
    number, freedom = len(series), len(series) - regressors.shape[1]
    determinants = (number - 1) * np.log(1.0 - MEMORY**2) - np.linalg.slogdet(gram)[1][:, None]
    log_weight = -0.5 * (determinants + freedom * np.log(rest))
    weight = np.exp(log_weight - log_weight.max(axis=0))
    scale = np.sqrt(rest * gram[:, :1, 0] / freedom)
    return _Mean(weight / weight.sum(axis=0), coefficients[:, 0], scale, freedom)


def _whitened(x: np.ndarray) -> np.ndarray:
    """Of x (time, ...), for each r, what is uncorrelated where x has the noise (memory, time, ...).

    The first value, and x_t - r x_{t-1} over its standard deviation.
    """
    r = MEMORY[..., None]
    steps = (x[1:] - r * x[:-1]) / np.sqrt(1.0 - r**2)
    return np.concatenate([np.broadcast_to(x[:1], (len(r), *x[:1].shape)), steps], axis=1)
