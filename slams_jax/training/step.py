"""One training step: gradient, update, moving average; compiled once, its state donated."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from slams_jax.training.devices import batched, data_mesh, replicated
from slams_jax.training.state import (
    Info,
    LossFn,
    OptimiserConfig,
    TrainState,
    make_optimiser,
    update_average,
)

Step = Callable[[TrainState, PyTree], tuple[TrainState, Info]]


def make_step(
    loss_fn: LossFn,
    optimiser: OptimiserConfig,
    *,
    mesh: Mesh | None = None,
    compiler_options: Mapping[str, Any] | None = None,
) -> Step:
    """The jitted step (state, batch) -> (state, info), data-parallel over `mesh`.

    The loss is a mean over the whole batch, whatever the number of devices: the partitioner adds
    the sum over devices, and the random numbers do not depend on their number. The state given in
    is donated: its buffers are gone after the call.

    Args:
        loss_fn: (params, model_state, key, batch) -> (loss, (model_state, info)), info a
            dictionary of scalars.
        optimiser: how gradients become updates.
        mesh: the devices, a mesh with the axis `data`; all of them unless given.
        compiler_options: options of XLA, passed to `jax.jit`.

    Returns:
        The step; its info holds `loss`, `grad_norm` (before clipping) and what `loss_fn` adds.
    """
    mesh = data_mesh() if mesh is None else mesh
    transformation = make_optimiser(optimiser)

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, Info]:
        key = jax.random.fold_in(state.key, state.step)
        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (model_state, info)), grads = value_and_grad(
            state.params, state.model_state, key, batch
        )
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counts and floats
            updates, opt_state = transformation.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            info = {**info, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        done = state.step + 1
        ema = update_average(state.ema, params, done, decay=optimiser.ema_decay)
        return TrainState(done, params, model_state, ema, opt_state, state.key), info

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(replicated(mesh), batched(mesh)),
        out_shardings=replicated(mesh),
        compiler_options=None if compiler_options is None else dict(compiler_options),
    )
