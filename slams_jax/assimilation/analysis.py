"""The front door: a trained model, a background and observations in; an ensemble Dataset out."""

import dataclasses
import json
import logging
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Float

from slams_jax.aliases import PRNGKey
from slams_jax.assimilation.diagnostics import diagnose, warn_of
from slams_jax.assimilation.members import MemberStore, draw_members, identity
from slams_jax.assimilation.observations import Observations, to_stream
from slams_jax.assimilation.posterior import Recipe, compiled_analysis, placed_arguments
from slams_jax.assimilation.streams import background_stream, latent_stream, unresolved
from slams_jax.data import climatology
from slams_jax.data.channels import stack_channels, unstack_channels
from slams_jax.diffusion import SamplerConfig, equal_parts, evaluations
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError
from slams_jax.mesh import MEMBER, analysis_mesh
from slams_jax.models.model import Model
from slams_jax.observe import Diagonal, Stream, without_gross_errors

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How an analysis is computed; but for rounding, none of it changes the posterior.

    Attributes:
        mesh: the devices, from `slams_jax.mesh.analysis_mesh`; None for all of them, which share
            the members.
        window_chunk: windows of the trajectory evaluated at a time by a device, which bounds the
            memory; None for all.
        member_batch: members drawn at a time by a device, likewise.
        remat: compute the network's activations of a chunk again where a rule differentiates it;
            False keeps them: faster, with memory that grows with the trajectory.
        keep: folder into which members are written as they are drawn, a batch of each device at a
            time. A call that was killed is repeated with the same arguments on as many devices and
            draws only the missing members, bit for bit. The caller removes the folder once the
            result is stored; one process at a time uses it (`slams_jax.storage.locked`). None
            keeps nothing.

    Raises:
        InputError: a chunk or a batch below 1.
    """

    mesh: Mesh | None = None
    window_chunk: int | None = None
    member_batch: int | None = None
    remat: bool = True
    keep: str | Path | None = None

    def __post_init__(self):
        for name in ("window_chunk", "member_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, or None for all, got {value}")


def assimilate(
    model: Model,
    background: xr.Dataset | None,
    observations: Sequence[Observations | Stream],
    *,
    members: int,
    key: PRNGKey,
    times: np.ndarray | None = None,
    latent_inputs: Mapping[str, np.ndarray] | None = None,
    inflation: float = 1.0,
    gross_error: float | None = None,
    sampler: SamplerConfig = SamplerConfig(),
    guidance: GuidanceConfig = GuidanceConfig(),
    compute: ComputeConfig = ComputeConfig(),
) -> xr.Dataset:
    """An ensemble drawn from p(state | background, observations).

    In several processes all call this alike, and all get the result.

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
        inflation: factor on the error variances of all streams, the background's too: above one
            it widens the ensemble (`fit_inflation` finds it).
        gross_error: reject observations that are further than so many standard deviations from
            the background (`without_gross_errors`); None keeps all.
        sampler: how the reverse SDE is solved.
        guidance: how observations enter it.
        compute: devices, memory, and where drawn members are kept.

    Returns:
        Dataset with the model's variables on (member, time, level, latitude, longitude), physical
        units and CF attributes. Its attributes `evaluations` and `derivative_evaluations` count
        network evaluations and products with its Jacobian a member (these at most); `seconds` and
        `peak_memory_bytes` say what it took; `diagnostics` holds, in JSON, how each stream was
        fitted (`assimilation.diagnostics.diagnose`). Inconsistent ones are logged as warnings.

    Raises:
        InputError: input that does not fit the model (see `to_stream`).
        RunError: members that are not finite, named with what to change; or no room in `keep`.
    """
    if members < 1:
        raise InputError(f"members must be at least 1, got {members}")
    if not inflation > 0:
        raise InputError(f"inflation must be positive, got {inflation}: 1 changes nothing")
    mesh = analysis_mesh(members) if compute.mesh is None else compute.mesh
    times = _times(background, times, model)
    problem = _pose(model, background, observations, latent_inputs, times, gross_error, mesh)
    _, size = equal_parts(members, compute.member_batch, mesh.shape[MEMBER])
    recipe = Recipe(
        model.networks, sampler, guidance, size, compute.window_chunk, compute.remat, mesh
    )
    states, count, seconds = _draw(model, problem, recipe, key, members, inflation, compute.keep)
    dataset = unstack_channels(
        states, model.channels, times, model.grid.latitude, model.grid.longitude
    )
    diagnostics = diagnose(problem.streams, states, problem.background)
    warn_of(diagnostics)
    count = evaluations(sampler) or count
    return dataset.assign_attrs(
        evaluations=count,
        derivative_evaluations=count * (guidance.derivatives if problem.streams else 0),
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
        streams=", ".join(s.name for s in problem.streams) or "none",
        diagnostics=json.dumps([dataclasses.asdict(d) for d in diagnostics]),
        rule=guidance.rule,
        solver=sampler.solver,
    )


class _Problem(NamedTuple):
    """What is conditioned on what.

    Attributes:
        climate: added to what is decoded: the climatology, and whatever of the background the
            latent cannot represent.
        streams: all that is observed, the background included, less any inflation.
        background: physical units; None without one.
    """

    climate: Float[np.ndarray, "time lat lon channel"]
    streams: tuple[Stream, ...]
    background: Float[np.ndarray, "time lat lon channel"] | None


def _pose(
    model: Model,
    background: xr.Dataset | None,
    observations: Sequence[Observations | Stream],
    latent_inputs: Mapping[str, np.ndarray] | None,
    times: np.ndarray,
    gross_error: float | None,
    mesh: Mesh,
) -> _Problem:
    """The streams in the order of the log-likelihood: observations, background, latent."""
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
            std=np.asarray(model.arrays.std),
            state_error=error if model.networks.autoencoder else None,
        )
        for o in observations
    ]
    if gross_error is not None:
        streams = _checked(streams, model, background, gross_error)
    before = None
    if background is not None:
        before = stack_channels(background, model.channels)
        streams.append(background_stream(model, background))
        climate = climate + unresolved(model, background, climate, mesh)
    if latent_inputs is not None:
        streams.append(latent_stream(model, latent_inputs, mesh))
    return _Problem(climate, tuple(streams), before)


def _draw(
    model: Model,
    problem: _Problem,
    recipe: Recipe,
    key: PRNGKey,
    members: int,
    inflation: float,
    keep: str | Path | None,
) -> tuple[Float[np.ndarray, "member time lat lon channel"], int, float]:
    """The members, the most evaluations that one of them took, and the seconds of all."""
    factor = jnp.float32(inflation)
    streams = tuple(
        dataclasses.replace(s, covariance=s.covariance.inflated(factor)) for s in problem.streams
    )
    store = None
    if keep is not None:
        name = identity(recipe, key, model.arrays, problem.climate, streams)
        store = MemberStore(Path(keep), (members, *problem.climate.shape), name)
    analyse = compiled_analysis(recipe)
    arguments = placed_arguments(model, recipe.mesh, key, problem.climate, streams)

    def draw(first: int) -> Any:
        return analyse(np.int32(first), *arguments)

    with jax.set_mesh(recipe.mesh):
        return draw_members(draw, members, recipe.members, store)


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
