r"""Fields that tell of a trajectory without being it: y = M x + b + e, e correlated in time.

A code that an encoder makes of some modalities, or a background that is an earlier state, is no
unbiased observation: it is a regression, drawn towards the climate. Taken as x + e it would count
the climate twice. M = cov(y, x) cov(x)^-1 and R = cov(y - M x) are estimated in the modes of the
prior, one number a mode, from pairs of y and x (Jazwinski 1970, sec. 7.6, for errors correlated in
time).

What an analysis gains from a mode is M^* R^-1 M, over P^-1 the ratio g / (1 - g) of the squared
coherence g of y and x. It is estimated as one: the bias of a sample's coherence is taken off. What
y tells of one mode may be too little to be significant, and a lot in all; such modes share the
coherence of their neighbours in rank, by which their slopes are shrunk (James & Stein 1961), and
are dropped (M = 0) where these are not significant together.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import Trajectory
from slams_jax.errors import InputError
from slams_jax.frames import whole_frames
from slams_jax.gaussian.linalg import eigh, spectral
from slams_jax.gaussian.modes import Coefficients, Modes, over_time, to_blocks
from slams_jax.gaussian.posterior import SMALLEST, Matrices
from slams_jax.gaussian.prior import GaussianPrior, pooled_lags, single, whole_steps
from slams_jax.gaussian.spectrum import Spectrum, sample_lags, stationary

FEWEST = 10  # pairs
NEIGHBOURS = 32  # modes of a block that share a coherence where their own is not significant
LEVEL = 0.05  # chance that any such group counts, if none tells anything
# Largest M^* R^-1 M of a mode, x being of unit variance. Modes that never vary, beyond the
# truncation of a spectral model, are known up to rounding: in float32 they would drown all others.
INFORMATIVE = 1e5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModalOperator:
    """x -> M x, one factor for each mode and time.

    Attributes:
        modes: the EOFs.
        slope: the factors, of each part (block, mode, time).
    """

    modes: Modes
    slope: Coefficients

    def __call__(self, x: Trajectory) -> Trajectory:
        """M x, as a field."""
        coefficients = self.modes.coefficients(x)
        return self.modes.field(tuple(s * c for s, c in zip(self.slope, coefficients, strict=True)))

    def padded(self, more: int) -> "ModalOperator":
        """For `more` frames after its own."""
        return ModalOperator(self.modes, tuple(_edge(s, more) for s in self.slope))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModalCovariance:
    """Errors of fields that are independent between modes and correlated in time.

    Build it with `ModalCovariance.of`.

    Attributes:
        modes: the EOFs.
        variance: of each part (block, mode, time).
        lags: correlations of each part, (block, mode, lag), as in `Spectrum`.
        known: frames that were observed; the others count for nothing.
        values: eigenvalues of R in time, of each part (block, mode, time).
        vectors: its eigenvectors, of each part (block, mode, time, time).
    """

    modes: Modes
    variance: tuple[Array, ...]
    lags: tuple[Array, ...]
    known: Bool[Array, " time"]
    values: tuple[Array, ...]
    vectors: Matrices

    @classmethod
    def of(
        cls,
        modes: Modes,
        variance: tuple[Array, ...],
        lags: tuple[Array, ...],
        known: Bool[Array, " time"],
    ) -> "ModalCovariance":
        """The covariance, its eigenproblems solved once; frames not known are alone."""
        both = (known[:, None] & known[None, :])[None, None]
        count, matrices = known.shape[0], []
        for power, correlations in zip(variance, lags, strict=True):
            # The part's process; its variance varies with what was available.
            correlation = Spectrum(power[..., 0], correlations).correlation(count)
            std = jnp.sqrt(power)
            scale = (std[..., :, None] * std[..., None, :]).astype(correlation.dtype)
            alone = jnp.eye(count, dtype=correlation.dtype)[None, None]
            matrices.append(jnp.where(both, scale * correlation, alone))
        found = eigh(matrices)
        least = [SMALLEST * jnp.max(power, axis=-1, keepdims=True) for power in variance]
        return cls(
            modes,
            variance,
            lags,
            known,
            tuple(jnp.maximum(v, low) for (v, _), low in zip(found, least, strict=True)),
            tuple(u for _, u in found),
        )

    def whiten(self, residual: Trajectory, extra: Array) -> Trajectory:
        """W residual, W^T W = (R + extra)^-1, by symmetric roots; `extra` by its mean."""
        more = jnp.mean(extra)
        return self._applied(residual, lambda values: 1.0 / jnp.sqrt(values + more))

    def sample_root(self, white: Trajectory) -> Trajectory:
        """R^(1/2) white."""
        return self._applied(white, jnp.sqrt)

    def inflated(self, factor: Array) -> "ModalCovariance":
        """`factor` R."""
        return self.weighted(tuple(factor for _ in self.variance))

    def weighted(self, factors: tuple[Array, ...]) -> "ModalCovariance":
        """R times a positive factor for each mode, of each part (block, mode, 1) or one for all."""
        larger = lambda parts: tuple(f * p for f, p in zip(factors, parts, strict=True))
        return dataclasses.replace(self, variance=larger(self.variance), values=larger(self.values))

    def observed(self, mask: Bool[np.ndarray, "time ..."], name: str) -> "ModalCovariance":
        """The covariance of the frames that are complete.

        Raises:
            InputError: frames in which some values are missing.
        """
        known = whole_frames(mask, f"stream {name!r}")
        if np.array_equal(known, np.asarray(self.known)):
            return self
        return ModalCovariance.of(self.modes, self.variance, self.lags, jnp.asarray(known))

    def padded(self, more: int) -> "ModalCovariance":
        """With `more` unobserved frames after its own."""
        return ModalCovariance.of(
            self.modes,
            tuple(_edge(v, more) for v in self.variance),
            self.lags,
            jnp.pad(self.known, (0, more)),
        )

    def precision(self) -> Matrices:
        """R^-1 of the known frames, zero for the others: of each part (block, mode, time, time)."""
        both = (self.known[:, None] & self.known[None, :])[None, None]
        pairs = zip(self.vectors, self.values, strict=True)
        inverses = (spectral(vectors, 1.0 / values) for vectors, values in pairs)
        return tuple(jnp.where(both, i, jnp.zeros_like(i)) for i in inverses)

    def _applied(self, x: Trajectory, function: Callable[[Array], Array]) -> Trajectory:
        pairs = zip(self.vectors, self.values, strict=True)
        matrices = tuple(spectral(vectors, function(values)) for vectors, values in pairs)
        return self.modes.field(over_time(matrices, self.modes.coefficients(x)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Regression:
    """y = M x + b + e for each pattern of what y is made of; build it with `fit_regression`.

    Attributes:
        modes: of the prior of x.
        slope: M, of each part (pattern, block, mode).
        variance: of e, of each part (pattern, block, mode).
        lags: correlations of e in time, of each part (block, mode, lag), shared by the patterns.
        offset: b.
    """

    modes: Modes
    slope: tuple[Array, ...]
    variance: tuple[Array, ...]
    lags: tuple[Array, ...]
    offset: Float[Array, "pattern lat lon channel"]

    def at(self, patterns: np.ndarray) -> tuple[ModalOperator, ModalCovariance, Trajectory]:
        """M, R and b of frames whose patterns are `patterns`, (time,); -1 is not observed."""
        index = np.maximum(patterns, 0)
        along_time = lambda parts: tuple(jnp.moveaxis(p[index], 0, -1) for p in parts)
        variance = tuple(
            jnp.maximum(v, jnp.square(jnp.abs(s)) / INFORMATIVE)
            for v, s in zip(self.variance, self.slope, strict=True)
        )
        return (
            ModalOperator(self.modes, along_time(self.slope)),
            ModalCovariance.of(
                self.modes, along_time(variance), self.lags, jnp.asarray(patterns >= 0)
            ),
            self.offset[index],
        )

    def unexplained(self, prior: GaussianPrior) -> tuple[Array, ...]:
        """The share of the variance of x, of each part (block, mode), that y leaves open.

        y is of the first pattern.
        """
        return tuple(
            variance[0] / (variance[0] + jnp.square(jnp.abs(slope[0])) * spectrum.variance)
            for slope, variance, spectrum in zip(
                self.slope, self.variance, prior.spectra, strict=True
            )
        )


def fit_regression(
    seen: Sequence[Float[np.ndarray, "time lat lon channel"]],
    truth: Float[np.ndarray, "time lat lon channel"],
    modes: Modes,
    times: np.ndarray | None = None,
    *,
    order: int = 2,
) -> Regression:
    """Estimate a `Regression` from pairs of y and x.

    Args:
        seen: y of each pattern; frames with missing values are left out.
        truth: x at the same times, standardised anomalies. They should have trained nothing that
            made y, or its error is underestimated.
        modes: of the prior of x.
        times: as in `fit_prior`.
        order: of the autoregressive processes of e.

    Raises:
        InputError: fewer than 10 pairs for a pattern.
    """
    steps = whole_steps(times, len(truth))
    fits = [_fit_pattern(np.asarray(y), truth, modes, steps, order) for y in seen]
    parts = range(len(fits[0].slope))
    stack = lambda name: tuple(single(np.stack([getattr(f, name)[i] for f in fits])) for i in parts)
    # The mean of positive definite sequences is one; bounding it guards against rounding.
    lags = tuple(single(stationary(np.mean([f.lags[i] for f in fits], axis=0))) for i in parts)
    return Regression(
        modes,
        stack("slope"),
        stack("variance"),
        lags,
        jnp.asarray(np.stack([f.offset for f in fits]), jnp.float32),
    )


@dataclasses.dataclass
class _Fit:
    slope: list[np.ndarray]
    variance: list[np.ndarray]
    lags: list[np.ndarray]
    offset: np.ndarray


def _fit_pattern(
    seen: np.ndarray, truth: np.ndarray, modes: Modes, steps: np.ndarray, order: int
) -> _Fit:
    complete = np.isfinite(seen).all(axis=(1, 2, 3)) & np.isfinite(truth).all(axis=(1, 2, 3))
    if complete.sum() < FEWEST:
        raise InputError(
            f"a regression on the state needs at least {FEWEST} complete frames, got "
            f"{complete.sum()}: lengthen the period"
        )
    steps, y, x = steps[complete], seen[complete], truth[complete]
    mean_y, mean_x = y.mean(axis=0, dtype=np.float64), x.mean(axis=0, dtype=np.float64)
    vectors = np.asarray(modes.vectors)
    blocks = [to_blocks(f, modes.periodic) for f in (y - mean_y, x - mean_x)]
    leading = [b @ vectors.conj() for b in blocks]
    b, a = leading
    slope, variance = _shrunk(
        np.mean(b * a.conj(), axis=1),
        np.mean(np.abs(a) ** 2, axis=1),
        np.mean(np.abs(b) ** 2, axis=1),
        _independent(a, b, steps),
    )
    fit = _Fit([slope], [variance], [sample_lags(b - slope[:, None] * a, steps, order)], mean_y)
    if not modes.complete:
        b, a = (
            whole - c @ vectors.swapaxes(1, 2) for whole, c in zip(blocks, leading, strict=True)
        )
        size = vectors.shape[1] - vectors.shape[2]
        total = lambda values: np.sum(np.mean(values, axis=1), axis=1, keepdims=True) / size
        count = _independent(a, b, steps).mean(axis=1, keepdims=True) * size
        slope, variance = _shrunk(
            total(b * a.conj()), total(np.abs(a) ** 2), total(np.abs(b) ** 2), count
        )
        fit.slope.append(slope)
        fit.variance.append(variance)
        fit.lags.append(pooled_lags(b - slope[:, None] * a, steps, order))
    fit.offset = mean_y - _applied(modes, fit.slope, mean_x)
    return fit


def _shrunk(
    cross: np.ndarray, power_x: np.ndarray, power_y: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and error variances of modes (block, mode), from `count` independent pairs each."""
    from scipy.special import gammaincc  # slow to import

    tiny = np.finfo(np.float64).tiny
    count = np.maximum(count, 2.0)
    coherence = np.abs(cross) ** 2 / np.maximum(power_x * power_y, tiny)
    coherence = np.minimum(coherence, 1.0 - 1e-6)
    unbiased = coherence - (1.0 - coherence) / (count - 1.0)
    # About chi-squared of one degree of freedom where y tells nothing of x; of complex modes, less.
    evidence = -count * np.log1p(-coherence)
    # If y told nothing at all, fewer than one of all modes would be expected to pass.
    strong = evidence > 2.0 * np.log(np.maximum(evidence.size, 2))

    firsts = np.arange(0, cross.shape[1], NEIGHBOURS)
    sizes = np.diff([*firsts, cross.shape[1]])
    together = lambda values: np.add.reduceat(np.where(strong, 0.0, values), firsts, axis=1)
    number = np.maximum(together(1.0), 1.0)
    chance = gammaincc(0.5 * number, 0.5 * together(evidence))
    mean = np.maximum(together(unbiased) / number, 0.0)
    shared = np.repeat(np.where(chance * chance.size < LEVEL, mean, 0.0), sizes, axis=1)

    own = np.clip(unbiased, 0.0, 1.0 - 1e-6)
    part = shared / np.maximum(shared + (1.0 - shared) / count, tiny)  # of a slope that is signal
    kept = np.where(strong, own, shared * part)
    factor = np.where(strong, np.sqrt(own / np.maximum(coherence, tiny)), part)
    slope = cross / np.maximum(power_x, tiny) * factor
    return slope, np.maximum(power_y * (1.0 - kept), 1e-12)


def _independent(a: np.ndarray, b: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The number of independent pairs that a slope of b on a has (block, mode).

    By the memory of a and of what the slope leaves of b (Bretherton et al. 1999, eq. 30).
    """
    tiny = np.finfo(np.float64).tiny
    slope = np.mean(b * a.conj(), axis=1) / np.maximum(np.mean(np.abs(a) ** 2, axis=1), tiny)
    pair = (a, b - slope[:, None] * a)
    first = [np.abs(sample_lags(s, steps, 1)[..., 0]) for s in pair]
    product = first[0] * first[1]
    return a.shape[1] * (1.0 - product) / (1.0 + product)


def _applied(modes: Modes, slope: Sequence[np.ndarray], mean: np.ndarray) -> np.ndarray:
    operator = ModalOperator(modes, tuple(single(s)[..., None] for s in slope))
    return np.asarray(operator(jnp.asarray(mean[None], jnp.float32)))[0]


def _edge(values: Array, more: int) -> Array:
    return jnp.concatenate([values, jnp.repeat(values[..., -1:], more, axis=-1)], axis=-1)
