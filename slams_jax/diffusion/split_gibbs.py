r"""Split Gibbs sampling, also known as decoupled annealing.

In place of a reverse SDE, x_0 and x_t are drawn in turn, at noise levels that fall,

    x_0 ~ p(x_0 | x_t, y),    x_t' = alpha(t') x_0 + sigma(t') eps,    t' < t,

so that x_t' has the noise of its level whatever happened before: errors are forgotten where they
would accumulate along a path. Only the draw of x_0 knows of the observations; it takes one
evaluation of the denoiser (Zhang et al. 2025, "Improving diffusion inverse problem solving with
decoupled noise annealing", arXiv 2407.01521, alg. 1; Xu & Chi 2024, arXiv 2403.17042). With
`sweeps` they are drawn several times at each level, which is Gibbs sampling of (x_0, x_t).
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import PRNGKey
from slams_jax.diffusion.schedule import CosineSchedule


@runtime_checkable
class DrawGiven(Protocol):
    """Of x_0 given x_t and observations: the next state of a Markov chain."""

    def __call__(
        self,
        key: PRNGKey,
        x_t: Array,
        t: Array,
        x_0: Array,
        fresh: Bool[Array, ""],
        slices: int,
        /,
    ) -> tuple[Array, Float[Array, ""]]:
        """x_0, and what is left of its equations; see `slams_jax.diffusion.conditional.moved`."""
        ...


class Annealed(NamedTuple):
    """A draw.

    Attributes:
        x_0: the draw.
        failed_at: noise level t at which it first was not finite; -1 if it is.
        residual: the largest that was left of any equations.
    """

    x_0: Float[Array, "..."]
    failed_at: Float[Array, ""]
    residual: Float[Array, ""]


def anneal(
    key: PRNGKey,
    start: Float[Array, "..."],
    times: Float[Array, " steps_and_1"],
    draw: DrawGiven,
    schedule: CosineSchedule,
    *,
    sweeps: int,
    slices: int,
) -> Annealed:
    """x_0 from `start`, which is x_t at the first level; pure.

    Args:
        key: of everything random.
        start: the noisy state.
        times: s = 1 - t of the levels (`time_grid`); nothing is drawn at the last.
        draw: of x_0.
        schedule: noise schedule.
        sweeps: draws at each level.
        slices: of each draw, for `draw`.
    """
    levels = jnp.repeat(1.0 - times[:-1], sweeps)

    def level(carry, given):
        x_t, x_0, failed_at, residual = carry
        key, t, following, fresh = given
        key_draw, key_noise = jax.random.split(key)
        x_0, left = draw(key_draw, x_t, t, x_0, fresh, slices)
        # A chain that is offered what is not finite stays where it is: that is no draw.
        x_0 = jnp.where(jnp.isfinite(left), x_0, jnp.nan)
        noise = jax.random.normal(key_noise, x_0.shape, x_0.dtype)
        x_t = schedule.alpha(following) * x_0 + schedule.sigma(following) * noise
        failing = (failed_at < 0.0) & ~jnp.all(jnp.isfinite(x_0))
        failed_at = jnp.where(failing, t, failed_at)
        return (x_t, x_0, failed_at, jnp.maximum(residual, left)), None

    given = (
        jax.random.split(key, len(levels)),
        levels,
        jnp.append(levels[1:], 0.0),
        jnp.arange(len(levels)) == 0,
    )
    untold = jnp.full((), -1.0, start.dtype)
    begin = (start, jnp.zeros_like(start), untold, untold)
    (_, x_0, failed_at, residual), _ = jax.lax.scan(level, begin, given)
    return Annealed(x_0, failed_at, residual)
