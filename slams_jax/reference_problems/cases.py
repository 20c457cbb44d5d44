"""A reference problem: a prior, observations, and the exact posterior that they make.

`run_case` draws from the posterior with a guidance rule and a solver, and says how far the draws
are from it. A rule of your own is any `Problem` -> guided `Denoiser`; a solver of your own, any
`draw(key, denoiser, shape, schedule, config)` -> trajectory.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Denoiser, PRNGKey
from slams_jax.diffusion import CosineSchedule, SamplerConfig, guide, sample, sample_ensemble
from slams_jax.diffusion.guidance import Rule
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError
from slams_jax.observe import PriorCovariance, Stream, whitened_innovations
from slams_jax.observe.streams import identity_decode
from slams_jax.reference_problems.exact import Exact, Score, score
from slams_jax.reference_problems.priors import GaussianPrior


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """What an assimilation is given; a pytree.

    Attributes:
        denoiser: of the prior, a pytree itself.
        streams: observations, in the space of the state.
        covariance: of the prior, or of the Gaussian that has its mean and covariance.
        schedule: of the noise.
        shape: of a trajectory, (time, lat, lon, channel).
        posterior: the denoiser of the exact posterior, where it is known.
    """

    denoiser: Denoiser
    streams: tuple[Stream, ...]
    covariance: GaussianPrior | PriorCovariance
    schedule: CosineSchedule = dataclasses.field(metadata={"static": True})
    shape: tuple[int, int, int, int] = dataclasses.field(metadata={"static": True})
    posterior: Denoiser | None = None

    def innovations(self, x_0: Array, extra: Array) -> tuple[Array, ...]:
        """Whitened innovations, as guidance takes them."""
        return whitened_innovations(self.streams, x_0, identity_decode, extra)


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and the posterior that is to come out.

    Attributes:
        name: as it stands in the table.
        problem: the problem.
        exact: the posterior.
    """

    name: str
    problem: Problem
    exact: Exact

    def score(self, draws: Float[np.ndarray, "draw ..."]) -> Score:
        """How far draws (draw, time, lat, lon, channel) are from the posterior."""
        return score(self.exact, np.reshape(draws, (len(draws), -1)))


# What a rule reads of `GuidanceConfig`.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "sda": ("gamma",),
    "pigdm": ("iterations", "jacobian"),
    "mmps": ("iterations",),
    "gaussian": ("iterations",),
}


@dataclasses.dataclass(frozen=True)
class Guidance:
    """A rule of the library with its options, as `run_case` takes rules.

    Attributes:
        rule: see `slams_jax.diffusion.guide`.
        options: of the rule, as (name, value) pairs.
        covariance: whether the rule is told the covariance of the prior.
    """

    rule: Rule
    options: tuple[tuple[str, Any], ...] = ()
    covariance: bool = False

    @classmethod
    def of(cls, config: GuidanceConfig) -> "Guidance":
        """The rule with the options that it reads, told the covariance as in `assimilate`."""
        options = tuple((name, getattr(config, name)) for name in _OPTIONS.get(config.rule, ()))
        return cls(config.rule, options, covariance=config.rule not in ("sda", "dps"))

    def __call__(self, problem: Problem) -> Denoiser:
        """The guided denoiser."""
        return guide(
            problem.denoiser,
            problem.innovations,
            problem.schedule,
            rule=self.rule,
            covariance=problem.covariance.posterior if self.covariance else None,
            **dict(self.options),
        )

    def __str__(self) -> str:
        """The rule, its numbers in brackets."""
        values = [f"{value:g}" for _, value in self.options if not isinstance(value, bool)]
        words = [name for name, value in self.options if value is True]
        words += [f"no {name}" for name, value in self.options if value is False]
        extra = ["P"] if self.covariance and self.rule not in ("gaussian", "exact") else []
        inside = ", ".join(values + words + extra)
        return f"{self.rule} ({inside})" if inside else self.rule


@dataclasses.dataclass(frozen=True)
class Oracle:
    """The rule that knows the posterior: what is wrong under it is the solver's."""

    rule = "oracle"

    def __call__(self, problem: Problem) -> Denoiser:
        """The exact denoiser of the posterior, at the price of one evaluation.

        Raises:
            InputError: a problem without it.
        """
        posterior = problem.posterior
        if posterior is None:
            raise InputError("rule 'oracle' needs a problem whose posterior's denoiser is known")

        def guided(x_t: Array, t: Array) -> Array:
            x_0 = problem.denoiser(x_t, t)
            return x_0 + (posterior(x_t, t) - x_0)

        return guided

    def __str__(self) -> str:
        """Its name."""
        return self.rule


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: its name.
        rule: the rule, with its options.
        solver: of the sampler, as are `grid` and `steps`.
        members: number of draws.
        forward_evaluations: of the prior's denoiser, for one draw.
        derivative_evaluations: products with its Jacobian or the transpose, for one draw.
        seconds: for all draws, compilation not included.
        not_finite: draws that are not finite; where there are any, there is no score.
        score: how far the draws are from the exact posterior.
    """

    case: str
    rule: str
    solver: str
    grid: str
    steps: int
    members: int
    forward_evaluations: int
    derivative_evaluations: int
    seconds: float
    not_finite: int
    score: Score | None

    def as_dict(self) -> dict[str, Any]:
        """Flat, for JSON: every name of `Score` is there, None without a score."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del row["score"]
        names = [f.name for f in dataclasses.fields(Score)]
        return row | {name: getattr(self.score, name, None) for name in names}


GuidanceRule = Callable[[Problem], Denoiser]
Draw = Callable[..., Array]


def run_case(
    case: Case,
    rule: GuidanceRule,
    sampler: SamplerConfig,
    members: int,
    key: PRNGKey,
    *,
    draw: Draw = sample,
    batch: int | None = None,
    counts: tuple[int, int] | None = None,
) -> Row:
    """Draw from the posterior of a case and compare with the exact one.

    Args:
        case: what `slams_jax.calibration` offers, or one of your own.
        rule: Problem -> guided denoiser, hashable; see `Guidance`.
        sampler: the solver, its steps and their grid.
        members: number of draws; what they leave uncertain stands in the row.
        key: of the draws.
        draw: one draw (key, denoiser, shape, schedule, config) -> trajectory.
        batch: draws made at a time (all at once where None).
        counts: evaluations and derivatives of the rule and sampler, where they have been counted
            already (`count_evaluations`), on this case or another one.

    Raises:
        InputError: fewer than 32 members, from which no error can be told.
    """
    if members < 32:
        raise InputError(f"a comparison needs at least 32 members, got {members}")
    leaves, structure = jax.tree.flatten(case.problem)
    settings = (structure, rule, sampler, members, draw, batch)
    run = _draws.lower(leaves, key, *settings).compile()
    begun = time.perf_counter()
    draws = np.asarray(run(leaves, key), dtype=np.float64)
    seconds = time.perf_counter() - begun
    finite = np.isfinite(draws).reshape(members, -1).all(axis=1)
    forward, derivative = counts or count_evaluations(case, rule, sampler, draw=draw)
    return Row(
        case=case.name,
        rule=str(rule),
        solver=sampler.solver,
        grid=sampler.grid,
        steps=sampler.steps,
        members=members,
        forward_evaluations=forward,
        derivative_evaluations=derivative,
        seconds=seconds,
        not_finite=int(members - finite.sum()),
        score=case.score(draws) if finite.all() else None,
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6, 7))
def _draws(leaves, key, structure, rule, sampler, members, draw, batch):
    # Lowering puts descriptions in the place of arrays, which a checked dataclass would reject.
    problem = jax.tree.unflatten(structure, leaves)
    denoiser = rule(problem)
    one = lambda k: draw(k, denoiser, problem.shape, problem.schedule, sampler)
    return sample_ensemble(key, one, members, batch=batch)


def count_evaluations(
    case: Case, rule: GuidanceRule, sampler: SamplerConfig, *, draw: Draw = sample
) -> tuple[int, int]:
    """Evaluations of the prior's denoiser in one draw, and products with its Jacobian.

    They are counted while a draw is made, so that nobody has to declare them. A rule that asks
    for products with the Jacobian itself, instead of its transpose, cannot be counted.
    """
    counts = [0, 0]
    inner = case.problem.denoiser

    def add(which: int) -> None:
        counts[which] += 1

    @jax.custom_vjp
    def counted(x: Array, t: Array) -> Array:
        jax.debug.callback(functools.partial(add, 0))
        return inner(x, t)

    def forward(x: Array, t: Array):
        jax.debug.callback(functools.partial(add, 0))
        x_0, transpose = jax.vjp(lambda x: inner(x, t), x)
        return x_0, (transpose, t)

    def backward(saved, cotangent: Array):
        jax.debug.callback(functools.partial(add, 1))
        transpose, t = saved
        return transpose(cotangent)[0], jnp.zeros_like(t)

    counted.defvjp(forward, backward)
    problem = dataclasses.replace(case.problem, denoiser=counted)
    denoiser = rule(problem)
    one = lambda k: draw(k, denoiser, problem.shape, problem.schedule, sampler)
    # It runs once: compiling it fast is worth more than running it fast.
    key = jax.random.key(0)
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
    jax.block_until_ready(jax.jit(one).lower(key).compile(compiler_options=options)(key))
    jax.effects_barrier()
    return counts[0], counts[1]
