r"""Metropolis refinement of posterior draws: noise, denoise, accept or reject.

Every guidance rule is an approximation where the prior or the operator is not Gaussian. A draw
x_0 of any rule can be refined with the unguided denoiser: it is noised to a level t, and the
reverse SDE proposes another x_0' from there,

    x_t = alpha x_0 + sigma eps,  x_0' ~ p(x_0 | x_t),  accepted with min(1, p(y|x_0') / p(y|x_0)).

Both directions of a move have the same probability under the prior, p(x_0) p(x_t|x_0) p(x_0'|x_t)
being symmetric in x_0 and x_0', so that the likelihood alone decides: p(x_0 | y) is invariant as
far as the reverse SDE is exact. No density of the prior and no derivative is needed. It is for few
or sparse observations: with thousands, a proposal for the whole state is hardly ever accepted.
(Takao et al. 2026, "Noise, Denoise, Correct"; the pCN move of Cotter et al. 2013, Stat. Sci. 28, is
the limit of a Gaussian prior.)
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import Denoiser, PRNGKey
from slams_jax.diffusion.grids import time_grid
from slams_jax.diffusion.sampler import SamplerConfig, evaluations, integrate
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.errors import InputError, check_at_least

STOCHASTIC = ("dpmpp_2m", "euler_maruyama", "heun")


@dataclasses.dataclass(frozen=True)
class RefinementConfig:
    """Moves of a refinement.

    Attributes:
        moves: number of proposals.
        lowest: smallest noise level t of a move; small moves are accepted more often.
        highest: largest one; large moves go from one mode to another.
        sampler: of the reverse SDE of a move; with fresh noise, or the move is not reversible. Its
            errors are those of the result: with 16 steps they show.
    """

    moves: int = 16
    lowest: float = 0.2
    highest: float = 0.95
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)

    def __post_init__(self):
        check_at_least(self, "refinement ", moves=1)
        if not 0.0 < self.lowest <= self.highest <= 1.0:
            raise InputError(
                "refinement levels must satisfy 0 < lowest <= highest <= 1, got "
                f"{self.lowest} and {self.highest}"
            )
        fresh = self.sampler.solver == "ddim" and self.sampler.eta == 1.0
        if not fresh and self.sampler.solver not in STOCHASTIC:
            raise InputError(
                f"refinement needs a solver of the reverse SDE, got {self.sampler.solver!r}: "
                f"choose from {STOCHASTIC}, or 'ddim' with eta = 1"
            )

    def __str__(self) -> str:
        """Moves and their steps in words."""
        moves = "1 move" if self.moves == 1 else f"{self.moves} moves"
        return f"{moves} of {self.sampler.steps}"

    @property
    def evaluations(self) -> int:
        """Of the denoiser, in all moves."""
        each = evaluations(self.sampler)
        assert each is not None  # no stochastic solver adapts its steps
        return self.moves * each

    @property
    def levels(self) -> Float[np.ndarray, " move"]:
        """The noise level of each move: evenly spread, in an order that mixes large and small."""
        order = np.random.default_rng(0).permutation(self.moves)
        return self.lowest + (self.highest - self.lowest) * (order + 0.5) / self.moves


class Refined(NamedTuple):
    """A refined draw.

    Attributes:
        x_0: the draw.
        log_likelihood: of it.
        accepted: whether each move was.
    """

    x_0: Float[Array, "..."]
    log_likelihood: Float[Array, ""]
    accepted: Bool[Array, " move"]


def refine(
    key: PRNGKey,
    x_0: Float[Array, "..."],
    denoiser: Denoiser,
    log_likelihood: Callable[[Array], Array],
    schedule: CosineSchedule,
    config: RefinementConfig = RefinementConfig(),
) -> Refined:
    """Moves that leave p(x_0) p(y | x_0) invariant, from any draw; pure.

    It takes `config.evaluations` evaluations of the denoiser.

    Args:
        key: of the moves.
        x_0: where to start, such as a draw with guidance.
        denoiser: of the prior, without guidance.
        log_likelihood: log p(y | x_0), up to a constant, such as
            `slams_jax.observe.log_likelihood`. Proposals for which it is NaN are rejected.
        schedule: noise schedule of the denoiser.
        config: the moves.
    """
    with jax.ensure_compile_time_eval():
        levels = jnp.asarray(config.levels, x_0.dtype)
        grid, steps = config.sampler.grid, config.sampler.steps
        times = jnp.stack([time_grid(schedule, grid, steps, first=t) for t in config.levels])

    def move(carry, given):
        state, likelihood = carry
        key, t, when = given
        key_noise, key_reverse, key_accept = jax.random.split(key, 3)
        noise = jax.random.normal(key_noise, state.shape, state.dtype)
        noised = schedule.alpha(t) * state + schedule.sigma(t) * noise
        proposal, _ = integrate(key_reverse, noised, when, denoiser, schedule, config.sampler)
        proposed = log_likelihood(proposal)
        accepted = jnp.log(jax.random.uniform(key_accept)) < proposed - likelihood
        state = jnp.where(accepted, proposal, state)
        return (state, jnp.where(accepted, proposed, likelihood)), accepted

    keys = jax.random.split(key, config.moves)
    start = (x_0, log_likelihood(x_0))
    (state, likelihood), accepted = jax.lax.scan(move, start, (keys, levels, times))
    return Refined(state, likelihood, accepted)
