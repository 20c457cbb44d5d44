"""What is estimated from data once the networks are trained: latent scales and errors."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slams_jax.data.training_data import BACKGROUND, TRAIN, VALIDATION, TrainingSet
from slams_jax.errors import InputError, RunError
from slams_jax.gaussian import GaussianPrior, Regression, chi_squared, fit_prior, fit_regression
from slams_jax.gaussian.prior import warn_of_misfit
from slams_jax.gaussian.regression import FEWEST
from slams_jax.models import autoencoder
from slams_jax.models.autoencoder import STATE
from slams_jax.models.model import ModelArrays, Networks, encode, residual
from slams_jax.networks import compiler_options
from slams_jax.observe import Separable, fit_separable

# Indices into the time axis -> standardised fields at these times, by name.
Frames = Float[np.ndarray, "time lat lon channel"]
Reader = Callable[[np.ndarray], Mapping[str, np.ndarray]]
Codes = Any  # array-like (time, lat, lon, channel): indices -> what is diffused at these times
Scales = tuple[np.ndarray, np.ndarray]  # mean and standard deviation of what is diffused
BATCH = 64  # frames at a time
SAMPLE = 4000  # frames that statistics are estimated from, at most
VALUES = 2**27  # values of these frames, at most, for the sake of memory
PARTS = 8  # of the training period, whose scatter tells how well it determines local scales
PATTERNED = 4  # latent inputs whose every set gets statistics of its own
MISSED = 24  # errors of the reconstruction that are kept with a model
RELIABLE = 200  # frames for the errors of latent observations

LOG = logging.getLogger(__name__)


def raw_latents(
    networks: Networks, arrays: ModelArrays, read: Reader, count: int, path: Path
) -> Frames:
    """Clean codes E({"state": x}) of all `count` frames, not standardised, memory-mapped at `path`.

    Args:
        networks: with an autoencoder.
        arrays: with its parameters.
        read: gives at least the state.
        count: length of the time axis.
        path: an .npy file, overwritten.

    Raises:
        RunError: the file cannot be written.
    """
    assert networks.autoencoder is not None
    function = functools.partial(
        autoencoder.encode, networks.autoencoder, arrays.autoencoder, arrays.model_state
    )
    clean = lambda index: {STATE: read(index)[STATE]}
    shape = (count, *networks.frame_shape)
    try:
        # Not through the map: on a full disk, that would kill the process without a message.
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _, z in _batches(function, clean, np.arange(count)):
                file.write(np.asarray(z, "<f4").data)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error})") from error
    return np.load(path, mmap_mode="r")


def local_scales(
    codes: Codes, frames: np.ndarray
) -> tuple[Float[np.ndarray, "lat lon latent"], Float[np.ndarray, "lat lon latent"]]:
    """Mean and standard deviation of what is diffused, at every point.

    Diffusion assumes unit variance, and the Gaussian prior the same variance along a latitude
    circle; land, sea and mountains do not have it. Both are shrunk towards their zonal means (of
    latitude circles, or of the rows of a limited grid) by what a sample of this length leaves
    unknown, told by the scatter of `PARTS` parts of it (James & Stein 1961).

    Args:
        codes: what is diffused, not standardised.
        frames: of the training period.

    Raises:
        RunError: a channel is constant, it says nothing about the state.
    """
    parts = np.array_split(frames, PARTS)
    mean = _shrunk_to_rows(np.stack([_mean(codes, p, lambda z: z) for p in parts]))
    variances = np.stack([_mean(codes, p, lambda z: np.square(z - mean)) for p in parts])
    variance = variances.mean(axis=0)
    constant = ~np.any(variance > 0, axis=(0, 1))
    if constant.any():
        raise RunError(
            f"{np.count_nonzero(constant)} of {len(constant)} latent channels are constant: "
            "lower autoencoder.latent_channels or train longer"
        )
    # A point that never varies, under a mask, keeps the scale of its channel.
    variance = np.where(variance > 0, variance, variance.mean(axis=(0, 1)))
    logs = np.log(np.maximum(variances, 1e-6 * variance.mean(axis=(0, 1))))
    # Means of logarithms are too small: only the pattern along rows is taken from them.
    pattern = _shrunk_to_rows(logs)
    rows = np.log(variance.mean(axis=1, keepdims=True))
    log = rows + pattern - np.log(np.exp(pattern).mean(axis=1, keepdims=True))
    return mean.astype(np.float32), np.exp(0.5 * log).astype(np.float32)


def _mean(codes: Codes, frames: np.ndarray, function: Callable[[Any], Any]) -> np.ndarray:
    """The mean of a function of frames, some at a time."""
    total = np.zeros(codes.shape[1:])
    for start in range(0, len(frames), BATCH):
        total += function(codes[frames[start : start + BATCH]].astype(np.float64)).sum(axis=0)
    return total / len(frames)


def _shrunk_to_rows(parts: Float[np.ndarray, "part lat lon latent"]) -> np.ndarray:
    """The mean over parts, each row of points drawn to its own mean by the share of noise."""
    mean = parts.mean(axis=0)
    row = mean.mean(axis=1, keepdims=True)
    noise = parts.var(axis=0, ddof=1).mean(axis=1, keepdims=True) / len(parts)
    signal = np.square(mean - row).mean(axis=1, keepdims=True)
    kept = 1.0 - np.minimum(noise / np.maximum(signal, np.finfo(np.float64).tiny), 1.0)
    return row + kept * (mean - row)


@dataclasses.dataclass(frozen=True)
class StandardisedState:
    """The state as codes: what is diffused without an autoencoder; missing values are zero."""

    data: TrainingSet

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all times."""
        return self.data.archive.fields[STATE].array.shape

    def __getitem__(self, index: np.ndarray) -> Frames:
        """Standardised frames."""
        return np.nan_to_num(self.data.standardised(STATE, index))


def reconstruction_errors(
    networks: Networks,
    arrays: ModelArrays,
    read: Reader,
    frames: np.ndarray,
    *,
    beside: str | None = None,
) -> Frames:
    """A sample of D(E(x)) - x, in the units of the state: its size, structure and scale.

    Args:
        networks: with an autoencoder.
        arrays: parameters and statistics.
        read: gives at least the state.
        frames: indices of the times to choose from, `MISSED` of them, evenly.
        beside: name of a field (the background) whose own reconstruction error is taken off: what
            is wrong when that field tells what the autoencoder cannot represent.
    """

    def missed(x: jax.Array) -> jax.Array:
        return -residual(networks, arrays, jnp.where(jnp.isfinite(x), x, 0.0))

    def error(inputs: Mapping[str, jax.Array]) -> jax.Array:
        own = missed(inputs[STATE])
        return own if beside is None else own - missed(inputs[beside])

    chosen = frames[:: -(-len(frames) // MISSED)]
    return np.concatenate([part for _, part in _batches(error, read, chosen)])


def background_error(data: TrainingSet, *, rank: int) -> dict[str, np.ndarray]:
    """Covariance and bias of background minus truth in one frame, as they are saved."""
    covariance, bias = fit_separable(background_errors(data), rank=rank)
    return {**_fields(covariance), "bias": bias}


def background_errors(data: TrainingSet) -> Float[np.ndarray, "time lat lon channel"]:
    """Background minus truth at times of the training period, after any anamorphosis."""
    frames = data.frames(TRAIN)
    frames = frames[:: -(-len(frames) // SAMPLE)]
    return data.gaussian(BACKGROUND, frames) - data.gaussian(STATE, frames)


def prior(data: TrainingSet, codes: Codes, scales: Scales, *, rank: int) -> GaussianPrior:
    """The Gaussian prior of what is diffused, from the end of the training period.

    It is tried on the validation period, and a misfit is logged.

    Args:
        data: the periods.
        codes: what is diffused at all times, not standardised.
        scales: its mean and standard deviation.
        rank: EOFs of a block.
    """
    read = lambda frames: (codes[frames] - scales[0]) / scales[1]
    frames = data.frames(TRAIN)[-_most(codes) :]
    periodic = data.archive.grid.periodic
    fitted = fit_prior(read(frames), data.archive.times[frames], periodic=periodic, rank=rank)
    other = data.frames(VALIDATION)[: _most(codes)]
    warn_of_misfit(chi_squared(fitted, read(other), data.archive.times[other]), "the prior")
    return fitted


def background_regression(data: TrainingSet, networks: Networks, arrays: ModelArrays) -> Regression:
    """What the background tells of the state, both as they are diffused."""
    assert arrays.prior is not None
    frames = data.frames(TRAIN)[-_most(data.archive.fields[STATE].array) :]
    clean = lambda inputs, name: encode(networks, arrays, {STATE: inputs[name]})
    pair = lambda inputs: jnp.stack([clean(inputs, BACKGROUND), clean(inputs, STATE)], axis=1)
    codes = np.concatenate([part for _, part in _batches(pair, data.read, frames)])
    times = data.archive.times[frames]
    return fit_regression([codes[:, 0]], codes[:, 1], arrays.prior.modes, times)


def latent_regression(
    data: TrainingSet, networks: Networks, arrays: ModelArrays, names: tuple[str, ...]
) -> tuple[Regression, tuple[tuple[str, ...], ...]]:
    """What E(inputs) tells of the state's code, for each set of inputs that may be available.

    From the validation period, which trained no encoder.

    Args:
        data: the inputs.
        networks: with an autoencoder.
        arrays: parameters, scales and prior.
        names: of the inputs.

    Returns:
        The regression, and its patterns: the sets of inputs, the largest first. Sets that occur in
        fewer than 10 frames are left out.

    Raises:
        InputError: no set of inputs occurs often enough.
    """
    assert arrays.prior is not None
    frames = data.frames(VALIDATION)[: _most(data.archive.fields[STATE].array)]
    if len(frames) < RELIABLE:
        LOG.warning(
            "the errors of latent observations are estimated from %d frames of the validation "
            "period: %d or more are reliable",
            len(frames),
            RELIABLE,
        )
    sets = [s for n in range(len(names), 0, -1) for s in itertools.combinations(names, n)]
    sets = sets[: 2**PATTERNED - 1]
    missing = lambda x: jnp.full_like(x, jnp.nan)

    def codes(inputs: Mapping[str, jax.Array]) -> jax.Array:
        there = {n: jnp.any(jnp.isfinite(inputs[n]), axis=(1, 2, 3)) for n in names}
        found = [encode(networks, arrays, {STATE: inputs[STATE]})]
        for names_of in sets:
            z = encode(networks, arrays, {n: inputs[n] for n in names_of})
            known = functools.reduce(jnp.logical_and, [there[n] for n in names_of])
            found.append(jnp.where(known[:, None, None, None], z, missing(z)))
        return jnp.stack(found, axis=1)

    seen = np.concatenate([part for _, part in _batches(codes, data.read, frames)])
    enough = [i for i in range(len(sets)) if np.isfinite(seen[:, 1 + i, 0, 0, 0]).sum() >= FEWEST]
    if not enough:
        raise InputError(
            f"latent_inputs {names} occur in fewer than {FEWEST} frames of the validation period: "
            "lengthen it, or leave them out"
        )
    regression = fit_regression(
        [seen[:, 1 + i] for i in enough],
        seen[:, 0],
        arrays.prior.modes,
        data.archive.times[frames],
    )
    return regression, tuple(sets[i] for i in enough)


def _most(array: Any) -> int:
    """Frames that are in memory at once, at most."""
    size = int(np.prod(array.shape[1:]))
    return max(min(SAMPLE, VALUES // size), 400)


def _fields(covariance: Separable) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in vars(covariance).items()}


def _batches(function: Callable[[Any], jax.Array], read: Reader, frames: np.ndarray):
    """(indices, function of what was read there), some frames at a time.

    The last batch is filled up with its last frame, so that there is one compilation.
    """
    run = jax.jit(function, compiler_options=compiler_options() or None)
    for start in range(0, len(frames), BATCH):
        rows = frames[start : start + BATCH]
        filled = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows))])
        inputs = {name: jnp.asarray(value) for name, value in read(filled).items()}
        yield rows, np.asarray(run(inputs))[: len(rows)]
