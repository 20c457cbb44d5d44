"""Train the autoencoder and the score network of a configuration.

    python -m experiments.train --config=configs/latent.py [--config.workdir=runs/mine ...]

A run that was stopped continues where it was; a finished stage is not repeated. SIGTERM saves the
step that was reached and ends with status 143; see docs/robustness.md.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments.configuration import inputs
from experiments.configuration.inputs import BACKGROUND, STATE, Inputs
from experiments.configuration.models import network_settings
from experiments.configuration.settings import CONFIG, Settings, Training, read
from experiments.process import cli
from slams_jax.data import window_loader
from slams_jax.mesh import place, whole
from slams_jax.models import autoencoder, score
from slams_jax.models import error_statistics as estimate
from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.model import ModelArrays, Networks
from slams_jax.models.saved import AUTOENCODER, SCORE, describe
from slams_jax.networks import compiler_options
from slams_jax.observe import Separable, fit_prior, fit_separable
from slams_jax.storage import locked
from slams_jax.training import fit, restore_model
from slams_jax.training.devices import in_batches, is_writer, wait_for_all

SAMPLE = 4000  # frames that error covariances are estimated from, at most


def main() -> None:
    """Train what the flags say."""
    train(read(CONFIG.value))


def train(settings: Settings) -> None:
    """Both stages; one where the configuration has no autoencoder. One run a work directory.

    Raises:
        InputError, RunError, Preempted: as `slams_jax.training.fit` has them.
    """
    with locked(settings.workdir) if is_writer() else contextlib.nullcontext():
        _train(settings)


def _train(settings: Settings) -> None:
    data = inputs.load(settings)
    workdir = Path(settings.workdir)
    channels = data.archive.fields[STATE].channels
    networks = network_settings(settings, data)
    config = networks.autoencoder
    if config is not None:
        _train_autoencoder(settings, data, config)
    arrays = ModelArrays(std=jnp.asarray(data.statistics[STATE].std))
    state_error = np.zeros(len(channels), np.float32)
    latents = None
    if config is not None:
        params, model_state, _, _ = restore_model(workdir / AUTOENCODER)
        arrays = arrays._replace(autoencoder=params, model_state=model_state)
        count = len(data.archive.times)
        path = workdir / "latents.npy"
        if is_writer():
            estimate.raw_latents(networks, arrays, data.read, count, path)
        wait_for_all("latents")
        latents = np.load(path, mmap_mode="r")
        mean, std = estimate.latent_scales(latents[data.spans["train"]])
        arrays = arrays._replace(latent_mean=jnp.asarray(mean), latent_std=jnp.asarray(std))
        state_error = estimate.reconstruction_error(
            networks, arrays, data.read, data.frames("validation"), data.archive.grid.area_weights()
        )
        ratio = state_error / data.statistics[STATE].std
        logging.info("reconstruction error, standard deviations: %s", np.round(ratio, 3))
    increment_error = state_error
    if config is not None and BACKGROUND in data.archive.fields:
        increment_error = estimate.reconstruction_error(
            networks,
            arrays,
            data.read,
            data.frames("validation"),
            data.archive.grid.area_weights(),
            beside=BACKGROUND,
        )
    statistics: dict[str, Any] = {
        "fields": {n: s._asdict() for n, s in data.statistics.items() if n != BACKGROUND},
        "state_error": state_error,
        "increment_error": increment_error,
        **({} if latents is None else {"latent_mean": mean, "latent_std": std}),
        **_error_covariances(settings, networks, arrays, data),
    }
    statistics["prior"] = _prior(settings, data, latents, statistics)
    _train_score(settings, networks, data, latents, statistics)


def _train_autoencoder(settings: Settings, data: Inputs, config: AutoencoderConfig) -> None:
    assert settings.autoencoder_training is not None
    grid, fields = data.archive.grid, data.archive.fields
    weights = grid.area_weights()
    some = data.frames("train")[:: max(1, len(data.frames("train")) // 64)]
    states = data.standardised(STATE, some)

    def loss_fn(params, model_state, key, batch):
        frames = {name: value[:, 0] for name, value in batch.items()}
        return autoencoder.loss(config, params, model_state, key, frames, weights=weights)

    _fit(
        settings,
        settings.autoencoder_training,
        AUTOENCODER,
        loss_fn,
        lambda key: autoencoder.init(config, key, grid.shape, states=states),
        lambda period, **how: window_loader(
            {n: f.array for n, f in fields.items()} | {"times": data.archive.times},
            length=1,
            span=data.spans[period],
            transform=data.standardise_window,
            **how,
        ),
    )


def _train_score(
    settings: Settings,
    networks: Networks,
    data: Inputs,
    latents: np.ndarray | None,
    statistics: Mapping[str, Any],
) -> None:
    if latents is None:
        arrays = {STATE: data.archive.fields[STATE].array, "times": data.archive.times}
        transform = data.standardise_window
    else:
        arrays = {STATE: latents}
        mean, std = statistics["latent_mean"], statistics["latent_std"]
        transform = lambda window: {STATE: (window[STATE] - mean) / std}

    def prepare(key, batch):
        return score.noisy(networks.score, networks.schedule, key, batch[STATE])

    def loss_fn(params, model_state, key, batch):
        value, info = score.error(networks.score, params, batch)
        return value, (model_state, info)

    about = describe(
        networks,
        data.archive.grid,
        data.archive.fields[STATE].channels,
        settings.assimilation.latent_inputs,
    )
    _fit(
        settings,
        settings.score_training,
        SCORE,
        loss_fn,
        lambda key: (score.init(networks.score, key, networks.frame_shape[:2]), {}),
        lambda period, **how: window_loader(
            arrays,
            length=networks.score.window,
            times=data.archive.times,
            span=data.spans[period],
            transform=transform,
            **how,
        ),
        prepare=prepare,
        metadata={"model": about},
        statistics=statistics,
    )


def _fit(
    settings: Settings,
    training: Training,
    stage: str,
    loss_fn: Callable,
    init_fn: Callable,
    loader: Callable,
    prepare: Callable = lambda key, batch: batch,
    metadata: Mapping[str, Any] | None = None,
    statistics: Any = None,
) -> None:
    """One stage: what both have in common."""
    batches = loader(
        "train",
        batch_size=training.batch_size,
        seed=settings.seed,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )

    def loss_of(params, model_state, key, batch):
        return loss_fn(params, model_state, key, prepare(key, batch))[0]

    evaluate = jax.jit(loss_of, compiler_options=compiler_options() or None)

    def validate(params, model_state):
        values = []
        # One pass with the noise of one key, so that two checkpoints meet the same problem.
        for i, batch in enumerate(
            loader("validation", batch_size=training.batch_size, seed=0, shuffle=False)
        ):
            if i and len(batch[STATE]) < training.batch_size:
                break  # a last, smaller batch would be compiled for itself
            # The parameters are on the mesh of the training: the batch is shared out over it.
            mesh = jax.tree.leaves(params)[0].sharding.mesh
            batch = place(batch, mesh, in_batches(mesh))
            key = place(jax.random.fold_in(jax.random.key(settings.seed), i), mesh, whole)
            values.append(float(evaluate(params, model_state, key, batch)))
        return {"loss": float(np.mean(values))}

    stages = {
        AUTOENCODER: ("data", "nature", "autoencoder", "seed"),
        SCORE: ("data", "nature", "autoencoder", "seed", "schedule", "score"),
    }
    fit(
        Path(settings.workdir) / stage,
        loss_fn,
        init_fn,
        batches,
        optimiser=training.optimiser,
        seed=settings.seed,
        validate=validate,
        intervals=training.intervals,
        divergence=training.divergence,
        devices=training.devices,
        prepare=prepare,
        metadata={"config": {k: settings.raw.get(k) for k in stages[stage]}, **(metadata or {})},
        statistics=statistics,
    )


def _prior(
    settings: Settings, data: Inputs, latents: np.ndarray | None, statistics: Mapping[str, Any]
) -> dict[str, Any]:
    """The Gaussian picture of what is diffused, from the end of the training period."""
    frames = data.frames("train")[-SAMPLE:]
    if latents is None:
        sample = data.standardised(STATE, frames)
    else:
        sample = (latents[frames] - statistics["latent_mean"]) / statistics["latent_std"]
    prior = fit_prior(sample, rank=settings.assimilation.rank)
    return {"frame": _arrays(prior.frame), "lags": np.asarray(prior.lags)}


def _arrays(covariance: Separable) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in vars(covariance).items()}


def _error_covariances(
    settings: Settings, networks: Networks, arrays: ModelArrays, data: Inputs
) -> dict[str, Any]:
    """Of the background, from the training period; of the latent, from the validation period."""
    rank = settings.assimilation.rank
    errors = {}
    if BACKGROUND in data.archive.fields:
        frames = data.frames("train")
        frames = frames[:: -(-len(frames) // SAMPLE)]
        background, truth = (data.archive.fields[n].array[frames] for n in (BACKGROUND, STATE))
        errors["background_error"] = background - truth
    if settings.assimilation.latent_inputs:
        errors["latent_error"] = estimate.latent_errors(
            networks,
            arrays,
            data.read,
            data.frames("validation"),
            settings.assimilation.latent_inputs,
        )
    result = {}
    for name, sample in errors.items():
        covariance, bias = fit_separable(sample, rank=rank)
        result[name] = {**_arrays(covariance), "bias": bias}
    return result


if __name__ == "__main__":
    cli.run(main, distributed=True)
