"""A prior of single states, of any model: what `slams_jax.assimilation.score_filter` takes.

The network is a residual network of the values of a state, which corrects the denoiser of their
Gaussian approximation.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slams_jax.aliases import Denoiser
from slams_jax.data import window_loader
from slams_jax.diffusion import CosineSchedule
from slams_jax.errors import InputError
from slams_jax.gaussian import GaussianPosterior, fit_prior
from slams_jax.models import score
from slams_jax.training import IntervalConfig, OptimiserConfig, fit

Values = Float[Array, "*#value"] | Float[np.ndarray, "*#value"] | float


class StatePrior(NamedTuple):
    """A prior of states whose values, flattened, are those of a trajectory.

    Attributes:
        denoiser: E[x_0 | x_t] of standardised trajectories; `climate.denoise` makes a Gaussian
            filter of it (`slams_jax.models.score.PosteriorDenoiser`).
        climate: N(0, C) of the same trajectories, as `GaussianPrior.over` their number of frames.
        schedule: the noise schedule of `denoiser`.
        mean: of the states, that standardises them; by channel or one for all.
        std: their standard deviation, likewise.
    """

    denoiser: Denoiser
    climate: GaussianPosterior
    schedule: CosineSchedule
    mean: Values = 0.0
    std: Values = 1.0


def gaussian_state_prior(
    states: Float[np.ndarray, "sample ..."], schedule: CosineSchedule = CosineSchedule()
) -> StatePrior:
    """The Gaussian approximation of the climate, which a network departs from.

    Args:
        states: of the climate, physical units, such as those of a long run of the model.
        schedule: the noise schedule.

    Raises:
        InputError: a value that never varies, one that is not finite, or too few states.
    """
    values = np.asarray(states, np.float32).reshape(len(states), -1)
    if not np.isfinite(values).all():
        raise InputError("the states of a prior must be finite: look for the run that blew up")
    mean, std = values.mean(axis=0), values.std(axis=0)
    if not np.all(std > 0):
        value = int(np.flatnonzero(~(std > 0))[0])
        raise InputError(f"value {value} of the states never varies: leave it out of the state")
    climate = fit_prior(((values - mean) / std)[:, None, None], order=0).over(1)
    return StatePrior(score.PosteriorDenoiser(climate, schedule), climate, schedule, mean, std)


def train_state_prior(
    folder: str | Path,
    states: Float[np.ndarray, "sample ..."],
    *,
    optimiser: OptimiserConfig,
    width: int = 128,
    blocks: int = 2,
    batch_size: int = 128,
    seed: int = 0,
    intervals: IntervalConfig = IntervalConfig(),
    schedule: CosineSchedule = CosineSchedule(),
) -> StatePrior:
    """Train a score network of states, or finish what `folder` holds of it.

    Args:
        folder: of the training run; repeat a call that was killed to resume it, bit for bit.
        states: as for `gaussian_state_prior`.
        optimiser: steps and learning rate.
        width: features of the network.
        blocks: its residual blocks.
        batch_size: states in a step.
        seed: of the parameters and the order of the states.
        intervals: of logs and checkpoints.
        schedule: the noise schedule.

    Raises:
        InputError: as `gaussian_state_prior`, or a folder of another training run.
    """
    prior = gaussian_state_prior(states, schedule)
    scaled = (np.asarray(states, np.float32).reshape(len(states), -1) - prior.mean) / prior.std
    config = score.ScoreConfig(
        window=1,
        channels=scaled.shape[1],
        widths=(width,),
        blocks=blocks,
        kernel=1,
        padding="edge",
        coordinates="none",
        frame_noise=False,
    )

    def loss(params, model_state, key, batch):
        value, info = score.loss(config, schedule, params, key, batch["state"], prior.climate)
        return value, (model_state, info)

    trained = fit(
        Path(folder),
        loss,
        lambda key: (score.init(config, key, (1, 1)), {}),
        window_loader({"state": scaled[:, None, None]}, length=1, batch_size=batch_size, seed=seed),
        optimiser=optimiser,
        seed=seed,
        intervals=intervals,
    )
    params = jax.tree.map(jnp.asarray, jax.device_get(trained.ema))
    window = score.window_denoiser(config, schedule, params, prior.climate)
    return prior._replace(denoiser=lambda x_t, t: window(x_t[None], t)[0])
