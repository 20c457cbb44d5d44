r"""Exact posteriors, and scores of an ensemble against one.

Errors are in units of the posterior's standard deviation. The sampling error that an ensemble of
exact draws would have is subtracted where possible (means and covariances) and reported where not
(W1). Standard errors come from a jackknife over groups of draws, which accounts for correlations
between the components of a state.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float

from slams_jax.reference_problems.priors import Mixture

# Levels of the tabulated quantiles, dense in the tails.
LEVELS = scipy.special.ndtr(np.linspace(-5.0, 5.0, 1001))
GROUPS = 16  # in the jackknife


@dataclasses.dataclass(frozen=True)
class Exact:
    """Known properties of a posterior of flattened trajectories.

    Attributes:
        mean: of every component.
        std: of every component.
        directions: along which covariances and distributions are compared.
        direction_std: standard deviations along the directions.
        quantiles: of departures from the mean along the directions, at `LEVELS`, in units of
            `direction_std`.
        shares: probabilities of the modes; empty if there are no separate modes.
        mode_of: mode of each draw, 0 to len(shares) - 1.
    """

    mean: Float[np.ndarray, " size"]
    std: Float[np.ndarray, " size"]
    directions: Float[np.ndarray, "direction size"]
    direction_std: Float[np.ndarray, " direction"]
    quantiles: Float[np.ndarray, "direction level"]
    shares: Float[np.ndarray, " mode"] = dataclasses.field(default_factory=lambda: np.zeros(0))
    mode_of: Callable[[np.ndarray], np.ndarray] | None = None

    @classmethod
    def gaussian(
        cls,
        mean: Float[np.ndarray, " size"],
        covariance: Float[np.ndarray, "size size"],
        directions: Float[np.ndarray, "direction size"],
    ) -> "Exact":
        """N(mean, covariance)."""
        along = np.sqrt(np.einsum("ka,ab,kb->k", directions, covariance, directions, optimize=True))
        normal = np.broadcast_to(scipy.special.ndtri(LEVELS), (len(directions), len(LEVELS)))
        return cls(mean, np.sqrt(np.diag(covariance)), directions, along, normal)

    @classmethod
    def mixture(
        cls, posterior: Mixture, directions: Float[np.ndarray, "direction size"]
    ) -> "Exact":
        """A mixture of Gaussians, whose components are the modes."""
        mean, covariance = posterior.mean(), posterior.covariance()
        along = np.sqrt(np.einsum("ka,ab,kb->k", directions, covariance, directions))
        quantiles = []
        for direction, std in zip(directions, along, strict=True):
            centres = (posterior.means - mean) @ direction / std
            widths = np.sqrt(posterior.covariances @ direction @ direction) / std
            x = np.linspace(-10.0, 10.0, 40001)
            quantiles.append(_mixture_quantiles(centres, widths, posterior.weights, x))
        # Shares of the regions in which each component is the likeliest, by simulation, to 0.001.
        sample = posterior.draw(np.random.default_rng(0), 200_000)
        modes = len(posterior.weights)
        shares = np.bincount(posterior.component_of(sample), minlength=modes) / len(sample)
        return cls(
            mean,
            np.sqrt(np.diag(covariance)),
            directions,
            along,
            np.stack(quantiles),
            shares,
            posterior.component_of,
        )

    @classmethod
    def weighted(
        cls,
        nodes: Float[np.ndarray, "node size"],
        weights: Float[np.ndarray, " node"],
        directions: Float[np.ndarray, "direction size"],
        modes: int = 0,
        mode_of: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> "Exact":
        """A posterior given by quadrature nodes and their weights, which sum to one."""
        mean = weights @ nodes
        apart = nodes - mean
        along = np.sqrt(weights @ (apart @ directions.T) ** 2)
        quantiles = []
        for direction, std in zip(directions, along, strict=True):
            x = apart @ direction / std
            order = np.argsort(x)
            cdf = np.cumsum(weights[order]) - 0.5 * weights[order]
            quantiles.append(np.interp(LEVELS, cdf, x[order]))
        shares = np.zeros(0)
        if mode_of is not None:
            shares = np.bincount(mode_of(nodes), weights, minlength=modes)
        return cls(
            mean,
            np.sqrt(weights @ apart**2),
            directions,
            along,
            np.stack(quantiles),
            shares,
            mode_of,
        )

    @classmethod
    def smoothed(
        cls,
        mean: Float[np.ndarray, " size"],
        std: Float[np.ndarray, " size"],
        directions: Float[np.ndarray, "direction size"],
        centres: Float[np.ndarray, "draw direction"],
        widths: Float[np.ndarray, " direction"],
    ) -> "Exact":
        """A posterior that is Gaussian given each of some draws.

        Args:
            mean: of every component.
            std: of every component.
            directions: as in `Exact`.
            centres: means along the directions, given each draw.
            widths: standard deviations along the directions, the same given any draw.
        """
        middle = directions @ mean
        along = np.sqrt(centres.var(axis=0) + widths**2)
        x, equal = np.linspace(-8.0, 8.0, 1601), np.full(len(centres), 1.0 / len(centres))
        quantiles = [
            _mixture_quantiles((centre - at) / scale, width / scale, equal, x)
            for centre, width, at, scale in zip(centres.T, widths, middle, along, strict=True)
        ]
        return cls(mean, std, directions, along, np.stack(quantiles))

    def w1_of_exact(self, draws: int) -> float:
        """Expected W1 of this number of independent exact draws, their own sampling error.

        E |F_n - F| is sqrt(2 F (1 - F) / (pi n)) for large n, integrated over x.
        """
        root = np.sqrt(LEVELS * (1 - LEVELS))
        middle = 0.5 * (root[1:] + root[:-1])
        total = (np.diff(self.quantiles, axis=1) * middle).sum(axis=1)
        return float(np.sqrt(2 / (np.pi * draws)) * total.mean())


def _mixture_quantiles(
    centres: Float[np.ndarray, " component"],
    widths: Float[np.ndarray, " component"] | float,
    weights: Float[np.ndarray, " component"],
    x: Float[np.ndarray, " point"],
) -> Float[np.ndarray, " level"]:
    """At `LEVELS`, of a mixture of normal distributions, tabulated at the points `x`."""
    cdf = scipy.special.ndtr((x[:, None] - centres) / widths) @ weights
    return np.interp(LEVELS, cdf, x)


@dataclasses.dataclass(frozen=True)
class Score:
    """Distances of an ensemble from the exact posterior.

    Attributes:
        mean_error: rms over the components of (mean - exact mean) / exact standard deviation, with
            the sampling error subtracted in quadrature.
        mean_error_se: its standard error; the names of the other standard errors end so too.
        variance_ratio: mean over the components of variance / exact variance.
        covariance_error: rms over the directions of variance / exact variance - 1, with the
            sampling error subtracted in quadrature. Directions mix components, so that this
            measures the covariances between them.
        w1: mean over the directions of the Wasserstein distance W1, in standard deviations.
        w1_exact: mean W1 of the same number of exact draws.
        mode_error: largest error in the share of a mode; None without modes.
        sampling_error: of the mean of one component, 1 / sqrt(draws); subtracted above.
    """

    mean_error: float
    mean_error_se: float
    variance_ratio: float
    variance_ratio_se: float
    covariance_error: float
    covariance_error_se: float
    w1: float
    w1_se: float
    w1_exact: float
    mode_error: float | None
    mode_error_se: float | None
    sampling_error: float


def score(exact: Exact, draws: Float[np.ndarray, "draw size"]) -> Score:
    """Score `draws` against the exact posterior."""
    draws = np.asarray(draws, dtype=np.float64)
    departures = draws - exact.mean
    parts = [departures / exact.std, departures @ exact.directions.T / exact.direction_std]
    if exact.mode_of is not None:
        parts.append(np.eye(len(exact.shares))[exact.mode_of(draws)])
    estimate = _statistics(exact, *parts)
    group = np.arange(len(draws)) % GROUPS
    left_out = np.stack(
        [_statistics(exact, *(p[group != g] for p in parts)) for g in range(GROUPS)]
    )
    error = np.sqrt((GROUPS - 1) * left_out.var(axis=0))
    # The mean and covariance errors are roots of estimates that may be negative.
    root = np.sqrt(np.maximum(estimate[[0, 2]], 0.0))
    root_error = np.sqrt(root**2 + error[[0, 2]]) - root
    modes = (float(estimate[4]), float(error[4])) if exact.mode_of is not None else (None, None)
    return Score(
        mean_error=float(root[0]),
        mean_error_se=float(root_error[0]),
        variance_ratio=float(estimate[1]),
        variance_ratio_se=float(error[1]),
        covariance_error=float(root[1]),
        covariance_error_se=float(root_error[1]),
        w1=float(estimate[3]),
        w1_se=float(error[3]),
        w1_exact=exact.w1_of_exact(len(draws)),
        mode_error=modes[0],
        mode_error_se=modes[1],
        sampling_error=float(1 / np.sqrt(len(draws))),
    )


def _statistics(exact: Exact, z: np.ndarray, along: np.ndarray, modes=None) -> np.ndarray:
    """Squared mean error, variance ratio, squared covariance error, W1 and error of the modes."""
    count = len(z)
    variance = z.var(axis=0, ddof=1)
    mean_square = np.mean(z.mean(axis=0) ** 2 - variance / count)
    squares = (along - along.mean(axis=0)) ** 2 * (count / (count - 1))
    ratio_square = np.mean((squares.mean(axis=0) - 1) ** 2 - squares.var(axis=0, ddof=1) / count)
    levels = (np.arange(count) + 0.5) / count
    distances = [
        np.abs(x - np.interp(levels, LEVELS, q)).mean()
        for x, q in zip(np.sort(along, axis=0).T, exact.quantiles, strict=True)
    ]
    worst = 0.0 if modes is None else np.abs(modes.mean(axis=0) - exact.shares).max()
    return np.array([mean_square, variance.mean(), ratio_square, np.mean(distances), worst])
