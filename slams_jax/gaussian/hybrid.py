r"""Errors that are partly those of the climate and partly those of the day.

    R = S + F F^T

with S of the statistics of many days and the columns of F from an ensemble, as the covariance of
the background in hybrid variational assimilation (Hamill & Snyder 2000, Mon. Wea. Rev. 128, 2905;
Lorenc 2003, Q. J. R. Meteorol. Soc. 129, 3183). With W the whitening of S, and the orthonormal
patterns q and squared lengths e of the columns of W F,

    R^-1 = W^T (I - sum e / (1 + e) q q^T) W.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import Trajectory
from slams_jax.gaussian.modes import Coefficients, over_time
from slams_jax.gaussian.posterior import Absorbed
from slams_jax.gaussian.regression import ModalCovariance, ModalOperator
from slams_jax.products import product

LEAST = 1e-4  # squared length of a pattern that is worth keeping: S has 1


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
        flat = white.reshape(len(white), -1)
        excess, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
        kept = np.flatnonzero(excess > LEAST)[::-1][:rank]
        patterns = (vectors[:, kept] / np.sqrt(excess[kept])).astype(np.float32).T @ flat
        values = np.count_nonzero(static.known) * flat.shape[1] / len(static.known)
        rest = max(excess.sum() - excess[kept].sum(), 0.0) / values
        static = static.inflated(jnp.float32(1.0 + rest))
        return cls(
            static,
            jnp.asarray(patterns.reshape(len(kept), *white.shape[1:])),
            jnp.asarray((excess[kept] - rest) / (1.0 + rest), jnp.float32),
            jnp.mean(static.modes.mean_variance(static.variance)),
        )

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
