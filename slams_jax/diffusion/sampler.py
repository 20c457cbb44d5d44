"""Sampling: diffrax integrates the reverse SDE of a denoiser from noise to data.

The sampler knows only a `Denoiser`, so that it samples priors and posteriors alike.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slams_jax.aliases import Denoiser, PRNGKey
from slams_jax.diffusion.grids import GridSteps, TimeGrid, time_grid
from slams_jax.diffusion.guidance import Guided
from slams_jax.diffusion.schedule import CosineSchedule
from slams_jax.diffusion.solvers import (
    UNTOLD,
    UNWEIGHTED,
    DenoiserSolver,
    ExponentialSolver,
    PredictorCorrector,
    denoiser_terms,
    probability_flow_term,
    reverse_sde_terms,
)
from slams_jax.diffusion.split_gibbs import anneal
from slams_jax.errors import InputError, check_at_least
from slams_jax.mesh import MEMBER, devices_along, split

Solver = Literal[
    "dpmpp_3m_ode",
    "dpmpp_2m_ode",
    "dpmpp_2m",
    "ddim",
    "euler_maruyama",
    "heun",
    "pc",
    "ode",
    "split_gibbs",
]
# Explicit ODE solvers of diffrax, by name.
OdeMethod = Literal["Euler", "Heun", "Midpoint", "Ralston", "Bosh3", "Tsit5", "Dopri5", "Dopri8"]

# eta and number of estimates of the exponential multistep solvers; "ddim" has an eta of its own.
_EXPONENTIAL = {"dpmpp_2m": (1.0, 2), "dpmpp_2m_ode": (0.0, 2), "dpmpp_3m_ode": (0.0, 3)}
# The only solver that reads an option; with others, it must keep its default.
_OPTION_OF = dict(eta="ddim", corrections="pc", tau="pc", method="ode", rtol="ode", atol="ode")
_OPTION_OF |= dict(sweeps="split_gibbs", slices="split_gibbs")


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How the reverse SDE is solved.

    Attributes:
        solver: of the reverse SDE "dpmpp_2m" (exponential, two-step), "ddim" (exponential,
            one-step), "euler_maruyama", "heun" (stochastic Heun) and "pc" (predictor and Langevin
            corrector); of the probability-flow ODE "dpmpp_3m_ode" (exponential, three-step),
            "dpmpp_2m_ode", "ddim" and "ode"; or "split_gibbs", which draws x_0 and x_t in turn
            (`slams_jax.diffusion.split_gibbs`), for the rule "gaussian".
        steps: number of steps; with adaptive steps, the largest number to attempt.
        grid: times equidistant in the log-SNR, in t ("uniform"), or as in EDM. Adaptive steps take
            only the length of the first step from it.
        eta: for "ddim", the share of fresh noise: 0 for the ODE, 1 for the ancestral step of DDPM.
        corrections: for "pc", number of Langevin corrections after each step.
        tau: for "pc", length of a correction, in (0, 2).
        method: for "ode", solver of diffrax.
        rtol: for "ode", relative tolerance; positive for adaptive steps.
        atol: for "ode", absolute tolerance; both tolerances are positive, or both zero.
        sweeps: for "split_gibbs", draws of x_0 at each of the `steps` levels.
        slices: for "split_gibbs", moves of each draw, which make it right where observation
            operators are not linear; linear ones need none.
    """

    solver: Solver = "dpmpp_2m"
    steps: int = 32
    grid: TimeGrid = "log_snr"
    eta: float = 0.0
    corrections: int = 1
    tau: float = 0.5
    method: OdeMethod = "Heun"
    rtol: float = 0.0
    atol: float = 0.0
    sweeps: int = 1
    slices: int = 0

    def __post_init__(self):
        for name, kind in (("solver", Solver), ("grid", TimeGrid), ("method", OdeMethod)):
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                raise InputError(f"unknown sampler {name} {value!r}: choose from {choices}")
        defaults = {field.name: field.default for field in dataclasses.fields(SamplerConfig)}
        for name, solver in _OPTION_OF.items():
            value = getattr(self, name)
            if self.solver != solver and value != defaults[name]:
                raise InputError(
                    f"sampler {name} = {value!r} has no effect with solver {self.solver!r}: leave "
                    f"it out, or choose solver {solver!r}"
                )
        check_at_least(self, "sampler ", steps=1, corrections=1, sweeps=1)
        if self.slices < 0:
            raise InputError(f"sampler slices must not be negative, got {self.slices}")
        if not 0.0 <= self.eta <= 1.0:
            raise InputError(f"sampler eta must lie in [0, 1], got {self.eta}")
        if not 0.0 < self.tau < 2.0:
            raise InputError(f"sampler tau must lie in (0, 2), got {self.tau}: 0.5 is usual")
        if not (self.rtol > 0.0 < self.atol or self.rtol == self.atol == 0.0):
            raise InputError(
                "sampler rtol and atol must both be positive (adaptive steps) or both 0 (the "
                f"steps of the grid), got {self.rtol} and {self.atol}"
            )
        if self.method == "Euler" and self.rtol > 0.0:
            raise InputError(
                "sampler method 'Euler' does not estimate its error: set rtol and atol to 0, or "
                "choose another method"
            )

    @property
    def weighted(self) -> bool:
        """Whether paths of a `Guided` denoiser have weights (`slams_jax.diffusion.weights`)."""
        eta, _ = _EXPONENTIAL.get(self.solver, (self.eta, 1))
        return eta > 0.0

    @property
    def adaptive(self) -> bool:
        """Whether the step size is adapted to an error estimate instead of following the grid."""
        return self.rtol > 0.0


class DrawInfo(NamedTuple):
    """Diagnostics of one draw.

    Attributes:
        failed_at: time t in [0, 1] at which the draw first was not finite, or at which adaptive
            steps ran out; -1 if the draw succeeded (NaN would set off `jax_debug_nans`).
        evaluations: of the denoiser in the steps of this draw (with adaptive steps, members that
            are vectorised together wait for the slowest).
        residual: the largest of any step (`Guided`); -1 where the denoiser or the solver (one of
            diffrax's own) tells none.
        log_ratio: log dP/dQ of the path (`slams_jax.diffusion.weights`); infinite where it has
            none: the denoiser is not `Guided`, or the solver not `SamplerConfig.weighted`.
    """

    failed_at: Float[Array, ""]
    evaluations: Int[Array, ""]
    residual: Float[Array, ""]
    log_ratio: Float[Array, ""]


def evaluations(config: SamplerConfig) -> int | None:
    """Evaluations of the denoiser per draw; None with adaptive steps (see `DrawInfo`)."""
    return None if config.adaptive else _evaluations_of(config, config.steps)


def _evaluations_of(config: SamplerConfig, steps):
    if config.solver == "pc":
        return steps * (1 + config.corrections)
    if config.solver == "heun":
        return 2 * steps
    if config.solver == "split_gibbs":
        return steps * config.sweeps
    if config.solver != "ode" or config.method == "Euler":
        return steps
    tableau = getattr(diffrax, config.method).tableau
    # First same as last: a step provides the first evaluation of the next one.
    return steps * (tableau.num_stages - 1) + 1 if tableau.fsal else steps * tableau.num_stages


def sample(
    key: PRNGKey,
    denoiser: Denoiser,
    shape: Sequence[int],
    schedule: CosineSchedule,
    config: SamplerConfig = SamplerConfig(),
) -> Float[Array, "..."]:
    """One draw of x_0 of the given shape.

    A draw that is not finite (from a denoiser that diverges) raises no error: check the result, or
    use `sample_with_info`, which tells when it happened.
    """
    return sample_with_info(key, denoiser, shape, schedule, config)[0]


def sample_with_info(
    key: PRNGKey,
    denoiser: Denoiser,
    shape: Sequence[int],
    schedule: CosineSchedule,
    config: SamplerConfig = SamplerConfig(),
) -> tuple[Float[Array, "..."], DrawInfo]:
    """One draw of x_0 of the given shape, and its diagnostics.

    A draw that adaptive steps did not complete is NaN throughout.
    """
    key_start, key_noise = jax.random.split(key)
    start = schedule.sigma(jnp.ones(())) * jax.random.normal(key_start, tuple(shape))
    times = time_grid(schedule, config.grid, config.steps)
    return integrate(key_noise, start, times, denoiser, schedule, config)


def integrate(
    key: PRNGKey,
    start: Float[Array, "..."],
    times: Float[Array, " steps_and_1"],
    denoiser: Denoiser,
    schedule: CosineSchedule,
    config: SamplerConfig,
) -> tuple[Float[Array, "..."], DrawInfo]:
    """x_0 from `start`, which is x_t at the first of `times`, and the diagnostics of the draw.

    Args:
        key: of the noise of the steps.
        start: the noisy state.
        times: of the steps (`time_grid`); with adaptive steps, their ends and the first step, and
            not traced.
        denoiser: of what is drawn.
        schedule: its noise schedule.
        config: the solver.
    """
    if config.solver == "split_gibbs":
        return _annealed(key, start, times, denoiser, schedule, config)
    terms, solver = problem_of(key, denoiser, start, schedule, config)
    control, begin, step = GridSteps(times), times[0], None
    if config.adaptive:
        control = diffrax.PIDController(config.rtol, config.atol)
        # Numbers, or diffrax would compile a check of them.
        begin, step = np.asarray(times)[0].item(), np.diff(times)[0].item()
    finite = lambda s, x, args: jnp.all(jnp.isfinite(x))
    tells = isinstance(solver, DenoiserSolver)
    saved = [diffrax.SubSaveAt(t1=True), diffrax.SubSaveAt(steps=True, fn=finite)]
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0=begin,
        t1=1.0,
        dt0=step,
        y0=start,
        saveat=diffrax.SaveAt(subs=saved, solver_state=tells),
        stepsize_controller=control,
        # A forward pass without reverse-mode gradients needs no checkpoints and reads the noise
        # only once. Without noise, DirectAdjoint would prepare for gradients after all.
        adjoint=diffrax.ForwardMode() if config.solver == "ode" else diffrax.DirectAdjoint(),
        max_steps=config.steps,
        throw=False,
    )
    assert solution.ys is not None
    assert solution.ts is not None
    (x,), finite_after = solution.ys[0], solution.ys[1]
    done = solution.result == diffrax.RESULTS.successful
    state: Any = solution.solver_state
    return jnp.where(done, x, jnp.nan), DrawInfo(
        failed_at=_failure(solution.ts[1], finite_after, done),
        evaluations=jnp.asarray(_evaluations_of(config, solution.stats["num_steps"]), jnp.int32),
        residual=state[0] if tells else jnp.full((), UNTOLD, x.dtype),
        log_ratio=state[1] if tells else jnp.full((), UNWEIGHTED, x.dtype),
    )


def _annealed(key, start, times, denoiser, schedule, config):
    """`integrate` by split Gibbs sampling."""
    if not isinstance(denoiser, Guided) or denoiser.draw is None:
        raise InputError(
            "solver 'split_gibbs' draws x_0 given observations: choose guidance rule 'gaussian' "
            "(of `guide`, with the root of the covariance), or another solver"
        )
    found = anneal(
        key, start, times, denoiser.draw, schedule, sweeps=config.sweeps, slices=config.slices
    )
    return found.x_0, DrawInfo(
        found.failed_at,
        jnp.asarray(_evaluations_of(config, config.steps), jnp.int32),
        found.residual,
        jnp.full((), UNWEIGHTED, start.dtype),
    )


def _failure(s, finite, done):
    """Time t of the first state that is not finite, or of the last state if not `done`; else -1.

    `s` and `finite` have one entry per step; unused entries are infinite and True.
    """
    reached = jnp.max(jnp.where(jnp.isfinite(s), s, 0.0))
    first = jnp.where(jnp.all(finite), jnp.where(done, 2.0, reached), s[jnp.argmin(finite)])
    return 1.0 - first


def problem_of(key, denoiser, start, schedule, config):
    """The terms and the diffrax solver for a draw from `start`."""
    if config.solver == "ode":
        return probability_flow_term(denoiser, schedule), getattr(diffrax, config.method)()
    shape = start.shape if config.solver != "pc" else (config.corrections, *start.shape)
    noise = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(shape, start.dtype), key)
    if config.solver in ("euler_maruyama", "heun"):
        solver = diffrax.Euler() if config.solver == "euler_maruyama" else diffrax.Heun()
        return reverse_sde_terms(denoiser, schedule, noise), solver
    if config.solver == "pc":
        solver = PredictorCorrector(schedule, config.tau)
    else:
        eta, estimates = _EXPONENTIAL.get(config.solver, (config.eta, 1))
        weighted = config.weighted and isinstance(denoiser, Guided)
        solver = ExponentialSolver(schedule, eta, estimates, weighted)
    return denoiser_terms(denoiser, noise), solver


Draw = TypeVar("Draw")


def equal_parts(members: int, batch: int | None, devices: int) -> tuple[int, int]:
    """(number of parts that an ensemble is drawn in, members in each part).

    All parts are equal, so that one program draws them all, and shared evenly by the devices, each
    of which draws at most `batch` members at a time (None: all of its own). Surplus draws are
    dropped.
    """
    parts = -(-members // (batch * devices if batch else members))
    return parts, -(-members // (parts * devices)) * devices


def sample_ensemble(
    key: PRNGKey,
    draw: Callable[..., Draw],
    members: int,
    *,
    batch: int | None = None,
    first: int | Int[Array, ""] = 0,
    each: Float[Array, "row ..."] | None = None,
) -> Draw:
    """`members` independent draws, `batch` at a time (None: all at once).

    Member i uses `fold_in(key, i)` for any number of members, batches and devices; i counts from
    `first`. The result of `draw`, an array or a tree of arrays, gets the axis of the members in
    front. Reads the ambient mesh: devices along "member" share the members, each drawing `batch` at
    a time. Where `each` is given, its rows are the second argument of `draw`, in turn.
    """
    devices = devices_along(MEMBER)
    parts, size = equal_parts(members, batch, devices)
    number = first + jnp.arange(size * parts)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(number)
    drawing = jax.vmap(draw, spmd_axis_name=MEMBER if devices > 1 else None)

    def several(keys: Array, number: Array) -> Draw:
        own = () if each is None else (split(each[number % len(each)], MEMBER),)
        return drawing(split(keys, MEMBER), *own)

    if parts == 1:
        return jax.tree.map(lambda x: x[:members], several(keys, number))
    # The members of a device stay together, so that no draw moves between devices.
    rows = [a.reshape(size, parts).T for a in (keys, number)]
    drawn = jax.lax.map(lambda row: several(*row), tuple(rows))
    return jax.tree.map(
        lambda x: jnp.moveaxis(x, 0, 1).reshape(size * parts, *x.shape[2:])[:members], drawn
    )
