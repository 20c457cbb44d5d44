"""Streams that a model makes: the background, and encoded fields as a latent observation.

Those that observe the state do so in physical units; of a state after an anamorphosis they are made
by `of_gaussian`.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from slams_jax.assimilation.ensembles import HybridConfig, ensemble_likelihood
from slams_jax.data.anamorphosis import Physical, Transforms
from slams_jax.errors import InputError
from slams_jax.frames import whole_frames
from slams_jax.gaussian import HybridCovariance, ModalCovariance, ModalOperator, Regression
from slams_jax.mesh import DATA, SPACE, analysis_mesh, in_bands, place, split, to_host, whole
from slams_jax.models.autoencoder import STATE
from slams_jax.models.model import ErrorSample, Model, ModelArrays, Networks, encode, residual
from slams_jax.networks import compiler_options
from slams_jax.observe import Stream, make_stream
from slams_jax.observe.operators import Chain

COMPILED = 8  # programs kept, of the models lately used in this process


def of_gaussian(streams: Sequence[Stream], transforms: Transforms) -> tuple[Stream, ...]:
    """Streams of a state in physical units as streams of what its anamorphosis makes of it."""
    if not transforms:
        return tuple(streams)
    to_physical = Physical(transforms)
    return tuple(
        dataclasses.replace(s, operator=Chain((to_physical, s.operator)))
        if s.space == "state"
        else s
        for s in streams
    )


def background_stream(
    model: Model,
    background: Float[np.ndarray, "member time lat lon channel"],
    climate: Float[np.ndarray, "time lat lon channel"],
    mesh: Mesh | None = None,
    hybrid: HybridConfig = HybridConfig(),
) -> Stream:
    """The background as one object in space and time: its code, a regression on the state's.

    Several members, by their codes, are a forecast with the errors of `hybrid`.

    Args:
        model: with the statistics of its background.
        background: in the units of the channels of `model`, after any anamorphosis, on its grid;
            frames without it are NaN throughout, in all members.
        climate: climatology at its times.
        mesh: the devices that encode it; one unless given.
        hybrid: what several members tell of their errors.

    Raises:
        InputError: a model without a background, or frames in which some values are missing.
    """
    if model.background is None:
        raise InputError("this model was trained without a background: it has no error statistics")
    known = whole_frames(np.isfinite(background[0]), "the background")
    codes = codes_of(model, background, climate, mesh)
    if len(codes) == 1:
        patterns = np.where(known, 0, -1)
        return _regression_stream("background", model.background, codes[0], patterns)
    assert model.arrays.prior is not None
    values, operator, covariance = ensemble_likelihood(
        model.arrays.prior, model.background, codes, known, _places_of_codes(model), hybrid
    )
    return _stream_of("background", values, operator, covariance, known)


def codes_of(
    model: Model,
    states: Float[np.ndarray, "member time lat lon channel"],
    climate: Float[np.ndarray, "time lat lon channel"],
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "member time row column code"]:
    """What is diffused of states as `background_stream` has them; where they are missing, zero."""
    scaled = np.nan_to_num((states - climate) / np.asarray(model.arrays.std))
    frames = scaled.reshape(-1, *climate.shape[1:]).astype(np.float32)
    codes = _on_frames(encode, model, {STATE: frames}, _own(mesh))
    return codes.reshape(*states.shape[:2], *codes.shape[1:])


def _places_of_codes(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of what is diffused: means of the points that a code stands for."""
    encoder = model.networks.autoencoder
    points = 1 if encoder is None else encoder.compression
    means = lambda axis: np.array(
        [np.mean(axis[i : i + points]) for i in range(0, len(axis), points)]
    )
    return means(model.grid.latitude), means(model.grid.longitude)


def check_latent_inputs(model: Model, names: Collection[str]) -> None:
    """Refuse what cannot be a latent observation.

    Raises:
        InputError: a model without latent statistics, or other inputs than it was made for.
    """
    if model.latent is None or model.networks.autoencoder is None:
        raise InputError("this model has no latent observations: it has no statistics of them")
    if not names or set(names) - set(model.latent_inputs):
        raise InputError(
            f"latent inputs are {sorted(names)}, but the error of the latent was estimated for "
            f"{sorted(model.latent_inputs)}: give some of these"
        )


def latent_stream(
    model: Model, inputs: Mapping[str, np.ndarray], mesh: Mesh | None = None
) -> Stream:
    """z_y = E(inputs) as a regression on the latent, by what is available in each frame.

    Of the inputs of a frame those are encoded for which the model has statistics together: the
    largest of `model.latent_patterns` that it has. An input that is not given is missing in every
    frame. It is computed on the devices of `mesh`, on one unless given.

    Raises:
        InputError: a model without latent statistics, other inputs than it was made for, or inputs
            that are missing in every frame.
    """
    check_latent_inputs(model, inputs)
    assert model.latent is not None
    count = len(next(iter(inputs.values())))
    there = dict.fromkeys(model.latent_inputs, np.zeros(count, bool))
    there |= {n: np.isfinite(x).reshape(count, -1).any(axis=1) for n, x in inputs.items()}
    patterns = np.full(count, -1)
    for i, names in reversed(list(enumerate(model.latent_patterns))):
        patterns[np.all([there[n] for n in names], axis=0)] = i
    used = {
        n: np.array([i >= 0 and n in model.latent_patterns[i] for i in patterns]) for n in inputs
    }
    kept = {n: np.where(used[n][:, None, None, None], x, np.nan) for n, x in inputs.items()}
    return _regression_stream(
        "latent", model.latent, _on_frames(encode, model, kept, _own(mesh)), patterns
    )


def _regression_stream(
    name: str, regression: Regression, values: np.ndarray, patterns: np.ndarray
) -> Stream:
    """A stream of values y = M x + b + e; frames of pattern -1 are not observed."""
    operator, covariance, offset = regression.at(patterns)
    return _stream_of(name, values - np.asarray(offset), operator, covariance, patterns >= 0)


def _stream_of(
    name: str,
    values: Any,
    operator: ModalOperator,
    covariance: ModalCovariance | HybridCovariance,
    known: Bool[np.ndarray, " time"],
) -> Stream:
    """A stream of the latent; frames that are not known are not observed."""
    values = np.where(known[:, None, None, None], np.asarray(values), np.nan)
    return make_stream(name, values, operator, covariance, space="latent")


def _own(mesh: Mesh | None) -> Mesh:
    return analysis_mesh(1, devices=jax.local_devices()[:1]) if mesh is None else mesh


def unresolved(
    model: Model,
    background: Float[np.ndarray, "time lat lon channel"],
    climate: Float[np.ndarray, "time lat lon channel"],
    mesh: Mesh,
) -> tuple[Float[np.ndarray, "time lat lon channel"], ErrorSample]:
    """What the background tells of the part of the state that no latent can represent.

    It is a regression on the part of the background that none can represent, zero where the
    background is missing, and is added to the decoder's output, as in an incremental analysis.

    Returns:
        The estimate, and a sample of its errors, in the units of the state.
    """
    if model.networks.autoencoder is None:
        return np.zeros_like(climate), model.increment_error
    slope, error = _slope(model)
    scaled = (background - climate) / np.asarray(model.arrays.std)
    missing = ~np.isfinite(scaled)
    rest = _on_frames(residual, model, np.where(missing, 0.0, scaled), mesh)
    return np.where(missing, 0.0, slope * rest), error


def _slope(model: Model) -> tuple[Float[np.ndarray, "1 #lat 1 channel"], ErrorSample]:
    """The regression coefficient of `unresolved`, by latitude and channel, and what it leaves over.

    One for models that have no more of their errors than a number for each channel.
    """
    missed, beside = model.state_error, model.increment_error
    if len(missed) == 1:
        return np.ones((1, 1, 1, beside.shape[-1]), np.float32), beside
    # Both samples are of the same times: their difference is what the background's code misses.
    own = beside - missed
    mean = lambda product: product.mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    slope = -mean(missed * own) / np.maximum(mean(own * own), np.finfo(np.float32).tiny)
    slope = slope.astype(np.float32)
    return slope, missed + slope * own


def _on_frames(
    function: Callable[[Networks, ModelArrays, Any], Array],
    model: Model,
    frames: Any,
    mesh: Mesh,
) -> Float[np.ndarray, "time lat lon channel"]:
    """`function` of networks, arrays and standardised fields, on the devices of `mesh`."""
    frames = place(frames, mesh, in_bands(mesh, model.grid.shape))
    with jax.set_mesh(mesh):
        return to_host(
            _compiled_function(function, model.networks)(place(model.arrays, mesh, whole), frames)
        )


@functools.lru_cache(maxsize=COMPILED)
def _compiled_function(function: Callable, networks: Networks):
    """`function` of one model, compiled; the `COMPILED` used last are kept."""

    def run(arrays: ModelArrays, frames: Any) -> Array:
        frames = jax.tree.map(lambda x: split(x, DATA, SPACE), frames)
        return function(networks, arrays, frames)

    return jax.jit(run, compiler_options=compiler_options() or None)
