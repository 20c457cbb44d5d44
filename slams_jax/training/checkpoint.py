"""Checkpoints: written by orbax, verified by digest, read without the code that wrote them.

    <directory>/checkpoint/last/<step>   everything that a run resumes from; the newest two, and
                                         the newest one of a step on the interval
    <directory>/checkpoint/best/<step>   the averaged parameters of the least validation loss

Each holds the items `model` (ema, model_state), `statistics` and `record` (JSON: metadata,
configuration of the run, position of the data, digests of all arrays and of itself), `last` also
`state` (params, opt_state, key, step). Nothing is pickled.

A checkpoint is on disk when the call that saves it returns: a run that is killed loses the steps
since then and no more, and a disk that is full says so at once.
"""

import contextlib
import dataclasses
import logging
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from slams_jax.errors import Diverged, InputError, RunError
from slams_jax.records import first_difference, record_digest
from slams_jax.training import arrays
from slams_jax.training.arrays import Damage, Nested
from slams_jax.training.chatter import without_chatter
from slams_jax.training.devices import is_writer, wait_for_all

if TYPE_CHECKING:  # slow to import, and configures logging: where it is used
    import orbax.checkpoint as ocp

LOG = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "checkpoint"
MODEL = ("model", "statistics")
EVERYTHING = (*MODEL, "state")


class Restored(NamedTuple):
    """A verified checkpoint: its step, its items as nested dictionaries, its record."""

    step: int
    items: Nested
    record: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Newest:
    """A `PreservationPolicy` of orbax.

    Keeps the newest `count` checkpoints, and the newest whose step is a multiple of `every`.
    """

    count: int
    every: int

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [c.step for c in checkpoints]
        regular = [step for step in steps if step % self.every == 0]
        kept = {*sorted(steps)[-self.count :], *sorted(regular)[-1:]}
        return [step in kept for step in steps]


class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        directory: of the run.
        best_loss: the least validation loss so far, infinite before the first.
    """

    def __init__(
        self,
        directory: Path,
        *,
        run: Mapping[str, Any],
        metadata: Mapping[str, Any],
        statistics: PyTree,
        every: int = 1,
    ):
        self.directory = directory
        self._every = every
        self._run, self._metadata = run, metadata
        self._statistics = arrays.nested(statistics)
        self._last = _manager(directory, "last", keep=_Newest(2, every))
        self._best = _manager(directory, "best", keep=_Newest(1, 1))
        self.best_loss = float("inf")

    def resume(self) -> Restored | None:
        """The newest good checkpoint, None when there is none; damaged ones are set aside.

        Raises:
            InputError: it belongs to another configuration.
            RunError: every checkpoint is damaged.
        """
        restored = _newest_good(self._last, EVERYTHING)
        if restored is None:
            return None
        _require_same(restored.record["run"], self._run, self.directory)
        for step in self._last.all_steps():
            if step > restored.step:
                self._set_aside(step)
        # Compared with in the next validation; a damaged best is replaced by it.
        for step in self._best.all_steps():
            try:
                self.best_loss = _read_record(self._best, step)["validation"]["loss"]
            except Damage as error:
                LOG.warning("best checkpoint of step %d is damaged (%s)", step, error)
        return restored

    def roll_back(self) -> Restored | None:
        """The newest good checkpoint of a step on the interval, None when there is none.

        Not one that was saved out of turn: where a run goes on must not depend on when it was
        asked to end.

        Raises:
            RunError: every one of them is damaged.
        """
        regular = [step for step in self._last.all_steps() if step % self._every == 0]
        return _newest_good(self._last, EVERYTHING, regular)

    def save(self, state: Nested, model: PyTree, extra: Mapping[str, Any], *, step: int) -> None:
        """Save everything.

        Args:
            state: params, opt_state, key, step.
            model: ema, model_state.
            extra: what else the record holds, JSON.
            step: number of updates done.

        Raises:
            Diverged: a value is not finite; nothing is saved.
            RunError: the disk refuses; what was there before stays.
        """
        items = self._items({"model": model, "state": state}, step)
        self._write(self._last, step, items, extra)

    def save_best(self, model: PyTree, validation: Mapping[str, float], *, step: int) -> None:
        """Save the averaged parameters with their validation, the best so far.

        Raises:
            Diverged: a value is not finite; nothing is saved.
            RunError: the disk refuses; what was there before stays.
        """
        items = self._items({"model": model}, step)
        # A step may come twice when a run resumed from before it; the later one counts.
        for old in [old for old in self._best.all_steps() if old >= step]:
            self._best.delete(old)
        self._write(self._best, step, items, {"validation": dict(validation)})
        self.best_loss = validation["loss"]

    def last_good_step(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._last.latest_step()

    def close(self) -> None:
        """End the managers."""
        self._last.close()
        self._best.close()

    def _items(self, trees: Mapping[str, PyTree], step: int) -> Nested:
        items = {name: arrays.nested(tree) for name, tree in trees.items()}
        bad = arrays.first_not_finite(items)
        if bad is not None:
            raise Diverged(f"{bad} is not finite at step {step}")
        return {**items, "statistics": self._statistics}

    def _write(
        self, manager: "ocp.CheckpointManager", step: int, items: Nested, extra: Mapping[str, Any]
    ) -> None:
        import orbax.checkpoint as ocp

        record = {
            "format": FORMAT,
            "step": step,
            "run": self._run,
            "metadata": self._metadata,
            "arrays": {name: arrays.manifest(item) for name, item in items.items()},
            **extra,
        }
        saved: dict[str, Any] = {n: ocp.args.StandardSave(i) for n, i in items.items() if i}
        saved["record"] = ocp.args.JsonSave({**record, "digest": record_digest(record)})
        try:
            # Forced: orbax else leaves out what it thinks is not due.
            manager.save(step, args=ocp.args.Composite(**saved), force=True)
        except Exception as error:  # of a full disk, orbax raises ValueError or OSError
            raise RunError(
                f"cannot save the checkpoint of step {step} in {manager.directory}: "
                f"{_one_line(error)}"
            ) from error

    def _set_aside(self, step: int) -> None:
        """Move a damaged checkpoint out of the way of the one that will be written again."""
        if is_writer():
            target = self.directory / FOLDER / "damaged" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            shutil.move(Path(self._last.directory) / str(step), target)
        wait_for_all("set aside")
        self._last.reload()


@without_chatter()
def restore_model(
    directory: str | Path, which: Literal["best", "last"] = "best"
) -> tuple[PyTree, PyTree, PyTree, dict[str, Any]]:
    """The model of a run, read without its training code; the optimiser's state is not read.

    The best one falls back to the last where the run had no validation or the best is damaged,
    and a damaged last to the one before; the log says so.

    Args:
        directory: of the run.
        which: "best" by validation loss, or "last".

    Returns:
        Averaged parameters and model_state on the device; statistics as host arrays; metadata.
        All containers are nested dictionaries: of the fields of a NamedTuple, of the positions
        ("0", "1", ...) of a list.

    Raises:
        InputError: no checkpoint there, or an unknown `which`.
        RunError: every checkpoint is damaged.
    """
    if which not in ("best", "last"):
        raise InputError(f'which must be "best" or "last", got {which!r}')
    directory = Path(directory).expanduser().absolute()
    for folder in ("best", "last") if which == "best" else ("last",):
        if not (directory / FOLDER / folder).is_dir():
            continue
        manager = _manager(directory, folder, read_only=True)
        try:
            restored = _newest_good(manager, MODEL)
        except RunError:
            if folder == "last":
                raise
            restored = None
        finally:
            manager.close()
        if restored is None:
            continue
        if folder != which:
            LOG.warning("no best checkpoint in %s: using the last one", directory)
        model, statistics = restored.items["model"], restored.items["statistics"]
        model = jax.tree.map(jnp.asarray, model)
        metadata = restored.record["metadata"]
        return model.get("ema", {}), model.get("model_state", {}), statistics, metadata
    raise InputError(f"no checkpoint in {directory}: train there first, or give another directory")


@without_chatter()
def restore_run(directory: str | Path, which: Literal["best", "last"] = "last") -> Restored:
    """The newest good checkpoint as it is on disk, verified: all that two runs can differ in.

    Raises:
        InputError: no checkpoint there.
        RunError: every checkpoint is damaged.
    """
    directory = Path(directory).expanduser().absolute()
    if not (directory / FOLDER / which).is_dir():
        raise InputError(f"no checkpoint in {directory}: train there first")
    with contextlib.closing(_manager(directory, which, read_only=True)) as manager:
        restored = _newest_good(manager, EVERYTHING if which == "last" else MODEL)
    if restored is None:
        raise InputError(f"no {which} checkpoint in {directory}: train there first")
    return restored


def discard(directory: Path) -> None:
    """Remove the checkpoints of a run."""
    shutil.rmtree(directory / FOLDER, ignore_errors=True)


def _require_same(theirs: Any, ours: Any, directory: Path) -> None:
    difference = first_difference(theirs, ours)
    if difference:
        raise InputError(
            f"the checkpoint in {directory} is of another run: {difference}; choose another "
            "directory, or start over with resume=False"
        )


def _manager(
    directory: Path, folder: str, *, keep: "_Newest | None" = None, read_only: bool = False
) -> "ocp.CheckpointManager":
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        read_only=read_only,
        create=not read_only,
        cleanup_tmp_directories=not read_only,  # of a save that was killed
        preservation_policy=keep,
        enable_async_checkpointing=False,
    )
    return ocp.CheckpointManager(directory / FOLDER / folder, options=options)


def _read_record(manager: "ocp.CheckpointManager", step: int) -> dict[str, Any]:
    """The record of a step; raises Damage."""
    import orbax.checkpoint as ocp

    try:
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = dict(manager.restore(step, args=args)["record"])
        if record.get("format") != FORMAT:
            raise Damage(f"its format is {record.get('format')}, this version reads {FORMAT}")
        if record.pop("digest") != record_digest(record) or record["step"] != step:
            raise Damage("its record does not match its digest")
    except Exception as error:
        raise _damage(error) from error
    return record


def _read(manager: "ocp.CheckpointManager", step: int, names: tuple[str, ...]) -> Restored:
    """The items of a step, verified; raises Damage."""
    import orbax.checkpoint as ocp

    record = _read_record(manager, step)
    described = {name: record["arrays"][name] for name in names}
    args = {name: ocp.args.StandardRestore(arrays.blank(d)) for name, d in described.items() if d}
    try:
        found = manager.restore(step, args=ocp.args.Composite(**args)) if args else {}
        items = {name: found[name] if name in args else {} for name in names}
        for name in names:
            arrays.verify(items[name], described[name], where=name)
    except Exception as error:
        raise _damage(error) from error
    return Restored(step, items, record)


def _damage(error: Exception) -> Damage:
    """Whatever reading raised, in one line: orbax raises nearly anything for a damaged file."""
    if isinstance(error, Damage):
        return error
    return Damage(_one_line(error))


def _one_line(error: Exception) -> str:
    if "No space left on device" in str(error):  # in the midst of what tensorstore says
        return "no space left on the disk"
    return textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")


def _newest_good(
    manager: "ocp.CheckpointManager", names: tuple[str, ...], steps: Sequence[int] | None = None
) -> Restored | None:
    """The newest checkpoint that is whole, of all or of some steps; says what it skips.

    None if there is none at all.
    """
    reason = None
    for step in sorted(manager.all_steps() if steps is None else steps, reverse=True):
        try:
            return _read(manager, step, names)
        except Damage as error:
            reason = f"checkpoint {manager.directory}/{step} is damaged ({error})"
            LOG.warning("%s: trying the one before", reason)
    if reason is None:
        return None
    raise RunError(f"{reason} and there is no other: start over with resume=False")
