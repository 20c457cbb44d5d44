"""The autoencoder: background, observed modalities or the state itself -> code z -> state.

    z = E({"state": x})                       the clean code, with x ~= D(z)
    z_y = E({"background": x_b, "stations": y_1, ...})    a latent observation of z

One encoder takes any subset of its inputs (each with a mask). Training draws a new subset for
each sample, with the state in about half of them; the target is always the true state.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from slams_jax.aliases import Params, PRNGKey, Scalar
from slams_jax.errors import InputError
from slams_jax.grid import Padding
from slams_jax.networks import (
    Compute,
    Coordinates,
    Decoder,
    Encoder,
    SlamsDecoder,
    SlamsEncoder,
    initialise,
    linear_code,
)

STATE, BACKGROUND = "state", "background"
Inputs = Mapping[str, Float[Array, "batch lat lon _"]]
Dropped = Mapping[str, Bool[Array, " batch"]]


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of the autoencoder and of its training. Hashable.

    Attributes:
        state_channels: channels of the state.
        inputs: (name, channels) of everything that the encoder may be given; one is "state".
        latent_channels: channels of the code.
        architecture: "conv" (linear code and residual correction) or "slams" (the published one).
        compression: points of the state to one of the code in each direction: 1, 2 or 4.
        width: channels of the residual blocks ("conv").
        blocks: residual blocks in each half ("conv").
        hidden: channels of the inner convolutions of the encoder; the decoder has as many, in
            equal steps from the code to the state ("slams").
        kernel: size of the convolutions, odd.
        padding: what lies beyond the edges of the grid.
        coordinates: position channels seen by both halves ("conv").
        state_probability: of the state being among the inputs in training.
        alone: probability that the state, where present, is the only input.
        drop: probability of each other input to be left out; one number for all, or
            (name, probability) pairs (0.5 where not named).
        level_power: p >= 1 of the p-norm over channels of their mean squared errors: 1 is their
            mean; larger p gives the worst channels more weight (weight ~ MSE^(p-1)).
        latent_noise: standard deviation of the noise on codes in training: it makes codes use
            their scale and the decoder smooth on it.
        latent_penalty: weight of the mean square of the codes, which bounds their scale.
        compute: what the residual networks compute in, "float32" or "bfloat16" ("conv"); the
            linear code, parameters, norms and the loss are float32 always.

    Raises:
        InputError: a value out of its range.
    """

    state_channels: int
    inputs: tuple[tuple[str, int], ...]
    latent_channels: int
    architecture: Literal["conv", "slams"] = "conv"
    compression: int = 1
    width: int = 64
    blocks: int = 2
    hidden: tuple[int, ...] = (9, 8, 7, 6)
    kernel: int = 3
    padding: Padding = "sphere"
    coordinates: Coordinates = "latitude"
    state_probability: float = 0.5
    alone: float = 0.5
    drop: float | tuple[tuple[str, float], ...] = 0.3
    level_power: float = 2.0
    latent_noise: float = 0.02
    latent_penalty: float = 1e-3
    compute: Compute = "float32"

    def __post_init__(self):
        names = [name for name, _ in self.inputs]
        if (STATE, self.state_channels) not in self.inputs:
            raise InputError(
                f"autoencoder inputs must hold ('state', {self.state_channels}), got {self.inputs}"
            )
        if len(set(names)) < len(names):
            raise InputError(f"autoencoder inputs name one input twice: {names}")
        for name, channels in self.inputs:
            _require(channels >= 1, f"channels of input {name!r}", channels, "at least 1")
        _require(self.latent_channels >= 1, "latent_channels", self.latent_channels, "at least 1")
        _require(
            self.architecture in ("conv", "slams"),
            "architecture",
            self.architecture,
            "'conv' or 'slams'",
        )
        _require(self.compression in (1, 2, 4), "compression", self.compression, "1, 2 or 4")
        _require(
            self.compute in get_args(Compute),
            "compute",
            self.compute,
            f"one of {get_args(Compute)}",
        )
        if self.architecture == "slams":
            _require(self.compression == 1, "compression", self.compression, "1 with 'slams'")
            _require(self.compute == "float32", "compute", self.compute, "'float32' with 'slams'")
        _require(self.kernel % 2 == 1, "kernel", self.kernel, "odd")
        _require(
            self.width >= 1 and self.blocks >= 0,
            "width, blocks",
            (self.width, self.blocks),
            "at least 1 and 0",
        )
        for name in ("state_probability", "alone"):
            value = getattr(self, name)
            _require(0.0 <= value <= 1.0, name, value, "in [0, 1]")
        named = dict(self.drop) if isinstance(self.drop, tuple) else {}
        unknown = named.keys() - set(names)
        _require(not unknown, "drop of unknown inputs", sorted(unknown), f"among {names}")
        for name in names:
            _require(
                0.0 <= self.drop_of(name) < 1.0,
                f"drop of {name!r}",
                self.drop_of(name),
                "in [0, 1)",
            )
        _require(self.level_power >= 1.0, "level_power", self.level_power, "at least 1")
        for name in ("latent_noise", "latent_penalty"):
            _require(getattr(self, name) >= 0.0, name, getattr(self, name), "not negative")

    def drop_of(self, name: str) -> float:
        """The probability with which training leaves the input out."""
        return dict(self.drop).get(name, 0.5) if isinstance(self.drop, tuple) else self.drop

    def latent_shape(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """Shape (lat, lon, channel) of the code of a state on a grid of `shape` (lat, lon)."""
        lat, lon = (-(-n // self.compression) for n in shape)
        return lat, lon, self.latent_channels


def _require(condition: bool, what: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"autoencoder {what} must be {expected}, got {value!r}")


def _modules(config: AutoencoderConfig) -> tuple[Any, Any]:
    if config.architecture == "slams":
        # Evenly from the code's channels to the state's: 5 -> 6 7 8 9 10 in the published case.
        ladder = np.linspace(config.latent_channels, config.state_channels, len(config.hidden) + 2)
        up = tuple(int(c) for c in np.rint(ladder[1:]))
        return (
            SlamsEncoder((*config.hidden, config.latent_channels), config.kernel, config.padding),
            SlamsDecoder(up, config.kernel, config.padding),
        )
    trunk = (
        config.width,
        config.blocks,
        config.kernel,
        config.padding,
        config.coordinates,
        config.compute,
    )
    return (
        Encoder(config.latent_channels, config.compression, *trunk),
        Decoder(config.state_channels, config.compression, *trunk),
    )


def init(
    config: AutoencoderConfig,
    key: PRNGKey,
    shape: tuple[int, int],
    *,
    states: Float[np.ndarray, "sample lat lon channel"] | None = None,
) -> tuple[Params, Params]:
    """Fresh parameters.

    Args:
        config: the autoencoder.
        key: for the random weights.
        shape: (lat, lon) of the grid.
        states: some standardised states, from whose principal components the linear code then
            starts ("conv" only); without them it starts from a random projection. A few dozen
            save hundreds of steps.

    Returns:
        params, and the mutable collections of the model ({} for "conv").
    """
    encoder, decoder = _modules(config)
    inputs = {name: jnp.zeros((1, *shape, c)) for name, c in config.inputs}
    key_encoder, key_decoder, key_code = jax.random.split(key, 3)
    first = initialise(encoder.init, key_encoder, *_features(config, inputs))
    z = jnp.zeros((1, *config.latent_shape(shape)))
    if config.architecture == "slams":
        second = initialise(decoder.init, key_decoder, z)
        stats = {"encoder": first["batch_stats"], "decoder": second["batch_stats"]}
        return {"encoder": first["params"], "decoder": second["params"]}, stats
    second = initialise(lambda key, z: decoder.init(key, z, shape), key_decoder, z)
    down, up = linear_code(
        key_code,
        config.state_channels,
        config.latent_channels,
        config.compression,
        config.kernel,
        config.padding,
        states,
    )
    params = {"encoder": first["params"], "decoder": second["params"]}
    params["encoder"]["linear"]["kernel"] = down
    params["decoder"]["linear"]["kernel"] = up
    return params, {}


def _features(config: AutoencoderConfig, inputs: Inputs, dropped: Dropped | None = None):
    """The arguments of the encoder module: missing inputs and values are 0 with mask 0."""
    like = next(iter(inputs.values()))
    values, masks = {}, {}
    for name, channels in config.inputs:
        if name in inputs:
            x = inputs[name]
            seen = jnp.isfinite(x)
            if dropped is not None:
                seen = seen & ~dropped[name][:, None, None, None]
            values[name] = jnp.where(seen, x, 0.0)
            masks[name] = seen
        else:
            values[name] = jnp.zeros((*like.shape[:3], channels), jnp.float32)
            masks[name] = jnp.zeros(values[name].shape, bool)
    if config.architecture == "slams":
        return (jnp.concatenate(list(values.values()), axis=-1),)
    guess = values[STATE]
    if dict(config.inputs).get(BACKGROUND) == config.state_channels:
        guess = jnp.where(masks[STATE], guess, values[BACKGROUND])
    parts = [*values.values(), *(m.astype(jnp.float32) for m in masks.values())]
    return guess, jnp.concatenate(parts, axis=-1)


def encode(
    config: AutoencoderConfig, params: Params, model_state: Params, inputs: Inputs
) -> Float[Array, "batch latent_lat latent_lon latent"]:
    """The code of any subset of the inputs.

    Args:
        config: the autoencoder.
        params: from `init` or training.
        model_state: likewise.
        inputs: standardised arrays by name; an absent key, or NaN, is a missing value.

    Returns:
        z, coarser than the inputs by `config.compression`.

    Raises:
        InputError: no input, an unknown name, or a wrong number of channels.
    """
    _check(config, inputs)
    encoder, _ = _modules(config)
    variables = _variables(params, model_state, "encoder")
    return encoder.apply(variables, *_features(config, inputs))


def decode(
    config: AutoencoderConfig,
    params: Params,
    model_state: Params,
    z: Float[Array, "batch latent_lat latent_lon latent"],
    shape: tuple[int, int],
    *,
    linear: bool = False,
) -> Float[Array, "batch lat lon channel"]:
    """The standardised state of a code, on the grid of `shape` (lat, lon).

    `linear` applies the linear part alone, which "conv" has.
    """
    _, decoder = _modules(config)
    variables = _variables(params, model_state, "decoder")
    if config.architecture == "slams":
        return decoder.apply(variables, z)
    return decoder.apply(variables, z, shape, linear=linear)


def _variables(params: Any, model_state: Any, half: str) -> dict[str, Any]:
    stats = {"batch_stats": model_state[half]} if model_state else {}
    return {"params": params[half], **stats}


def _check(config: AutoencoderConfig, inputs: Inputs) -> None:
    known = dict(config.inputs)
    if not inputs:
        raise InputError(f"the encoder got no input, expected some of {sorted(known)}")
    for name, x in inputs.items():
        if name not in known:
            raise InputError(f"the encoder does not know input {name!r}, only {sorted(known)}")
        if x.shape[-1] != known[name]:
            raise InputError(f"input {name!r} has {x.shape[-1]} channels, expected {known[name]}")


def draw_dropped(
    config: AutoencoderConfig, key: PRNGKey, names: tuple[str, ...], batch: int
) -> Dropped:
    """Which inputs each sample of a training batch goes without.

    The state is present in a fixed share of the batch (stratified, so that no batch lacks either
    case) and at least one input always is. With the state as only input nothing is dropped.

    Args:
        config: the autoencoder.
        key: for this step.
        names: the inputs that the batch has; "state" among them.
        batch: its size.

    Returns:
        name -> (batch,), true where the input is dropped.
    """
    others = tuple(name for name in names if name != STATE)
    if not others:
        return {STATE: jnp.zeros((batch,), bool)}
    key_state, key_order, key_alone, key_drop, key_keep = jax.random.split(key, 5)
    strata = jax.random.permutation(key_order, jnp.arange(batch, dtype=jnp.float32))
    u = (strata + jax.random.uniform(key_state)) / batch
    state = u < config.state_probability
    alone = state & (jax.random.uniform(key_alone, (batch,)) < config.alone)
    chances = jnp.asarray([config.drop_of(name) for name in others], jnp.float32)
    out = jax.random.uniform(key_drop, (batch, len(others))) < chances[None, :]
    keep = jax.random.randint(key_keep, (batch,), 0, len(others))
    lonely = jnp.all(out, axis=1) & ~state
    out = out & ~(lonely[:, None] & (keep[:, None] == jnp.arange(len(others))[None, :]))
    out = out | alone[:, None]
    return {STATE: ~state, **{name: out[:, i] for i, name in enumerate(others)}}


def loss(
    config: AutoencoderConfig,
    params: Params,
    model_state: Params,
    key: PRNGKey,
    batch: Inputs,
    *,
    weights: Float[Array, "lat lon"] | Float[np.ndarray, "lat lon"] | None = None,
) -> tuple[Scalar, tuple[Params, dict[str, Scalar]]]:
    """The training loss.

    The p-norm over channels of their mean squared errors, so that no level pays for the others,
    is taken for samples with the state among the inputs ("reconstruction") and without
    ("retrieval") apart. The second is larger by orders of magnitude and would drown the first, so
    the sum is of their roots: the gradient of a root mean square in the predictions has the same
    length whatever its size.

    Args:
        config: the autoencoder.
        params: of the model.
        model_state: mutable collections.
        key: for this step.
        batch: standardised arrays by name; NaN is missing; "state" is the target.
        weights: of the grid points (area), any scale.

    Returns:
        The loss, with the new model_state and scalars: `mse`, `reconstruction_mse`,
        `reconstruction_worst` (root mean square error of the worst channel, in standard
        deviations), `retrieval_mse`, `retrieval_worst`, `latent_square`.

    Raises:
        InputError: a batch that does not fit the configuration.
    """
    _check(config, batch)
    if STATE not in batch:
        raise InputError(f"the training batch has no 'state', only {sorted(batch)}")
    target = batch[STATE]
    key_drop, key_noise = jax.random.split(key)
    names = tuple(name for name, _ in config.inputs if name in batch)
    dropped = draw_dropped(config, key_drop, names, target.shape[0])
    prediction, z, new_state = _forward(config, params, model_state, key_noise, batch, dropped)
    valid = jnp.isfinite(target)
    error = jnp.where(valid, prediction - jnp.where(valid, target, 0.0), 0.0)
    area = jnp.ones(target.shape[1:3]) if weights is None else jnp.asarray(weights, jnp.float32)
    importance = jnp.where(valid, area[None, :, :, None], 0.0)
    square = jnp.sum(importance * jnp.square(error), axis=(1, 2))  # (batch, channel)
    count = jnp.sum(importance, axis=(1, 2))
    present = ~dropped[STATE]
    seen = _per_channel(square, count, present)
    unseen = _per_channel(square, count, ~present)
    parts = [_norm(config, seen), _norm(config, unseen)]
    if len(names) == 1 or config.state_probability == 1.0:
        value = parts[0]
    elif config.state_probability == 0.0:
        value = parts[1]
    else:
        value = jnp.sqrt(parts[0] + 1e-8) + jnp.sqrt(parts[1] + 1e-8)
    latent_square = jnp.mean(jnp.square(z))
    everything = jnp.sum(square) / jnp.maximum(jnp.sum(count), 1e-6)
    info = {
        "mse": everything,
        "reconstruction_mse": jnp.mean(seen),
        "reconstruction_worst": jnp.sqrt(jnp.max(seen)),
        "retrieval_mse": jnp.mean(unseen),
        "retrieval_worst": jnp.sqrt(jnp.max(unseen)),
        "latent_square": latent_square,
    }
    return value + config.latent_penalty * latent_square, (new_state, info)


def _forward(config, params, model_state, key, batch, dropped):
    encoder, decoder = _modules(config)
    features = _features(config, batch, dropped)
    shape = batch[STATE].shape[1:3]
    if config.architecture == "conv":
        z = encoder.apply(_variables(params, {}, "encoder"), *features)
        noisy = z + config.latent_noise * jax.random.normal(key, z.shape, z.dtype)
        return decoder.apply(_variables(params, {}, "decoder"), noisy, shape), z, model_state
    options = {"train": True, "mutable": ["batch_stats"]}
    z, first = encoder.apply(_variables(params, model_state, "encoder"), *features, **options)
    noisy = z + config.latent_noise * jax.random.normal(key, z.shape, z.dtype)
    x, second = decoder.apply(_variables(params, model_state, "decoder"), noisy, **options)
    return x, z, {"encoder": first["batch_stats"], "decoder": second["batch_stats"]}


def _per_channel(square: Array, count: Array, member: Array) -> Array:
    """Mean squared error of each channel over the samples of `member`; 0 if there are none."""
    member = member.astype(jnp.float32)[:, None]
    return jnp.sum(square * member, axis=0) / jnp.maximum(jnp.sum(count * member, axis=0), 1e-6)


def _norm(config: AutoencoderConfig, mse: Array) -> Array:
    # Scaled by the largest, without a gradient of the scale, so that small errors keep their
    # digits; the floor keeps the gradient of the root finite at a perfect fit.
    if config.level_power == 1.0:
        return jnp.mean(mse)
    scale = jax.lax.stop_gradient(jnp.max(mse)) + 1e-12
    p = config.level_power
    return scale * jnp.power(jnp.mean(jnp.power(mse / scale, p)) + 1e-12, 1.0 / p)
