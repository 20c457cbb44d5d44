"""The files of a run: a checkpoint, a record for each cycle, the analyses.

    <directory>/cycle.jsonl       one line a cycle
    <directory>/analyses.zarr     along `time`, one analysis a cycle; appended at every checkpoint
    <directory>/checkpoint.npz    state and counters after the last of them; replaced as a whole

The checkpoint comes last: what the other two hold beyond it is cut off by the run that resumes, and
made again.
"""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from slams_jax.aliases import PRNGKey
from slams_jax.cycling.ensembles import moments, weighted
from slams_jax.cycling.timeline import Clock, Time, shown
from slams_jax.errors import InputError, RunError, first_line
from slams_jax.records import arrays_digest, as_json, first_difference
from slams_jax.storage import append_dataset, open_records, write_bytes, write_record

RECORDS, ANALYSES, CHECKPOINT = "cycle.jsonl", "analyses.zarr", "checkpoint.npz"
FORMAT = 1
DATES = {"units": "microseconds since 1970-01-01", "dtype": "int64"}  # encoding, exact


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        done: number of cycles.
        state: the last analysis.
        counters: of the diagnostics, numbers.
    """

    done: int
    state: PyTree
    counters: dict[str, float | int]


class RunFiles:
    """The open files of one run.

    Attributes:
        begun: the progress of the checkpoint, or `start` where there is none.

    Raises:
        InputError: the directory holds another run, or cannot be written.
        RunError: the checkpoint is damaged.
    """

    def __init__(self, directory: Path, run: Mapping[str, Any], every: int, start: Progress):
        self._directory = directory
        self._run, self._every = run, every
        self._times: list[Time] = []
        self._analyses: list[xr.Dataset] = []
        begun = _read(directory / CHECKPOINT, start, run)
        if begun is None:
            # At once, so that the directory is known to be this run's.
            _write(directory / CHECKPOINT, start, run)
        self.begun = begun or start
        self._saved = self.begun.done
        self._records = open_records(
            directory / RECORDS, lambda record: record["cycle"] < self._saved
        )

    def add(self, record: Mapping[str, Any], time: Time, analysis: xr.Dataset) -> None:
        """Write the record of a cycle, and keep its analysis for the next `save`."""
        write_record(self._records, record)
        self._times.append(time)
        self._analyses.append(analysis)

    def save(self, progress: Progress) -> None:
        """Put everything up to `progress` on disk.

        Raises:
            InputError: the disk refuses; the checkpoint before stays.
        """
        if progress.done == self._saved:
            return
        dataset = _along_time(self._analyses, self._times, self._every)
        append_dataset(dataset, self._directory / ANALYSES, self._saved)
        os.fsync(self._records.fileno())
        _write(self._directory / CHECKPOINT, progress, self._run)
        self._saved = progress.done
        self._times, self._analyses = [], []

    def close(self) -> None:
        """Close the records."""
        self._records.close()


def describe_run(
    start: PyTree, key: PRNGKey, clock: Clock, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What makes a run this one and no other, as JSON.

    Raises:
        InputError: `about` is not JSON.
    """
    return {
        "format": FORMAT,
        "about": as_json(dict(about), name="about"),
        "begin": shown(clock.begin),
        "interval": shown(clock.interval),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "shape": shapes(start),
        "start": arrays_digest(start)[:16],
    }


def shapes(state: PyTree) -> dict[str, str]:
    """The shapes of the arrays of a state, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {_name(path) or "state": str(tuple(np.shape(leaf))) for path, leaf in leaves}


def summary(state: PyTree, *, ensemble: bool = True, members: bool = False) -> xr.Dataset:
    """What is kept of an analysis: mean and spread of an ensemble, or a single state.

    Arrays get a dimension for each axis, and names from their place in the state: `mean` where it
    is one array, `temperature_mean` where it is a dictionary of them.

    Args:
        state: the analysis.
        ensemble: whether members are in front.
        members: keep them, and the weights of a `WeightedEnsemble`, too.
    """
    if not ensemble:
        return _dataset({"state": state})
    states, weights = weighted(state)
    both = jax.tree.map(lambda x: _moments(x, weights), states)
    kept = {
        "mean": jax.tree.map(lambda _, m: m[0], states, both),
        "spread": jax.tree.map(lambda _, m: m[1], states, both),
    }
    dataset = _dataset(kept)
    if members:
        dataset = dataset.merge(_dataset({"members": states, "weights": weights}, ("member",)))
    return dataset


@jax.jit
def _moments(values, weights):
    mean, variance = moments(values, weights)
    return mean, jnp.sqrt(variance)


def _dataset(kept: Mapping[str, PyTree], leading: tuple[str, ...] = ()) -> xr.Dataset:
    """A variable for each array of each tree."""
    variables = {}
    for kind, tree in kept.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = _name(path)
            array = np.asarray(leaf)
            inner = (f"{name or 'state'}_{i}" for i in range(array.ndim - len(leading)))
            variables["_".join(filter(None, (name, kind)))] = ((*leading, *inner), array)
    return xr.Dataset(variables)


def _name(path: tuple[Any, ...]) -> str:
    return "_".join(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def _along_time(pieces: list[xr.Dataset], times: list[Time], every: int) -> xr.Dataset:
    """Analyses, one after the other."""
    first = pieces[0]
    dataset = xr.Dataset(
        {
            name: (
                ("time", *variable.dims),
                np.stack([piece[name].values for piece in pieces]),
                variable.attrs,
            )
            for name, variable in first.data_vars.items()
        },
        {"time": np.array(times), **first.coords},
        first.attrs,
    )
    for variable in dataset.variables.values():
        if "time" in variable.dims:
            variable.encoding["chunks"] = (every, *variable.shape[1:])
    if np.issubdtype(dataset["time"].dtype, np.datetime64):
        dataset["time"].encoding.update(DATES)
    return dataset


def _write(path: Path, progress: Progress, run: Mapping[str, Any]) -> None:
    leaves = jax.tree.leaves(progress.state)
    record = {
        "run": run,
        "done": progress.done,
        "counters": progress.counters,
        "jax": [isinstance(leaf, jax.Array) for leaf in leaves],
    }
    content = io.BytesIO()
    arrays: dict[str, Any] = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    arrays["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    np.savez(content, **arrays)
    write_bytes(content.getvalue(), path)


def _read(path: Path, start: Progress, run: Mapping[str, Any]) -> Progress | None:
    """The progress in a checkpoint of the same run; None where there is no checkpoint."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            record = json.loads(content["record"].tobytes())
            on_device = record["jax"]
            arrays = [content[f"leaf{i}"] for i in range(len(on_device))]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({first_line(error)}): restore it, or start over in another "
            "directory"
        ) from None
    difference = first_difference(record["run"], run)
    if difference:
        raise InputError(f"{path.parent} holds another run: {difference}; choose another directory")
    # As they were, so that the next cycle computes the same: NumPy may have arrays of 64 bits.
    leaves = [jnp.asarray(a) if d else a for a, d in zip(arrays, on_device, strict=True)]
    state = jax.tree.unflatten(jax.tree.structure(start.state), leaves)
    return Progress(record["done"], state, record["counters"])
