"""What is estimated from data once the networks are trained: latent scales and errors."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slams_jax.data.training_data import BACKGROUND, TRAIN, VALIDATION, TrainingSet
from slams_jax.errors import RunError
from slams_jax.models import autoencoder
from slams_jax.models.autoencoder import STATE
from slams_jax.models.model import ModelArrays, Networks, encode, residual
from slams_jax.networks import compiler_options
from slams_jax.observe import Separable, fit_prior, fit_separable

# Indices into the time axis -> standardised fields at these times, by name.
Frames = Float[np.ndarray, "time lat lon channel"]
Reader = Callable[[np.ndarray], Mapping[str, np.ndarray]]
BATCH = 64  # frames at a time
SAMPLE = 4000  # frames that covariances are estimated from, at most


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


def latent_scales(
    latents: Frames,
) -> tuple[Float[np.ndarray, " latent"], Float[np.ndarray, " latent"]]:
    """Mean and standard deviation of each latent channel: diffusion assumes unit variance.

    Raises:
        RunError: a channel is constant, it says nothing about the state.
    """
    mean = latents.mean(axis=(0, 1, 2), dtype=np.float64)
    square = sum(((z - mean) ** 2).mean(axis=(0, 1)) for z in latents) / len(latents)
    std = np.sqrt(square).astype(np.float32)
    if not std.all():
        raise RunError(
            f"{np.count_nonzero(std == 0)} of {len(std)} latent channels are constant: "
            "lower autoencoder.latent_channels or train longer"
        )
    return mean.astype(np.float32), std


def reconstruction_error(
    networks: Networks,
    arrays: ModelArrays,
    read: Reader,
    frames: np.ndarray,
    weights: Float[np.ndarray, "lat lon"],
    *,
    beside: str | None = None,
) -> Float[np.ndarray, " channel"]:
    """Area-weighted root mean square of D(E(x)) - x, in the units of the state.

    Args:
        networks: with an autoencoder.
        arrays: parameters and statistics.
        read: gives at least the state.
        frames: indices of the times to use.
        weights: area of the grid points, mean one.
        beside: name of a field (the background) whose own reconstruction error is taken off: what
            is wrong when that field tells what the autoencoder cannot represent.
    """
    std = np.asarray(arrays.std)

    def missed(x: jax.Array) -> jax.Array:
        return residual(networks, arrays, jnp.where(jnp.isfinite(x), x, 0.0))

    def error(inputs: Mapping[str, jax.Array]) -> jax.Array:
        own = missed(inputs[STATE])
        return own if beside is None else own - missed(inputs[beside])

    total = np.zeros(len(std))
    for _, part in _batches(error, read, frames):
        total += (part.astype(np.float64) ** 2 * weights[..., None]).mean(axis=(1, 2)).sum(axis=0)
    return np.sqrt(total / len(frames)).astype(np.float32)


def latent_errors(
    networks: Networks,
    arrays: ModelArrays,
    read: Reader,
    frames: np.ndarray,
    names: tuple[str, ...],
) -> Frames:
    """z_y - z at `frames`: the error of the latent seen through the inputs `names` alone."""

    def error(inputs: Mapping[str, jax.Array]) -> jax.Array:
        seen = encode(networks, arrays, {n: inputs[n] for n in names})
        return seen - encode(networks, arrays, {STATE: inputs[STATE]})

    return np.concatenate([part for _, part in _batches(error, read, frames)])


def error_covariances(
    data: TrainingSet,
    networks: Networks,
    arrays: ModelArrays,
    latent_inputs: tuple[str, ...],
    *,
    rank: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Covariances and biases of the errors that were estimated, by name, as they are saved.

    Args:
        data: with a "background" where its error is wanted: background minus truth, from the
            training period.
        networks: with an autoencoder where there are `latent_inputs`.
        arrays: parameters and statistics.
        latent_inputs: of the latent observation z_y, whose error z_y - z is that of the validation
            period; none for none.
        rank: horizontal patterns of each covariance.

    Returns:
        "background_error" and "latent_error" -> the fields of `Separable`, and "bias".
    """
    errors = {}
    if BACKGROUND in data.archive.fields:
        frames = data.frames(TRAIN)
        frames = frames[:: -(-len(frames) // SAMPLE)]
        background, truth = (data.archive.fields[n].array[frames] for n in (BACKGROUND, STATE))
        errors["background_error"] = background - truth
    if latent_inputs:
        errors["latent_error"] = latent_errors(
            networks, arrays, data.read, data.frames(VALIDATION), latent_inputs
        )
    result = {}
    for name, sample in errors.items():
        covariance, bias = fit_separable(sample, rank=rank)
        result[name] = {**_fields(covariance), "bias": bias}
    return result


def prior(
    data: TrainingSet, latents: Frames | None, scales: Mapping[str, np.ndarray], *, rank: int
) -> dict[str, Any]:
    """The Gaussian approximation of what is diffused, from the end of the training period.

    Args:
        data: the state.
        latents: its codes, not standardised; None where the state itself is diffused.
        scales: "latent_mean" and "latent_std" of the codes.
        rank: horizontal patterns.

    Returns:
        The fields of `PriorCovariance`, as they are saved.
    """
    frames = data.frames(TRAIN)[-SAMPLE:]
    if latents is None:
        sample = data.standardised(STATE, frames)
    else:
        sample = (latents[frames] - scales["latent_mean"]) / scales["latent_std"]
    fitted = fit_prior(sample, rank=rank)
    return {"frame": _fields(fitted.frame), "lags": np.asarray(fitted.lags)}


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
