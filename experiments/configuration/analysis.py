"""The analysis that a configuration describes, as a call of the library."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from absl import logging

from experiments.configuration.fields import open_forecasts
from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.observations import frames_of, open_streams
from experiments.configuration.settings import Settings
from slams_jax.assimilation.analysis import ComputeConfig, assimilate
from slams_jax.assimilation.inflation import fit_inflation
from slams_jax.assimilation.observations import Observations
from slams_jax.data.channels import stack_members
from slams_jax.mesh import analysis_mesh
from slams_jax.models.model import Model
from slams_jax.observe import Stream


def analyse(
    settings: Settings,
    data: Inputs,
    model: Model,
    observations: Sequence[Observations | Stream] | None = None,
    *,
    frames: np.ndarray | None = None,
    background: str | xr.Dataset | None = None,
    keep: Path | None = None,
) -> xr.Dataset:
    """The analysis of a configuration whose data and model are open.

    Args:
        settings: the configuration.
        data: its data.
        model: its trained model.
        observations: taken in place of the configuration's streams.
        frames: indices of the times to analyse in place of the configuration's.
        background: forecasts in place of the configuration's background, or their file; they may
            have members.
        keep: folder that holds the members as they are drawn (`slams_jax.assimilate`).

    Raises:
        InputError, RunError: as `slams_jax.assimilate` has them, and files that do not fit.
    """
    frames = frames_of(settings, data) if frames is None else frames
    options, times = settings.assimilation, data.archive.times[frames]
    if isinstance(background, str):
        forecasts = open_forecasts(background, settings.data, data.archive.grid, times)
    elif background is not None:
        forecasts = background
    else:
        forecasts = data.background(frames) if options.background else None
    if observations is None:
        observations, _ = open_streams(settings, data, frames)
    return assimilate(
        model,
        forecasts,
        observations,
        members=options.members,
        key=jax.random.key(settings.seed),
        times=times,
        latent_inputs=(
            {n: data.standardised(n, frames) for n in options.latent_inputs}
            if options.latent_inputs
            else None
        ),
        sampler=settings.sampler,
        guidance=settings.guidance,
        paths=options.paths,
        refinement=settings.refinement,
        ensemble=settings.ensemble,
        inflation=options.inflation,
        gross_error=options.gross_error or None,
        score=options.score,
        compute=ComputeConfig(
            mesh=analysis_mesh(
                options.members, windows=options.window_devices, space=options.space_devices
            ),
            window_chunk=options.window_chunk or None,
            member_batch=options.member_batch or None,
            remat=options.remat,
            keep=keep,
        ),
    )


def with_fitted_inflation(settings: Settings, data: Inputs, model: Model) -> Settings:
    """The settings with the inflation that makes spread equal error in the validation period."""
    options = dataclasses.replace(settings.assimilation, period="validation")
    frames = data.frames("validation")
    count = min(len(frames), settings.assimilation.frames or len(frames))

    def members(factor: float) -> np.ndarray:
        trial = dataclasses.replace(options, frames=count, inflation=factor)
        analysis = analyse(dataclasses.replace(settings, assimilation=trial), data, model)
        return stack_members(analysis, model.channels)

    truth = np.asarray(data.archive.fields[STATE].array[frames[:count]])
    found = fit_inflation(members, truth, weights=data.archive.grid.area_weights())
    logging.info(
        "inflation %.3f: spread over skill in the validation period %.3f before, %.3f after",
        found.factor,
        found.before,
        found.after,
    )
    options = dataclasses.replace(settings.assimilation, inflation=found.factor)
    raw = dict(settings.raw)
    raw["assimilation"] = {**raw["assimilation"], "inflation": found.factor}
    return dataclasses.replace(settings, assimilation=options, raw=raw)
