"""The training loop: what happens when, in an order that makes every resume exact.

At a step where something is due: metrics are fetched and checked (a value that is not finite stops
the run before anything is saved), then validation, then the record, then the best checkpoint, last
the checkpoint to resume from. A run killed in between resumes from the checkpoint before, removes
the records after it, and repeats those steps bit for bit. One that is asked to end (SIGTERM), or
whose data can no longer be read, first saves the step that it has reached.

A rollback resumes within the process, except that the data continue from where they are. It
follows from the checkpoint alone, so a run that is killed after it repeats it.
"""

import collections
import contextlib
import copy
import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from slams_jax.aliases import Params
from slams_jax.errors import Diverged, InputError, Preempted, RunError
from slams_jax.mesh import place, shardings, whole
from slams_jax.records import as_json
from slams_jax.storage import locked
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
from slams_jax.training.options import DeviceConfig, DivergenceConfig, IntervalConfig, Plan
from slams_jax.training.preemption import ShouldStop, watched
from slams_jax.training.state import (
    Info,
    InitFn,
    LossFn,
    OptimiserConfig,
    TrainState,
    init_state,
    learning_rate_schedule,
)
from slams_jax.training.step import Prepare, Step, make_step

LOG = logging.getLogger(__name__)

Validate = Callable[[Params, PyTree], Mapping[str, Any] | None]
IN_FLIGHT = 2  # steps handed to the devices and not yet done; more only hold batches in memory


LOWER = "lower the learning rate or clip_norm, or look for bad data"
REPAIR = "repair that, and the same run goes on from there"


@without_chatter()
def fit(
    directory: str | Path,
    loss_fn: LossFn,
    init_fn: InitFn,
    loader: Iterable[Mapping[str, Any]],
    *,
    optimiser: OptimiserConfig,
    seed: int,
    intervals: IntervalConfig = IntervalConfig(),
    divergence: DivergenceConfig = DivergenceConfig(),
    devices: DeviceConfig = DeviceConfig(),
    validate: Validate | None = None,
    prepare: Prepare | None = None,
    fixed: tuple[PyTree, ...] = (),
    metadata: Mapping[str, Any] | None = None,
    statistics: PyTree = None,
    resume: bool = True,
) -> TrainState:
    """Train for `optimiser.steps` steps, or what is left of them.

    A run found in `directory` is continued, exactly; a finished one is returned at once. Written
    there: `checkpoint/` (see `checkpoint.py`), `metrics.jsonl`, `tensorboard/`.

    Args:
        directory: of the run; created if necessary. It takes one run at a time
            (`slams_jax.storage.locked`).
        loss_fn: (params, model_state, key, batch) -> (loss, (model_state, info)): a mean over the
            batch, info a dictionary of scalars.
        init_fn: key -> (params, model_state), nested dictionaries of arrays; jitted.
        loader: endless grain dataset or iterator of batches, dictionaries of host arrays with the
            sample first; in several processes each gives its own part.
        optimiser: length of the run and the updates.
        seed: of the parameters and of all that is random in `loss_fn`.
        intervals: steps between records, validations and checkpoints.
        divergence: what counts as divergence, and how often the run may roll back.
        devices: what the step is computed on, and how.
        validate: (averaged params, model_state) -> scalars, of which "loss" decides what is best;
            the same in every process.
        prepare: what is random in the loss, as in `make_step`.
        fixed: arrays that `prepare` takes after the batch.
        metadata: JSON kept with every checkpoint; on resume its "config" must be the same.
        statistics: tree of arrays kept with every checkpoint.
        resume: False removes a run found in `directory` and starts over.

    Returns:
        The state after the last step.

    Raises:
        InputError: arguments out of range, a directory that cannot be written or that another run
            is in, or one that holds a run of another configuration, optimiser or seed.
        Preempted: SIGTERM came; the step reached is saved.
        Diverged: the loss or the gradient is not finite, or the loss above its limit, and there
            are no rollbacks left. The last good checkpoint stays.
        RunError: data that cannot be read (the step reached is saved), a loader that ended, a disk
            that is full or broken, or only damaged checkpoints.
    """
    plan = Plan(optimiser.steps, intervals, divergence)
    kept = as_json(dict(metadata or {}), name="metadata")
    run = {"config": kept.get("config"), "seed": seed, **dataclasses.asdict(optimiser)}
    init = partial(_init, init_fn, optimiser, seed)
    with (
        _inside(Path(directory).expanduser().absolute(), resume) as directory,
        watched() as should_stop,
        contextlib.closing(
            Checkpoints(
                directory,
                run=as_json(run, name="run"),
                metadata=kept,
                statistics=statistics,
                every=intervals.checkpoint_every,
            )
        ) as checkpoints,
    ):
        restored = checkpoints.resume()
        if restored is not None and restored.step == plan.steps:
            LOG.info("%s is finished: %d steps", directory, plan.steps)
            return _place(init, restored, data_mesh(devices.devices), sharded=False)
        try:
            batches = _at(iter(loader), restored, directory)
            # The first batch tells how many devices can share one.
            first = _draw(batches)
            size = batch_size(first[0]) * jax.process_count()
            mesh = batch_mesh(size, devices.devices, accumulate=devices.accumulate)
            step = make_step(
                loss_fn,
                optimiser,
                mesh=mesh,
                prepare=prepare,
                fixed=len(fixed),
                accumulate=devices.accumulate,
                sharded=devices.sharded,
                compiler_options=devices.compiler_options,
            )
            schedule = learning_rate_schedule(optimiser)
            parts = _Parts(
                place=partial(_place, init, mesh=mesh, sharded=devices.sharded),
                step=step,
                fixed=place(fixed, mesh, whole),
                feed=_prefetch(batches, first, mesh),
                record=partial(_record, directory, plan=plan, samples=size, schedule=schedule),
                plan=plan,
                validate=validate,
                checkpoints=checkpoints,
                should_stop=should_stop,
            )
            return _train(parts, restored)
        except Diverged as error:
            raise _explained(error, checkpoints, LOWER) from None
        except RunError as error:
            raise _explained(error, checkpoints, REPAIR) from error.__cause__


class _Parts(NamedTuple):
    """What stays the same throughout a run, whichever checkpoint it resumes from."""

    place: Callable[[Restored | None], TrainState]
    step: Step
    fixed: tuple[PyTree, ...]
    feed: Iterator[tuple[PyTree, Any]]
    record: Callable[[Restored | None], Recorder]
    plan: Plan
    validate: Validate | None
    checkpoints: Checkpoints
    should_stop: ShouldStop


def _train(parts: _Parts, restored: Restored | None) -> TrainState:
    """All steps after those of `restored`, with the rollbacks that are left."""
    history = [] if restored is None else restored.record.get("rollbacks", [])
    while True:
        state = parts.place(restored)
        with contextlib.closing(parts.record(restored)) as recorder:
            try:
                return _run(parts, state, recorder, history)
            except Diverged as error:
                if len(history) >= parts.plan.divergence.rollbacks:
                    raise
                restored = parts.checkpoints.roll_back()
                history.append(_rollback(error, restored))


class _InFlight:
    """Infos of steps handed to the devices and not yet fetched."""

    def __init__(self):
        self._infos: list[Info] = []

    def put(self, info: Info) -> None:
        """Add those of the next step; wait while more than `IN_FLIGHT` steps are not done."""
        self._infos.append(info)
        if len(self._infos) > IN_FLIGHT:
            jax.block_until_ready(self._infos[-1 - IN_FLIGHT])

    def take(self) -> list[Info]:
        """All since the last call, oldest first, on the host."""
        infos, self._infos = jax.device_get(self._infos), []
        return infos


def _run(
    parts: _Parts, state: TrainState, recorder: Recorder, history: list[dict[str, Any]]
) -> TrainState:
    """The steps after `state` to the last one, in the order that the module describes.

    Raises:
        Diverged: found where metrics are fetched, before anything is written or saved.
        Preempted, RunError: asked to end, or no data; the step reached is saved first.
    """
    plan, limit = parts.plan, parts.plan.divergence.limit
    saved, position, infos = int(state.step), None, _InFlight()

    def save(step: int) -> None:
        recorder.sync()
        extra = {"data": position, "running": recorder.running.state(), "rollbacks": history}
        parts.checkpoints.save(_rest(state), _model(state), extra, step=step)

    for step in range(saved + 1, plan.steps + 1):
        try:
            batch, after = _next(parts, step)
        except (Preempted, RunError) as reason:
            # Where one process lacks its data, the others are not here to save with it.
            together = isinstance(reason, Preempted) or jax.process_count() == 1
            if step - 1 > saved and together:
                recorder.running.add(step - 1, infos.take(), limit=limit)
                save(step - 1)
            raise
        state, info = parts.step(state, batch, *parts.fixed)
        position = after
        infos.put(info)
        if step == recorder.first:
            jax.block_until_ready(info)  # compiled and done: from here on the clock runs
            recorder.progress.start(step)
        due = plan.due(step)
        validate = parts.validate if due.validate else None
        if not (due.log or due.checkpoint or validate):
            continue
        recorder.running.add(step, infos.take(), limit=limit)
        values = recorder.means(step) if due.log else {}
        if due.log and plan.divergence.rollbacks:
            values["rollbacks"] = len(history)
        begun = time.perf_counter()
        validation = None if validate is None else _validated(validate, state)
        recorder.write(step, values, validation or {})
        if validation is not None and validation["loss"] < parts.checkpoints.best_loss:
            parts.checkpoints.save_best(_model(state), validation, step=step)
        if due.checkpoint:
            save(step)
            saved = step
        recorder.progress.paused(time.perf_counter() - begun)
    return state


def _next(parts: _Parts, step: int) -> tuple[PyTree, Any]:
    """The batch of `step` and the loader's position after it, unless the run is asked to end."""
    if parts.should_stop(step - 1):
        raise Preempted(f"at step {step - 1} of {parts.plan.steps}, which is saved: run it again")
    return next(parts.feed)


def _validated(validate: Validate, state: TrainState) -> dict[str, float] | None:
    values = validate(state.ema, state.model_state)
    if values is None:
        return None
    if "loss" not in values:
        raise InputError(f'validate must return a "loss" to choose by, got {sorted(values)}')
    return {name: np.asarray(value).item() for name, value in values.items()}


def _record(
    directory: Path,
    restored: Restored | None,
    *,
    plan: Plan,
    samples: int,
    schedule: Callable[[Any], Any],
) -> Recorder:
    """The records of a run that goes on from `restored`."""
    return Recorder(
        directory,
        steps=plan.steps,
        start=0 if restored is None else restored.step,
        running=None if restored is None else restored.record["running"],
        schedule=schedule,
        samples=samples,
    )


def _rollback(error: Diverged, restored: Restored | None) -> dict[str, Any]:
    """What the record keeps of a rollback; logs it."""
    step = 0 if restored is None else restored.step
    LOG.warning("%s: rolling back to step %d, to go on with the data that follow", error, step)
    return {"to": step, "reason": str(error)}


def _explained(error: RunError, checkpoints: Checkpoints, advice: str) -> RunError:
    step = checkpoints.last_good_step()
    left = "no checkpoint yet" if step is None else f"the last good checkpoint is of step {step}"
    return type(error)(f"{error} ({left}, in {checkpoints.directory}): {advice}")


@contextlib.contextmanager
def _inside(directory: Path, resume: bool) -> Iterator[Path]:
    """The directory for this run alone; whatever the disk refuses within becomes RunError."""
    with locked(directory) if is_writer() else contextlib.nullcontext():
        try:
            if not resume and is_writer():
                discard(directory)
                (directory / METRICS_FILE).unlink(missing_ok=True)
                shutil.rmtree(directory / TENSORBOARD, ignore_errors=True)
            wait_for_all("prepared")
            yield directory
        except OSError as error:
            raise RunError(
                f"the run in {directory} cannot go on ({error}): {REPAIR}, from its last checkpoint"
            ) from error


def _init(init_fn: InitFn, optimiser: OptimiserConfig, seed: int) -> TrainState:
    return init_state(jax.random.key(seed), init_fn, optimiser)


def _model(state: TrainState) -> dict[str, PyTree]:
    """What a checkpoint holds of the model."""
    return {"ema": state.ema, "model_state": state.model_state}


def _rest(state: TrainState) -> dict[str, PyTree]:
    """What a checkpoint holds beside the model; the key as its numbers."""
    key = jax.random.key_data(state.key)
    return {"params": state.params, "opt_state": state.opt_state, "key": key, "step": state.step}


def _place(
    init: Callable[[], TrainState], restored: Restored | None, mesh: Mesh, *, sharded: bool
) -> TrainState:
    """The state to start from on the devices of `mesh`: restored, else new."""
    spec = state_spec(mesh, sharded=sharded)
    if restored is None:
        return jax.jit(init, out_shardings=shardings(jax.eval_shape(init), mesh, spec))()
    rest, model = place(_from_checkpoint(restored, init), mesh, spec)
    key = jax.random.wrap_key_data(rest.pop("key"))
    return TrainState(**rest, **model, key=key)


def _from_checkpoint(
    restored: Restored, init: Callable[[], TrainState]
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """What `_rest` and `_model` gave, of the structure that `init` makes, on the host.

    Raises:
        InputError: the arrays of the checkpoint are not those of this model.
    """

    def parts() -> tuple[dict[str, PyTree], dict[str, PyTree]]:
        state = init()
        return _rest(state), _model(state)

    rest, model = jax.eval_shape(parts)
    try:
        # The model first: of its arrays a user knows the names.
        averaged = arrays.like(model, restored.items["model"])
        return arrays.like(rest, restored.items["state"]), averaged
    except (KeyError, ValueError) as error:
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"the checkpoint of step {restored.step} is of another model: {what}; choose another "
            "directory, or start over with resume=False"
        ) from None


def _at(batches: Iterator[Any], restored: Restored | None, directory: Path) -> Iterator[Any]:
    """The iterator of batches, moved to where the checkpoint left it."""
    if restored is not None:
        LOG.info("resuming %s from step %d", directory, restored.step)
        batches.set_state(restored.record["data"])  # pyright: ignore[reportAttributeAccessIssue]
    return batches


def _draw(batches: Iterator[Any]) -> tuple[Any, Any]:
    """A batch and the loader's position after it."""
    try:
        batch = next(batches)
    except StopIteration:
        raise RunError("the loader ended before the run: repeat it without end") from None
    except OSError as error:
        raise RunError(f"the training data cannot be read ({error})") from error
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
