r"""Error covariances R, in the form that guidance and variational methods use.

Every covariance provides `whiten(residual, extra)`, a linear map W of the residual with
W^T W = (R + extra)^-1, where `extra` is an additional independent variance (here SLAMS's
Gamma sigma^2 / mu^2 enters), and `sample_root(v)`, a square root of R that turns white noise into
errors.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.errors import InputError
from slams_jax.frames import whole_frames
from slams_jax.products import product


@runtime_checkable
class Covariance(Protocol):
    """The error covariance of one stream."""

    def whiten(self, residual: Array, extra: Array) -> Array:
        """W residual, with W^T W = (R + extra)^-1."""
        ...

    def sample_root(self, white: Array) -> Array:
        """R^(1/2) white."""
        ...

    def inflated(self, factor: Array) -> "Covariance":
        """`factor` R."""
        ...

    def observed(self, mask: Bool[np.ndarray, "time ..."], name: str) -> "Covariance":
        """The covariance of the values of stream `name` that are observed according to `mask`.

        Raises:
            InputError: variances that are not positive, or a mask that cannot be applied.
        """
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Diagonal:
    """Independent errors.

    Attributes:
        variance: of each observation, in squared units; broadcasts against (time, ...).
    """

    variance: Float[Array, "..."]

    def whiten(self, residual: Array, extra: Array) -> Array:
        """Divide by the square root of variance plus `extra`."""
        wide = lambda a: jnp.broadcast_to(a, residual.shape)
        return residual / jnp.sqrt(wide(self.variance) + wide(extra))

    def sample_root(self, white: Array) -> Array:
        """Multiply by the standard deviation."""
        return white * jnp.broadcast_to(jnp.sqrt(self.variance), white.shape)

    def inflated(self, factor: Array) -> "Diagonal":
        """`factor` R."""
        return Diagonal(self.variance * factor)

    def observed(self, mask: Bool[np.ndarray, "time ..."], name: str) -> "Diagonal":
        """Unchanged, except that missing observations need no variance."""
        variance = np.asarray(self.variance)
        if variance.shape == mask.shape:
            variance = np.where(mask, variance, 1.0)
        require_positive(variance, name)
        return Diagonal(jnp.asarray(variance, jnp.float32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Separable:
    r"""Errors of a complete field, correlated in the horizontal and between channels.

        R = S [(Q L Q^T + f (I - Q Q^T)) \otimes (U K U^T) + n I] S

    S holds standard deviations; the columns of Q are the leading horizontal patterns with variances
    L, and the remaining directions have variance f; U and K are eigenvectors and eigenvalues of the
    correlation between channels; n is a nugget, additional uncorrelated error relative to S^2.

    Attributes:
        std: S, in the units of the field.
        patterns: Q, orthonormal columns over flattened grid points.
        pattern_variance: L.
        floor: f.
        channel_vectors: U.
        channel_variance: K.
        nugget: n.
    """

    std: Float[Array, "lat lon channel"]
    patterns: Float[Array, "point rank"]
    pattern_variance: Float[Array, " rank"]
    floor: Float[Array, ""]
    channel_vectors: Float[Array, "channel channel"]
    channel_variance: Float[Array, " channel"]
    nugget: Float[Array, ""]

    def whiten(
        self, residual: Float[Array, "time lat lon channel"], extra: Array
    ) -> Float[Array, "time lat lon channel"]:
        """Rotate into the eigenvectors of R and divide by their standard deviations.

        `extra` (a variance in squared units that broadcasts to the field) enters through its mean
        ratio to S^2, so that the eigenvectors remain those of R.
        """
        ratio = jnp.mean(jnp.broadcast_to(extra, self.std.shape) / self.std**2) + self.nugget
        return self._apply(residual / self.std[None], lambda v: 1.0 / jnp.sqrt(v + ratio))

    def sample_root(
        self, white: Float[Array, "time lat lon channel"]
    ) -> Float[Array, "time lat lon channel"]:
        """R^(1/2) applied to white noise, up to a rotation of the noise."""
        rotated = product("txyc,cd->txyd", white, self.channel_vectors)
        root = self._apply(rotated, lambda v: jnp.sqrt(v + self.nugget), back=True)
        return root * self.std[None]

    def inflated(self, factor: Array) -> "Separable":
        """`factor` R."""
        return dataclasses.replace(self, std=self.std * jnp.sqrt(factor))

    def observed(self, mask: Bool[np.ndarray, "time ..."], name: str) -> "Separable":
        """Unchanged: each frame must be complete or entirely missing."""
        whole_frames(mask, f"stream {name!r}")
        return self

    def _apply(self, field: Array, function, *, back: bool = False) -> Array:
        """Rotate and scale by `function` of the eigenvalues; with `back`, scale and rotate back."""
        time, lat, lon, channel = field.shape
        flat = field.reshape(time, lat * lon, channel)
        if not back:
            flat = product("tpc,cd->tpd", flat, self.channel_vectors)
        patterns = product("pr,tpd->trd", self.patterns, flat)
        leading = function(self.pattern_variance[:, None] * self.channel_variance[None, :])
        floor = function(self.floor * self.channel_variance)
        scaled = flat * floor[None, None] + product(
            "pr,trd->tpd", self.patterns, patterns * (leading - floor[None])[None]
        )
        if back:
            scaled = product("tpd,cd->tpc", scaled, self.channel_vectors)
        return scaled.reshape(field.shape)


def require_positive(variance: np.ndarray, name: str) -> None:
    """Raise InputError unless all variances of stream `name` are positive."""
    if not np.all(np.isfinite(variance) & (variance > 0)):
        raise InputError(f"stream {name!r} has an error that is not positive: errors must be > 0")


def fit_separable(
    errors: Float[np.ndarray, "time lat lon channel"],
    *,
    rank: int = 200,
    nugget: float = 0.0,
    uniform: bool = False,
) -> tuple[Separable, Float[np.ndarray, "lat lon channel"]]:
    """Estimate a `Separable` covariance, and the bias, from a sample of errors.

    The standard deviation is estimated at every point and channel. Separability allows estimating
    the horizontal correlation from all channels and the correlation between channels from all
    points, so that a few hundred fields suffice. Both are shrunk according to their sampling error,
    assuming independent frames. Frames with missing values are left out.

    Args:
        errors: sample of errors, for instance background minus truth over the training period.
        rank: largest number of horizontal patterns to keep.
        nugget: additional uncorrelated variance, relative to the squared standard deviation.
        uniform: use one standard deviation for all points and channels; differences between them
            then become part of the patterns.

    Returns:
        The covariance, and the mean error to subtract.

    Raises:
        InputError: fewer than ten complete frames, or a point without any variation.
    """
    errors = errors[np.isfinite(errors).all(axis=(1, 2, 3))].astype(np.float64)
    if len(errors) < 10:
        raise InputError(
            f"an error covariance needs at least 10 complete frames, got {len(errors)}: choose a "
            "longer period"
        )
    bias = errors.mean(axis=0)
    errors = errors - bias
    std = np.sqrt((errors**2).mean(axis=0))
    if uniform:
        std = np.full_like(std, np.sqrt((errors**2).mean()))
    if not np.all(std > 0):
        raise InputError("an error covariance needs errors that vary at every point and channel")
    time, lat, lon, channel = errors.shape
    points = lat * lon
    scaled = (errors / std).reshape(time, points, channel)
    products = np.einsum("tpc,tpd->tcd", scaled, scaled)
    # Squared norms of the estimates of either correlation from single frames.
    squares = (products**2).sum(axis=(1, 2))
    channel_variance, channel_vectors = np.linalg.eigh(products.mean(axis=0) / points)
    channel_variance = _shrink(channel_variance, squares / points**2)
    sample = np.moveaxis(scaled, 2, 1).reshape(time * channel, points) / np.sqrt(time * channel)
    variance, patterns = _eigenpairs(sample)
    variance = _shrink(variance, squares / channel**2)
    kept = min(rank, patterns.shape[1])
    floor = variance[kept:].mean() if kept < points else variance[-1]
    as_array = lambda a: jnp.asarray(a, dtype=jnp.float32)
    covariance = Separable(
        std=as_array(std),
        patterns=as_array(patterns[:, :kept]),
        pattern_variance=as_array(variance[:kept]),
        floor=as_array(floor),
        channel_vectors=as_array(channel_vectors),
        channel_variance=as_array(channel_variance),
        nugget=as_array(nugget),
    )
    return covariance, bias.astype(np.float32)


def _shrink(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Eigenvalues of a sample correlation, shrunk towards one according to their uncertainty.

    The small eigenvalues of a finite sample are too small, and their inverses determine the weight
    of observations. The shrinkage (1 - w) C + w I of Ledoit & Wolf (2004, J. Multivariate Analysis
    88, 365-411) minimises the expected squared error. Eigenvalues stay above 1e-4.

    Args:
        variance: all eigenvalues, whose sum is their number.
        squares: |C_t|^2, where the estimate C_t from frame t alone has the mean C over t.
    """
    size, total = len(variance), (variance**2).sum()
    uncertain = max(squares.mean() - total, 0.0) / len(squares)
    weight = min(uncertain / max(total - size, 1e-12), 1.0)
    return np.maximum((1 - weight) * variance + weight, 1e-4)


def _eigenpairs(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues of sample^T sample, descending, and the vectors of the nonzero ones."""
    count, points = sample.shape
    if points <= count:
        values, vectors = np.linalg.eigh(sample.T @ sample)
        return values[::-1], vectors[:, ::-1]
    values, vectors = np.linalg.eigh(sample @ sample.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > values[0] * 1e-6
    vectors = sample.T @ vectors[:, kept] / np.sqrt(values[kept])
    return np.concatenate([values[kept], np.zeros(points - kept.sum())]), vectors
