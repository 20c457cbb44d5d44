"""Which rules, samplers and refinements are tried on which cases: a table."""

import itertools
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from slams_jax.diffusion import RefinementConfig, SamplerConfig
from slams_jax.diffusion.presets import preset
from slams_jax.reference_problems import Guidance, Method, Oracle

BUDGET = 32  # evaluations and derivative products of one draw, at which rules are compared
LARGER = (128, 512)  # the same with moves
LONG = 1024  # the same of the run against which those of (b) and (d) are held
FEWEST = 8  # steps: with fewer, no rule is any good


SDA = Guidance("sda", (("gamma", 1e-2),))
WIDER_SDA = Guidance("sda", (("gamma", 3e-2),))  # that of Rozet and Louppe for Lorenz-63
DPS = Guidance("dps")
TMPD = Guidance("tmpd")
MMPS_1 = Guidance("mmps", (("iterations", 1),))
MMPS_3 = Guidance("mmps", (("iterations", 3),))
MMPS_10 = Guidance("mmps", (("iterations", 10),))
# With the prior covariance, which these rules need where there is more noise than signal.
NEAR_1 = Guidance("mmps", (("iterations", 1),), covariance=True)
NEAR_3 = Guidance("mmps", (("iterations", 3),), covariance=True)
PIGDM = Guidance("pigdm", (("iterations", 10), ("jacobian", True)))
PROXIMAL = Guidance("pigdm", (("iterations", 10), ("jacobian", False)))
GAUSSIAN_10 = Guidance("gaussian", (("iterations", 10),), covariance=True)
GAUSSIAN = Guidance("gaussian", (("iterations", 30),), covariance=True)
EXACT = Guidance("exact", covariance=True)
ORACLE = Oracle()

# Products with the network's Jacobian that an evaluation takes.
DERIVATIVES = {
    SDA: 1,
    DPS: 1,
    TMPD: 2,
    MMPS_1: 1,
    MMPS_3: 3,
    MMPS_10: 10,
    NEAR_1: 1,
    NEAR_3: 3,
    PIGDM: 1,
    PROXIMAL: 0,
    GAUSSIAN_10: 0,
    GAUSSIAN: 0,
    EXACT: 0,
}
COMMON = (SDA, PROXIMAL, TMPD, MMPS_1, MMPS_3, GAUSSIAN_10, GAUSSIAN)
OTHERS = (DPS, PIGDM, NEAR_3, MMPS_10, EXACT)
BEST = "dpmpp_3m_ode"  # the solver with which rules are compared
SOLVERS = (BEST, "dpmpp_2m_ode", "dpmpp_2m", "euler_maruyama", "heun", "ddim", "ode", "pc")
GRIDS = ("log_snr", "edm", "uniform")
STEPS = (8, 16, 32, 64, 128)
# Lorenz-63 takes a network and long trajectories. Guidance is far from exact there, and solvers
# that add fresh noise forget its errors.
LORENZ = (
    (SDA, BEST),
    (PROXIMAL, BEST),
    (GAUSSIAN, BEST),
    (GAUSSIAN, "dpmpp_2m"),
    (NEAR_3, BEST),
    (NEAR_3, "dpmpp_2m"),
    (NEAR_1, "dpmpp_2m"),
    (NEAR_1, "pc"),
)
MOVE_STEPS = (16, 32)  # of the reverse SDE of a move; with fewer, a move is not reversible


def at_cost(pairs: Iterable[tuple[Guidance, str]], costs: tuple[int, ...]) -> tuple[Method, ...]:
    """Rules and solvers with as many steps as each cost allows, where that is enough to try.

    The corrector of "pc" costs one more evaluation a step.
    """
    return tuple(
        _method(rule, solver, steps)
        for rule, solver in pairs
        for cost in costs
        if (steps := cost // (1 + (solver == "pc")) // (1 + DERIVATIVES[rule])) >= FEWEST
    )


def crossed(
    rules: Iterable[Guidance | Oracle],
    solvers: Iterable[str] = (BEST,),
    grids: Iterable[str] = ("log_snr",),
    steps: Iterable[int] = (BUDGET,),
) -> tuple[Method, ...]:
    """Each with each."""
    every = itertools.product(rules, solvers, grids, steps)
    return tuple(_method(rule, solver, n, grid) for rule, solver, grid, n in every)


def presets(*names: str) -> tuple[Method, ...]:
    """Presets of the library; "exact" is the last of `weighted`."""
    return tuple(
        Method(Guidance.of(p.guidance), p.sampler, p.refinement, paths=p.paths)
        for p in map(preset, names)
    )


def weighted(rule: Guidance) -> tuple[Method, ...]:
    """Weighted paths at each of `LARGER`: alone, and as the start of moves of 32 steps."""
    return (
        _weighted(rule, 2, 64),
        _weighted(rule, 4, 128),
        _weighted(rule, 2, 32, moves=2),
        _weighted(rule, 2, 64, moves=12),
    )


def split(*, slices: Iterable[int], sweeps: int = 1, steps: int = BUDGET) -> tuple[Method, ...]:
    """Split Gibbs sampling with each number of slices."""
    config = lambda count: SamplerConfig("split_gibbs", steps, sweeps=sweeps, slices=count)
    return tuple(Method(GAUSSIAN, config(count)) for count in slices)


def refined(rule: Guidance) -> tuple[Method, ...]:
    """Draws of `BUDGET` evaluations, refined by as many moves as each larger cost allows."""
    return tuple(_refined(rule, cost, steps) for cost in LARGER for steps in MOVE_STEPS)


def ranked() -> tuple[Method, ...]:
    """Those of the rank histograms of Lorenz-63."""
    return (
        Method(PROXIMAL, SamplerConfig(BEST, 32)),
        Method(GAUSSIAN, SamplerConfig("dpmpp_2m", 32)),
        Method(NEAR_1, SamplerConfig("dpmpp_2m", 16)),
        _refined(NEAR_1, max(LARGER), 16),
        _weighted(GAUSSIAN, 2, 64, moves=12),
    )


def _weighted(rule: Guidance, paths: int, steps: int, *, moves: int = 0, of: int = 32) -> Method:
    start, then = SamplerConfig("dpmpp_2m", steps), SamplerConfig("dpmpp_2m", of)
    refinement = RefinementConfig(moves, sampler=then) if moves else None
    return Method(rule, start, refinement, paths=paths)


def _refined(rule: Guidance, cost: int, steps: int) -> Method:
    start, moves = BUDGET // (1 + DERIVATIVES[rule]), (cost - BUDGET) // steps
    return _weighted(rule, 1, start, moves=moves, of=steps)


def _method(rule: Guidance | Oracle, solver: Any, steps: int, grid: Any = "log_snr") -> Method:
    return Method(rule, SamplerConfig(solver, steps, grid))


def best(rules: Iterable[Guidance]) -> list[tuple[Guidance, str]]:
    """Rules with the solver that they are compared with."""
    return [(rule, BEST) for rule in rules]


# Short moves after paths whose rule has a covariance of its own.
ACCURATE = (
    _weighted(NEAR_1, 2, 16, moves=4, of=16),
    _weighted(NEAR_1, 4, 32, moves=20, of=16),
)


# The sampler of Rozet and Louppe for Lorenz-63, with one correction a step.
PUBLISHED = (Method(WIDER_SDA, SamplerConfig("pc", 256, "uniform", tau=0.25)),)


class Block(NamedTuple):
    """Methods, and where they are tried.

    Attributes:
        groups: letters of the groups of cases.
        cases: of a group; "quick" is every case of a quick run, which tries nothing else.
        methods: in the order of the report.
    """

    groups: str
    cases: Literal["every", "last", "all but the last", "quick"]
    methods: tuple[Method, ...]


PLAN = (
    # Rules at equal cost, some on the last case only.
    Block("ac", "every", at_cost(best(COMMON), (BUDGET,))),
    Block("ac", "last", at_cost(best(OTHERS), (BUDGET,))),
    Block("b", "every", at_cost(best(COMMON), (BUDGET, LONG))),
    Block("b", "last", at_cost(best(OTHERS), (BUDGET, LONG))),
    # With few steps, derivatives and a solver of lower order go together better.
    Block("b", "every", at_cost([(MMPS_1, "dpmpp_2m_ode")], (BUDGET, LONG))),
    Block("b", "every", crossed([ORACLE])),
    # Rules with equally many evaluations, and what `assimilate` offers.
    Block("abc", "last", crossed((*COMMON, *OTHERS))),
    Block("abc", "last", presets("fast", "default", "accurate", "reference")),
    # Weighted paths and Metropolis moves where guidance is far from exact.
    Block("b", "every", weighted(GAUSSIAN_10)),
    Block("b", "every", refined(GAUSSIAN_10) + refined(MMPS_1)),
    Block("d", "all but the last", (*weighted(GAUSSIAN), *ACCURATE)),
    Block("d", "all but the last", refined(GAUSSIAN) + refined(NEAR_1)),
    # Split Gibbs, also where the prior is Gaussian and the operator bent.
    Block("ac", "last", split(slices=(0,), steps=8) + split(slices=(0,))),
    Block("b", "every", split(slices=(0, 4)) + split(slices=(4,), sweeps=4)),
    Block("g", "every", crossed([GAUSSIAN], (BEST, "dpmpp_2m"))),
    Block("g", "every", weighted(GAUSSIAN)[-1:] + refined(GAUSSIAN)[-1:]),
    Block("g", "every", split(slices=(0, 8, 32), steps=8) + split(slices=(16,), steps=16)),
    Block("g", "every", presets("reference")),
    # Solvers, grids and steps, with the most exact rule.
    Block("a", "last", crossed([GAUSSIAN], SOLVERS[:3], steps=STEPS)),
    Block("a", "last", crossed([GAUSSIAN], SOLVERS)),
    Block("a", "last", crossed([GAUSSIAN], grids=GRIDS)),
    Block("b", "last", crossed([ORACLE], SOLVERS[:3], steps=STEPS)),
    Block("b", "last", crossed([ORACLE], SOLVERS)),
    Block("b", "last", crossed([ORACLE], grids=GRIDS)),
    # The long trajectories of Lorenz-63 are its last case, and get what is affordable.
    Block("d", "all but the last", at_cost(LORENZ, (BUDGET, LONG))),
    Block("d", "all but the last", presets("reference")),
    Block("d", "last", at_cost(LORENZ, (BUDGET,))),
    # Linear observations of long trajectories, whose posterior is far narrower than the prior.
    Block("h", "every", crossed([GAUSSIAN, NEAR_1], ("dpmpp_2m",))),
    Block("h", "every", split(slices=(0,)) + split(slices=(0,), steps=LARGER[0])),
    Block("h", "every", split(slices=(0,), steps=LARGER[1])),
    Block("h", "every", weighted(GAUSSIAN)[:1] + weighted(GAUSSIAN)[2:3] + PUBLISHED),
    # Their linear counterpart, where only the composition of windows is inexact.
    Block("i", "every", crossed([GAUSSIAN], ("dpmpp_2m",))),
    Block(
        "i", "every", (*split(slices=(0,), steps=LARGER[0]), *split(slices=(0,), steps=LARGER[1]))
    ),
    Block("i", "quick", crossed([GAUSSIAN]) + split(slices=(0,))),
    # What a code tells is absorbed, which is for Gaussian algebra.
    Block("f", "every", crossed([GAUSSIAN], (BEST, "dpmpp_2m"))),
    Block("f", "quick", crossed([GAUSSIAN])),
    Block("ac", "quick", crossed([GAUSSIAN], steps=(8, 32))),
    Block("b", "quick", crossed([ORACLE], steps=(8, 32))),
    Block("abc", "quick", crossed([MMPS_3])),
    Block("a", "quick", split(slices=(0,), steps=8)),
    Block("g", "quick", crossed([GAUSSIAN]) + split(slices=(8,), steps=8)),
    # 8 steps cost 32 with the derivatives; the longest is what they are held against.
    Block("b", "quick", crossed([MMPS_3], steps=(8, LONG // 4))),
)


def methods(group: str, *, quick: bool = False, last: bool = False) -> list[Method]:
    """What is tried on a case of a group, in the order of the report."""
    cases = ("quick",) if quick else ("every", "last" if last else "all but the last")
    chosen = [b.methods for b in PLAN if group in b.groups and b.cases in cases]
    return list(dict.fromkeys(itertools.chain(*chosen)))
