"""Saved models and trainings that are wrong: more of the corpus of `bad_data`."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import xarray as xr

from slams_jax.assimilation.intake import latent_field
from slams_jax.data import TrainingSet, training_set
from slams_jax.models import StageConfig, load_model, networks_for, save_model, train_model
from slams_jax.models.model import LatentInput
from slams_jax.training import OptimiserConfig
from support import small_world
from support.bad_data import ANALYSES, Attempt, Bad
from support.small_model import CHANNELS, GRID, times, tiny_model

MODELS, TRAINING = "Models", "Training"
CORPUS: list[Bad] = []
Parts = tuple[dict[str, Any], dict[str, np.ndarray]]  # header and tensors of a file

_model = functools.cache(lambda: tiny_model(latent=True))


def saved(folder: Path) -> Path:
    return save_model(_model(), folder / "model.safetensors")


def parts(path: Path) -> Parts:
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["slams_jax"])
    return header, safetensors.numpy.load_file(path)


def write(header: dict[str, Any], tensors: dict[str, np.ndarray], path: Path) -> None:
    """A file with a digest that fits, as a version of the library might write it."""
    from slams_jax.models.saved import _digest

    header["digest"] = _digest(header, tensors)
    safetensors.numpy.save_file(tensors, path, {"slams_jax": json.dumps(header)})


def _bytes(change: Callable[[bytes], bytes]):
    def make(folder: Path) -> Attempt:
        path = saved(folder)
        path.write_bytes(change(path.read_bytes()))
        return lambda: load_model(path)

    return make


def _parts(change: Callable[[dict[str, Any], dict[str, np.ndarray]], object]):
    def make(folder: Path) -> Attempt:
        path = saved(folder)
        header, tensors = parts(path)
        change(header, tensors)
        write(header, tensors, path)
        return lambda: load_model(path)

    return make


def _saving(name: str = "model.safetensors", **options: Any):
    return lambda folder: lambda: save_model(_model(), folder / name, **options)


def _too_large(folder: Path) -> Attempt:
    model = _model()
    score = {**model.arrays.score, "large": np.full(1, 1e5, np.float32)}
    vars_ = {**vars(model), "arrays": model.arrays._replace(score=score)}
    return lambda: save_model(type(model)(**vars_), folder / "m.safetensors", dtype="float16")


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _other_safetensors(folder: Path) -> Attempt:
    path = folder / "model.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    return lambda: load_model(path)


CORPUS += [
    Bad(MODELS, what, make, says)
    for what, make, says in (
        ("a path without a model", lambda folder: lambda: load_model(folder / "x"), "no trained"),
        ("a truncated file", _bytes(lambda c: c[:-100]), "damaged"),
        ("an empty file", _bytes(lambda _: b""), "damaged"),
        ("a web page in its place", _bytes(lambda _: b"<!DOCTYPE html>" * 9), "damaged"),
        ("one flipped bit", _bytes(_flipped), "does not match its digest"),
        ("a safetensors file of something else", _other_safetensors, "not a model of slams_jax"),
        ("a later version of the format", _parts(lambda h, t: h.update(version=2)), "version 2"),
        ("a field of a later version", _parts(lambda h, t: h.update(mass=1)), "the field 'mass'"),
        (
            "a covariance of a later kind",
            _parts(lambda h, t: h["structures"].update(prior="spectral/1")),
            "a prior of the kind 'spectral/1'",
        ),
        (
            "an option of a later network",
            _parts(lambda h, t: h["networks"]["score"].update(heads=4)),
            "heads",
        ),
        (
            "a statistic of a later version",
            _parts(lambda h, t: t.update({"skewness/x": np.zeros(1)})),
            "skewness",
        ),
        ("a statistic that is missing", _parts(lambda h, t: t.pop("state_error")), "state_error"),
        ("saving under another suffix", _saving("model.npz"), r"\*\.safetensors"),
        ("saving in an unknown precision", _saving(dtype="int4"), "dtype 'int4' is unknown"),
        ("half precision for large parameters", _too_large, "does not fit into float16"),
    )
]


@functools.cache
def _data(folder: Path) -> TrainingSet:
    truth, _ = small_world.world_arrays(days=20)
    periods = {"train": ("2001-01-01", "2001-01-12"), "validation": ("2001-01-13", "2001-01-20")}
    return training_set({"state": small_world.gridded(truth)}, periods, folder / "cache")


def _training(**options: Any):
    """An attempt to train with options out of place; it must fail before it begins."""

    def make(folder: Path) -> Attempt:
        data = _data(folder)
        stage = StageConfig(OptimiserConfig(steps=1, learning_rate=1e-3), batch_size=4)
        networks = networks_for(data, **{"score": {"window": 3}, **options.get("networks", {})})
        rest = {name: value for name, value in options.items() if name != "networks"}
        return lambda: train_model(folder / "run", data, networks, score_training=stage, **rest)

    return make


def _networks(**options: Any):
    return lambda folder: lambda: networks_for(_data(folder), **options)


def _fields(change: Callable[[dict[str, Any], dict[str, Any]], object]):
    def make(folder: Path) -> Attempt:
        fields: dict[str, Any] = {"state": small_world.gridded(small_world.world_arrays(days=9)[0])}
        periods = {
            "train": ("2001-01-01", "2001-01-05"),
            "validation": ("2001-01-06", "2001-01-09"),
        }
        change(fields, periods)
        return lambda: training_set(fields, periods, folder / "cache")

    return make


def _latent(change: Callable[[xr.Dataset], xr.Dataset], *, recorded: bool = True):
    """An attempt to give a latent input that does not fit."""
    shape = (5, 3, *GRID.shape)
    given = xr.Dataset(
        {"temperature": (("time", "level", "latitude", "longitude"), np.full(shape, 250.0))},
        {
            "time": times(),
            "level": [c.level for c in CHANNELS],
            "latitude": list(GRID.latitude),
            "longitude": list(GRID.longitude),
        },
    )
    inputs = {"background": LatentInput(CHANNELS)} if recorded else {}
    model = dataclasses.replace(_model(), inputs=inputs)
    return lambda _: lambda: latent_field("background", change(given), model, times())


def _two_variables(fields: dict[str, Any], periods: dict[str, Any]) -> None:
    stations = small_world.station_data(small_world.world_arrays(days=9)[0])
    fields["stations"] = stations.assign(pressure=stations["temperature"])


CORPUS += [
    Bad(TRAINING, what, make, says)
    for what, make, says in (
        (
            "no period for validation",
            _fields(lambda fields, periods: periods.pop("validation")),
            "periods lack 'validation'",
        ),
        (
            "no state",
            _fields(lambda fields, periods: fields.update(other=fields.pop("state"))),
            "needs the field 'state'",
        ),
        ("stations of two variables", _fields(_two_variables), "keep one in each field"),
        (
            "an option that a network does not have",
            _networks(score={"window": 3, "widhts": (8,)}),
            "did you mean 'widths'",
        ),
        ("a network without its window", _networks(score={}), "score lacks 'window': set it"),
        (
            "an autoencoder without its training",
            _training(networks={"autoencoder": {"latent_channels": 2}}),
            "give both or neither",
        ),
        (
            "latent inputs without an autoencoder",
            _training(latent_inputs=("background",)),
            "latent_inputs",
        ),
    )
]

CORPUS += [
    Bad(ANALYSES, what, make, says)
    for what, make, says in (
        (
            "a latent input of another year",
            _latent(lambda d: d.assign_coords(time=d.time + np.timedelta64(365, "D"))),
            "shares no time with the analysis",
        ),
        (
            "a latent input on another grid",
            _latent(lambda d: d.isel(longitude=slice(4))),
            "is on another grid",
        ),
        (
            "a Dataset for a model that does not know its inputs",
            _latent(lambda d: d, recorded=False),
            "does not say how its input",
        ),
    )
]
