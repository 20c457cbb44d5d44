r"""Distributions with known denoisers: Gaussians, their windows, mixtures, kernel densities.

Each is a pytree (its arrays are leaves) and a `Denoiser`, (x_t, t) -> E[x_0 | x_t], of
trajectories (time, lat, lon, channel).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.diffusion import CosineSchedule
from slams_jax.diffusion.compose import trajectory_denoiser
from slams_jax.products import product


def _single(array) -> Array:
    return jnp.asarray(array, jnp.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianDenoiser:
    r"""N(0, P), P = U \Lambda U^T + f (I - U U^T), of flattened trajectories.

    Attributes:
        vectors: U, orthonormal columns.
        values: the diagonal of \Lambda.
        floor: f.
        schedule: noise schedule.
    """

    vectors: Float[Array, "size rank"]
    values: Float[Array, " rank"]
    floor: Float[Array, ""]
    schedule: CosineSchedule = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, covariance: Float[np.ndarray, "size size"], schedule: CosineSchedule):
        """From a covariance matrix."""
        values, vectors = np.linalg.eigh(covariance)
        return cls(_single(vectors), _single(values), jnp.zeros(()), schedule)

    def __call__(self, x_t: Array, t: Array) -> Array:
        """E[x_0 | x_t] = alpha P (alpha^2 P + sigma^2)^-1 x_t."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return self._apply(x_t, lambda p: alpha * p / (alpha**2 * p + sigma**2))

    def solve(self, x: Array, ratio: Float[Array, ""]) -> Array:
        """cov(x_0 | x_t) x = (P^-1 + 1 / ratio)^-1 x, for `ratio` = sigma^2 / alpha^2."""
        return self._apply(x, lambda p: p * ratio / (p + ratio))

    def sample_root(self, white: Array, ratio: Float[Array, ""]) -> Array:
        """The symmetric root of `solve`, applied to white noise."""
        return self._apply(white, lambda p: jnp.sqrt(p * ratio / (p + ratio)))

    def _apply(self, x: Array, function) -> Array:
        flat = x.reshape(-1)
        floor = function(self.floor)
        along = (function(self.values) - floor) * product("xm,x->m", self.vectors, flat)
        y = floor * flat + product("xm,m->x", self.vectors, along)
        return y.reshape(x.shape)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WindowedPrior:
    """A trajectory denoiser composed of exact window denoisers, as those of score networks are.

    Attributes:
        window: the prior of `frames` consecutive frames.
        frames: number of frames in a window, odd.
        overlap: that of one frame less, to add scores instead of taking centres.
    """

    window: GaussianDenoiser
    frames: int = dataclasses.field(metadata={"static": True})
    overlap: GaussianDenoiser | None = None

    def __call__(self, x_t: Array, t: Array) -> Array:
        """Denoise the windows, and compose them."""
        each = lambda prior: prior and (lambda x, t: jax.vmap(lambda w: prior(w, t))(x))
        composed = trajectory_denoiser(each(self.window), self.frames, overlap=each(self.overlap))
        return composed(x_t, t)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixturePrior:
    r"""sum_k w_k N(m_k, U_k \Lambda_k U_k^T), of flattened trajectories.

    Attributes:
        log_weights: log w_k.
        means: m_k.
        vectors: U_k.
        values: the diagonals of \Lambda_k.
        schedule: noise schedule.
    """

    log_weights: Float[Array, " component"]
    means: Float[Array, "component size"]
    vectors: Float[Array, "component size size"]
    values: Float[Array, "component size"]
    schedule: CosineSchedule = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, mixture: "Mixture", schedule: CosineSchedule):
        """From weights, means and covariances."""
        values, vectors = np.linalg.eigh(mixture.covariances)
        return cls(
            log_weights=_single(np.log(mixture.weights)),
            means=_single(mixture.means),
            vectors=_single(vectors),
            values=_single(values),
            schedule=schedule,
        )

    def __call__(self, x_t: Array, t: Array) -> Array:
        """The denoised arrays of the components, weighted by their probabilities given x_t."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        departure = x_t.reshape(1, -1) - alpha * self.means
        rotated = product("kab,ka->kb", self.vectors, departure)
        variance = alpha**2 * self.values + sigma**2
        log_density = -0.5 * jnp.sum(rotated**2 / variance + jnp.log(variance), axis=-1)
        responsibility = jax.nn.softmax(self.log_weights + log_density)
        increments = product("kab,kb->ka", self.vectors, alpha * self.values / variance * rotated)
        return product("k,ka->a", responsibility, self.means + increments).reshape(x_t.shape)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KernelDensity:
    """sum_k w_k N(c_k, h^2 I): any distribution in few dimensions, from closely spaced nodes.

    Attributes:
        log_weights: log w_k.
        nodes: c_k.
        width: h.
        schedule: noise schedule.
    """

    log_weights: Float[Array, " node"]
    nodes: Float[Array, "node size"]
    width: Float[Array, ""]
    schedule: CosineSchedule = dataclasses.field(metadata={"static": True})

    def __call__(self, x_t: Array, t: Array) -> Array:
        """The mean of the nodes given x_t, plus the correction for the width of the kernels."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        flat, variance = x_t.reshape(-1), alpha**2 * self.width**2 + sigma**2
        # |x_t - alpha c|^2 without |x_t|^2, which is common to all nodes.
        distance = alpha**2 * jnp.sum(self.nodes**2, axis=1) - 2 * alpha * product(
            "nx,x->n", self.nodes, flat
        )
        weights = jax.nn.softmax(self.log_weights - 0.5 * distance / variance)
        mean = product("n,nx->x", weights, self.nodes)
        x_0 = mean + alpha * self.width**2 / variance * (flat - alpha * mean)
        return x_0.reshape(x_t.shape)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on the host, in double precision.

    Attributes:
        weights: of the components; they sum to one.
        means: of the components.
        covariances: of the components.
    """

    weights: Float[np.ndarray, " component"]
    means: Float[np.ndarray, "component size"]
    covariances: Float[np.ndarray, "component size size"]

    def mean(self) -> Float[np.ndarray, " size"]:
        """Mean of the mixture."""
        return self.weights @ self.means

    def covariance(self) -> Float[np.ndarray, "size size"]:
        """Covariance of the mixture."""
        apart = self.means - self.mean()
        return np.einsum("k,kab->ab", self.weights, self.covariances) + np.einsum(
            "k,ka,kb->ab", self.weights, apart, apart
        )

    def standardised(self) -> "Mixture":
        """Shifted and scaled so that every component of x has mean zero and variance one."""
        std = np.sqrt(np.diag(self.covariance()))
        return Mixture(
            self.weights, (self.means - self.mean()) / std, self.covariances / np.outer(std, std)
        )

    def log_densities(
        self, x: Float[np.ndarray, "point size"]
    ) -> Float[np.ndarray, "point component"]:
        """log(w_k N(x; m_k, P_k)), up to a constant common to all k."""
        logs = []
        for weight, mean, covariance in zip(
            self.weights, self.means, self.covariances, strict=True
        ):
            root = np.linalg.cholesky(covariance)
            white = np.linalg.solve(root, (x - mean).T)
            logs.append(np.log(weight) - 0.5 * (white**2).sum(axis=0) - np.log(np.diag(root)).sum())
        return np.stack(logs, axis=-1)

    def component_of(self, x: Float[np.ndarray, "point size"]) -> np.ndarray:
        """The likeliest component of each point."""
        return self.log_densities(x).argmax(axis=-1)

    def draw(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "point size"]:
        """Independent draws."""
        labels = rng.choice(len(self.weights), size=count, p=self.weights)
        roots = np.linalg.cholesky(self.covariances)
        white = rng.standard_normal((count, self.means.shape[1]))
        return self.means[labels] + np.einsum("nab,nb->na", roots[labels], white)

    def given(
        self,
        operator: Float[np.ndarray, "obs size"],
        variance: Float[np.ndarray, " obs"],
        y: Float[np.ndarray, " obs"],
    ) -> "Mixture":
        """The posterior given y = H x + N(0, diag(variance)), again a mixture."""
        logs, means, covariances = [], [], []
        for weight, mean, covariance in zip(
            self.weights, self.means, self.covariances, strict=True
        ):
            total = operator @ covariance @ operator.T + np.diag(variance)
            gain = np.linalg.solve(total, operator @ covariance).T
            innovation = y - operator @ mean
            means.append(mean + gain @ innovation)
            covariances.append(covariance - gain @ operator @ covariance)
            misfit = innovation @ np.linalg.solve(total, innovation)
            logs.append(np.log(weight) - 0.5 * (misfit + np.linalg.slogdet(total)[1]))
        weights = np.exp(np.array(logs) - max(logs))
        return Mixture(weights / weights.sum(), np.stack(means), np.stack(covariances))
