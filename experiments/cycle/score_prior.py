"""The trained prior of the score filter: single states of the system's climate."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jaxtyping import Array

from slams_jax.models import StatePrior, gaussian_state_prior, train_state_prior
from slams_jax.training import IntervalConfig, OptimiserConfig

STARTS, SPIN_UP, LENGTH = 64, 500, 500  # trajectories of the climate, and their cycles
RATE, WARM_UP = 2e-3, 100
SEED = 63096  # one prior for all truths, none of which it has seen


def trained_prior(
    trajectory: Callable[..., Array], size: int, steps: int, folder: Path
) -> StatePrior:
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
    states = np.asarray(run).reshape(-1, size)
    if steps == 0:
        return gaussian_state_prior(states)
    logging.info("training the prior of the climate in %s", folder)
    return train_state_prior(
        folder,
        states,
        optimiser=OptimiserConfig(steps, RATE, min(WARM_UP, steps // 2)),
        seed=SEED,
        intervals=IntervalConfig(log_every=500),
    )
