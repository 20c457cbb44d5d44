"""Kolmogorov flow: trajectories, what is observed of them, and the systems that find them again.

Trajectories are those of the test period, in the manner of Rozet & Louppe (2023), arXiv 2306.10574,
section 4.2. There is no background: systems know the flow's equations (LETKF, 4D-Var) or what a
network learned from a long run of it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.configuration.analysis import analyse
from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.settings import Settings
from slams_jax.aliases import ObservationOperator, PRNGKey, Trajectory
from slams_jax.baselines import gaspari_cohn, letkf, variational
from slams_jax.data.channels import stack_members
from slams_jax.diffusion import SamplerConfig
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.dynamics import Kolmogorov, KolmogorovRun, kolmogorov
from slams_jax.errors import InputError, check_at_least, check_positive
from slams_jax.gaussian import fit_prior
from slams_jax.models.model import Model
from slams_jax.observe import Chain, Coarsen, Diagonal, Stride, make_stream

SYSTEMS = ("letkf", "4dvar", "gaussian", "score", "sda")
LEARNED = ("gaussian", "score", "sda")
# As published for this flow: one correction after each step, tau = 0.5, gamma = 0.01.
SDA = (SamplerConfig("pc", 256, grid="uniform", corrections=1), GuidanceConfig("sda"))
BLOCK = 2  # points of the model's grid, along each side, that the LETKF analyses as one place
CLIMATE = 2000  # states of the training period, that scales, B and the first members are of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SaturatedVorticity:
    """w / (1 + |w|) of the vorticity w, one channel."""

    def __call__(self, state: Trajectory) -> Float[Array, "time y x 1"]:
        """Of velocities (time, y, x, 2)."""
        w = kolmogorov.vorticity(state)[..., None]
        return w / (1.0 + jnp.abs(w))


class Problem(NamedTuple):
    """What is observed of a trajectory: H of its states, at every n-th of them, with errors.

    Attributes:
        operator: H, from velocities on the grid of the state to a coarser grid.
        first: index of the first row and column that it observes, on the grid of the state.
        every: n, beginning with the first state.
        error: standard deviation.
    """

    operator: ObservationOperator
    first: float
    every: int
    error: float


PROBLEMS = {
    "coarse": Problem(Coarsen(8), 3.5, 4, 0.1),
    "sparse": Problem(Stride(8, 4), 4.0, 2, 0.1),
    "saturating": Problem(Chain((SaturatedVorticity(), Stride(4, 2))), 2.0, 4, 0.05),
}


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """Trajectories of a Kolmogorov flow, and the systems that analyse them.

    Attributes:
        problems: of `PROBLEMS`.
        systems: of `SYSTEMS`: "score" is the trained model, "gaussian" its Gaussian statistics
            alone, and "sda" its network with the sampler and the guidance of Rozet & Louppe.
        trajectories: number of them.
        every: states between the starts of two of them.
        period: of the data, which they are part of.
        frames: states of each.
        draws: of the trained model, of its statistics and of "sda".
        members: of the LETKF.
        inflation: of the LETKF, a factor or "adaptive".
        radius: where its localisation reaches zero, in points of the state's grid.
        growing: linearisations of "4dvar" for each shorter window that it begins with.
        outer: for the whole one.
        iterations: of conjugate gradients for each of them.
    """

    problems: tuple[str, ...] = tuple(PROBLEMS)
    systems: tuple[str, ...] = SYSTEMS
    trajectories: int = 12
    every: int = 90
    period: str = "test"
    frames: int = 9
    draws: int = 4
    members: int = 24
    inflation: float | str = 1.2
    radius: float = 16.0
    growing: int = 1
    outer: int = 2
    iterations: int = 12

    def __post_init__(self):
        check_at_least(
            self,
            trajectories=1,
            every=1,
            frames=2,
            draws=2,
            members=2,
            growing=0,
            outer=1,
            iterations=1,
        )
        check_positive(self, "radius")
        for name, known in (("problems", tuple(PROBLEMS)), ("systems", SYSTEMS)):
            chosen = getattr(self, name)
            if not chosen or set(chosen) - set(known):
                raise InputError(f"{name} must be some of {known}, got {chosen}")


@dataclasses.dataclass(frozen=True)
class World:
    """What the systems share.

    Attributes:
        settings: the configuration.
        flow: its comparison.
        system: the flow.
        data: its data.
        model: the trained model; None if no system needs it.
    """

    settings: Settings
    flow: FlowSettings
    system: Kolmogorov
    data: Inputs
    model: Model | None

    def states(self, frames: np.ndarray) -> Float[np.ndarray, "time y x component"]:
        """Velocities at some times."""
        return np.asarray(self.data.archive.fields[STATE].array[frames])

    @functools.cached_property
    def climate(self) -> Float[np.ndarray, "time y x component"]:
        """Velocities of the training period, far apart."""
        train = self.data.frames("train")
        return self.states(train[:: max(1, len(train) // CLIMATE)][:CLIMATE])

    @functools.cached_property
    def scale(self) -> Float[np.ndarray, " component"]:
        """Their standard deviations."""
        return self.climate.std(axis=(0, 1, 2))


class Analysed(NamedTuple):
    """What a system found.

    Attributes:
        members: velocities.
        evaluations: of the network, and their derivatives, for a member.
        forecasts: intervals that the model ran, for all members, its tangent and adjoint too.
    """

    members: Float[np.ndarray, "member time y x component"]
    evaluations: int = 0
    derivatives: int = 0
    forecasts: int = 0


# frames, observed values (NaN where nothing is observed), key -> what is found
Analyse = Callable[[np.ndarray, Float[np.ndarray, "time y x value"], PRNGKey], Analysed]


def nature_of(settings: Settings) -> KolmogorovRun:
    """The nature run of a configuration.

    Raises:
        InputError: one of another kind, or none.
    """
    if not isinstance(settings.nature, KolmogorovRun) or settings.data.root:
        raise InputError(
            "nature must be a Kolmogorov flow, and data.root empty: the systems integrate its "
            "equations (see configs/compare_kolmogorov.py)"
        )
    return settings.nature


def starts(world: World) -> list[np.ndarray]:
    """Indices of the times of each trajectory.

    Raises:
        InputError: a period that is too short for them.
    """
    flow = world.flow
    if flow.period not in world.data.spans:
        raise InputError(f"period {flow.period!r} is unknown: choose from {[*world.data.spans]}")
    frames = world.data.frames(flow.period)
    last = (flow.trajectories - 1) * flow.every + flow.frames
    if last > len(frames):
        raise InputError(
            f"{flow.trajectories} trajectories need {last} states, the period {flow.period!r} has "
            f"{len(frames)}: take fewer, or a longer period"
        )
    return [frames[i * flow.every :][: flow.frames] for i in range(flow.trajectories)]


def observed(
    problem: Problem, truth: Float[np.ndarray, "time y x component"], key: PRNGKey
) -> Float[np.ndarray, "time y x value"]:
    """Noisy observations of a trajectory."""
    exact = problem.operator(jnp.asarray(truth))
    values = np.array(exact + problem.error * jax.random.normal(key, exact.shape))
    values[np.arange(len(values)) % problem.every != 0] = np.nan
    return values


def system_of(world: World, name: str, problem: Problem) -> Analyse:
    """One of `SYSTEMS`, ready for a problem."""
    if name == "letkf":
        return _letkf(world, problem)
    if name == "4dvar":
        return _variational(world, problem)
    return _learned(world, name, problem)


def _learned(world: World, name: str, problem: Problem) -> Analyse:
    """The trained model, its Gaussian statistics alone, or its network with the sampler of SDA."""
    model, settings = world.model, world.settings
    assert model is not None
    options = dataclasses.replace(
        settings.assimilation,
        members=world.flow.draws,
        score="gaussian" if name == "gaussian" else "network",
        background=False,
    )
    if name == "sda":
        sampler, guidance = SDA
        settings = dataclasses.replace(
            settings, sampler=sampler, guidance=guidance, refinement=None
        )
        options = dataclasses.replace(options, paths=1, inflation=1.0, gross_error=0.0)
    scale = np.asarray(problem.operator(jnp.asarray(world.climate))).std(axis=(0, 1, 2))
    covariance = Diagonal(jnp.full(len(scale), problem.error**2, jnp.float32))

    def run(frames: np.ndarray, values: np.ndarray, key: PRNGKey) -> Analysed:
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        analysis = analyse(
            dataclasses.replace(settings, seed=seed, assimilation=options),
            world.data,
            model,
            [make_stream("flow", values, problem.operator, covariance, scale=scale)],
            frames=frames,
        )
        members = stack_members(analysis, model.channels)
        if name == "gaussian":  # whose network is not called
            return Analysed(members)
        counts = (int(analysis.attrs[n]) for n in ("evaluations", "derivative_evaluations"))
        return Analysed(members, *counts)

    return run


def _seen(world: World, vorticity: Float[Array, "*n y x"]) -> Float[Array, "*n y x component"]:
    """The velocity of a state of the model, on the grid of the data."""
    return kolmogorov.coarsened(kolmogorov.velocity(vorticity), world.data.archive.grid.shape[0])


def _letkf(world: World, problem: Problem) -> Analyse:
    """A filter from the climate on, without spin-up; blocks of points are analysed as one.

    Raises:
        InputError: more members than the climate has states.
    """
    flow, system = world.flow, world.system
    if flow.members > len(world.climate):
        raise InputError(
            f"members must be at most {len(world.climate)}, the states that they are chosen from, "
            f"got {flow.members}"
        )
    points, side = system.points, system.points // BLOCK
    shape = (side, BLOCK, side, BLOCK)
    blocks = lambda w: jnp.swapaxes(w.reshape(-1, *shape), 2, 3)
    fields = lambda b: jnp.swapaxes(b, 2, 3).reshape(-1, points, points)
    operator = lambda b: jnp.ravel(problem.operator(_seen(world, fields(b[None]))))

    @jax.jit
    def advance(members):
        step = lambda w: kolmogorov.trajectory(system, w, length=1)[0]
        return blocks(jax.lax.map(step, fields(members)))

    draw = jax.jit(lambda members: _seen(world, fields(members)))
    _, *shown = _shown(world, problem)
    error = jnp.full(math.prod(shown), problem.error, jnp.float32)
    near = _nearness(world, problem, tuple(shown), side)
    analyse = jax.jit(letkf(operator, error, near, inflation=flow.inflation))

    def run(frames: np.ndarray, values: np.ndarray, key: PRNGKey) -> Analysed:
        keys = jax.random.split(key, len(values) + 1)
        chosen = jax.random.choice(keys[-1], len(world.climate), (flow.members,), replace=False)
        members = blocks(kolmogorov.refined(jnp.asarray(world.climate[np.asarray(chosen)]), points))
        found = []
        for number, y in enumerate(values):
            if number:
                members = advance(members)
            if np.isfinite(y).any():
                members = analyse(members, jnp.ravel(jnp.asarray(y)), keys[number])
            found.append(np.asarray(draw(members)))
        count = flow.members * (len(values) - 1)
        return Analysed(np.stack(found, axis=1), forecasts=count)

    return run


def _shown(world: World, problem: Problem) -> tuple[int, ...]:
    """Shape of what is observed of a trajectory, missing times included."""
    shape = (world.flow.frames, *world.climate.shape[1:])
    return jax.eval_shape(problem.operator, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _nearness(
    world: World, problem: Problem, observed: tuple[int, ...], side: int
) -> Float[Array, "place observation"]:
    """By the distance on the torus, in points of the state's grid."""
    size = world.data.archive.grid.shape[0]
    rows, columns, channels = observed
    places = (np.arange(side) + 0.5) * size / side - 0.5

    def apart(count: int) -> np.ndarray:
        away = np.abs(places[:, None] - (problem.first + np.arange(count) * size / count)[None])
        return np.minimum(away, size - away)

    y, x = apart(rows), apart(columns)
    distance = np.hypot(y[:, None, :, None], x[None, :, None, :]).reshape(side**2, -1)
    taper = gaspari_cohn(np.repeat(distance, channels, axis=1), world.flow.radius)
    return jnp.asarray(taper, jnp.float32)


def _variational(world: World, problem: Problem) -> Analyse:
    """Strong-constraint 4D-Var: the first state, by what is observed of all that follow from it.

    Its control is the velocity on the grid of the data, with the covariance of the climate. Windows
    grow to the whole one, so that it starts near the minimum there.
    """
    flow, system = world.flow, world.system
    mean = world.climate.mean(axis=0)
    climate = fit_prior(world.climate - mean, periodic=True, order=0).over(1)
    root = lambda white: climate.sample_root(white[None])[0]

    def states(velocity: Array, length: int) -> Array:
        first = kolmogorov.refined(velocity, system.points)
        after = kolmogorov.trajectory(system, first, length=length - 1)
        return _seen(world, jnp.concatenate([first[None], after]))

    count, every = flow.frames, problem.every
    _, *shown = _shown(world, problem)
    times, size = len(range(0, count, every)), math.prod(shown)
    seen = np.repeat(np.arange(times), size)[None] < np.arange(1, times)[:, None]
    windows = np.repeat(seen, flow.growing, axis=0)
    analyse = variational(
        lambda x: jnp.ravel(problem.operator(states(x, count)[::every])),
        jnp.full(times * size, problem.error, jnp.float32),
        root,
        iterations=flow.iterations,
        outer=flow.outer,
        windows=windows,
    )
    begin = jnp.asarray(mean)
    best = jax.jit(lambda y: states(analyse(begin, y, jax.random.key(0)), count))
    # For each linearisation: itself and its gradient; tangent and adjoint of the first residual
    # and of each iteration; and the costs of four lengths of the step.
    runs = (len(windows) + flow.outer) * (2 + 2 * (1 + flow.iterations) + 4) + 1

    def run(frames: np.ndarray, values: np.ndarray, key: PRNGKey) -> Analysed:
        del frames, key  # nothing is random
        found = np.asarray(best(jnp.ravel(jnp.asarray(values[::every]))))
        return Analysed(found[None], forecasts=runs * (count - 1))

    return run
