"""Draws of the posterior as one compiled function over the devices.

    (z, e) ~ p(z, e | observations),    x = D(z) + e + climate,

by the reverse SDE of the guided denoiser, the innovations taken through the decoder D. What the
decoder misses, e, is independent of z and Gaussian: it is diffused beside the latent, so that
observations correct it, and members differ in it, as far as they tell of it.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from slams_jax.aliases import Denoiser, PRNGKey, Trajectory
from slams_jax.diffusion import (
    DrawInfo,
    RefinementConfig,
    SamplerConfig,
    guide,
    refine,
    resample,
    sample_ensemble,
    sample_with_info,
)
from slams_jax.diffusion.grids import time_grid
from slams_jax.diffusion.guidance import Estimate, Guided, Innovations
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.diffusion.sampler import integrate
from slams_jax.diffusion.solvers import UNWEIGHTED
from slams_jax.gaussian import (
    Absorbed,
    Columns,
    GaussianPosterior,
    HybridCovariance,
    ModalCovariance,
    ModalOperator,
    absorbed,
    condition,
)
from slams_jax.mesh import MEMBER, SPACE, devices_along, in_bands, place, split, whole
from slams_jax.models.model import (
    Model,
    ModelArrays,
    Networks,
    decode,
    decode_increment,
    trajectory_prior,
    window_prior,
)
from slams_jax.models.score import PosteriorDenoiser
from slams_jax.networks import compiler_options
from slams_jax.observe import Stream, log_likelihood, whitened_innovations

ScoreKind = Literal["network", "gaussian"]
COMPILED = 8  # programs kept: one for each model, recipe and mesh lately used in this process

Members = Float[Array, "member time lat lon channel"]


class Drawn(NamedTuple):
    """Members, and what is told of each.

    Attributes:
        states: in physical units.
        info: of the draw.
        accepted: number of the moves that were.
        log_weights: of guided paths (`slams_jax.diffusion.weights`), up to a constant, as many for
            each member as the recipe says; infinite where there are none.
    """

    states: Members
    info: DrawInfo
    accepted: Int[Array, " member"]
    log_weights: Float[Array, "member path"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that is static in a draw. Hashable: each compiles a program of its own.

    Attributes:
        networks: of the model.
        sampler: how the reverse SDE is solved.
        guidance: how observations enter it.
        members: drawn by one call.
        window_chunk: windows evaluated at a time by a device; None for all.
        remat: whether the activations of a chunk are computed again for gradients.
        mesh: the devices.
        score: the denoiser of the prior: the "network", or the "gaussian" of its statistics.
        refinement: Metropolis moves of each draw; None for none.
        paths: guided for each member; of more than one, all are resampled by their weights.
        level: t of the noise that draws start from; below 1, that of given trajectories.
    """

    networks: Networks
    sampler: SamplerConfig
    guidance: GuidanceConfig
    members: int
    window_chunk: int | None
    remat: bool
    mesh: Mesh
    score: ScoreKind = "network"
    refinement: RefinementConfig | None = None
    paths: int = 1
    level: float = 1.0


@functools.lru_cache(maxsize=COMPILED)
def compiled_analysis(recipe: Recipe) -> Callable[..., Drawn]:
    """The compiled function (first, key, arrays, conditioned, climate, codes) -> `Drawn`.

    It draws `recipe.members` members, counted from `first`; `arrays` are those of the model but
    for the prior, which is part of what is `conditioned`; `codes` are what draws start from at
    `recipe.level`, in turn, and None where that is pure noise. Call it within
    `jax.set_mesh(recipe.mesh)`. The `COMPILED` recipes used last are kept.
    """

    def analyse(
        first: Int[Array, ""],
        key: PRNGKey,
        arrays: ModelArrays,
        conditioned: Conditioned,
        climate: Trajectory,
        codes: Members | None,
    ) -> Drawn:
        posterior = _posterior(recipe, arrays, conditioned, climate)
        schedule = recipe.networks.schedule

        def path(key: PRNGKey, code: Trajectory | None = None) -> tuple[Array, DrawInfo, Array]:
            if code is None:
                x, info = sample_with_info(
                    key, posterior.guided, posterior.shape, schedule, recipe.sampler
                )
                return x, info, info.log_ratio + posterior.log_likelihood(x)
            key_start, key_noise = jax.random.split(key)
            start = posterior.noised(key_start, code, jnp.float32(recipe.level))
            times = time_grid(
                schedule, recipe.sampler.grid, recipe.sampler.steps, first=recipe.level
            )
            x, info = integrate(key_noise, start, times, posterior.guided, schedule, recipe.sampler)
            # No path of the prior starts there: it has no weight.
            return x, info, jnp.full((), UNWEIGHTED, x.dtype)

        def finished(key: PRNGKey, x: Array) -> tuple[Trajectory, Array]:
            """The state, after any moves, and how many of them were accepted."""
            if recipe.refinement is None:
                return posterior.to_state(x), jnp.zeros((), jnp.int32)
            likelihood, moves = posterior.log_likelihood, recipe.refinement
            x, _, accepted = refine(key, x, posterior.prior, likelihood, schedule, moves)
            return posterior.to_state(x), jnp.sum(accepted)

        def draw(key: PRNGKey, code: Trajectory | None = None) -> Drawn:
            x, info, weight = path(key, code)
            state, accepted = finished(jax.random.fold_in(key, 1), x)
            return Drawn(state, info, accepted, weight[None])

        if recipe.paths == 1:
            return sample_ensemble(key, draw, recipe.members, first=first, each=codes)
        key_path, key_choice, key_moves = jax.random.split(key, 3)
        x, info, weight = sample_ensemble(key_path, path, recipe.members * recipe.paths)
        chosen = resample(key_choice, weight, recipe.members)
        keys = split(jax.random.split(key_moves, recipe.members), MEMBER)
        axis = MEMBER if devices_along(MEMBER) > 1 else None
        states, accepted = jax.vmap(finished, spmd_axis_name=axis)(keys, split(x[chosen], MEMBER))
        info = jax.tree.map(lambda a: a[chosen], info)
        return Drawn(states, info, accepted, weight.reshape(recipe.members, recipe.paths))

    mesh = recipe.mesh
    bands = SPACE if recipe.networks.shape[0] % mesh.shape[SPACE] == 0 else None
    of_member = NamedSharding(mesh, PartitionSpec(MEMBER))
    of_state = NamedSharding(mesh, PartitionSpec(MEMBER, None, bands))
    out = Drawn(of_state, of_member, of_member, of_member)  # pyright: ignore[reportArgumentType]
    return jax.jit(analyse, out_shardings=out, compiler_options=compiler_options() or None)


class Conditioned(NamedTuple):
    """What is solved before any draw.

    Attributes:
        gaussian: the prior's statistics, with what of the streams they absorb.
        window: the prior of windows that the network departs from; None if it does not.
        streams: the others.
        absorbed: those that `gaussian` absorbs.
        missed: statistics of what the decoder misses, standardised; None if it misses nothing.
        free: the prior's statistics alone, where they are the prior; None elsewhere.
    """

    gaussian: GaussianPosterior
    window: GaussianPosterior | None
    streams: tuple[Stream, ...]
    absorbed: tuple[Stream, ...]
    missed: Columns | None
    free: GaussianPosterior | None


def condition_on(
    recipe: Recipe,
    arrays: ModelArrays,
    frames: int,
    streams: tuple[Stream, ...],
    missed: Columns | None = None,
) -> Conditioned:
    """Absorb the streams that are diagonal in the modes of the prior, if the rule allows it.

    They enter rules of Gaussian algebra in closed form: conjugate gradients see the others alone.
    """
    assert arrays.prior is not None
    closed = recipe.guidance.rule in ("gaussian", "exact")
    is_modal = lambda s: closed and isinstance(s.operator, ModalOperator)
    modal = tuple(filter(is_modal, streams))
    modes, spectra = arrays.prior.modes, arrays.prior.spectra
    given = lambda told: condition(modes, spectra, frames, told)
    gaussian = given([_absorbed(s) for s in modal])
    return Conditioned(
        gaussian,
        window_prior(recipe.networks, arrays) if recipe.score == "network" else None,
        tuple(itertools.filterfalse(is_modal, streams)),
        modal,
        missed,
        (given([]) if modal else gaussian) if recipe.score == "gaussian" else None,
    )


class _Posterior(NamedTuple):
    """What is diffused (`Layout`), and how.

    Attributes:
        guided: denoiser of the posterior; reads the ambient mesh.
        prior: that of the prior; reads it too.
        log_likelihood: log p(all observations | x_0), up to a constant.
        to_state: from what is diffused to the state; reads the ambient mesh.
        noised: from a key and a latent to what is diffused of it at time t.
        shape: of what is diffused.
    """

    guided: Denoiser
    prior: Denoiser
    log_likelihood: Callable[[Array], Array]
    to_state: Callable[[Array], Trajectory]
    noised: Callable[[PRNGKey, Trajectory, Array], Array]
    shape: tuple[int, ...]


def _posterior(
    recipe: Recipe, arrays: ModelArrays, given: Conditioned, climate: Trajectory
) -> _Posterior:
    networks = recipe.networks
    gaussian, window, streams, absorbed, missed, free = given
    schedule = networks.schedule
    if free is not None:
        prior = PosteriorDenoiser(free, schedule)
    else:
        prior = trajectory_prior(
            networks, arrays, recipe.window_chunk, remat=recipe.remat, gaussian=window
        )

    def conditioned(x_t: Array, t: Array, x_0: Array) -> Array:
        """E[x_0 | x_t, what is absorbed], where the prior alone says `x_0`."""
        if free is not None:  # in closed form
            return gaussian.denoise(x_t, schedule.alpha(t), schedule.sigma(t))
        return gaussian.absorb(x_0, (schedule.sigma(t) / schedule.alpha(t)) ** 2)

    latent_shape = (climate.shape[0], *networks.frame_shape)
    layout = Layout(latent_shape, None if missed is None else climate.shape)
    std = arrays.std[None, None, None, :]

    def to_state(x: Array) -> Trajectory:
        latent, error = layout.parts(x)
        return split(decode(networks, arrays, latent) + climate + error * std, None, SPACE)

    def innovations(x: Array, extra: Array) -> tuple[Array, ...]:
        latent, _ = layout.parts(x)
        return whitened_innovations(streams, latent, lambda _: to_state(x), extra)

    def tangent(x_0: Array) -> Innovations:
        """Innovations through the decoder's linear part, about what it decodes in full."""
        state_0 = to_state(x_0)

        def about(x: Array, extra: Array) -> tuple[Array, ...]:
            step, error = layout.parts(x - x_0)
            state = state_0 + decode_increment(networks, arrays, step) + error * std
            return whitened_innovations(streams, layout.parts(x)[0], lambda _: state, extra)

        return about

    def near(x_t: Array, t: Array) -> Estimate:
        """Given what is absorbed alone; beside the latent stands what its decoder misses."""
        latent, error = layout.parts(x_t)
        if missed is not None:
            error = missed.denoise(error, schedule.alpha(t), schedule.sigma(t))
        before = prior(latent, t)
        told = layout.joined(conditioned(latent, t, before), error)
        return Estimate(told, layout.joined(before, error), jnp.zeros((), x_t.dtype))

    def likelihood(x: Array) -> Array:
        latent, _ = layout.parts(x)
        return log_likelihood((*streams, *absorbed), latent, lambda _: to_state(x))

    def covariance(x: Array, ratio: Array) -> Array:
        latent, error = layout.parts(x)
        if missed is not None:
            error = missed.solve(error, ratio)
        return layout.joined(gaussian.solve(latent, ratio), error)

    def root(x: Array, ratio: Array) -> Array:
        latent, error = layout.parts(x)
        if missed is not None:
            error = missed.sample_root(error, ratio)
        return layout.joined(gaussian.sample_root(latent, ratio), error)

    def noised(key: PRNGKey, code: Trajectory, t: Array) -> Array:
        key_error, key_noise = jax.random.split(key)
        _, error = layout.parts(jax.random.normal(key_error, layout.shape))
        if missed is not None:
            error = missed.sample_root(error, jnp.float32(1e6))
        x = layout.joined(code, error)
        return schedule.alpha(t) * x + schedule.sigma(t) * jax.random.normal(key_noise, x.shape)

    guided = guide(
        Guided(near),
        innovations if streams else None,
        schedule,
        covariance=covariance,
        root=root,
        tangent=tangent if networks.corrects else None,
        **dataclasses.asdict(recipe.guidance),
    )
    alone = lambda x_t, t: near(x_t, t).prior
    return _Posterior(guided, alone, likelihood, to_state, noised, layout.shape)


class Layout(NamedTuple):
    """How a latent and what its decoder misses stand in one array, the shape of which is `shape`.

    Attributes:
        latent: (time, lat, lon, channel) of the latent.
        state: that of the state; None where the decoder misses nothing: the array is the latent.
    """

    latent: tuple[int, ...]
    state: tuple[int, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, value) of both; that of the latent, if it is all."""
        if self.state is None:
            return self.latent
        return self.latent[0], math.prod(self.latent[1:]) + math.prod(self.state[1:])

    def parts(self, x: Array) -> tuple[Array, Array]:
        """The latent and the error in it, zero if there is none."""
        if self.state is None:
            return x, jnp.zeros((1, 1, 1, 1))
        size = math.prod(self.latent[1:])
        return x[:, :size].reshape(self.latent), x[:, size:].reshape(self.state)

    def joined(self, latent: Array, error: Array) -> Array:
        """Inverts `parts`."""
        if self.state is None:
            return latent
        return jnp.concatenate([a.reshape(len(a), -1) for a in (latent, error)], axis=1)


def _absorbed(stream: Stream) -> Absorbed:
    operator, covariance = stream.operator, stream.covariance
    assert isinstance(operator, ModalOperator)
    assert isinstance(covariance, ModalCovariance | HybridCovariance)
    return absorbed(operator, covariance, stream.values)


def placed_arguments(
    model: Model,
    mesh: Mesh,
    key: PRNGKey,
    conditioned: Conditioned,
    climate: Any,
    codes: Any,
) -> tuple[Any, ...]:
    """The arguments of `compiled_analysis` after `first`: fields in bands, the rest whole."""
    bands = in_bands(mesh, model.grid.shape, model.networks.frame_shape[:2])
    return (
        place(key, mesh, whole),
        place(model.arrays._replace(prior=None), mesh, whole),
        Conditioned(
            place(conditioned.gaussian, mesh, whole),
            place(conditioned.window, mesh, whole),
            place(conditioned.streams, mesh, bands),
            place(conditioned.absorbed, mesh, bands),
            place(conditioned.missed, mesh, whole),
            place(conditioned.free, mesh, whole),
        ),
        place(climate, mesh, bands),
        place(codes, mesh, whole),
    )
