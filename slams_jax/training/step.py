"""One training step: gradient, update, moving average; compiled once, its state donated.

All devices hold the whole state, or each a part of it (`sharded`): parameters are then gathered
before the gradient and gradients are cut afterwards, so that optimiser, moving average and
parameters take 1 / n of their memory on n devices (stage 1 of ZeRO, Rajbhandari et al. 2020, arXiv
1910.02054, and the parameters between steps).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from slams_jax.aliases import Params, PRNGKey
from slams_jax.mesh import DATA, shardings
from slams_jax.training.devices import batched, data_mesh, replicated, state_spec
from slams_jax.training.state import (
    Info,
    LossFn,
    OptimiserConfig,
    TrainState,
    make_optimiser,
    update_average,
)

Step = Callable[..., tuple[TrainState, Info]]  # (state, batch, *fixed)
Prepare = Callable[..., PyTree]  # (key, batch, *fixed) -> batch


def make_step(
    loss_fn: LossFn,
    optimiser: OptimiserConfig,
    *,
    mesh: Mesh | None = None,
    prepare: Prepare | None = None,
    fixed: int = 0,
    accumulate: int = 1,
    sharded: bool = False,
    compiler_options: Mapping[str, Any] | None = None,
) -> Step:
    """The jitted step (state, batch, *fixed) -> (state, info), data-parallel over `mesh`.

    The loss is a mean over the whole batch, whatever the number of devices: the partitioner adds
    the sum over devices, and the random numbers do not depend on their number. The state given in
    is donated: its buffers are gone after the call.

    Args:
        loss_fn: (params, model_state, key, batch) -> (loss, (model_state, info)), info a
            dictionary of scalars.
        optimiser: how gradients become updates.
        mesh: the devices, a mesh with the axis `data`; all of them unless given.
        prepare: (key, batch, *fixed) -> batch for `loss_fn`, drawing for the whole batch what is
            random; so that parts of it (`accumulate`) see the same noise.
        fixed: number of further arguments of the step, which `prepare` needs in every step: large
            arrays would be copied into the program if it closed over them.
        accumulate: parts that a batch is taken in, one after the other, their gradients averaged:
            the activations of one part only are in memory. The same step as with the whole
            batch where the loss is a mean over samples and draws nothing itself; otherwise the
            loss is the mean of the parts', each with its own key.
        sharded: whether the devices share the state among them.
        compiler_options: options of XLA, passed to `jax.jit`.

    Returns:
        The step; its info holds `loss`, `grad_norm` (before clipping) and what `loss_fn` adds.
    """
    mesh = data_mesh() if mesh is None else mesh
    transformation = make_optimiser(optimiser)
    everywhere = replicated(mesh)
    spec = state_spec(mesh, sharded=sharded)
    cut = lambda tree: jax.lax.with_sharding_constraint(tree, shardings(tree, mesh, spec))

    def step(state: TrainState, batch: PyTree, *fixed: PyTree) -> tuple[TrainState, Info]:
        key = jax.random.fold_in(state.key, state.step)
        if prepare is not None:
            key_prepare, key = jax.random.split(key)
            batch = prepare(key_prepare, batch, *fixed)
        params = state.params
        if sharded:
            params = jax.lax.with_sharding_constraint(params, everywhere)
        grads, model_state, info = _gradients(
            loss_fn, params, state.model_state, key, batch, accumulate, mesh
        )
        if sharded:
            grads = cut(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counts and floats
            updates, opt_state = transformation.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            info = {**info, "grad_norm": optax.tree.norm(grads)}
        done = state.step + 1
        ema = update_average(state.ema, params, done, decay=optimiser.ema_decay)
        after = TrainState(done, params, model_state, ema, opt_state, state.key)
        return (cut(after) if sharded else after), info

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(None if sharded else everywhere, batched(mesh), *[everywhere] * fixed),
        out_shardings=(None if sharded else everywhere, everywhere),
        compiler_options=None if compiler_options is None else dict(compiler_options),
    )


def _gradients(
    loss_fn: LossFn,
    params: Params,
    model_state: PyTree,
    key: PRNGKey,
    batch: PyTree,
    parts: int,
    mesh: Mesh,
) -> tuple[Params, PyTree, Info]:
    """Gradient, model_state and info (with the loss) of a batch taken in so many parts."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def one(model_state: PyTree, key: PRNGKey, part: PyTree):
        (loss, (model_state, info)), grads = value_and_grad(params, model_state, key, part)
        return model_state, (grads, {**info, "loss": loss})

    if parts == 1:
        model_state, (grads, info) = one(model_state, key, batch)
        return grads, model_state, info

    def cut(x: Array) -> Array:
        # Every parts-th sample: no sample leaves the device that it is on.
        x = jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(None, DATA)))

    def add(carry, i_and_part):
        model_state, total = carry
        i, part = i_and_part
        model_state, found = one(model_state, jax.random.fold_in(key, i), part)
        return (model_state, jax.tree.map(jnp.add, total, found)), None

    batches = jax.tree.map(cut, batch)
    first = jax.tree.map(lambda x: x[0], batches)
    _, shapes = jax.eval_shape(one, model_state, key, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (model_state, total), _ = jax.lax.scan(add, (model_state, zeros), (jnp.arange(parts), batches))
    grads, info = jax.tree.map(lambda x: x / jnp.asarray(parts, x.dtype), total)
    return grads, model_state, info
