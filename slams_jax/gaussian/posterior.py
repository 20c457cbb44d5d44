r"""Closed-form Gaussian posteriors of trajectories, given what is diagonal in the modes.

Under the prior N(0, P) and observations y = M x + e, e ~ N(0, R), of all modes, each at its own
frequency and with its own correlation in time, the posterior has for each mode the precision

    \Lambda = P^-1 + sum M^* R^-1 M  (time x time),  and the mean \Lambda^-1 h, h = sum M^* R^-1 y.

With its eigenvectors, products with (\Lambda + 1 / ratio)^-1 cost no more than the change to modes.

Errors that have some patterns in common, which the modes do not separate, take from this a term of
low rank, \Lambda - K K^T (`slams_jax.gaussian.HybridCovariance`). With S = (\Lambda + 1/ratio)^-1,

    (\Lambda - K K^T + 1 / ratio)^-1 = S + S K (I - K^T S K)^-1 K^T S.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from slams_jax.aliases import Trajectory
from slams_jax.gaussian.linalg import eigh, inverse, spectral
from slams_jax.gaussian.modes import Coefficients, Modes, over_time, scaled
from slams_jax.gaussian.spectrum import Spectrum
from slams_jax.products import product

SMALLEST = 1e-5  # eigenvalue of a correlation matrix in time

Matrices = tuple[Array, ...]  # of each part (block, mode, time, time)


class Absorbed(NamedTuple):
    """What a field y = M x + e tells of the modes.

    Attributes:
        information: M^* R^-1 M; more than that by K K^T where there is a `surplus`.
        pull: M^* R^-1 y.
        surplus: K, of each part (pattern, block, mode, time); None for zero.
    """

    information: Matrices
    pull: Coefficients
    surplus: Coefficients | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianPosterior:
    r"""N(\Lambda^-1 h, \Lambda^-1) of a trajectory; a prior where nothing is absorbed.

    Attributes:
        modes: the EOFs.
        values: eigenvalues of \Lambda, of each part (block, mode, time).
        vectors: its eigenvectors, in the columns of (block, mode, time, time).
        pull: h as a field; None where nothing is absorbed.
        information: sum M^* R^-1 M; None likewise.
        surplus: K, where the precision is \Lambda - K K^T, as `Modes.vector` of coefficients along
            the eigenvectors; None for zero.
    """

    modes: Modes
    values: tuple[Array, ...]
    vectors: Matrices
    pull: Trajectory | None = None
    information: Matrices | None = None
    surplus: Float[Array, "pattern value"] | None = None

    def solve(self, x: Trajectory, ratio: Float[Array, ""] | Float[Array, " time"]) -> Trajectory:
        r"""(\Lambda + 1 / ratio)^-1 x, for a noise variance `ratio`, one or one of each frame."""
        coefficients = self.modes.coefficients(x)
        if jnp.ndim(ratio):
            return self.modes.field(self._solve_each(coefficients, ratio))
        rotated = over_time(_adjoint(self.vectors), coefficients)
        factors = tuple(ratio / (1.0 + ratio * v) for v in self.values)
        found = scaled(rotated, factors)
        if self.surplus is not None:
            carried = self.surplus * self.modes.factors(factors, len(x))[None]  # K^T S
            gram = product("pv,qv->pq", carried, self.surplus)
            factor = cho_factor(jnp.eye(len(gram)) - gram)
            vector = self.modes.vector(found)
            more = cho_solve(factor, product("pv,v->p", self.surplus, vector))
            found = self.modes.of_vector(vector + product("pv,p->v", carried, more))
        return self.modes.field(over_time(self.vectors, found))

    def denoise(self, x_t: Trajectory, alpha: Array, sigma: Array) -> Trajectory:
        """E[x_0 | x_t, what is absorbed] for x_t = alpha x_0 + sigma eps; as `solve`, by frames."""
        pull = _frames(alpha / sigma**2) * x_t
        return self.solve(pull if self.pull is None else pull + self.pull, (sigma / alpha) ** 2)

    def absorb(self, x_0: Trajectory, ratio: Float[Array, ""]) -> Trajectory:
        """E[x_0 | x_t, what is absorbed] where E[x_0 | x_t] is `x_0` and P approximates the rest.

        `ratio` is sigma^2 / alpha^2. Exact for the prior's own denoiser.
        """
        if self.pull is None or self.information is None:
            return x_0
        coefficients = self.modes.coefficients(x_0)
        seen = self.modes.field(over_time(self.information, coefficients))
        if self.surplus is not None:
            along = self.modes.vector(over_time(_adjoint(self.vectors), coefficients))
            along = product("pv,p->v", self.surplus, product("pv,v->p", self.surplus, along))
            back = over_time(self.vectors, self.modes.of_vector(along))
            seen = seen - self.modes.field(back)
        return x_0 + self.solve(self.pull - seen, ratio)

    def sample_root(
        self, white: Trajectory, ratio: Float[Array, ""] | float = jnp.inf
    ) -> Trajectory:
        """A root of `solve` applied to white noise; without a surplus the symmetric one."""
        rotated = over_time(_adjoint(self.vectors), self.modes.coefficients(white))
        factors = tuple(1.0 / jnp.sqrt(v + 1.0 / ratio) for v in self.values)
        if self.surplus is not None:
            # S^(1/2) (I - U U^T)^(-1/2) with U = S^(1/2) K.
            columns = self.surplus * self.modes.factors(factors, len(white))[None]
            gram, vectors = jnp.linalg.eigh(product("pv,qv->pq", columns, columns))
            gram = jnp.clip(gram, jnp.finfo(gram.dtype).eps, 1.0 - jnp.finfo(gram.dtype).eps)
            weight = jnp.expm1(-0.5 * jnp.log1p(-gram)) / gram
            vector = self.modes.vector(rotated)
            along = weight * product("pm,p->m", vectors, product("pv,v->p", columns, vector))
            more = product("pv,p->v", columns, product("pm,m->p", vectors, along))
            rotated = self.modes.of_vector(vector + more)
        return self.modes.field(over_time(self.vectors, scaled(rotated, factors)))

    def _solve_each(self, coefficients: Coefficients, ratio: Array) -> Coefficients:
        r"""With the noise D = diag(ratio): \Lambda^-1 = C gives D - D (C + D)^-1 D.

        Frames of pure noise, whose ratio is huge, leave this well conditioned.
        """
        self._require_modal()
        gains = self._gains(ratio)
        return over_time(gains, scaled(coefficients, tuple(ratio[None, None] for _ in gains)))

    def _gains(self, ratio: Float[Array, " time"]) -> Matrices:
        """C (C + D)^-1, which gives the difference above without cancellation: times D."""
        pairs = zip(self.vectors, self.values, strict=True)
        covariances = [spectral(vector, 1.0 / value) for vector, value in pairs]
        noise = jnp.diag(ratio)[None, None]
        return tuple(
            product("...ij,...jk->...ik", c, inverse(c + noise.astype(c.dtype)))
            for c in covariances
        )

    def variance(self, ratio: Float[Array, ""] | Float[Array, " time"]) -> Float[Array, " time"]:
        r"""Mean of the diagonal of (\Lambda + 1 / ratio)^-1 over the values of each frame.

        For ratio = sigma^2 / alpha^2 that is var(x_0 | x_t), the mean square error of `denoise`.
        """
        self._require_modal()
        if jnp.ndim(ratio):
            gains = self._gains(ratio)
            each = [jnp.diagonal(g, axis1=-2, axis2=-1).real * ratio[None, None] for g in gains]
        else:
            factors = [ratio / (1.0 + ratio * v) for v in self.values]
            pairs = zip(self.vectors, factors, strict=True)
            each = [jnp.sum(jnp.abs(u) ** 2 * f[..., None, :], axis=-1) for u, f in pairs]
        return self.modes.mean_variance(each)

    def _require_modal(self) -> None:
        """Noise levels of frames and variances are those of the prior in training."""
        assert self.surplus is None, "with a surplus, only `solve` at one ratio for all frames"


def condition(
    modes: Modes,
    spectra: Sequence[Spectrum],
    count: int,
    absorbed: Sequence[Absorbed] = (),
) -> GaussianPosterior:
    """The posterior of `count` frames given absorbed observations.

    Args:
        modes: the EOFs.
        spectra: of the prior.
        count: number of frames.
        absorbed: what each observation tells.
    """
    values, vectors = [], []
    found = eigh([spectrum.correlation(count) for spectrum in spectra])
    for spectrum, (eigenvalues, eigenvectors) in zip(spectra, found, strict=True):
        variance = spectrum.variance[..., None]
        values.append(1.0 / (variance * jnp.maximum(eigenvalues, SMALLEST)))
        vectors.append(eigenvectors)
    if not absorbed:
        return GaussianPosterior(modes, tuple(values), tuple(vectors))
    total = lambda parts: tuple(functools.reduce(jnp.add, p) for p in zip(*parts, strict=True))
    information = total([told.information for told in absorbed])
    pull = total([told.pull for told in absorbed])
    precisions = [
        spectral(vector, value) + seen
        for vector, value, seen in zip(vectors, values, information, strict=True)
    ]
    found = eigh(precisions)
    turned = tuple(vector for _, vector in found)
    surplus = [_surplus(modes, turned, a.surplus) for a in absorbed if a.surplus is not None]
    return GaussianPosterior(
        modes,
        tuple(jnp.maximum(value, jnp.finfo(jnp.float32).tiny) for value, _ in found),
        turned,
        modes.field(pull),
        information,
        jnp.concatenate(surplus) if surplus else None,
    )


@jax.jit
def _surplus(
    modes: Modes, vectors: Matrices, columns: Coefficients
) -> Float[Array, "pattern value"]:
    turned = lambda column: modes.vector(over_time(_adjoint(vectors), column))
    return jax.lax.map(turned, columns)


def _adjoint(matrices: Matrices) -> Matrices:
    return tuple(m.conj().swapaxes(-1, -2) for m in matrices)


def _frames(values: Array) -> Array:
    """Scalars of frames for (time, lat, lon, channel)."""
    return values[:, None, None, None] if jnp.ndim(values) else values
