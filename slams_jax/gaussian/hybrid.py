r"""Errors that are partly those of the climate and partly those of the day.

    R = S + F F^T

with S of the statistics of many days and the columns of F from an ensemble, as the covariance of
the background in hybrid variational assimilation (Hamill & Snyder 2000, Mon. Wea. Rev. 128, 2905;
Lorenc 2003, Q. J. R. Meteorol. Soc. 129, 3183). With W the whitening of S, and the orthonormal
patterns q and squared lengths e of the columns of W F,

    R^-1 = W^T (I - sum e / (1 + e) q q^T) W.

`forecast_likelihood` makes such errors of a forecast N(m, B).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import Trajectory
from slams_jax.gaussian.modes import Coefficients, over_time
from slams_jax.gaussian.posterior import Absorbed
from slams_jax.gaussian.prior import GaussianPrior
from slams_jax.gaussian.regression import INFORMATIVE, ModalCovariance, ModalOperator
from slams_jax.products import product

LEAST = 1e-4  # squared length of a pattern that is worth keeping: S has 1
# Share of the prior's variance that forecasts leave at most: of what they do not tell, nothing.
MOST = 1.0 - 1e-4
FEW = 4  # times as many columns as patterns, from which on only these are solved for
TAKEN = 0.99  # share of what E tells that a pattern takes off at most; more drowns in rounding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HybridCovariance:
    """R = S + F F^T; build it with `HybridCovariance.of`.

    Attributes:
        static: S.
        patterns: q, orthonormal, in the space in which S is white.
        excess: e.
        scale: mean variance of S.
    """

    static: ModalCovariance
    patterns: Float[Array, "pattern time lat lon channel"]
    excess: Float[Array, " pattern"]
    scale: Float[Array, ""]

    @classmethod
    def of(
        cls,
        static: ModalCovariance,
        columns: Float[np.ndarray, "column time lat lon channel"],
        rank: int | None = None,
    ) -> "HybridCovariance":
        """The covariance with the `columns` of F, of which the `rank` leading patterns are kept.

        Those stand out most from S. The variance of the others is spread over all directions, in
        proportion to S. Frames that S does not know have none.
        """
        known = static.known[None, :, None, None, None]
        white = np.asarray(_whitened(static, jnp.where(known, jnp.asarray(columns), 0.0)))
        excess, patterns = _principal(white, rank)
        values = np.count_nonzero(static.known) * math.prod(white.shape[2:])
        rest = max(np.sum(white**2, dtype=np.float64) - excess.sum(), 0.0) / values
        static = static.inflated(jnp.float32(1.0 + rest))
        return cls.along(static, patterns, (excess - rest) / (1.0 + rest))

    @classmethod
    def along(
        cls,
        static: ModalCovariance,
        patterns: Float[np.ndarray, "pattern time lat lon channel"],
        excess: Float[np.ndarray, " pattern"],
    ) -> "HybridCovariance":
        """The covariance of known patterns."""
        scale = jnp.mean(static.modes.mean_variance(static.variance))
        return cls(static, jnp.asarray(patterns), jnp.asarray(excess, jnp.float32), scale)

    def whiten(self, residual: Trajectory, extra: Array) -> Trajectory:
        """W residual, W^T W = (R + extra)^-1; in the patterns `extra` counts as a share of S."""
        excess = self.excess * self.scale / (self.scale + jnp.mean(extra))
        weight = jnp.expm1(-0.5 * jnp.log1p(excess))
        return self._stretched(self.static.whiten(residual, extra), weight)

    def sample_root(self, white: Trajectory) -> Trajectory:
        """A root of R applied to white noise."""
        weight = jnp.expm1(0.5 * jnp.log1p(self.excess))
        return self.static.sample_root(self._stretched(white, weight))

    def inflated(self, factor: Array) -> "HybridCovariance":
        """`factor` R."""
        static, scale = self.static.inflated(factor), self.scale * factor
        return dataclasses.replace(self, static=static, scale=scale)

    def observed(self, mask: Bool[np.ndarray, "time ..."], name: str) -> "HybridCovariance":
        """The covariance of the frames that are complete, as `ModalCovariance.observed`."""
        static = self.static.observed(mask, name)
        if static is self.static:
            return self
        columns = jnp.sqrt(self.excess)[:, None, None, None, None] * self.patterns
        back = jax.vmap(self.static.sample_root)(columns)
        return HybridCovariance.of(static, np.asarray(back))

    def padded(self, more: int) -> "HybridCovariance":
        """With `more` unobserved frames after its own."""
        patterns = jnp.pad(self.patterns, [(0, 0), (0, more)] + [(0, 0)] * 3)
        return dataclasses.replace(self, static=self.static.padded(more), patterns=patterns)

    def _stretched(self, white: Trajectory, weight: Float[Array, " pattern"]) -> Trajectory:
        """`white` with its part along each pattern changed by `weight` times that part."""
        along = weight * product("ptxyc,txyc->p", self.patterns, white)
        return white + product("ptxyc,p->txyc", self.patterns, along)


def forecast_likelihood(
    prior: GaussianPrior,
    share: tuple[Array, ...],
    mean: Trajectory,
    columns: Float[np.ndarray, "column time lat lon channel"] | None,
    known: Bool[np.ndarray, " time"],
    rank: int | None = None,
) -> tuple[Trajectory, ModalOperator, ModalCovariance | HybridCovariance]:
    r"""y, M and R of which p(y | x) is proportional to N(x; m, B) / N(x; 0, P).

    Where nothing else is observed, a Gaussian posterior is then the forecast itself, N(m, B), with
    B = E + F F^T. The errors E are a share of P in each mode, and have its correlations in time.
    R^-1 of y = x + e would be B^-1 - P^-1, and y what R B^-1 m is; M = 1 - E P^-1 takes off what
    nothing is known of. Along patterns of F that exceed P, or 100 E, a hundredth of what E alone
    would tell is left.

    Args:
        prior: N(0, P).
        share: E P^-1, of each part (block, mode), in (0, 1).
        mean: m; zero in frames that are not known.
        columns: of F; None for zero.
        known: the frames that were forecast.
        rank: as in `HybridCovariance.of`.
    """
    bounded = lambda part: jnp.clip(part, 1.0 / INFORMATIVE, MOST)
    errors = _shares(prior, tuple(bounded(part) for part in share), jnp.asarray(known))
    hybrid = None if columns is None else HybridCovariance.of(errors, columns, rank)
    if hybrid is not None:
        errors = hybrid.static  # and what the rank leaves out
    pairs = zip(errors.variance, prior.spectra, strict=True)
    gain = tuple(1.0 - bounded(v[..., :1] / p.variance[..., None]) for v, p in pairs)
    static = errors.weighted(gain)
    wide = lambda parts: tuple(
        jnp.repeat(part.astype(prior.modes.vectors.dtype), len(mean), axis=-1) for part in parts
    )
    operator = ModalOperator(prior.modes, wide(gain))
    if hybrid is None:
        return mean, operator, static
    # B^-1 - P^-1 is W^T (I - Z Z^T) W, with W the root of E^-1 - P^-1 = (1 - share) E^-1.
    weaker = ModalOperator(prior.modes, wide(tuple(1.0 / jnp.sqrt(part) for part in gain)))
    ratio = jnp.sqrt(hybrid.excess / (1.0 + hybrid.excess))[:, None, None, None, None]
    taken, patterns = _principal(np.asarray(_each(weaker, ratio * hybrid.patterns)))
    taken = np.minimum(taken, TAKEN)
    covariance = HybridCovariance.along(static, patterns, taken / (1.0 - taken))
    rest = static.whiten(mean - operator(mean), jnp.zeros(()))
    along = covariance.excess * product("ptxyc,txyc->p", covariance.patterns, rest)
    more = static.sample_root(product("ptxyc,p->txyc", covariance.patterns, along))
    return mean + more, operator, covariance


def _principal(
    rows: Float[np.ndarray, "row time lat lon channel"],
    rank: int | None = None,
) -> tuple[Float[np.ndarray, " pattern"], Float[np.ndarray, "pattern time lat lon channel"]]:
    """Squared lengths and directions of the `rank` longest principal axes of `rows`, in order."""
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    gram = flat @ flat.T
    if rank is not None and FEW * rank < len(gram):
        # By Lanczos iterations: a localised ensemble has thousands of columns. The same start each
        # time, and not a constant: departures from a mean sum to zero.
        first = np.random.default_rng(0).standard_normal(len(gram)).astype(gram.dtype)
        lengths, vectors = scipy.sparse.linalg.eigsh(gram, rank, v0=first)
        order = np.argsort(lengths)
        lengths, vectors = lengths[order].astype(np.float64), vectors[:, order]
    else:
        lengths, vectors = np.linalg.eigh(gram.astype(np.float64))
    kept = np.flatnonzero(lengths > LEAST)[::-1][:rank]
    axes = (vectors[:, kept] / np.sqrt(lengths[kept])).astype(np.float32).T @ flat
    return lengths[kept], axes.reshape(-1, *rows.shape[1:])


def _shares(
    prior: GaussianPrior, share: tuple[Array, ...], known: Bool[Array, " time"]
) -> ModalCovariance:
    """A share of P in each mode."""
    variance = tuple(
        jnp.broadcast_to((s * p.variance)[..., None], (*s.shape, known.shape[0]))
        for s, p in zip(share, prior.spectra, strict=True)
    )
    return ModalCovariance.of(prior.modes, variance, tuple(p.lags for p in prior.spectra), known)


@jax.jit
def _each(operator: ModalOperator, columns: Float[Array, "column time lat lon channel"]):
    return jax.lax.map(operator, columns)


def absorbed(
    operator: ModalOperator, covariance: ModalCovariance | HybridCovariance, values: Trajectory
) -> Absorbed:
    """What observations y = M x + e tell of the modes, for `condition`."""
    hybrid = isinstance(covariance, HybridCovariance)
    static = covariance.static if hybrid else covariance
    precision = static.precision()
    seen = over_time(precision, operator.modes.coefficients(values))
    matrices = tuple(
        s.conj()[..., :, None] * p * s[..., None, :]
        for s, p in zip(operator.slope, precision, strict=True)
    )
    pull = _transposed(operator, seen)
    if not hybrid:
        return Absorbed(matrices, pull)
    share = jnp.sqrt(covariance.excess / (1.0 + covariance.excess))
    surplus = _surplus(operator, static, covariance.patterns, share)
    along = product("ptxyc,txyc->p", covariance.patterns, static.whiten(values, jnp.zeros(())))
    less = (product("pbmt,p->bmt", k, (share * along).astype(k.dtype)) for k in surplus)
    return Absorbed(matrices, tuple(p - q for p, q in zip(pull, less, strict=True)), surplus)


def _transposed(operator: ModalOperator, coefficients: Coefficients) -> Coefficients:
    """M^* of coefficients."""
    return tuple(s.conj() * c for s, c in zip(operator.slope, coefficients, strict=True))


@jax.jit
def _whitened(static: ModalCovariance, columns: Float[Array, "column time lat lon channel"]):
    return jax.lax.map(lambda column: static.whiten(column, jnp.zeros(())), columns)


@jax.jit
def _surplus(
    operator: ModalOperator,
    static: ModalCovariance,
    patterns: Float[Array, "pattern time lat lon channel"],
    share: Float[Array, " pattern"],
) -> Coefficients:
    """M^* W^T q sqrt(e / (1 + e)); W is symmetric."""

    def column(each: tuple[Array, Array]) -> Coefficients:
        pattern, factor = each
        white = static.whiten(factor * pattern, jnp.zeros(()))
        return _transposed(operator, operator.modes.coefficients(white))

    return jax.lax.map(column, (patterns, share))
