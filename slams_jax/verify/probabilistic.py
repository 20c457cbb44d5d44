"""Probabilistic scores: an ensemble against a truth, point by point."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from slams_jax.errors import InputError
from slams_jax.products import product
from slams_jax.verify.deterministic import rmse
from slams_jax.verify.points import (
    AnyArray,
    Members,
    Points,
    Score,
    Weights,
    check_shapes,
    ensemble_mean,
    ensemble_variance,
    float32,
    weighted_mean,
)


def crps(members: Members, truth: Points, weights: Weights = None) -> Score:
    """Fair continuous ranked probability score of an ensemble, in O(M log M).

    With the M members sorted, x₁ ≤ ... ≤ x_M,

        CRPS = ⟨ 1/M Σᵢ |xᵢ - y|  -  1/(M(M-1)) Σᵢ (2i - M - 1) xᵢ ⟩

    whose second term is half the mean difference between *distinct* members, so that the expected
    score does not depend on M (Ferro 2014, Q. J. R. Meteorol. Soc. 140, 1917-1923). A single member
    has no second term: its score is the mean absolute error.

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) for the axes before the last.

    Returns:
        (channel,), units of the truth.
    """
    check_shapes(members.shape[1:], truth.shape)
    y = float32(truth)
    error = float32(members) - y[None]
    score = jnp.mean(jnp.abs(error), axis=0)
    size = error.shape[0]
    if size > 1:
        # The coefficients sum to zero, so that errors, which are small, can replace members.
        rank = np.arange(1, size + 1, dtype=np.float32)
        coefficient = (2.0 * rank - size - 1.0) / (size * (size - 1.0))
        score = score - product("m,m...->...", coefficient, jnp.sort(error, axis=0))
    return weighted_mean(score, y, weights)


def brier(members: Members, truth: Points, threshold: Points, weights: Weights = None) -> Score:
    """Fair Brier score of the event that the truth exceeds a threshold.

    With k of the M members above the threshold and o = 1 where the truth is, else 0,

        BS = ⟨ (k/M - o)²  -  k (M - k) / (M² (M - 1)) ⟩ ,

    whose expectation does not depend on M (Ferro 2014, Q. J. R. Meteorol. Soc. 140, 1917-1923). A
    single member has no second term.

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        threshold: of the event at each point (..., channel).
        weights: areas (lat, lon) for the axes before the last.

    Returns:
        (channel,), 0 at best.
    """
    check_shapes(members.shape[1:], truth.shape)
    check_shapes(threshold.shape, truth.shape)
    x, y, level = float32(members), float32(truth), float32(threshold)
    share = jnp.mean((x > level[None]).astype(jnp.float32), axis=0)
    score = jnp.square(share - (y > level).astype(jnp.float32))
    size = x.shape[0]
    if size > 1:
        score = score - share * (1.0 - share) / (size - 1.0)
    # A member that is missing is no forecast of the event.
    score = jnp.where(jnp.all(jnp.isfinite(x), axis=0), score, jnp.nan)
    return weighted_mean(score, y, weights)


def energy_score(members: Members, truth: Points, weights: Weights = None) -> Float[Array, ""]:
    """Fair energy score, the CRPS of a vector such as a profile (Gneiting and Raftery 2007).

        ES = ⟨ 1/M Σᵢ |xᵢ - y|  -  1/(2 M (M-1)) Σᵢⱼ |xᵢ - xⱼ| ⟩

    with Euclidean norms over the last axis. It is proper for the joint distribution of the
    channels, while the CRPS of each channel measures only its marginal; it is half the squared
    energy distance between ensemble and truth at a point. Divide the channels by
    `climatological_std` first. J. Am. Stat. Assoc. 102, 359-378, eq. 22.

    Args:
        members: x (member, ..., channel); the score of a single member is its mean distance.
        truth: y (..., channel); points with a missing channel are ignored.
        weights: areas (lat, lon) for the axes before the last.

    Returns:
        A scalar, units of the truth.
    """
    check_shapes(members.shape[1:], truth.shape)
    y = float32(truth)
    error = float32(members) - y[None]
    length = lambda x: jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    score, size = jnp.mean(length(error), axis=0), error.shape[0]
    for shift in range(1, size):  # each member against the one `shift` places further: saves memory
        apart = length(error - jnp.roll(error, shift, axis=0))
        score = score - jnp.sum(apart, axis=0) / (2.0 * size * (size - 1))
    complete = jnp.where(jnp.isfinite(y).all(axis=-1, keepdims=True), 0.0, jnp.nan)
    return weighted_mean(score, complete, weights)[0]


def spread(members: Members, truth: Points | None = None, weights: Weights = None) -> Score:
    """Spread √⟨s²⟩, s² the unbiased variance of the ensemble (Fortin et al. 2014).

    Args:
        members: x (member, ..., channel), at least two members.
        truth: y (..., channel); points at which it is missing are ignored, so that spread and
            error are averaged over the same points.
        weights: areas (lat, lon) for the axes before the last.

    Returns:
        (channel,), units of the members.

    Raises:
        InputError: fewer than two members.
    """
    if members.shape[0] < 2:
        raise InputError(f"spread needs at least 2 members, got {members.shape[0]}")
    x = float32(members)
    if truth is not None:
        check_shapes(x.shape[1:], truth.shape)
    where = jnp.zeros_like(x[0]) if truth is None else truth
    return jnp.sqrt(weighted_mean(ensemble_variance(x), where, weights))


def asymptotic_rmse(members: Members, truth: Points, weights: Weights = None) -> Score:
    """RMSE that the ensemble mean would have with infinitely many members.

        √⟨(x̄ - y)² - s²/M⟩

    The mean of M exchangeable members has the sampling variance s²/M, which inflates the error of
    small ensembles and not that of one analysis that is itself a mean (Leutbecher 2019, Q. J. R.
    Meteorol. Soc. 145, 107-128, on ensemble size). Of a single member it is the RMSE.

    Args:
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) for the axes before the last.

    Returns:
        (channel,), units of the truth; zero where chance makes the square negative.
    """
    mean, size = ensemble_mean(float32(members)), members.shape[0]
    square = jnp.square(rmse(mean, truth, weights))
    if size > 1:
        square = square - jnp.square(spread(members, truth, weights)) / size
    return jnp.sqrt(jnp.maximum(square, 0.0))


def spread_skill(members: Members, truth: Points, weights: Weights = None) -> Score:
    """Ratio of the spread to the error of the ensemble mean; one for a calibrated ensemble.

        √((M + 1)/M) √⟨s²⟩ / √⟨(x̄ - y)²⟩

    The factor accounts for the sampling error of a mean of M members: if truth and members are
    drawn from the same distribution of variance σ², the mean square error of x̄ is (1 + 1/M) σ²
    (Fortin et al. 2014, J. Hydrometeorol. 15, 1708-1713). Below one, the ensemble is overconfident.

    Args:
        members: x (member, ..., channel), at least two members.
        truth: y (..., channel); NaN where missing.
        weights: areas (lat, lon) for the axes before the last.

    Returns:
        (channel,), dimensionless.

    Raises:
        InputError: fewer than two members.
    """
    size = members.shape[0]
    error = rmse(ensemble_mean(float32(members)), truth, weights)
    return float(np.sqrt((size + 1) / size)) * spread(members, truth, weights) / error


def rank_histogram(
    key: Key[Array, ""],
    members: Members,
    truth: Points,
    *,
    error_std: float | Float[AnyArray, "..."] | None = None,
) -> Int[Array, "channel bins"]:
    """Rank histogram: how often the truth has each rank among the members (Hamill 2001).

    The rank is the number of members below the truth; a truth that equals n members has one of
    n + 1 ranks, with equal probability. For *observations*, noise with the size of their error must
    be added to the members (Hamill 2001, Mon. Wea. Rev. 129, 550-560); otherwise even a perfect
    ensemble gives a U shape.

    Args:
        key: for ties and for the observation error.
        members: x (member, ..., channel).
        truth: y (..., channel); NaN where missing, and then not counted.
        error_std: standard deviation of the error of y, a number or an array that broadcasts to
            `truth`, in its units; None for a truth without error.

    Returns:
        (channel, M + 1) counts; the first bin is that of truths below all members.

    Raises:
        InputError: a member that is not finite where the truth is, or a negative `error_std`.
    """
    check_shapes(members.shape[1:], truth.shape)
    key_tie, key_error = jax.random.split(key)
    x, y = float32(members), float32(truth)
    present = jnp.isfinite(y)
    if not bool(jnp.all(jnp.isfinite(x) | ~present[None])):
        raise InputError("members must be finite wherever the truth is: their ranks are undefined")
    if error_std is not None:
        deviation = np.asarray(error_std, dtype=np.float32)
        if np.any(deviation < 0):
            raise InputError(f"error_std must not be negative, got {deviation.min():g}")
        noise = jax.random.normal(key_error, x.shape, jnp.float32)
        x = x + noise * jnp.broadcast_to(deviation, y.shape)[None]
    below = jnp.sum(x < y[None], axis=0, dtype=jnp.int32)
    ties = jnp.sum(x == y[None], axis=0, dtype=jnp.int32)
    rank = below + jax.random.randint(key_tie, y.shape, 0, ties + 1, jnp.int32)
    bins = x.shape[0] + 1
    flat = jnp.where(present, rank, bins).reshape(
        -1, y.shape[-1]
    )  # the last bin, of missing values, is dropped
    return jax.vmap(lambda r: jnp.bincount(r, length=bins + 1)[:bins], in_axes=1)(flat)


def flatness(counts: Int[AnyArray, "... bins"]) -> Float[Array, "..."]:
    """Chi-square statistic of a rank histogram against uniformity.

        χ² = Σⱼ (nⱼ - n/k)² / (n/k) ,  n = Σⱼ nⱼ over k bins

    For a calibrated ensemble and *independent* points it has a chi-square distribution with k - 1
    degrees of freedom. Neighbouring grid points and days are not independent: compare it between
    systems, or thin the points first (Jolliffe and Primo 2008, Mon. Wea. Rev. 136).

    Args:
        counts: n, with the bins on the last axis.

    Returns:
        The shape of `counts` without its last axis; NaN where nothing was counted.
    """
    number = float32(counts)
    expected = jnp.mean(number, axis=-1, keepdims=True)
    return jnp.sum(jnp.square(number - expected) / expected, axis=-1)
