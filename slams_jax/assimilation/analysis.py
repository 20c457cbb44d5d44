"""The front door: a trained model, a background and observations in; an ensemble Dataset out."""

import dataclasses
import json
import logging
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh

from slams_jax.aliases import PRNGKey
from slams_jax.assimilation.diagnostics import diagnose, warn_of
from slams_jax.assimilation.ensemble import draw_members, identity
from slams_jax.assimilation.members import MemberStore
from slams_jax.assimilation.observations import Observations, to_stream
from slams_jax.assimilation.posterior import compiled_analysis, placed_arguments
from slams_jax.assimilation.streams import background_stream, latent_stream, unresolved
from slams_jax.data import climatology
from slams_jax.data.channels import stack_channels, unstack_channels
from slams_jax.diffusion import (
    SamplerConfig,
    equal_parts,
    evaluations,
)
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError
from slams_jax.mesh import (
    MEMBER,
    analysis_mesh,
)
from slams_jax.models.model import Model
from slams_jax.observe import (
    Diagonal,
    Stream,
    without_gross_errors,
)

LOG = logging.getLogger(__name__)


def assimilate(
    model: Model,
    background: xr.Dataset | None,
    observations: Sequence[Observations | Stream],
    *,
    members: int,
    key: PRNGKey,
    times: np.ndarray | None = None,
    latent_inputs: Mapping[str, np.ndarray] | None = None,
    sampler: SamplerConfig = SamplerConfig(),
    guidance: GuidanceConfig = GuidanceConfig(),
    inflation: float = 1.0,
    gross_error: float | None = None,
    window_chunk: int | None = None,
    remat: bool = True,
    member_batch: int | None = None,
    keep: str | Path | None = None,
    mesh: Mesh | None = None,
) -> xr.Dataset:
    """An ensemble drawn from p(state | background, observations).

    Args:
        model: trained.
        background: the model state to be calibrated, with the variables and levels of `model`, on
            its grid; its times are those of the analysis. None: no background.
        observations: streams in physical units, or ready-made `Stream`s.
        members: number of draws.
        key: of the draws; member i depends on it and on i alone.
        times: of the analysis where there is no background, datetime64.
        latent_inputs: standardised fields (time, lat, lon, channel) by name, to enter through the
            encoder as one latent observation (SLAMS's way); must be those of `model.latent_inputs`.
        sampler: how the reverse SDE is solved.
        guidance: how observations enter it.
        inflation: factor on the error variances of all streams, the background's too: above one
            it widens the ensemble (`slams_jax.inflation.fit_inflation` finds it).
        gross_error: reject observations that are further than so many standard deviations from
            the background (`without_gross_errors`); None keeps all.
        window_chunk: windows of the trajectory evaluated at a time by a device; bounds the memory.
        remat: compute the network's activations of a chunk again where a rule differentiates it;
            False keeps them: faster, with memory that grows with the trajectory.
        member_batch: members drawn at a time by a device; likewise.
        keep: folder into which members are written as they are drawn, a batch of each device at a
            time. A call that was killed is repeated with the same arguments on as many devices and
            draws those that lack, to the same bits. The caller removes it once the result is
            stored; one process at a time uses it (`slams_jax.lock`). None keeps nothing.
        mesh: the devices, from `slams_jax.mesh.analysis_mesh`; all of them, for the members,
            unless given. In several processes all call this alike, and all get the result.

    Returns:
        Dataset with the model's variables on (member, time, level, latitude, longitude), physical
        units and CF attributes. Its attributes `evaluations` and `derivative_evaluations` count
        network evaluations and products with its Jacobian a member (these at most); `seconds` and
        `peak_memory_bytes` say what it took; `diagnostics` has, in JSON, how each stream was fitted
        (`slams_jax.diagnostics.diagnose`). What of that is inconsistent is logged as a warning.

    Raises:
        InputError: input that does not fit the model (see `to_stream`).
        RunError: members that are not finite, named with what to change; or no room in `keep`.
    """
    if members < 1:
        raise InputError(f"members must be at least 1, got {members}")
    if not inflation > 0:
        raise InputError(f"inflation must be positive, got {inflation}: 1 changes nothing")
    times = _times(background, times, model)
    climate = climatology(model.statistics["state"], times)
    climate = np.broadcast_to(climate, (len(times), *model.grid.shape, len(model.channels)))
    error = model.state_error if background is None else model.increment_error
    streams = [
        o
        if isinstance(o, Stream)
        else to_stream(
            o,
            model.grid,
            model.channels,
            times,
            climate=climate.mean(axis=0),
            std=np.asarray(model.arrays["std"]),
            state_error=error if model.networks.autoencoder else None,
        )
        for o in observations
    ]
    if gross_error is not None:
        streams = _checked(streams, model, background, gross_error)
    mesh = analysis_mesh(members) if mesh is None else mesh
    before = None
    if background is not None:
        before = stack_channels(background, model.channels)
        streams.append(background_stream(model, background))
        climate = climate + unresolved(model, background, climate, mesh)
    if latent_inputs is not None:
        streams.append(latent_stream(model, latent_inputs, mesh))
    inflated = tuple(
        dataclasses.replace(s, covariance=s.covariance.inflated(jnp.float32(inflation)))
        for s in streams
    )
    arguments = (key, dict(model.arrays), climate, inflated)
    _, size = equal_parts(members, member_batch, mesh.shape[MEMBER])
    config = (model.networks, sampler, guidance, size, window_chunk, remat, mesh)
    store = None
    if keep is not None:
        store = MemberStore(Path(keep), (members, *climate.shape), identity(config, arguments))
    analyse, placed = compiled_analysis(*config), placed_arguments(model, mesh, arguments)
    with jax.set_mesh(mesh):
        states, count, seconds = draw_members(
            lambda first: analyse(np.int32(first), *placed), members, size, store
        )
    dataset = unstack_channels(
        states, model.channels, times, model.grid.latitude, model.grid.longitude
    )
    found = diagnose(streams, states, before)
    warn_of(found)
    count = evaluations(sampler) or count
    return dataset.assign_attrs(
        evaluations=count,
        derivative_evaluations=count * (guidance.derivatives if streams else 0),
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
        streams=", ".join(s.name for s in streams) or "none",
        diagnostics=json.dumps([dataclasses.asdict(d) for d in found]),
        rule=guidance.rule,
        solver=sampler.solver,
    )


def _checked(
    streams: Sequence[Stream], model: Model, background: xr.Dataset | None, threshold: float
) -> list[Stream]:
    """The streams without gross errors, those that can be checked."""
    if background is None or model.background_error is None:
        raise InputError(
            "gross errors are found against a background: give one, or gross_error=None"
        )
    covariance, bias = model.background_error
    state = jnp.asarray(stack_channels(background, model.channels) - bias)
    checked = []
    for stream in streams:
        if stream.space == "state" and isinstance(stream.covariance, Diagonal):
            kept = without_gross_errors(stream, state, covariance.std[None], threshold=threshold)
            rejected = int(stream.mask.sum() - kept.mask.sum())
            if rejected:
                LOG.warning(
                    "stream %r: %d of %d values are more than %g standard deviations from the "
                    "background and were rejected",
                    stream.name,
                    rejected,
                    int(stream.mask.sum()),
                    threshold,
                )
            stream = kept
        checked.append(stream)
    return checked


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _times(background: xr.Dataset | None, times: np.ndarray | None, model: Model) -> np.ndarray:
    if background is not None:
        times = np.asarray(background["time"])
    if times is None:
        raise InputError("give the times of the analysis, or a background that has them")
    if len(times) < model.networks.score.window:
        raise InputError(
            f"an analysis of {len(times)} times is shorter than the model's window of "
            f"{model.networks.score.window}: choose a longer period"
        )
    return np.asarray(times, "datetime64[ns]")
