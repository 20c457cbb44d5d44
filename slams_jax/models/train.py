"""From a training set to a trained model: autoencoder, error statistics, score network.

The two stages are runs of `slams_jax.training.fit` in the folders `autoencoder` and `score` of one
directory. Between them the state's codes are written to `latents.npy` and everything is estimated
that an analysis needs beside the networks (`error_statistics`).
"""

import contextlib
import dataclasses
import difflib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slams_jax.data import window_loader
from slams_jax.data.training_data import BACKGROUND, TRAIN, VALIDATION, TrainingSet
from slams_jax.diffusion import CosineSchedule
from slams_jax.errors import InputError, check_at_least, first_line
from slams_jax.mesh import place, whole
from slams_jax.models import autoencoder, score
from slams_jax.models import error_statistics as estimate
from slams_jax.models.autoencoder import STATE, AutoencoderConfig
from slams_jax.models.denoising import Measured, withheld_windows
from slams_jax.models.model import LatentInput, Model, ModelArrays, Networks
from slams_jax.models.plain import plain_prior, plain_regression
from slams_jax.models.saved import (
    AUTOENCODER,
    SCORE,
    describe,
    load_model,
    membership,
    plain_anamorphosis,
)
from slams_jax.models.score import ScoreConfig
from slams_jax.networks import compiler_options
from slams_jax.storage import locked
from slams_jax.training import (
    DeviceConfig,
    DivergenceConfig,
    IntervalConfig,
    OptimiserConfig,
    fit,
    restore_model,
)
from slams_jax.training.devices import in_batches, is_writer, wait_for_all

LOG = logging.getLogger(__name__)

LATENTS = "latents.npy"  # the codes of the state, in the directory of a run

# What of a configuration decides each stage: a run resumes only where it is the same.
_DECISIVE = {
    AUTOENCODER: ("data", "nature", "autoencoder", "seed"),
    SCORE: ("data", "nature", "autoencoder", "seed", "schedule", "score"),
}


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """How one stage is trained.

    Attributes:
        optimiser: how long and with what.
        batch_size: samples of a step, on all devices together.
        log_every: steps between records.
        checkpoint_every: steps between checkpoints, the most that a kill costs.
        accumulate: parts that each batch is taken in, one after the other, to save memory.
        shard_state: whether devices share parameters, their average and the optimiser's state.
        rollbacks: how often a loss that diverges takes the run back to its last good checkpoint,
            to go on with other data; with 0 it stops.
        loss_limit: a loss above it has diverged; None for one that is not finite alone.

    Raises:
        InputError: a value out of range.
    """

    optimiser: OptimiserConfig
    batch_size: int
    log_every: int = 50
    checkpoint_every: int = 500
    accumulate: int = 1
    shard_state: bool = False
    rollbacks: int = 0
    loss_limit: float | None = None

    def __post_init__(self):
        check_at_least(self, batch_size=1)
        # The groups own the checks; making them now tells before anything has been computed.
        _ = self.intervals, self.divergence, self.devices

    @property
    def intervals(self) -> IntervalConfig:
        """How often the run records and saves."""
        return IntervalConfig(self.log_every, self.checkpoint_every)

    @property
    def divergence(self) -> DivergenceConfig:
        """What becomes of a run that diverges."""
        return DivergenceConfig(self.rollbacks, self.loss_limit)

    @property
    def devices(self) -> DeviceConfig:
        """How its steps are computed."""
        return DeviceConfig(
            accumulate=self.accumulate,
            sharded=self.shard_state,
            compiler_options=compiler_options() or None,
        )


def networks_for(
    data: TrainingSet,
    *,
    score: Mapping[str, Any],
    autoencoder: Mapping[str, Any] | None = None,
    schedule: CosineSchedule = CosineSchedule(),
) -> Networks:
    """Networks on the grid and for the channels of a training set.

    Args:
        data: what they are to be trained on.
        score: fields of `ScoreConfig`; `channels` follows from the data, and so does `padding`
            unless given.
        autoencoder: fields of `AutoencoderConfig`, likewise without `state_channels` and `inputs`;
            None for a model of the state itself.
        schedule: of the diffusion.

    Returns:
        The static half of a model.

    Raises:
        InputError: an unknown or missing field, or a value out of range.
    """
    grid, fields = data.archive.grid, data.archive.fields
    channels = len(fields[STATE].channels)
    encoder = None
    if autoencoder is not None:
        encoder = _made(
            AutoencoderConfig,
            "autoencoder",
            {"padding": grid.padding, **autoencoder},
            state_channels=channels,
            inputs=tuple((name, len(field.channels)) for name, field in fields.items()),
        )
    denoiser = _made(
        ScoreConfig,
        "score",
        {"padding": grid.padding, **score},
        channels=channels if encoder is None else encoder.latent_channels,
    )
    return Networks(schedule, denoiser, encoder, grid.shape)


def _made(cls: type, name: str, fields: Mapping[str, Any], **derived: Any) -> Any:
    known = [f.name for f in dataclasses.fields(cls) if f.name not in derived]
    for field in fields:
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {sorted(known)}"
            raise InputError(f"{name} has no field {field!r}: {hint}")
    needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    for field in needed:
        if field not in {**derived, **fields}:
            raise InputError(f"{name} lacks {field!r}: set it")
    try:
        return cls(**derived, **fields)
    except TypeError as error:
        raise InputError(f"{name}: a value of the wrong type ({first_line(error)})") from None


def train_model(
    directory: str | Path,
    data: TrainingSet,
    networks: Networks,
    *,
    score_training: StageConfig,
    autoencoder_training: StageConfig | None = None,
    latent_inputs: tuple[str, ...] = (),
    rank: int = 400,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> Model:
    """Train both stages, or the score network alone where `networks` have no autoencoder.

    The call can be repeated: an interrupted stage resumes at its last checkpoint, exactly, and a
    finished one is not trained again. SIGTERM saves the step that was reached and raises
    `Preempted`. One run at a time is in `directory`.

    Args:
        directory: of the run, made if need be; `load_model` reads it, `save_model` makes one
            portable file of the result.
        data: what to train on (`slams_jax.data.training_set`).
        networks: what to train (`networks_for`).
        score_training: of the score network.
        autoencoder_training: of the autoencoder, if there is one.
        latent_inputs: fields that analyses will encode into a latent observation; its error is
            estimated.
        rank: EOFs of a block of the prior, and patterns of the background's covariance, at most.
        seed: of parameters, noise and shuffling.
        config: JSON kept with the checkpoints, which must be the same to resume; None for what
            `data`, `networks` and `seed` say.

    Returns:
        The trained model.

    Raises:
        InputError: arguments that do not fit together, or a directory with a run of another
            configuration, or in which another run is.
        RunError, Preempted: as `slams_jax.training.fit`.
    """
    if (networks.autoencoder is None) != (autoencoder_training is None):
        raise InputError(
            "autoencoder_training belongs to networks with an autoencoder: give both or neither"
        )
    others = sorted(set(data.archive.fields) - {STATE})
    if latent_inputs and (networks.autoencoder is None or set(latent_inputs) - set(others)):
        raise InputError(
            f"latent_inputs {latent_inputs} must be fields beside the state that an autoencoder "
            f"encodes: choose from {others}, or leave them out"
        )
    directory = Path(directory).expanduser()
    about = describe(
        networks,
        data.archive.grid,
        data.archive.fields[STATE].channels,
        latent_inputs,
        inputs={
            n: LatentInput(data.archive.fields[n].channels, data.input_transforms.get(n))
            for n in latent_inputs
        },
        transforms=data.transforms,
        time_step=data.time_step,
        provenance=_provenance(data, autoencoder_training, score_training, seed),
    )
    run = _Run(directory, data, networks, seed, _config(data, networks, seed, config))
    with locked(directory) if is_writer() else contextlib.nullcontext():
        if autoencoder_training is not None:
            _train_autoencoder(run, autoencoder_training)
        statistics, arrays = _estimated(run, latent_inputs, rank)
        _train_score(run, score_training, statistics, arrays, about)
    return load_model(directory)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What both stages share."""

    directory: Path
    data: TrainingSet
    networks: Networks
    seed: int
    config: Mapping[str, Any]


def _train_autoencoder(run: _Run, training: StageConfig) -> None:
    config, data = run.networks.autoencoder, run.data
    assert config is not None
    grid, fields = data.archive.grid, data.archive.fields
    weights = grid.area_weights()
    frames = data.frames(TRAIN)
    states = data.standardised(STATE, frames[:: max(1, len(frames) // 64)])

    def loss_fn(params, model_state, key, batch):
        frames = {name: value[:, 0] for name, value in batch.items()}
        return autoencoder.loss(config, params, model_state, key, frames, weights=weights)

    def loader(period, **how):
        return window_loader(
            {n: f.array for n, f in fields.items()} | {"times": data.archive.times},
            length=1,
            span=data.spans[period],
            transform=data.standardise_window,
            **how,
        )

    init_fn = lambda key: autoencoder.init(config, key, grid.shape, states=states)
    _fit(run, training, AUTOENCODER, loss_fn, init_fn, loader)


def _estimated(
    run: _Run, latent_inputs: tuple[str, ...], rank: int
) -> tuple[dict[str, Any], ModelArrays]:
    """The statistics that are kept with a model, as they are saved and among its arrays."""
    data, networks = run.data, run.networks
    arrays = ModelArrays(std=jnp.asarray(data.statistics[STATE].std))
    state_error = increment_error = np.zeros((1, 1, 1, len(arrays.std)), np.float32)
    if networks.autoencoder is not None:
        params, model_state, _, _ = restore_model(run.directory / AUTOENCODER)
        arrays = arrays._replace(autoencoder=params, model_state=model_state)
        codes = _codes(run, arrays)
    else:
        codes = estimate.StandardisedState(data)
    mean, std = estimate.local_scales(codes, data.frames(TRAIN))
    arrays = arrays._replace(latent_mean=jnp.asarray(mean), latent_std=jnp.asarray(std))
    if networks.autoencoder is not None:
        missed = lambda beside: estimate.reconstruction_errors(
            networks, arrays, data.read, data.frames(VALIDATION), beside=beside
        )
        state_error = increment_error = missed(None)
        size = np.sqrt(np.mean(np.square(state_error / data.statistics[STATE].std), axis=(0, 1, 2)))
        LOG.info("reconstruction error, standard deviations: %s", np.round(size, 3))
        if BACKGROUND in data.archive.fields:
            increment_error = missed(BACKGROUND)
    prior = estimate.prior(data, codes, (mean, std), rank=rank)
    arrays = arrays._replace(prior=prior)
    statistics = {
        "fields": {n: s._asdict() for n, s in data.statistics.items() if n != BACKGROUND},
        "state_error": state_error,
        "increment_error": increment_error,
        "latent_mean": mean,
        "latent_std": std,
        "prior": plain_prior(prior),
    }
    if data.anamorphosis is not None:
        statistics["anamorphosis"] = plain_anamorphosis(data.anamorphosis)
    if BACKGROUND in data.archive.fields:
        statistics["background_error"] = estimate.background_error(data, rank=rank)
        found = estimate.background_regression(data, networks, arrays)
        statistics["background"] = plain_regression(found)
    if latent_inputs:
        found, patterns = estimate.latent_regression(data, networks, arrays, latent_inputs)
        statistics["latent"] = plain_regression(found)
        statistics["latent_patterns"] = membership(patterns, latent_inputs)
    return statistics, arrays


def _codes(run: _Run, arrays: ModelArrays) -> np.ndarray:
    """The codes of all states, written by one process and memory-mapped by each."""
    path = run.directory / LATENTS
    if is_writer():
        count = len(run.data.archive.times)
        estimate.raw_latents(run.networks, arrays, run.data.read, count, path)
    wait_for_all("latents")
    return np.load(path, mmap_mode="r")


def _train_score(
    run: _Run,
    training: StageConfig,
    statistics: Mapping[str, Any],
    arrays: ModelArrays,
    about: Mapping[str, Any],
) -> None:
    data, networks = run.data, run.networks
    assert arrays.prior is not None
    gaussian = jax.jit(arrays.prior.over, static_argnums=0)(networks.score.window)
    withheld = withheld_windows(networks, arrays, data, VALIDATION)
    if networks.autoencoder is None:
        fields = {STATE: data.archive.fields[STATE].array, "times": data.archive.times}
        standardised = data.standardise_window
    else:
        fields = {STATE: np.load(run.directory / LATENTS, mmap_mode="r")}
        standardised = lambda window: window
    mean, std = statistics["latent_mean"], statistics["latent_std"]
    transform = lambda window: {STATE: (standardised(window)[STATE] - mean) / std}

    def prepare(key, batch, gaussian):
        return score.noisy(networks.score, networks.schedule, key, batch[STATE], gaussian)

    def loss_fn(params, model_state, key, batch):
        value, info = score.error(networks.score, params, batch)
        return value, (model_state, info)

    def loader(period, **how):
        return window_loader(
            fields,
            length=networks.score.window,
            times=data.archive.times,
            span=data.spans[period],
            transform=transform,
            **how,
        )

    init_fn = lambda key: (score.init(networks.score, key, networks.frame_shape[:2]), {})
    _fit(
        run,
        training,
        SCORE,
        loss_fn,
        init_fn,
        loader,
        prepare=prepare,
        fixed=(gaussian,),
        measure=Measured(networks, gaussian, withheld),
        metadata={"model": dict(about)},
        statistics=statistics,
    )


def _fit(
    run: _Run,
    training: StageConfig,
    stage: str,
    loss_fn: Callable,
    init_fn: Callable,
    loader: Callable,
    prepare: Callable = lambda key, batch: batch,
    fixed: tuple[Any, ...] = (),
    measure: Callable[[Any], dict[str, float]] = lambda params: {},
    metadata: Mapping[str, Any] | None = None,
    statistics: Any = None,
) -> None:
    """One stage: what both have in common."""
    batches = loader(
        TRAIN,
        batch_size=training.batch_size,
        seed=run.seed,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    fit(
        run.directory / stage,
        loss_fn,
        init_fn,
        batches,
        optimiser=training.optimiser,
        seed=run.seed,
        validate=_validation(run, training, loss_fn, loader, prepare, fixed, measure),
        intervals=training.intervals,
        divergence=training.divergence,
        devices=training.devices,
        prepare=prepare,
        fixed=fixed,
        metadata={"config": {k: run.config.get(k) for k in _DECISIVE[stage]}, **(metadata or {})},
        statistics=statistics,
    )


def _validation(
    run: _Run,
    training: StageConfig,
    loss_fn: Callable,
    loader: Callable,
    prepare: Callable,
    fixed: tuple[Any, ...],
    measure: Callable[[Any], dict[str, float]],
) -> Callable[[Any, Any], dict[str, float]]:
    """The mean loss over one pass through the validation period, and what `measure` adds."""

    def loss_of(params, model_state, key, batch, *fixed):
        return loss_fn(params, model_state, key, prepare(key, batch, *fixed))[0]

    evaluate = jax.jit(loss_of, compiler_options=compiler_options() or None)

    def validate(params, model_state):
        values = []
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        others = place(fixed, mesh, whole)
        # One pass with the noise of one key, so that two checkpoints meet the same problem.
        for i, batch in enumerate(
            loader(VALIDATION, batch_size=training.batch_size, seed=0, shuffle=False)
        ):
            if i and len(batch[STATE]) < training.batch_size:
                break  # a last, smaller batch would be compiled for itself
            # The parameters are on the mesh of the training: the batch is shared out over it.
            batch = place(batch, mesh, in_batches(mesh))
            key = place(jax.random.fold_in(jax.random.key(run.seed), i), mesh, whole)
            values.append(float(evaluate(params, model_state, key, batch, *others)))
        return {"loss": float(np.mean(values)), **measure(params)}

    return validate


def _config(
    data: TrainingSet, networks: Networks, seed: int, config: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """What a run is known by."""
    if config is not None:
        return config
    spans = {name: [span.start, span.stop] for name, span in data.spans.items()}
    about = {"archive": data.archive.path.name, "periods": spans}
    if data.transforms:
        about["transforms"] = [t and dataclasses.asdict(t) for t in data.transforms]
    return {
        "data": about,
        "autoencoder": networks.autoencoder and dataclasses.asdict(networks.autoencoder),
        "score": dataclasses.asdict(networks.score),
        "schedule": dataclasses.asdict(networks.schedule),
        "seed": seed,
    }


def _provenance(
    data: TrainingSet, encoder: StageConfig | None, denoiser: StageConfig, seed: int
) -> dict[str, Any]:
    """Where a model comes from, for its card."""
    stages = {AUTOENCODER: encoder, SCORE: denoiser}
    times = np.datetime_as_string(data.archive.times, "m")
    return {
        "fields": {n: [str(c) for c in f.channels] for n, f in data.archive.fields.items()},
        "periods": {
            name: [str(times[span][0]), str(times[span][-1]), len(times[span])]
            for name, span in data.spans.items()
        },
        "training": {n: dataclasses.asdict(s) for n, s in stages.items() if s is not None},
        "seed": seed,
    }
