"""The training loop: what happens when, in an order that makes every resume exact.

At a step where something is due: metrics are fetched and looked at (a value that is not finite
stops the run before anything is saved), then validation, then the record, then the best
checkpoint, last the checkpoint to resume from. A run killed in between resumes from the checkpoint
before, removes the records after it, and repeats what it did, to the bit.
"""

import collections
import copy
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import PyTree

from slams_jax.aliases import Params
from slams_jax.errors import InputError, RunError
from slams_jax.mesh import place, shardings
from slams_jax.training import arrays
from slams_jax.training.chatter import without_chatter
from slams_jax.training.checkpoint import Checkpoints, Restored, discard
from slams_jax.training.devices import (
    batch_mesh,
    batch_size,
    data_mesh,
    is_writer,
    shard_batch,
    state_spec,
    wait_for_all,
)
from slams_jax.training.metrics import METRICS_FILE, TENSORBOARD, Recorder
from slams_jax.training.records import as_json
from slams_jax.training.state import (
    InitFn,
    LossFn,
    OptimiserConfig,
    TrainState,
    init_state,
    learning_rate_schedule,
)
from slams_jax.training.step import Prepare, Step, make_step

Validate = Callable[[Params, PyTree], Mapping[str, Any] | None]
IN_FLIGHT = 2  # steps handed to the devices and not yet done; more only hold batches in memory


@dataclasses.dataclass(frozen=True)
class _Plan:
    """When what is due; everything is at the last step."""

    steps: int
    log_every: int
    validate_every: int
    checkpoint_every: int

    def __post_init__(self):
        for name in ("log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")

    def due(self, every: int, step: int) -> bool:
        return step % every == 0 or step == self.steps


@without_chatter()
def fit(
    directory: str | Path,
    loss_fn: LossFn,
    init_fn: InitFn,
    loader: Iterable[Mapping[str, Any]],
    *,
    optimiser: OptimiserConfig,
    seed: int,
    validate: Validate | None = None,
    validate_every: int | None = None,
    log_every: int = 100,
    checkpoint_every: int = 1000,
    metadata: Mapping[str, Any] | None = None,
    statistics: PyTree = None,
    devices: Sequence[jax.Device] | None = None,
    prepare: Prepare | None = None,
    accumulate: int = 1,
    sharded: bool = False,
    compiler_options: Mapping[str, Any] | None = None,
    resume: bool = True,
) -> TrainState:
    """Train for `optimiser.steps` steps, or what is left of them.

    A run found in `directory` is continued, exactly; a finished one is returned at once. Written
    there: `checkpoint/` (see `checkpoint.py`), `metrics.jsonl`, `tensorboard/`.

    Args:
        directory: of the run; made if need be.
        loss_fn: (params, model_state, key, batch) -> (loss, (model_state, info)): a mean over the
            batch, info a dictionary of scalars.
        init_fn: key -> (params, model_state), nested dictionaries of arrays; jitted.
        loader: endless grain dataset or iterator of batches, dictionaries of host arrays with the
            sample first; in several processes each gives its own part.
        optimiser: length of the run and the updates.
        seed: of the parameters and of all that is random in `loss_fn`.
        validate: (averaged params, model_state) -> scalars, of which "loss" decides what is best;
            the same in every process.
        validate_every: steps between validations; `checkpoint_every` unless given.
        log_every: steps between records and progress lines.
        checkpoint_every: steps between checkpoints.
        metadata: JSON kept with every checkpoint; on resume its "config" must be the same.
        statistics: tree of arrays kept with every checkpoint.
        devices: to train on; all unless given, fewer where the batch does not divide over them.
        prepare: what is random in the loss, as in `make_step`.
        accumulate: parts that each batch is taken in, as in `make_step`.
        sharded: whether the devices share the state among them.
        compiler_options: options of XLA for the step.
        resume: False removes a run found in `directory` and starts over.

    Returns:
        The state after the last step.

    Raises:
        InputError: arguments out of range, a directory that cannot be written, or one that holds
            a run of another configuration, optimiser or seed.
        RunError: the loss or the gradient is not finite, the loader ended, or every checkpoint is
            damaged. The last good checkpoint stays.
    """
    validate_every = checkpoint_every if validate_every is None else validate_every
    plan = _Plan(optimiser.steps, log_every, validate_every, checkpoint_every)
    directory = _prepare(Path(directory).absolute(), resume)
    kept = as_json(dict(metadata or {}), name="metadata")
    run = {"config": kept.get("config"), "seed": seed, **dataclasses.asdict(optimiser)}
    init = partial(_init, init_fn, optimiser, seed)
    checkpoints = Checkpoints(
        directory, run=as_json(run, name="run"), metadata=kept, statistics=statistics
    )
    try:
        restored = checkpoints.resume()
        if restored is not None and restored.step == plan.steps:
            logging.info("%s is finished: %d steps", directory, plan.steps)
            return _place(init, restored, data_mesh(devices))
        batches = iter(loader)
        if restored is not None:
            logging.info("resuming %s from step %d", directory, restored.step)
            batches.set_state(restored.record["data"])  # pyright: ignore[reportAttributeAccessIssue]
        # The first batch tells how many devices can share one.
        first = _draw(batches)
        local_size = batch_size(first[0])
        mesh = batch_mesh(local_size * jax.process_count(), devices, accumulate=accumulate)
        state = _place(init, restored, mesh, sharded=sharded)
        step = make_step(
            loss_fn, optimiser, mesh=mesh, prepare=prepare, accumulate=accumulate,
            sharded=sharded, compiler_options=compiler_options,
        )  # fmt: skip
        feed = _prefetch(batches, first, mesh)
        recorder = Recorder(
            directory,
            steps=plan.steps,
            start=0 if restored is None else restored.step,
            running=None if restored is None else restored.record["running"],
            schedule=learning_rate_schedule(optimiser),
            samples=local_size * jax.process_count(),
        )
        try:
            return _run(step, state, feed, plan, validate, checkpoints, recorder)
        finally:
            recorder.close()
    finally:
        checkpoints.close()


def _run(
    train_step: Step,
    state: TrainState,
    feed: Iterator[tuple[PyTree, Any]],
    plan: _Plan,
    validate: Validate | None,
    checkpoints: Checkpoints,
    recorder: Recorder,
) -> TrainState:
    infos = []
    for step in range(int(state.step) + 1, plan.steps + 1):
        batch, position = next(feed)
        state, info = train_step(state, batch)
        infos.append(info)
        if len(infos) > IN_FLIGHT:
            jax.block_until_ready(infos[-1 - IN_FLIGHT])
        if step == recorder.first:
            jax.block_until_ready(info)  # compiled and done: from here on the clock runs
            recorder.progress.start(step)
        log, check, save = (
            plan.due(every, step)
            for every in (plan.log_every, plan.validate_every, plan.checkpoint_every)
        )
        check = check and validate is not None
        if not (log or check or save):
            continue
        try:
            recorder.running.add(step, jax.device_get(infos))
            infos = []
            model = {"ema": state.ema, "model_state": state.model_state}
            values = recorder.means(step) if log else {}
            begun = time.perf_counter()
            validation = _validated(validate, state) if check and validate else None
            recorder.write(step, values, validation or {})
            if validation is not None and validation["loss"] < checkpoints.best_loss:
                checkpoints.save_best(model, validation, step=step)
            if save:
                recorder.sync()
                extra = {"data": position, "running": recorder.running.state()}
                checkpoints.save(_rest(state), model, extra, step=step)
            recorder.progress.paused(time.perf_counter() - begun)
        except RunError as error:
            raise _explained(error, checkpoints) from None
    return state


def _validated(validate: Validate, state: TrainState) -> dict[str, float] | None:
    values = validate(state.ema, state.model_state)
    if values is None:
        return None
    if "loss" not in values:
        raise InputError(f'validate must return a "loss" to choose by, got {sorted(values)}')
    return {name: np.asarray(value).item() for name, value in values.items()}


def _explained(error: RunError, checkpoints: Checkpoints) -> RunError:
    step = checkpoints.last_good_step()
    left = "no checkpoint yet" if step is None else f"the last good checkpoint is of step {step}"
    return RunError(
        f"{error} ({left}, in {checkpoints.directory}): "
        "lower the learning rate or clip_norm, or look for bad data"
    )


def _prepare(directory: Path, resume: bool) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {directory} ({error.strerror}): give another") from None
    if not os.access(directory, os.W_OK):
        raise InputError(f"cannot write to {directory}: give another directory")
    if not resume and is_writer():
        discard(directory)
        (directory / METRICS_FILE).unlink(missing_ok=True)
        shutil.rmtree(directory / TENSORBOARD, ignore_errors=True)
    wait_for_all("prepared")
    return directory


def _init(init_fn: InitFn, optimiser: OptimiserConfig, seed: int) -> TrainState:
    return init_state(jax.random.key(seed), init_fn, optimiser)


def _rest(state: TrainState) -> dict[str, PyTree]:
    """What a checkpoint holds beside the model; the key as its numbers."""
    key = jax.random.key_data(state.key)
    return {"params": state.params, "opt_state": state.opt_state, "key": key, "step": state.step}


def _place(
    init: Callable[[], TrainState], restored: Restored | None, mesh: Mesh, *, sharded: bool = False
) -> TrainState:
    """The state to start from on the devices of `mesh`: restored, else new."""
    spec = state_spec(mesh, sharded=sharded)
    if restored is None:
        return jax.jit(init, out_shardings=shardings(jax.eval_shape(init), mesh, spec))()
    target = jax.eval_shape(lambda: (lambda s: (s, _rest(s)))(init()))
    model = {"ema": target[0].ema, "model_state": target[0].model_state}
    try:
        model = arrays.like(model, restored.items["model"])
        rest = arrays.like(target[1], restored.items["state"])
    except (KeyError, ValueError) as error:
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"the checkpoint of step {restored.step} is of another model: {what}; choose another "
            "directory, or start over with resume=False"
        ) from None
    rest, model = place((rest, model), mesh, spec)
    key = jax.random.wrap_key_data(rest.pop("key"))
    return TrainState(**rest, **model, key=key)


def _draw(batches: Iterator[Any]) -> tuple[Any, Any]:
    """A batch and the loader's position after it."""
    try:
        batch = next(batches)
    except StopIteration:
        raise RunError("the loader ended before the run: repeat it without end") from None
    # Of its own, not a view of what the iterator goes on to change. All processes draw in step,
    # so that the position of one is that of all.
    return batch, copy.deepcopy(batches.get_state())  # pyright: ignore[reportAttributeAccessIssue]


def _prefetch(
    batches: Iterator[Any], first: tuple[Any, Any], mesh: Mesh
) -> Iterator[tuple[PyTree, Any]]:
    """Batches on the devices, one ahead of the step, each with the position after itself."""
    queue = collections.deque([(shard_batch(first[0], mesh), first[1])])
    while True:
        batch, position = _draw(batches)
        queue.append((shard_batch(batch, mesh), position))
        yield queue.popleft()
