"""Reference problems: a prior, observations, and the exact posterior that they determine.

`run_case` draws from the posterior with a guidance rule and a solver, and scores the draws against
it. Your own rule can be any function `Problem` -> guided `Denoiser`; your own solver, any
`draw(key, denoiser, shape, schedule, config)` -> trajectory.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slams_jax.aliases import Denoiser, PRNGKey
from slams_jax.diffusion import (
    CosineSchedule,
    RefinementConfig,
    SamplerConfig,
    guide,
    refine,
    resample,
    sample,
    sample_ensemble,
    sample_with_info,
)
from slams_jax.diffusion.guidance import GUIDED, Guided, Rule
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPosterior
from slams_jax.observe import Stream, log_likelihood, whitened_innovations
from slams_jax.observe.streams import identity_decode
from slams_jax.reference_problems.exact import Exact, Score, score
from slams_jax.reference_problems.priors import GaussianDenoiser


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """The inputs of an assimilation; a pytree.

    Attributes:
        denoiser: of the prior, itself a pytree.
        streams: observations, in state space.
        covariance: of the prior, or of the Gaussian with the same mean and covariance.
        schedule: noise schedule.
        shape: of a trajectory, (time, lat, lon, channel).
        posterior: denoiser of the exact posterior, if known.
    """

    denoiser: Denoiser
    streams: tuple[Stream, ...]
    covariance: GaussianDenoiser | GaussianPosterior
    schedule: CosineSchedule = dataclasses.field(metadata={"static": True})
    shape: tuple[int, int, int, int] = dataclasses.field(metadata={"static": True})
    posterior: Denoiser | None = None

    def innovations(self, x_0: Array, extra: Array) -> tuple[Array, ...]:
        """Whitened innovations, in the form that guidance expects."""
        return whitened_innovations(self.streams, x_0, identity_decode, extra)

    def log_likelihood(self, x_0: Array) -> Float[Array, ""]:
        """log p(y | x_0), up to a constant."""
        return log_likelihood(self.streams, x_0, identity_decode)


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and its exact posterior.

    Attributes:
        name: label in tables.
        problem: the problem.
        exact: the posterior.
    """

    name: str
    problem: Problem
    exact: Exact

    def score(self, draws: Float[np.ndarray, "draw ..."]) -> Score:
        """Score draws (draw, time, lat, lon, channel) against the posterior."""
        return score(self.exact, np.reshape(draws, (len(draws), -1)))


# Fields of `GuidanceConfig` that each rule reads.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "sda": ("gamma",),
    "pigdm": ("iterations", "jacobian"),
    "mmps": ("iterations", "tolerance", "outer"),
    "gaussian": ("iterations", "tolerance", "outer"),
}


@dataclasses.dataclass(frozen=True)
class Guidance:
    """A guidance rule of the library with its options, for `run_case`.

    Attributes:
        rule: see `slams_jax.diffusion.guide`.
        options: of the rule, as (name, value) pairs.
        covariance: whether the rule may use the covariance of the prior.
    """

    rule: Rule
    options: tuple[tuple[str, Any], ...] = ()
    covariance: bool = False

    @classmethod
    def of(cls, config: GuidanceConfig) -> "Guidance":
        """The rule with the options that it reads, and with the covariance as in `assimilate`."""
        options = tuple((name, getattr(config, name)) for name in _OPTIONS.get(config.rule, ()))
        return cls(config.rule, options, covariance=config.rule not in ("sda", "dps"))

    def __call__(self, problem: Problem) -> Denoiser:
        """The guided denoiser."""
        return guide(
            problem.denoiser,
            problem.innovations,
            problem.schedule,
            rule=self.rule,
            covariance=problem.covariance.solve if self.covariance else None,
            root=problem.covariance.sample_root if self.covariance else None,
            **dict(self.options),
        )

    def __str__(self) -> str:
        """Name of the rule, its options in brackets but for the tolerance and one outer loop."""
        untold = {("outer", 1)} | {(n, v) for n, v in self.options if n == "tolerance"}
        told = [option for option in self.options if option not in untold]
        values = [f"{value:g}" for _, value in told if not isinstance(value, bool)]
        words = [name for name, value in told if value is True]
        words += [f"no {name}" for name, value in told if value is False]
        extra = ["P"] if self.covariance and self.rule not in ("gaussian", "exact") else []
        inside = ", ".join(values + words + extra)
        return f"{self.rule} ({inside})" if inside else self.rule


@dataclasses.dataclass(frozen=True)
class Oracle:
    """The rule that knows the posterior: its errors are those of the solver."""

    rule = "oracle"

    def __call__(self, problem: Problem) -> Denoiser:
        """The exact denoiser of the posterior, at the cost of one evaluation.

        Raises:
            InputError: a problem without that denoiser.
        """
        posterior = problem.posterior
        if posterior is None:
            raise InputError("rule 'oracle' needs a problem with a known posterior denoiser")

        def guided(x_t: Array, t: Array) -> Array:
            x_0 = problem.denoiser(x_t, t)
            return x_0 + (posterior(x_t, t) - x_0)

        return guided

    def __str__(self) -> str:
        """Name of the rule."""
        return self.rule


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table of results.

    Attributes:
        case: name of the case.
        rule: the rule, with its options, and what else is told of the method (`Method.label`).
        solver: of the sampler, as are `grid` and `steps`.
        members: number of draws.
        forward_evaluations: evaluations of the prior's denoiser per draw.
        derivative_evaluations: products with its transposed Jacobian per draw.
        seconds: wall time of all draws, without compilation.
        not_finite: number of draws that are not finite; if there are any, there is no score.
        accepted: share of the moves that were accepted; None without any.
        score: of the draws against the exact posterior.
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
    accepted: float | None
    score: Score | None

    @classmethod
    def of(
        cls,
        name: str,
        method: "Method",
        finite: np.ndarray,
        accepted: np.ndarray,
        counts: tuple[int, int],
        seconds: float,
        score: Callable[[], Score],
    ) -> "Row":
        """The row of some draws.

        Args:
            name: of the case.
            method: of the draws.
            finite: whether each draw is finite (..., member).
            accepted: how many moves of each draw were accepted (..., member).
            counts: result of `count_evaluations`.
            seconds: wall time of all draws.
            score: computes the score; called only if all draws are finite.
        """
        return cls(
            case=name,
            rule=method.label,
            solver=method.sampler.solver,
            grid=method.sampler.grid,
            steps=method.sampler.steps,
            members=finite.shape[-1],
            forward_evaluations=counts[0],
            derivative_evaluations=counts[1],
            seconds=seconds,
            not_finite=int((~finite).sum()),
            accepted=(
                float(accepted.mean()) / method.refinement.moves if method.refinement else None
            ),
            score=score() if finite.all() else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """As a flat dictionary for JSON, with every field of `Score` (None without a score)."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del row["score"]
        names = [f.name for f in dataclasses.fields(Score)]
        return row | {name: getattr(self.score, name, None) for name in names}


GuidanceRule = Callable[[Problem], Denoiser]
Draw = Callable[..., Array]


@dataclasses.dataclass(frozen=True)
class Method:
    """How posterior draws are made; hashable.

    Attributes:
        rule: Problem -> guided denoiser, hashable; see `Guidance`.
        sampler: solver, number of steps and time grid.
        refinement: Metropolis moves after each draw; None for none.
        draw: one draw (key, denoiser, shape, schedule, config) -> trajectory.
        paths: guided for every draw that is kept; of more than one, all are resampled by their
            weights (`slams_jax.diffusion.weights`), before any moves.

    Raises:
        InputError: no path, or weights of paths of another function than `sample`.
    """

    rule: GuidanceRule
    sampler: SamplerConfig
    refinement: RefinementConfig | None = None
    draw: Draw = sample
    paths: int = 1

    def __post_init__(self):
        if self.paths < 1 or (self.paths > 1 and self.draw is not sample):
            raise InputError(
                f"a draw takes one path or, with `sample` alone, several: got {self.paths} of "
                f"{self.draw}"
            )

    @property
    def label(self) -> str:
        """The rule, the options of split Gibbs, its paths and its refinement in words."""
        sampler = self.sampler
        gibbs = [f"{sampler.sweeps} sweeps"] if sampler.sweeps > 1 else []
        gibbs += [f"{sampler.slices} slices"] if sampler.slices else []
        paths = [f"{self.paths} weighted paths"] if self.paths > 1 else []
        moves = [] if self.refinement is None else [str(self.refinement)]
        return ", ".join([str(self.rule), *gibbs, *paths, *moves])

    def draws(
        self, problem: Problem, key: PRNGKey, members: int, batch: int | None = None
    ) -> tuple[Float[Array, "member time lat lon channel"], Int[Array, " member"]]:
        """Draws from the posterior, and how many of its moves each accepted.

        Args:
            problem: the problem.
            key: of the draws.
            members: number of draws.
            batch: number of paths at a time; None for all.

        Raises:
            InputError: several paths of a rule or a solver that gives them no weights.
        """
        key, key_choice, key_moves = jax.random.split(key, 3)
        denoiser, schedule = self.rule(problem), problem.schedule
        likelihood = problem.log_likelihood
        if self.paths > 1 and not (self.sampler.weighted and isinstance(denoiser, Guided)):
            raise InputError(
                f"paths of rule {self.rule} with solver {self.sampler.solver!r} have no weights: "
                f"choose a rule of {GUIDED} and a solver with fresh noise, such as 'dpmpp_2m'"
            )

        def weighted(key: PRNGKey) -> tuple[Array, Array]:
            x, info = sample_with_info(key, denoiser, problem.shape, schedule, self.sampler)
            return x, info.log_ratio + likelihood(x)

        if self.paths > 1:
            paths = members * self.paths
            x, log_weights = sample_ensemble(key, weighted, paths, batch=batch)
            x = x[resample(key_choice, log_weights, members)]
        else:
            one = lambda k: self.draw(k, denoiser, problem.shape, schedule, self.sampler)
            x = sample_ensemble(key, one, members, batch=batch)
        moves = self.refinement
        if moves is None:
            return x, jnp.zeros(members, jnp.int32)

        def refined(index: Array) -> tuple[Array, Array]:
            key = jax.random.fold_in(key_moves, index)
            found = refine(key, x[index], problem.denoiser, likelihood, schedule, moves)
            return found.x_0, jnp.sum(found.accepted)

        return jax.lax.map(refined, jnp.arange(members), batch_size=batch or members)


def run_case(
    case: Case,
    method: Method,
    members: int,
    key: PRNGKey,
    *,
    batch: int | None = None,
) -> Row:
    """Draw from the posterior of a case and score the draws against the exact one.

    Args:
        case: from `slams_jax.reference_problems`, or your own.
        method: of the draws.
        members: number of draws; the row includes the resulting standard errors.
        key: of the draws.
        batch: number of draws at a time; None draws all at once.

    Raises:
        InputError: fewer than 32 members, too few to estimate an error.
    """
    if members < 32:
        raise InputError(f"a comparison needs at least 32 members, got {members}")
    leaves, structure = jax.tree.flatten(case.problem)
    run = _draws.lower(leaves, key, structure, method, members, batch).compile()
    begun = time.perf_counter()
    draws, accepted = jax.tree.map(np.asarray, run(leaves, key))
    seconds = time.perf_counter() - begun
    draws = draws.astype(np.float64)
    finite = np.asarray(np.isfinite(draws).reshape(members, -1).all(axis=1))
    counts = count_evaluations(case, method)
    return Row.of(case.name, method, finite, accepted, counts, seconds, lambda: case.score(draws))


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _draws(leaves, key, structure, method, members, batch):
    # Lowering replaces arrays by descriptions, which a checked dataclass would reject.
    problem = jax.tree.unflatten(structure, leaves)
    return method.draws(problem, key, members, batch)


def count_evaluations(case: Case, method: Method) -> tuple[int, int]:
    """Evaluations of the prior's denoiser for one draw, and products with its transposed Jacobian.

    Those of all its paths, and of its moves. They are counted during a path, so that no rule has to
    declare them; iterations that stop early make them depend on the case. A rule that uses products
    with the Jacobian itself cannot be counted: it fails to differentiate.
    """
    counts: collections.Counter[str] = collections.Counter()
    problem = dataclasses.replace(case.problem, denoiser=_counted(case.problem.denoiser, counts))
    path = dataclasses.replace(method, paths=1, refinement=None)
    # It runs once, so that fast compilation matters more than fast execution.
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
    run, key = jax.jit(lambda key: path.draws(problem, key, 1)), jax.random.key(0)
    jax.block_until_ready(run.lower(key).compile(compiler_options=options)(key))
    jax.effects_barrier()
    moves = 0 if method.refinement is None else method.refinement.evaluations
    return method.paths * counts["forward"] + moves, method.paths * counts["transpose"]


def _counted(denoiser: Denoiser, counts: collections.Counter[str]) -> Denoiser:
    """`denoiser`, adding to `counts` each time that it or its transposed Jacobian is evaluated."""
    count = lambda name: jax.debug.callback(functools.partial(counts.update, (name,)))

    # Differentiated by JAX itself, the callback would not run in the backward pass.
    @jax.custom_vjp
    def counted(x: Array, t: Array) -> Array:
        count("forward")
        return denoiser(x, t)

    def forward(x: Array, t: Array):
        count("forward")
        x_0, transpose = jax.vjp(lambda x: denoiser(x, t), x)
        return x_0, (transpose, t)

    def backward(saved, cotangent: Array):
        count("transpose")
        transpose, t = saved
        return transpose(cotangent)[0], jnp.zeros_like(t)

    counted.defvjp(forward, backward)
    return counted
