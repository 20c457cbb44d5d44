"""Filters of this library and of DAPPER (https://github.com/nansencenter/DAPPER), side by side.

Both get the truth and the observations that DAPPER simulates, in its set-ups of Lorenz-63 and
Lorenz-96, and take turns. DAPPER is an extra (`pip install slams-jax[dapper]`); without it there
are no rows. It is told to compute no statistics but errors, and to show no progress; here, one
compiled loop runs through all observations. What both return is the RMSE of the analysis after the
first fifth of the cycles.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.benchmark.machine import Machine, load, medians
from experiments.benchmark.networks import compile_program
from slams_jax.baselines import etkf, gaspari_cohn, iterative_enkf, letkf, stochastic_enkf
from slams_jax.baselines.ensemble_kalman import Filter
from slams_jax.cycling import cycle_step
from slams_jax.dynamics import Lorenz63, Lorenz96, lorenz63, lorenz96

SEED = 3000


class Problem(NamedTuple):
    """A system, its truth and what is observed of it: all variables.

    Attributes:
        theirs: DAPPER's description.
        model: from the state of a cycle to that of the next.
        truth: at the times of the observations.
        observations: of it.
        error: their standard deviation.
        start: mean of the first members.
        spread: their standard deviation.
        arguments: truth and observations as DAPPER has them.
    """

    theirs: Any
    model: Callable[[Array], Array]
    truth: Float[np.ndarray, "time variable"]
    observations: Float[np.ndarray, "time variable"]
    error: float
    start: Float[np.ndarray, " variable"]
    spread: float
    arguments: tuple[Any, Any]


def available() -> bool:
    """Whether DAPPER is installed."""
    return importlib.util.find_spec("dapper") is not None


def run_filters(machine: Machine, repetitions: int, cycles: int) -> Iterator[dict[str, Any]]:
    """A row for each filter; none without DAPPER."""
    if not available():
        return
    dapper = importlib.import_module("dapper")
    methods = importlib.import_module("dapper.da_methods")
    progress: Any = importlib.import_module("dapper.tools.progressbar")
    progress.disable_progbar = True
    dapper.rc.comps["error_only"] = True
    butterfly = _problem(
        "Lorenz63.sakov2012",
        lambda x: lorenz63.trajectory(Lorenz63(), x, dt=0.01, length=1, substeps=25)[0],
        cycles,
    )
    ring = _problem("Lorenz96.sakov2008", lambda x: lorenz96.step(Lorenz96(), x, 0.05), cycles)
    distance = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    # DAPPER's radius of 4 is that of a Gaussian's inflection.
    near = jnp.asarray(gaspari_cohn(np.minimum(distance, 40 - distance), 2 * 1.82 * 4), jnp.float32)
    new, turned = functools.partial, dict(rot=True)
    for case, problem, members, ours, theirs in (
        (
            "Lorenz-63, ETKF, 10 members",
            butterfly,
            10,
            _filter(butterfly, etkf, inflation=1.02),
            new(methods.EnKF, "Sqrt", N=10, infl=1.02, **turned),
        ),
        (
            "Lorenz-63, iterative smoother, 10 members",
            butterfly,
            10,
            _smoother(butterfly, inflation=1.02),
            new(methods.iEnKS, "Sqrt", N=10, infl=1.02, **turned),
        ),
        (
            "Lorenz-96, stochastic, 40 members",
            ring,
            40,
            _filter(ring, stochastic_enkf, inflation=1.06),
            new(methods.EnKF, "PertObs", N=40, infl=1.06),
        ),
        (
            "Lorenz-96, ETKF, 24 members",
            ring,
            24,
            _filter(ring, etkf, inflation=1.02),
            new(methods.EnKF, "Sqrt", N=24, infl=1.02, **turned),
        ),
        (
            "Lorenz-96, local, 7 members",
            ring,
            7,
            _filter(ring, letkf, nearness=near, inflation=1.04),
            new(methods.LETKF, N=7, infl=1.04, loc_rad=4, **turned),
        ),
    ):
        yield _row(case, machine, repetitions, problem, members, ours, theirs)


def _problem(name: str, model: Callable[[Array], Array], cycles: int) -> Problem:
    dapper = importlib.import_module("dapper")
    theirs = importlib.import_module(f"dapper.mods.{name}").HMM.copy()
    theirs.tseq.BurnIn = 0.0  # or it warns that this is too long
    theirs.tseq.Ko = cycles - 1
    theirs.tseq.BurnIn = 0.2 * theirs.tseq.T
    dapper.set_seed(SEED)
    truth, observations = theirs.simulate()
    variance = float(theirs.Obs(0).noise.C.diag[0])
    return Problem(
        theirs,
        model,
        np.asarray(truth[theirs.tseq.kko], np.float32),
        np.stack(list(observations)).astype(np.float32),
        variance**0.5,
        np.asarray(theirs.X0.mu, np.float32),
        float(theirs.X0.C.diag[0]) ** 0.5,
        (truth, observations),
    )


def _errors(problem: Problem) -> Float[Array, " variable"]:
    return jnp.full(problem.start.shape, problem.error, jnp.float32)


def _filter(problem: Problem, make: Callable[..., Filter], **how: Any) -> Filter:
    """From an analysis to the next."""
    analyse = make(lambda x: x, _errors(problem), **how)
    forecast = lambda x, _: jax.vmap(problem.model)(x)
    return lambda x, y, key: cycle_step(forecast, analyse, x, y, key).analysis


def _smoother(problem: Problem, **how: Any) -> Filter:
    """From an analysis to the next, by way of a better one of its own time."""
    analyse = iterative_enkf(problem.model, _errors(problem), **how)
    return lambda x, y, key: jax.vmap(problem.model)(analyse(x, y, key))


def _row(
    case: str,
    machine: Machine,
    repetitions: int,
    problem: Problem,
    members: int,
    step: Filter,
    theirs: Callable[[], Any],
) -> dict[str, Any]:
    ensemble = problem.start[None] + problem.spread * jax.random.normal(
        jax.random.key(1), (members, len(problem.start))
    )
    given = (ensemble, jnp.asarray(problem.truth), jnp.asarray(problem.observations))
    compiled, compile_seconds = compile_program(jax.jit(functools.partial(_run, step)), *given)
    errors: dict[str, list[float]] = {"ours": [], "theirs": []}

    def here() -> None:
        errors["ours"].append(float(compiled(*given)))

    def there() -> None:
        method = theirs()
        method.assimilate(problem.theirs, *problem.arguments)
        method.stats.average_in_time()
        errors["theirs"].append(float(method.avrgs.err.rms.a.val))

    ours, dapper = medians([here, there], repetitions)
    return {
        "case": case,
        "device": machine.device,
        "seconds": ours,
        "cycles": len(problem.truth),
        "dapper_seconds": dapper,
        "throughput_over_dapper": dapper / ours,
        "rmse": errors["ours"][-1],
        "dapper_rmse": float(np.mean(errors["theirs"])),
        "compile_seconds": compile_seconds,
        "load": load(),
    }


def _run(
    step: Filter,
    ensemble: Float[Array, "member variable"],
    truth: Float[Array, "time variable"],
    observations: Float[Array, "time variable"],
) -> Float[Array, ""]:
    """RMSE of the mean of the analysis, without the first fifth of the cycles."""

    def advance(x, given):
        true, y, key = given
        x = step(x, y, key)
        return x, jnp.sqrt(jnp.mean((jnp.mean(x, axis=0) - true) ** 2))

    keys = jax.random.split(jax.random.key(0), len(truth))
    _, errors = jax.lax.scan(advance, ensemble, (truth, observations, keys))
    return jnp.mean(errors[len(truth) // 5 :])
