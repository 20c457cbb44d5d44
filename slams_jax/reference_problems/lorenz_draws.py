"""Draws for the truths of a Lorenz case: scores against their posteriors, and ranks.

Ranks show how well an ensemble is calibrated on average over the prior: if truth and members are
exchangeable, all ranks of the truth are equally likely (Talts et al. 2018, "Validating Bayesian
inference algorithms with simulation-based calibration", arXiv 1804.06788).
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from slams_jax.aliases import PRNGKey
from slams_jax.errors import InputError
from slams_jax.reference_problems.cases import Case, Method, Row, count_evaluations
from slams_jax.reference_problems.lorenz import LorenzCase, simulate

BINS = 8  # of the ranks
DRAWS_AT_A_TIME = 512  # of several truths together, if each has few


def run_lorenz(
    case: LorenzCase,
    method: Method,
    members: int,
    key: PRNGKey,
    *,
    batch: int | None = None,
) -> Row:
    """As `run_case`, with the score averaged over the truths of the case.

    Args:
        case: the truths.
        method: of the draws.
        members: number of draws for each truth.
        key: of the draws.
        batch: number of draws at a time.

    Raises:
        InputError: fewer than 32 members, or more than the case has exact draws.
    """
    most = case.others.shape[1]
    if not 32 <= members <= most:
        raise InputError(f"a comparison needs between 32 and {most} members, got {members}")
    draws, accepted, seconds = _draw_all(case, case.values, method, members, key, batch)
    finite = np.asarray(np.isfinite(draws).all(axis=2))
    single = Case(case.name, case.problem, case.exact[0])
    counts = count_evaluations(single, method)
    return Row.of(case.name, method, finite, accepted, counts, seconds, lambda: case.score(draws))


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Rank histograms of the truth among the members.

    Attributes:
        counts: for the variables x, y and z, in `BINS` bins of equal width.
        p_values: of the chi-squared test that all bins are equally likely.
        left_out: number of truths without a rank, since some of their draws are not finite.
    """

    counts: Int[np.ndarray, "channel bin"]
    p_values: Float[np.ndarray, " channel"]
    left_out: int = 0


def ranks_of(
    truths: Float[np.ndarray, "pair channel"], draws: Float[np.ndarray, "pair draw channel"]
) -> Ranks:
    """Ranks of the truths among their draws. Without any finite draws, the p-values are 0.

    Raises:
        InputError: a number of draws whose ranks cannot fill the bins evenly.
    """
    possible = draws.shape[1] + 1
    if possible % BINS:
        raise InputError(
            f"the ranks among {draws.shape[1]} draws cannot fill {BINS} bins evenly: take "
            f"{BINS * (possible // BINS + 1) - 1}"
        )
    finite = np.isfinite(draws).all(axis=(1, 2))
    ranks = (draws < truths[:, None]).sum(axis=1)[finite]
    bins = ranks // (possible // BINS)
    counts = np.stack([np.bincount(b, minlength=BINS) for b in bins.T])
    p_values = np.zeros(len(counts))
    if finite.any():
        p_values = np.asarray(scipy.stats.chisquare(counts, axis=1).pvalue)
    return Ranks(counts, p_values, int((~finite).sum()))


def calibrate_ranks(
    case: LorenzCase,
    method: Method,
    *,
    pairs: int = 200,
    members: int = 63,
    key: PRNGKey,
) -> Ranks:
    """Ranks of `pairs` new truths at the last frame, each among `members` draws given its y."""
    key_truth, key_draw = jax.random.split(key)
    truths, values = simulate(key_truth, case.values.shape[1], pairs)
    draws, _, _ = _draw_all(case, values, method, members, key_draw, None)
    return ranks_of((truths - case.mean) / case.std, draws)


def _draw_all(
    case: LorenzCase,
    values: Float[np.ndarray, "case time"],
    method: Method,
    members: int,
    key: PRNGKey,
    batch: int | None,
) -> tuple[Float[np.ndarray, "case draw size"], Int[np.ndarray, "case draw"], float]:
    """Draws of the compared states for every truth, how many moves each accepted, their seconds."""
    leaves, structure = jax.tree.flatten(case.problem)
    values = np.where(np.isfinite(values), values, 0.0)[:, :, None, None, None]
    arguments = (leaves, jnp.asarray(values, jnp.float32), key)
    run = _draws.lower(*arguments, structure, method, members, batch, case.compared).compile()
    begun = time.perf_counter()
    draws, accepted = jax.tree.map(np.asarray, run(*arguments))
    return draws.astype(np.float64), accepted, time.perf_counter() - begun


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6, 7))
def _draws(leaves, values, key, structure, method, members, batch, compared):
    problem = jax.tree.unflatten(structure, leaves)

    def of_truth(inputs):
        y, i = inputs
        stream = dataclasses.replace(problem.streams[0], values=y)
        posed = dataclasses.replace(problem, streams=(stream,))
        drawn, accepted = method.draws(posed, jax.random.fold_in(key, i), members, batch)
        return drawn[:, compared:].reshape(members, -1), accepted

    size = max(1, DRAWS_AT_A_TIME // members)
    return jax.lax.map(of_truth, (values, jnp.arange(len(values))), batch_size=size)
