"""The trained prior of the score filter: single states of the system's climate."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float

from slams_jax.aliases import Denoiser
from slams_jax.data import window_loader
from slams_jax.diffusion import CosineSchedule
from slams_jax.gaussian import GaussianPosterior, fit_prior
from slams_jax.models import score
from slams_jax.training import IntervalConfig, OptimiserConfig, fit

SCHEDULE = CosineSchedule()
STARTS, SPIN_UP, LENGTH = 64, 500, 500  # trajectories of the climate, and their cycles
BATCH, RATE, WARM_UP = 128, 2e-3, 100
SEED = 63096  # one prior for all truths, none of which it has seen


class Prior(NamedTuple):
    """What `slams_jax.assimilation.score_filter` takes of states (variable,)."""

    denoiser: Denoiser
    climate: GaussianPosterior
    mean: Float[np.ndarray, " variable"]
    std: Float[np.ndarray, " variable"]


def trained_prior(trajectory: Callable[..., Array], size: int, steps: int, folder: Path) -> Prior:
    """Train a score network on the climate, or finish what `folder` holds of it.

    Args:
        trajectory: the model, from states to those of the next `length` cycles.
        size: number of variables.
        steps: of the training; 0 leaves the Gaussian prior that the network departs from.
        folder: of the training run.

    Raises:
        InputError: a folder of another training run.
    """
    start = 1.0 + jax.random.normal(jax.random.key(SEED), (STARTS, size))
    run = jax.jit(lambda x: trajectory(x, length=SPIN_UP + LENGTH)[SPIN_UP:])(start)
    states = np.asarray(run).reshape(-1, 1, 1, size)
    mean, std = states.mean(axis=0).ravel(), states.std(axis=0).ravel()
    states = (states - mean) / std
    climate = fit_prior(states, order=0).over(1)
    if steps == 0:
        return Prior(score.PosteriorDenoiser(climate, SCHEDULE), climate, mean, std)
    config = score.ScoreConfig(
        window=1,
        channels=size,
        widths=(128,),
        blocks=2,
        kernel=1,
        padding="edge",
        coordinates="none",
        frame_noise=False,
    )

    def loss(params, model_state, key, batch):
        value, info = score.loss(config, SCHEDULE, params, key, batch["state"], climate)
        return value, (model_state, info)

    logging.info("training the prior of the climate in %s", folder)
    trained = fit(
        folder,
        loss,
        lambda key: (score.init(config, key, (1, 1)), {}),
        window_loader({"state": states}, length=1, batch_size=BATCH, seed=SEED),
        optimiser=OptimiserConfig(steps, RATE, min(WARM_UP, steps // 2)),
        seed=SEED,
        intervals=IntervalConfig(log_every=500),
    )
    params = jax.tree.map(jnp.asarray, jax.device_get(trained.ema))
    window = score.window_denoiser(config, SCHEDULE, params, climate)
    return Prior(lambda x_t, t: window(x_t[None], t)[0], climate, mean, std)
