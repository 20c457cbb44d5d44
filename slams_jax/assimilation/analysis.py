"""The front door: a trained model, a background and observations in; an ensemble Dataset out."""

import dataclasses
import json
import logging
import math
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Float

from slams_jax.aliases import PRNGKey
from slams_jax.assimilation.diagnostics import StreamDiagnostics, diagnose, warn_of
from slams_jax.assimilation.ensembles import HybridConfig, InversionConfig
from slams_jax.assimilation.intake import background_fields, latent_field
from slams_jax.assimilation.members import Cost, MemberStore, draw_members, identity
from slams_jax.assimilation.observations import Observations, to_stream
from slams_jax.assimilation.posterior import (
    Recipe,
    ScoreKind,
    compiled_analysis,
    condition_on,
    placed_arguments,
)
from slams_jax.assimilation.streams import (
    background_stream,
    codes_of,
    latent_stream,
    of_gaussian,
    unresolved,
)
from slams_jax.data import climatology
from slams_jax.data.anamorphosis import physical
from slams_jax.data.channels import unstack_channels
from slams_jax.diffusion import (
    RefinementConfig,
    SamplerConfig,
    certify,
    equal_parts,
    evaluations,
)
from slams_jax.diffusion.guidance import GUIDED
from slams_jax.diffusion.presets import GuidanceConfig
from slams_jax.errors import InputError, first_line
from slams_jax.gaussian import Columns, fit_columns
from slams_jax.mesh import MEMBER, analysis_mesh
from slams_jax.models.model import Model
from slams_jax.observe import Diagonal, Stream, pad_times, without_gross_errors
from slams_jax.readers import check_times

LOG = logging.getLogger(__name__)

SEVERAL = 2.0  # effective paths below which resampling is worth a warning
ACCEPTED = 0.05  # share of a refinement's moves below which they are worth a warning


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
    background: Any,
    observations: Sequence[Observations | Stream],
    *,
    members: int,
    key: Any,
    times: np.ndarray | None = None,
    latent_inputs: Mapping[str, Any] | None = None,
    ensemble: HybridConfig | InversionConfig = HybridConfig(),
    inflation: float = 1.0,
    gross_error: float | None = None,
    score: ScoreKind = "network",
    sampler: SamplerConfig = SamplerConfig(),
    guidance: GuidanceConfig = GuidanceConfig(),
    paths: int = 1,
    refinement: RefinementConfig | None = None,
    compute: ComputeConfig = ComputeConfig(),
) -> xr.Dataset:
    """An ensemble drawn from p(state | background, observations).

    In several processes all call this alike, and all get the result.

    Args:
        model: trained.
        background: the model state to be calibrated, a Dataset with the variables and levels of
            `model`, on its grid and with its time step; read as a file is
            (`slams_jax.readers.from_dataset`). Its times are those of the analysis. With a
            dimension `member` it is an ensemble of forecasts, which enters as `ensemble` says.
            None: no background.
        observations: streams in physical units, or ready-made `Stream`s.
        members: number of draws.
        key: of the draws, `jax.random.key(seed)`; member i depends on it and on i alone.
        times: of the analysis, datetime64, one step apart; needed where there is no background,
            and those of the background where there is one. One time suffices.
        latent_inputs: fields by name, to enter through the encoder as one latent observation
            (SLAMS's way); some or all of `model.latent_inputs`. Datasets as the training set was
            given them, on the grid of `model` or of stations, missing at the times that they lack;
            or arrays (time, lat, lon, channel), standardised as there. None of them may be
            observed by a stream too.
        ensemble: how members of the background enter. `HybridConfig`: their mean is the background,
            and their covariance tells of its errors beside the model's statistics; a single member
            has those alone. `InversionConfig`: draws start from noisy members, which enter nowhere
            else.
        inflation: factor on the error variances of all streams, the background's too: above one
            it widens the ensemble (`fit_inflation` finds it).
        gross_error: reject observations that are further than so many standard deviations from
            the background (`without_gross_errors`); None keeps all.
        score: the prior: the trained "network", or the "gaussian" of the model's own statistics,
            all else equal, which tells what the network is worth.
        sampler: how the reverse SDE is solved.
        guidance: how observations enter it.
        paths: guided paths for each member; of more than one, all are resampled together by their
            weights, for few observations and a prior or operators far from Gaussian, best with a
            refinement after it (`docs/method.md`, weights of paths).
        refinement: Metropolis moves of each member after its draw (`slams_jax.diffusion.refine`),
            for few observations and a prior or operators far from Gaussian; None for none.
        compute: devices, memory, and where drawn members are kept.

    Returns:
        Dataset with the model's variables on (member, time, level, latitude, longitude), physical
        units and CF attributes. Its attributes `evaluations` and `derivative_evaluations` count
        network evaluations and products with its Jacobian a member (these at most); `seconds` and
        `peak_memory_bytes` say what it took; `residual`, where the rule and the solver tell it, is
        the largest residual of the equations of guidance over what it was at first, of any step
        and member; `divergence`, likewise, estimates by how many nats the draws diverge from the
        posterior (`slams_jax.diffusion.certify`, from the coordinate `log_weight`), before any
        resampling and moves, beside `divergence_error`, `divergence_per_observation` and
        `effective_paths`; `acceptance`, with a refinement, is the share of the moves that were
        accepted;
        `diagnostics` holds, in JSON, how each stream was fitted
        (`assimilation.diagnostics.diagnose`). Inconsistent ones are logged as warnings.

    Raises:
        InputError: input that does not fit the model (see `to_stream`), or that enters twice;
            several paths with a rule or a solver that gives them no weights, or in batches.
        RunError: members that are not finite, named with what to change; or no room in `keep`.
    """
    if members < 1:
        raise InputError(f"members must be at least 1, got {members}")
    if not 0 < inflation < math.inf:
        raise InputError(
            f"inflation must be positive and finite, got {inflation}: 1 changes nothing"
        )
    _check_paths(paths, members, sampler, guidance, compute)
    if score not in get_args(ScoreKind):
        raise InputError(f"unknown score {score!r}: choose from {get_args(ScoreKind)}")
    key = _checked_key(key)
    _check_counted_once(background, observations, latent_inputs)
    before = None
    if background is not None:
        background_times, before = background_fields(background, model)
        times = _same_times(times, background_times)
    times = _checked_times(times, model)
    mesh = analysis_mesh(members) if compute.mesh is None else compute.mesh
    inverted = isinstance(ensemble, InversionConfig)
    if inverted:
        _check_inversion(model, before, paths, refinement)
    problem = _pose(model, before, observations, latent_inputs, times, gross_error, mesh, ensemble)
    _, size = equal_parts(members, compute.member_batch, mesh.shape[MEMBER])
    recipe = Recipe(
        model.networks,
        sampler,
        guidance,
        size,
        compute.window_chunk,
        compute.remat,
        mesh,
        score,
        refinement,
        paths,
        ensemble.level if inverted else 1.0,
    )
    # A window needs its frames: those after the last time are unobserved, and cut off again.
    padded = _padded(problem, max(len(times), model.networks.score.window))
    states, cost = _draw(model, padded, recipe, key, members, inflation, compute.keep)
    states = physical(model.transforms, states[:, : len(times)])
    dataset = unstack_channels(
        states, model.channels, times, model.grid.latitude, model.grid.longitude
    )
    if cost.residual >= 0.0:
        dataset.attrs["residual"] = cost.residual
    if len(cost.log_weights) > 1 and problem.streams:
        dataset = dataset.assign_attrs(_certified(cost.log_weights, problem.streams, paths))
        if paths == 1 and refinement is None:
            values = np.asarray(cost.log_weights) - np.mean(cost.log_weights)
            about = {"long_name": "log of the weight of the path of a member, up to a constant"}
            dataset = dataset.assign_coords(log_weight=("member", values, about))
    count, moves = paths * (evaluations(sampler) or cost.evaluations), 0
    if refinement is not None:
        moves = refinement.evaluations
        acceptance = cost.accepted / (members * refinement.moves)
        dataset.attrs["acceptance"] = acceptance
        _warn_of_rejections(acceptance, refinement)
    return dataset.assign_attrs(
        evaluations=count + moves,
        derivative_evaluations=count * (guidance.derivatives if problem.streams else 0),
        seconds=cost.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        streams=", ".join(s.name for s in problem.streams) or "none",
        diagnostics=json.dumps([dataclasses.asdict(d) for d in _diagnostics(problem, states)]),
        rule=guidance.rule,
        score=score,
        solver=sampler.solver,
    )


def _check_inversion(
    model: Model,
    members: Float[np.ndarray, "member time lat lon channel"] | None,
    paths: int,
    refinement: RefinementConfig | None,
) -> None:
    """Refuse what cannot start from members of the background, or be weighted from there."""
    if members is None or not np.isfinite(members).all():
        raise InputError(
            "InversionConfig starts from members of the background, at all its times: give one "
            "without missing values, or choose HybridConfig"
        )
    window = model.networks.score.window
    if members.shape[1] < window:
        raise InputError(
            f"InversionConfig needs as many times as the windows of the model have: give {window} "
            f"or more, got {members.shape[1]}"
        )
    if paths > 1 or refinement is not None:
        raise InputError(
            "draws from members have no weights: leave paths and refinement out, or choose "
            "HybridConfig"
        )


def _check_paths(
    paths: int,
    members: int,
    sampler: SamplerConfig,
    guidance: GuidanceConfig,
    compute: ComputeConfig,
) -> None:
    """Refuse several paths where they cannot be resampled by their weights."""
    if paths < 1:
        raise InputError(f"paths must be at least 1, got {paths}: 1 resamples nothing")
    if paths == 1:
        return
    if not (sampler.weighted and guidance.rule in GUIDED):
        raise InputError(
            f"several paths need weights, which rule {guidance.rule!r} with solver "
            f"{sampler.solver!r} does not give: choose rule 'gaussian', 'mmps' or 'exact', and "
            "solver 'dpmpp_2m', or set paths to 1"
        )
    if compute.member_batch is not None and compute.member_batch < members:
        raise InputError(
            f"the paths of all {members} members are resampled together, and cannot be drawn "
            f"{compute.member_batch} at a time: leave member_batch out, or set paths to 1"
        )


def _certified(
    log_weights: Sequence[float], streams: Sequence[Stream], paths: int
) -> dict[str, float]:
    """What the weights of paths say of them, as attributes."""
    values = sum(int(np.sum(stream.mask)) for stream in streams)
    certificate = certify(np.asarray(log_weights), values)
    effective = certificate.effective * certificate.members
    if paths > 1 and effective < SEVERAL:
        LOG.warning(
            "the weights leave %.1f of %d paths, so that the members are copies of one: take more "
            "paths or sampler steps, or leave paths out (they are for few observations)",
            effective,
            certificate.members,
        )
    return {
        "divergence": certificate.divergence,
        "divergence_error": certificate.divergence_error,
        "divergence_per_observation": certificate.divergence_per_observation,
        "effective_paths": effective,
    }


def _warn_of_rejections(acceptance: float, refinement: RefinementConfig) -> None:
    """Say so if hardly any move was accepted: the members then are what they were without."""
    if acceptance < ACCEPTED:
        LOG.warning(
            "refinement accepted %.1f %% of its %s, so that the members are as guidance left them: "
            "lower its levels, or leave it out (it is for few or sparse observations)",
            100 * acceptance,
            refinement,
        )


def _checked_key(key: Any) -> PRNGKey:
    """A key of `jax.random.key`, or one of `jax.random.PRNGKey` made into it.

    Raises:
        InputError: something else, such as a seed.
    """
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if typed and key.shape == ():
            return key
        if key.dtype == jnp.uint32 and key.shape == (2,):
            return jax.random.wrap_key_data(key)
    raise InputError(f"key must be one random key, got {key!r}: give jax.random.key(0)")


def _check_counted_once(
    background: Any,
    observations: Sequence[Observations | Stream],
    latent_inputs: Mapping[str, Any] | None,
) -> None:
    """Refuse what would enter the likelihood twice, by its name.

    Raises:
        InputError: a stream, the background and a latent input two of which have one name.
    """
    entered: dict[str, str] = {}
    ways = [(o.name, "stream") for o in observations]
    ways += [("background", "background")] if background is not None else []
    ways += [(name, "latent input") for name in latent_inputs or ()]
    for name, way in ways:
        if name in entered:
            raise InputError(
                f"{name!r} enters twice, as {entered[name]} and as {way}, which would count it "
                "double: leave one out, or rename it if they are different observations"
            )
        entered[name] = way


def _same_times(times: Any, background: np.ndarray) -> np.ndarray:
    """The times of the background, which are `times` where these are given.

    Raises:
        InputError: other ones.
    """
    if times is not None:
        wanted = check_times(times, name="the times of the analysis")
        if not np.array_equal(wanted, background):
            raise InputError(
                f"the times of the analysis ({_span(wanted)}) are not those of the background "
                f"({_span(background)}): choose these from the background, or leave times out"
            )
    return background


def _checked_times(times: Any, model: Model) -> np.ndarray:
    """The times of an analysis, one step of the model apart.

    Raises:
        InputError: no times, times that `check_times` refuses, a gap, or another step.
    """
    if times is None:
        raise InputError("give the times of the analysis, or a background that has them")
    times = check_times(times, name="the times of the analysis")
    steps = np.diff(times)
    if not steps.size:
        return times
    step = model.time_step or steps.min()
    if model.time_step is not None and steps.min() != model.time_step:
        raise InputError(
            f"the times of the analysis are {_hours(steps.min())} apart, the model was trained on "
            f"steps of {_hours(model.time_step)}: choose every such time"
        )
    gap = np.flatnonzero(steps != step)
    if gap.size:
        before, after = times[gap[0]], times[gap[0] + 1]
        raise InputError(
            f"the times of the analysis have a gap between {str(before)[:16]} and "
            f"{str(after)[:16]}, where the step is {_hours(step)}: fill it (missing values may be "
            "NaN), or analyse the parts before and after it"
        )
    return times


def _span(times: np.ndarray) -> str:
    return f"{len(times)} from {str(times[0])[:16]} to {str(times[-1])[:16]}"


def _hours(step: np.timedelta64) -> str:
    return f"{step / np.timedelta64(1, 'h'):g} h"


def _diagnostics(
    problem: "_Problem", states: Float[np.ndarray, "member time lat lon channel"]
) -> list[StreamDiagnostics]:
    """The diagnostics of each stream; none where they fail: the ensemble is worth more."""
    try:
        diagnostics = diagnose(problem.streams, states, problem.background)
        warn_of(diagnostics)
    except Exception as error:
        LOG.warning("the analysis is complete, but its diagnostics failed: %s", first_line(error))
        return []
    return diagnostics


class _Problem(NamedTuple):
    """What is conditioned on what.

    Attributes:
        climate: added to what is decoded: the climatology, and whatever of the background the
            latent cannot represent; as the model has the state, after any anamorphosis.
        streams: all that is observed, the background included, less any inflation; of states in
            physical units.
        background: physical units; None without one.
        missed: statistics of what the decoder misses, standardised; None if it misses nothing.
        codes: of the members that draws start from; None for pure noise.
    """

    climate: Float[np.ndarray, "time lat lon channel"]
    streams: tuple[Stream, ...]
    background: Float[np.ndarray, "time lat lon channel"] | None
    missed: Columns | None
    codes: Float[np.ndarray, "member time lat lon channel"] | None = None


def _pose(
    model: Model,
    members: Float[np.ndarray, "member time lat lon channel"] | None,
    observations: Sequence[Observations | Stream],
    latent_inputs: Mapping[str, Any] | None,
    times: np.ndarray,
    gross_error: float | None,
    mesh: Mesh,
    ensemble: HybridConfig | InversionConfig,
) -> _Problem:
    """The streams in the order of the log-likelihood: observations, background, latent."""
    climate = climatology(model.statistics["state"], times)
    climate = np.broadcast_to(climate, (len(times), *model.grid.shape, len(model.channels)))
    mean, std = climate.mean(axis=0), np.asarray(model.arrays.std)
    if model.anamorphosis is not None:
        mean, std = model.anamorphosis.moments(mean, std)
    streams = [
        o
        if isinstance(o, Stream)
        else to_stream(
            o,
            model.grid,
            model.channels,
            times,
            climate=mean,
            std=std,
            transforms=model.transforms,
        )
        for o in observations
    ]
    background = None if members is None else members.mean(axis=0)
    if gross_error is not None:
        streams = _without_gross_errors(streams, model, background, gross_error)
    error, codes = model.state_error, None
    if members is not None:
        before = members
        if model.anamorphosis is not None:
            name = "the background"
            before = np.stack([model.anamorphosis.gaussian(m, None, name=name) for m in members])
        if isinstance(ensemble, InversionConfig):
            codes = codes_of(model, before, climate, mesh)
        else:
            streams.append(background_stream(model, before, climate, mesh, ensemble))
        if model.background is not None:
            told, error = unresolved(model, before.mean(axis=0), climate, mesh)
            climate = climate + told
    if latent_inputs is not None:
        fields = {n: latent_field(n, x, model, times) for n, x in latent_inputs.items()}
        streams.append(latent_stream(model, fields, mesh))
    missed = fit_columns(error / np.asarray(model.arrays.std)) if np.any(error) else None
    return _Problem(climate, tuple(streams), background, missed, codes)


def _padded(problem: _Problem, frames: int) -> _Problem:
    """The problem with frames after its own, `frames` in all, at which nothing is observed."""
    more = frames - len(problem.climate)
    if not more:
        return problem
    after = np.repeat(problem.climate[-1:], more, axis=0)
    return problem._replace(
        climate=np.concatenate([problem.climate, after]),
        streams=tuple(pad_times(s, frames) for s in problem.streams),
    )


def _draw(
    model: Model,
    problem: _Problem,
    recipe: Recipe,
    key: PRNGKey,
    members: int,
    inflation: float,
    keep: str | Path | None,
) -> tuple[Float[np.ndarray, "member time lat lon channel"], Cost]:
    """The members, and what they took."""
    factor = jnp.float32(inflation)
    streams = tuple(
        dataclasses.replace(s, covariance=s.covariance.inflated(factor)) for s in problem.streams
    )
    streams = of_gaussian(streams, model.transforms)
    store = None
    if keep is not None:
        name = identity(recipe, key, model.arrays, problem.climate, streams, problem.codes)
        store = MemberStore(Path(keep).expanduser(), (members, *problem.climate.shape), name)
    analyse = compiled_analysis(recipe)
    frames = len(problem.climate)
    conditioned = condition_on(recipe, model.arrays, frames, streams, problem.missed)
    arguments = placed_arguments(
        model, recipe.mesh, key, conditioned, problem.climate, problem.codes
    )

    def draw(first: int) -> Any:
        return analyse(np.int32(first), *arguments)

    with jax.set_mesh(recipe.mesh):
        return draw_members(draw, members, recipe.members, store)


def _without_gross_errors(
    streams: Sequence[Stream],
    model: Model,
    background: Float[np.ndarray, "time lat lon channel"] | None,
    threshold: float,
) -> list[Stream]:
    """The streams less the gross errors in those that can be checked, and less empty streams."""
    if background is None or model.background_error is None:
        raise InputError(
            "gross errors are found against a background: give one, or gross_error=None"
        )
    covariance, bias = model.background_error
    std = covariance.std[None]
    if model.anamorphosis is None:
        state = jnp.asarray(background - bias)
    else:
        before = jnp.asarray(model.anamorphosis.gaussian(background, None) - bias)
        state = physical(model.transforms, before)
        # By differences, as `without_gross_errors` does then: dry places have no slope.
        more = physical(model.transforms, before + std) - state
        std = jnp.where(jnp.asarray([t is None for t in model.transforms]), std, more)
    checked = []
    for stream in streams:
        if stream.space == "state" and isinstance(stream.covariance, Diagonal):
            kept = without_gross_errors(
                stream, state, std, threshold=threshold, tangent=not model.transforms
            )
            count, left = int(stream.mask.sum()), int(kept.mask.sum())
            if left < count:
                LOG.warning(
                    "stream %r: %d of %d values are more than %g standard deviations from the "
                    "background and were rejected",
                    stream.name,
                    count - left,
                    count,
                    threshold,
                )
            if not left:
                LOG.warning("stream %r has no value left and is left out", stream.name)
                continue
            stream = kept
        checked.append(stream)
    return checked


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
