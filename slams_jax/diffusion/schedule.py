"""The variance-preserving noise schedule and the quantities a network may predict.

    x_t = alpha(t) x_0 + sigma(t) eps,    eps ~ N(0, I),    t in [0, 1]

where t = 0 is the data and t = 1 (almost) pure noise. SLAMS (Qu et al. 2024) writes mu for alpha.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from slams_jax.errors import InputError

Prediction = Literal["eps", "v"]


@dataclasses.dataclass(frozen=True)
class CosineSchedule:
    """alpha(t) = cos^2(arccos(sqrt(eta)) t), sigma(t)^2 = 1 - alpha^2 + eta^2.

    The schedule of Rozet & Louppe (2023, Score-based Data Assimilation) and SLAMS; `eta` keeps
    sigma(0) and alpha(1) away from zero.
    """

    eta: float = 1e-3

    def __post_init__(self):
        if not 0.0 < self.eta < 0.1:
            raise InputError(f"schedule eta must lie in (0, 0.1), got {self.eta}")

    @property
    def _angle(self) -> Float[Array, ""]:
        return jnp.arccos(jnp.sqrt(jnp.float32(self.eta)))

    def alpha(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Scale of the signal at time `t`."""
        return jnp.cos(self._angle * t) ** 2

    def sigma(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Standard deviation of the noise at time `t`."""
        # 1 - cos^4 = sin^2 (1 + cos^2) keeps its precision where alpha is close to one.
        sin2 = jnp.sin(self._angle * t) ** 2
        return jnp.sqrt(sin2 * (1.0 + jnp.cos(self._angle * t) ** 2) + jnp.float32(self.eta) ** 2)

    def log_snr(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """log(alpha / sigma), strictly decreasing in `t`."""
        return jnp.log(self.alpha(t)) - jnp.log(self.sigma(t))

    def time(self, log_snr: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The time at which the log-SNR is `log_snr`: the inverse of that function."""
        # alpha^2 + sigma^2 = 1 + eta^2 gives alpha. Near t = 0 the arccosine loses precision, so
        # the angle comes from its sine: sin^2 = 1 - alpha = (1 - alpha^2) / (1 + alpha).
        eta2 = jnp.float32(self.eta) ** 2
        noise = jnp.exp(-2.0 * log_snr)  # (sigma / alpha)^2
        alpha = jnp.sqrt((1.0 + eta2) / (1.0 + noise))
        sin2 = (noise - eta2) / (1.0 + noise) / (1.0 + alpha)
        angle = jnp.arctan2(jnp.sqrt(jnp.maximum(sin2, 0.0)), jnp.sqrt(alpha))
        return jnp.clip(angle / self._angle, 0.0, 1.0)


def to_denoised(
    schedule: CosineSchedule,
    prediction: Float[Array, "*shape"],
    kind: Prediction,
    x_t: Float[Array, "*shape"],
    t: Float[Array, "*#shape"],
) -> Float[Array, "*shape"]:
    """E[x_0 | x_t] from a network's prediction of the noise or of the velocity.

    eps: x_0 = (x_t - sigma eps) / alpha.
    v:   v = alpha eps - sigma x_0 (Salimans & Ho 2022, section 4), hence
         x_0 = (alpha x_t - sigma v) / (alpha^2 + sigma^2).
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if kind == "eps":
        return (x_t - sigma * prediction) / alpha
    return (alpha * x_t - sigma * prediction) / (alpha**2 + sigma**2)


def target(
    schedule: CosineSchedule,
    kind: Prediction,
    x_0: Float[Array, "*shape"],
    eps: Float[Array, "*shape"],
    t: Float[Array, "*#shape"],
) -> Float[Array, "*shape"]:
    """The training target at `t` of a network of this kind: eps, or v = alpha eps - sigma x_0."""
    if kind == "eps":
        return eps
    return schedule.alpha(t) * eps - schedule.sigma(t) * x_0


def to_score(
    schedule: CosineSchedule,
    denoised: Float[Array, "*shape"],
    x_t: Float[Array, "*shape"],
    t: Float[Array, ""],
) -> Float[Array, "*shape"]:
    """The score grad log p_t(x_t) = (alpha E[x_0 | x_t] - x_t) / sigma^2 (Tweedie's formula)."""
    return (schedule.alpha(t) * denoised - x_t) / schedule.sigma(t) ** 2
