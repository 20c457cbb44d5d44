"""Draws of the posterior as one compiled function over the devices."""

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from slams_jax.aliases import PRNGKey, Trajectory
from slams_jax.diffusion import (
    DrawInfo,
    SamplerConfig,
    guide,
    sample_ensemble,
    sample_with_info,
)
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.mesh import (
    MEMBER,
    SPACE,
    in_bands,
    place,
    split,
    whole,
)
from slams_jax.models.model import Model, Networks, decode, trajectory_prior
from slams_jax.networks import compiler_options
from slams_jax.observe import (
    Stream,
    whitened_innovations,
)


def placed_arguments(model: Model, mesh: Mesh, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of the compiled analysis on its devices: networks whole, fields in bands."""
    key, arrays, *fields = arguments
    bands = in_bands(mesh, model.grid.shape, model.networks.frame_shape[:2])
    networks = {name: value for name, value in arrays.items() if name != "prior"}
    prior = {"prior": place(arrays["prior"], mesh, bands)}
    return (
        place(key, mesh, whole),
        place(networks, mesh, whole) | prior,
        *place(fields, mesh, bands),
    )


@functools.cache
def compiled_analysis(
    networks: Networks,
    sampler: SamplerConfig,
    guidance: GuidanceConfig,
    members: int,
    window_chunk: int | None,
    remat: bool,
    mesh: Mesh,
):
    """`members` draws of the analysis, counted from `first`, as one compiled function."""
    bands = SPACE if networks.shape[0] % mesh.shape[SPACE] == 0 else None

    def analyse(
        first: Int[Array, ""],
        key: PRNGKey,
        arrays: dict[str, Any],
        climate: Trajectory,
        streams: tuple[Stream, ...],
    ) -> tuple[Float[Array, "member time lat lon channel"], DrawInfo]:
        prior = trajectory_prior(networks, arrays["score"], window_chunk, remat=remat)

        def to_state(latent: Array) -> Trajectory:
            return split(decode(networks, arrays, latent) + climate, None, SPACE)

        def innovations(latent: Array, extra: Array):
            return whitened_innovations(streams, latent, to_state, extra)

        posterior = guide(
            prior,
            innovations if streams else None,
            networks.schedule,
            covariance=arrays["prior"].posterior,
            **dataclasses.asdict(guidance),
        )
        shape = (climate.shape[0], *networks.frame_shape)

        def draw(key: PRNGKey) -> tuple[Trajectory, DrawInfo]:
            latent, info = sample_with_info(key, posterior, shape, networks.schedule, sampler)
            return to_state(latent), info

        return sample_ensemble(key, draw, members, first=first)

    out = [NamedSharding(mesh, PartitionSpec(MEMBER, *rest)) for rest in ((None, bands), ())]
    return jax.jit(analyse, out_shardings=tuple(out), compiler_options=compiler_options() or None)
