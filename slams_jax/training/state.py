"""What a training run carries from step to step, and how the parameters are updated.

AdamW (Loshchilov & Hutter 2019) on gradients clipped by their global norm, and an exponential
moving average of the parameters, m <- d m + (1 - d) theta with d = min(decay, (1 + n) / (10 + n))
after n steps: the bound lets the average forget its start in short runs.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from slams_jax.aliases import Params, PRNGKey, Scalar
from slams_jax.errors import InputError

Decay = Literal["linear", "cosine", "constant"]
InitFn = Callable[[PRNGKey], tuple[Params, PyTree]]


class TrainState(NamedTuple):
    """Everything that a step reads and replaces.

    Attributes:
        step: number of updates done, int32.
        params: the parameters, float32.
        model_state: mutable collections of the model, {} when it has none.
        ema: exponential moving average of `params`, of the same structure.
        opt_state: state of the optimiser.
        key: the run's key; step n draws from fold_in(key, n).
    """

    step: Int[Array, ""]
    params: Params
    model_state: PyTree
    ema: Params
    opt_state: PyTree
    key: PRNGKey


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with warm-up, decay, clipping and averaging.

    Attributes:
        steps: length of the run.
        learning_rate: the peak, reached after the warm-up.
        warmup_steps: steps of the linear rise from 0.
        decay: after the warm-up: "linear" or "cosine" to 0 at the last step, or "constant".
        weight_decay: decoupled, on arrays of two axes and more only: kernels, and neither
            biases nor scales of norms.
        clip_norm: largest global norm of the gradient; None for no clipping.
        ema_decay: decay d of the moving average of the parameters; 0 follows them at once.
        b1: decay of the mean of the gradients.
        b2: decay of the mean of their squares.
        epsilon: what keeps the division by their root finite.

    Raises:
        InputError: a value out of its range.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    decay: Decay = "cosine"
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    ema_decay: float = 0.999
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self):
        for name in ("steps", "warmup_steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputError(f"{name} must be an integer, got {value!r}")
        for name, good, expected in (
            ("steps", self.steps >= 1, "at least 1"),
            ("warmup_steps", 0 <= self.warmup_steps < self.steps, f"in [0, steps={self.steps})"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "positive"),
            ("decay", self.decay in get_args(Decay), f"one of {get_args(Decay)}"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or positive"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "positive, or None"),
            ("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)"),
            ("b1", 0 <= self.b1 < 1, "in [0, 1)"),
            ("b2", 0 <= self.b2 < 1, "in [0, 1)"),
            ("epsilon", 0 < self.epsilon < math.inf, "positive"),
        ):
            if not good:
                raise InputError(f"{name} must be {expected}, got {getattr(self, name)!r}")


def learning_rate_schedule(config: OptimiserConfig) -> optax.Schedule:
    """The learning rate as a function of the number of updates done."""
    peak, rest = config.learning_rate, config.steps - config.warmup_steps
    after = {
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "constant": optax.constant_schedule(peak),
    }[config.decay]
    if config.warmup_steps == 0:
        return after
    # The first update already moves: the ramp reaches its peak after `warmup_steps` updates.
    start = peak / (config.warmup_steps + 1)
    ramp = optax.linear_schedule(start, peak, config.warmup_steps)
    return optax.join_schedules([ramp, after], [config.warmup_steps])


def make_optimiser(config: OptimiserConfig) -> optax.GradientTransformation:
    """The gradient transformation of `config`; call it under standard dtype promotion."""
    adamw = optax.adamw(
        learning_rate_schedule(config),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim >= 2, params),
    )
    if config.clip_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def update_average(ema: Params, params: Params, step: Int[Array, ""], *, decay: float) -> Params:
    """The moving average after `step` updates, the last of which gave `params`."""
    n = step.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + n) / (10.0 + n))
    return jax.tree.map(lambda m, p: m + (1.0 - d).astype(m.dtype) * (p - m), ema, params)


def init_state(key: PRNGKey, init_fn: InitFn, optimiser: OptimiserConfig) -> TrainState:
    """The state before the first step, the average being the parameters themselves.

    Args:
        key: seeds the parameters and, apart from them, the steps.
        init_fn: key -> (params, model_state).
        optimiser: the optimiser whose state is carried.
    """
    key_init, key_steps = jax.random.split(key)
    params, model_state = init_fn(key_init)
    with jax.numpy_dtype_promotion("standard"):
        opt_state = make_optimiser(optimiser).init(params)
    # Copies: a donated state must not hold the same buffer twice.
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, ema, opt_state, key_steps)


Info = dict[str, Any]
LossFn = Callable[[Params, PyTree, PRNGKey, PyTree], tuple[Scalar, tuple[PyTree, Info]]]
