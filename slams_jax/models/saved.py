"""Trained models on disk: one portable file, or the directory of a run.

The file is a safetensors file (plain arrays, no pickle): tensors named by what they are
("score/...", "prior/lags", "statistics/state/std"), and in its metadata one JSON header,

    format, version          "slams_jax model", 1
    library                  version of slams_jax that wrote it
    networks, grid, channels, latent_inputs, statistics
                             the static half of the model, and the names of its fields' statistics
    structures               what the statistics are, each with its own version (`_STRUCTURES`)
    time_step_seconds, calendar, units
                             of the data that it was trained on; null or {} where unknown
    inputs                   what each of latent_inputs is made of: its channels, and its transform
                             or null; absent where unknown
    transforms               of the variables of the state that have one, by name; absent without
                             any, and beside them "anamorphosis/mean" and "anamorphosis/std"
    provenance               data, periods and training, as the model card tells them
    digest                   SHA-256 of the tensors and of the rest of the header

A tensor in 8 bits has a factor beside it, of the same name below "scale/".

A later version may add fields that have a default and are named here; a reader that does not know
a field, a network's option or a tensor refuses the file, since what it means might matter.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from slams_jax.data import Anamorphosis, Censored, InputTransform, Statistics
from slams_jax.data.anamorphosis import Transforms, transforms_of
from slams_jax.diffusion import CosineSchedule
from slams_jax.errors import InputError, first_line
from slams_jax.grid import Grid
from slams_jax.models.autoencoder import AutoencoderConfig
from slams_jax.models.card import model_card
from slams_jax.models.denoising import recorded
from slams_jax.models.model import LatentInput, Model, ModelArrays, Networks
from slams_jax.models.plain import plain_prior, plain_regression, prior_of, regression_of
from slams_jax.models.score import ScoreConfig
from slams_jax.models.upgrade import separable_of, upgraded
from slams_jax.observe import Separable
from slams_jax.readers.remote import fetch, is_url
from slams_jax.schema import VARIABLES, Channel
from slams_jax.storage import write_bytes, write_text
from slams_jax.training import read_metrics, restore_model
from slams_jax.training.arrays import Nested, nested
from slams_jax.training.metrics import METRICS_FILE

SCORE, AUTOENCODER = "score", "autoencoder"  # the folders of the two stages in a work directory
SUFFIX = ".safetensors"
CALENDAR = "proleptic_gregorian"  # of datetime64, the only times that the library computes with
PRECISIONS = ("float32", "float16", "int8")  # of what is large in a file

_FORMAT, _VERSION = "slams_jax model", 1
# The climatology of `Statistics`; error covariances as `Separable`; the prior and regressions on it
# by mode (`slams_jax.gaussian`).
_STRUCTURES = {"climatology": "harmonics/1", "errors": "separable/1", "prior": "modes/1"}
_EARLIER = {"climatology": "harmonics/1", "errors": "separable/1", "prior": "separable/1"}
_KEY = "slams_jax"  # of the header in the metadata of the file
_FIELDS = {
    "format",
    "version",
    "library",
    "networks",
    "grid",
    "channels",
    "latent_inputs",
    "statistics",
    "structures",
    "time_step_seconds",
    "calendar",
    "units",
    "inputs",
    "transforms",
    "provenance",
    "digest",
}
# What is large: networks; EOFs and samples of errors, with the axes that share a factor in 8 bits.
_NETWORKS = ("score/", "autoencoder/")
_EOFS = {"prior/vectors": 1, "background_error/patterns": 0}
_SHARED = {**_EOFS, "state_error": (0, 1, 2), "increment_error": (0, 1, 2)}
_SCALE = "scale"


def membership(sets: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """Which of `names` are in each set, (set, name), 1 or 0."""
    return np.array([[n in s for n in names] for s in sets], np.int32).reshape(
        len(sets), len(names)
    )


def plain_anamorphosis(anamorphosis: Anamorphosis) -> dict[str, np.ndarray]:
    """Its arrays by name; its transforms stand in the static half of a model."""
    return {"mean": anamorphosis.mean, "std": anamorphosis.std}


def describe(
    networks: Networks,
    grid: Grid,
    channels: Sequence[Channel],
    latent_inputs: Sequence[str],
    *,
    inputs: Mapping[str, LatentInput] = types.MappingProxyType({}),
    transforms: Transforms = (),
    time_step: np.timedelta64 | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The static half of a model as JSON, which a run keeps with its checkpoints."""
    return {
        **_static(networks),
        "grid": dataclasses.asdict(grid),
        "channels": _pairs(channels),
        "latent_inputs": list(latent_inputs),
        "time_step_seconds": _seconds(time_step),
        "calendar": CALENDAR,
        "units": {c.variable: VARIABLES[c.variable].units for c in channels if _known(c)},
        "provenance": dict(provenance or {}),
        **_inputs(inputs),
        **_transforms(channels, transforms),
    }


def _inputs(inputs: Mapping[str, LatentInput]) -> dict[str, Any]:
    """What the inputs of the encoder are made of, as JSON; nothing where it is unknown."""
    made = {
        name: {
            "channels": _pairs(one.channels),
            "transform": one.transform and dataclasses.asdict(one.transform),
        }
        for name, one in inputs.items()
    }
    return {"inputs": made} if made else {}


def _pairs(channels: Sequence[Channel]) -> list[list[str | float | None]]:
    return [[c.variable, c.level] for c in channels]


def _transforms(channels: Sequence[Channel], transforms: Transforms) -> dict[str, Any]:
    """The transforms by variable, as JSON; nothing where there are none."""
    if not transforms:
        return {}
    pairs = zip(channels, transforms, strict=True)
    return {"transforms": {c.variable: dataclasses.asdict(t) for c, t in pairs if t is not None}}


def save_model(
    model: Model,
    path: str | Path,
    *,
    dtype: str = "float32",
    scores: Mapping[str, Mapping[str, float]] | None = None,
    licence: str = "",
    description: str = "",
) -> Path:
    """Write a model as one portable file, and its model card (Markdown) beside it.

    Both are written under temporary names and renamed: they are complete or absent.

    Args:
        model: what to save.
        path: of the file, ending in `.safetensors`; the card has the same name with `.md`.
        dtype: of the networks' parameters, EOFs and error samples in the file; "float16" halves
            them, "int8" quarters the EOFs and samples and halves the networks. Other statistics
            stay float32, and everything is float32 once loaded.
        scores: for the card: system -> score -> value.
        licence: of the model, for the card; not that of the library.
        description: a sentence or two for the card.

    Returns:
        The path of the file.

    Raises:
        InputError: another suffix, an unknown dtype, parameters that are too large for it, or a
            path that cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: a saved model is named *{SUFFIX}: give such a path")
    if dtype not in PRECISIONS:
        raise InputError(f"dtype {dtype!r} is unknown: choose from {PRECISIONS}")
    tensors = _stored(_tensors(model), dtype)
    header = _header(model)
    header["digest"] = _digest(header, tensors)
    content = safetensors.numpy.save(tensors, {_KEY: json.dumps(header, sort_keys=True)})
    card = model_card(header, tensors, path.name, scores, licence, description)
    write_bytes(content, path, parents=True)
    write_text(card, path.with_suffix(".md"))
    return path


def load_model(source: str | Path) -> Model:
    """Read a trained model.

    Args:
        source: the directory of a run (`train_model`), a file of `save_model`, or the URL of one
            (`https`, `s3`, `gs`, `hf` where `huggingface_hub` is installed, and whatever else
            fsspec knows), which is fetched once into the user's cache folder.

    Returns:
        The model, its arrays on the device. `time_step`, `calendar` and `units` are unknown (None
        or empty) where the run is older than they are.

    Raises:
        InputError: no model there, or a file that is damaged, of another format or too new.
        RunError: a server that does not answer, or only damaged checkpoints.
    """
    if is_url(source):
        path = fetch(str(source))
        try:
            return _read_file(path, str(source))
        except InputError:
            path.unlink(missing_ok=True)  # so that a repaired file is fetched again
            raise
    path = Path(source).expanduser()
    return _read_file(path, str(path)) if path.is_file() else _read_run(path)


def demo_model() -> Model:
    """The trained model of `configs/demo.py`, which is part of the library.

    Temperature on 10 levels and 32 x 64 points of a simulated, dry atmosphere (Held-Suarez), one
    frame a day; `demo.md` beside it is its card. To try things out: it knows nothing of the real
    atmosphere.
    """
    return load_model(Path(__file__).with_name(f"demo{SUFFIX}"))


# --- the directory of a run --------------------------------------------------------------------


def _read_run(directory: Path) -> Model:
    if not (directory / SCORE).is_dir():
        raise InputError(
            f"no trained model in {directory}: train one (python -m experiments.train "
            "--config=...), or check the path"
        )
    params, _, statistics, metadata = restore_model(directory / SCORE)
    tree = {name: statistics[name] for name in ("latent_mean", "latent_std") if name in statistics}
    if metadata["model"]["autoencoder"] is not None:
        tree[AUTOENCODER], tree["model_state"], _, _ = restore_model(directory / AUTOENCODER)
    tree |= {
        "score": params,
        "prior": statistics["prior"],
        "statistics": statistics["fields"],
        "state_error": statistics["state_error"],
        "increment_error": statistics.get("increment_error", statistics["state_error"]),
    }
    for name in (
        "background_error",
        "background",
        "latent",
        "latent_patterns",
        "latent_error",
        "anamorphosis",
    ):
        if name in statistics:
            tree[name] = statistics[name]
    model = _model(metadata["model"], tree)
    errors = recorded(read_metrics(directory / SCORE / METRICS_FILE))
    if errors:
        model = dataclasses.replace(model, provenance={**model.provenance, "denoising": errors})
    return model


# --- the portable file -------------------------------------------------------------------------


def _read_file(path: Path, source: str) -> Model:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error})") from None
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise InputError(
            f"{source}: no saved model, or a damaged one ({first_line(error)}): save or fetch it "
            "again"
        ) from None
    if text is None:
        raise InputError(
            f"{source}: a safetensors file, but not a model of slams_jax: give one that save_model "
            "wrote"
        )
    try:
        header = json.loads(text)
        version = int(header["version"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{source}: its header is damaged: save or fetch it again") from None
    unknown = [f"the field {name!r}" for name in sorted(set(header) - _FIELDS)]
    unknown += [
        f"a {name} of the kind {kind!r}"
        for name, kind in header.get("structures", {}).items()
        if kind not in (_STRUCTURES.get(name), _EARLIER.get(name))
    ]
    if version > _VERSION or unknown:
        what = f"version {version}" if version > _VERSION else unknown[0]
        raise InputError(
            f"{source}: written by slams_jax {header.get('library', '?')} with {what} of the "
            f"format, which this version does not know (it reads {_VERSION}): update slams_jax"
        )
    if header.get("digest") != _digest(header, tensors):
        raise InputError(f"{source}: damaged, it does not match its digest: save or fetch it again")
    try:
        tree = _nested(_restored(tensors))
        return _model({**header, **header["networks"]}, tree)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{source}: holds what this version of slams_jax does not know, or lacks what it needs "
            f"({first_line(error)}): update slams_jax, or save it again"
        ) from None


def _header(model: Model) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "library": importlib.metadata.version("slams-jax"),
        "networks": _static(model.networks),
        "grid": dataclasses.asdict(model.grid),
        "channels": _pairs(model.channels),
        "latent_inputs": list(model.latent_inputs),
        "statistics": list(model.statistics),
        "structures": _STRUCTURES,
        "time_step_seconds": _seconds(model.time_step),
        "calendar": model.calendar,
        "units": dict(model.units),
        "provenance": dict(model.provenance),
        **_inputs(model.inputs),
        **_transforms(model.channels, model.transforms),
    }


def _tensors(model: Model) -> dict[str, np.ndarray]:
    """Every array of a model, by name."""
    error = lambda pair: None if pair is None else {**vars(pair[0]), "bias": pair[1]}
    tree = {
        **model.arrays._asdict(),
        "std": None,  # that of the state's statistics
        "prior": model.arrays.prior and plain_prior(model.arrays.prior),
        "statistics": {name: s._asdict() for name, s in model.statistics.items()},
        "state_error": model.state_error,
        "increment_error": model.increment_error,
        "background_error": error(model.background_error),
        "background": model.background and plain_regression(model.background),
        "latent": model.latent and plain_regression(model.latent),
        "latent_patterns": membership(model.latent_patterns, model.latent_inputs)
        if model.latent_patterns
        else None,
        "anamorphosis": model.anamorphosis and plain_anamorphosis(model.anamorphosis),
    }
    return dict(_flat(nested(tree)))


def _flat(tree: Nested, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", np.array(value, order="C")


def _nested(tensors: Mapping[str, np.ndarray]) -> Nested:
    tree: Nested = {}
    for path, value in tensors.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def _stored(tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """The tensors as they are written: what is large in `dtype`."""
    stored = dict(tensors)
    half = np.dtype("float32" if dtype == "float32" else "float16")
    for name, value in tensors.items():
        if value.dtype != np.float32 or not (name in _SHARED or name.startswith(_NETWORKS)):
            continue
        if dtype == "int8" and name in _SHARED:
            largest = np.abs(value).max(axis=_SHARED[name], keepdims=True)
            scale = np.where(largest > 0, largest, 1.0).astype(np.float32) / np.float32(127)
            stored[name] = np.rint(value / scale).astype(np.int8)
            stored[f"{_SCALE}/{name}"] = scale
            continue
        if np.abs(value).max(initial=0.0) > np.finfo(half).max:
            raise InputError(f"{name} does not fit into {half}: save the model in float32")
        stored[name] = value.astype(half)
    return stored


def _restored(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a file as they were, in single precision."""
    restored = {}
    for name, value in tensors.items():
        if value.dtype in (np.float16, np.int8):
            value = value.astype(np.float32)
        if f"{_SCALE}/{name}" in tensors:
            value = value * tensors[f"{_SCALE}/{name}"]
            value = _orthonormal(value) if name in _EOFS else value
        if not name.startswith(f"{_SCALE}/"):
            restored[name] = value
    return restored


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
    """Rounded EOFs, orthonormal again; complex ones have their parts in a fourth axis."""
    if vectors.ndim < 4:
        return np.linalg.qr(vectors)[0]
    found = np.linalg.qr(vectors[..., 0] + 1j * vectors[..., 1])[0]
    return np.stack([np.real(found), np.imag(found)], axis=-1)


def _digest(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a header, without its digest, and of all tensors."""
    rest = {name: value for name, value in header.items() if name != "digest"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


# --- both --------------------------------------------------------------------------------------


def _model(about: Mapping[str, Any], tree: Mapping[str, Any]) -> Model:
    """The model of its static half (as `describe` gives it) and its arrays, nested by name.

    Raises:
        KeyError, TypeError: something is missing, or unknown.
    """
    known = (
        {f.name for f in dataclasses.fields(Model)} | set(ModelArrays._fields) | {"latent_error"}
    )
    unknown = sorted(set(tree) - known)
    if unknown:
        raise TypeError(f"unknown tensors {unknown[0]!r}")
    encoder = None
    if about["autoencoder"] is not None:
        encoder = AutoencoderConfig(**_tuples(about["autoencoder"]))
    grid = Grid.of(about["grid"]["latitude"], about["grid"]["longitude"])
    networks = Networks(
        CosineSchedule(**about["schedule"]),
        # Models older than noise levels of frames have one for the window.
        ScoreConfig(**{"frame_noise": False, **_tuples(about["score"])}),
        encoder,
        grid.shape,
    )
    statistics = tree["statistics"]
    arrays = ModelArrays(
        std=statistics["state"]["std"],
        score=tree["score"],
        latent_mean=tree.get("latent_mean"),
        latent_std=tree.get("latent_std"),
    )
    if encoder is not None:
        arrays = arrays._replace(
            autoencoder=tree["autoencoder"], model_state=tree.get("model_state", {})
        )
    arrays = jax.tree.map(jnp.asarray, arrays)
    names = tuple(about["latent_inputs"])
    if "frame" in tree["prior"]:  # of version 0.1
        prior, background, latent = upgraded(networks, arrays, grid.periodic, tree)
        patterns = (names,) if latent else ()
    else:
        prior = prior_of(tree["prior"])
        background = regression_of(tree.get("background"), prior.modes)
        latent = regression_of(tree.get("latent"), prior.modes)
        patterns = tuple(
            tuple(n for n, there in zip(names, row, strict=True) if there)
            for row in np.asarray(tree.get("latent_patterns", ()))
        )
    arrays = arrays._replace(prior=prior)
    channels = _channels(about["channels"])
    seconds = about.get("time_step_seconds")
    return Model(
        networks,
        grid,
        channels,
        arrays,
        {n: Statistics(**s) for n, s in statistics.items()},
        _sample(tree["state_error"]),
        _sample(tree["increment_error"]),
        _error(tree.get("background_error")),
        background,
        latent,
        names,
        patterns,
        None if seconds is None else np.timedelta64(round(seconds * 1e9), "ns"),
        about.get("calendar"),
        about.get("units", {}),
        about.get("provenance", {}),
        _anamorphosis(channels, about.get("transforms", {}), tree.get("anamorphosis")),
        {name: _input(**saved) for name, saved in about.get("inputs", {}).items()},
    )


def _channels(pairs: Sequence[Sequence[Any]]) -> tuple[Channel, ...]:
    return tuple(Channel(variable, level) for variable, level in pairs)


def _input(channels: Sequence[Sequence[Any]], transform: Mapping[str, Any] | None) -> LatentInput:
    return LatentInput(_channels(channels), InputTransform(**transform) if transform else None)


def _anamorphosis(
    channels: Sequence[Channel], transforms: Mapping[str, Any], saved: Mapping[str, Any] | None
) -> Anamorphosis | None:
    if not transforms:
        return None
    given = {name: Censored(**options) for name, options in transforms.items()}
    if saved is None:
        raise KeyError("anamorphosis")
    mean, std = (np.asarray(saved[name], np.float32) for name in ("mean", "std"))
    return Anamorphosis(transforms_of(channels, given), mean, std)


def _static(networks: Networks) -> dict[str, Any]:
    return {
        "schedule": dataclasses.asdict(networks.schedule),
        "score": dataclasses.asdict(networks.score),
        "autoencoder": networks.autoencoder and dataclasses.asdict(networks.autoencoder),
    }


def _error(saved: Mapping[str, Any] | None) -> tuple[Separable, np.ndarray] | None:
    if not saved:
        return None
    return separable_of(saved), np.asarray(saved["bias"])


def _sample(errors: Any) -> np.ndarray:
    """A sample of reconstruction errors; version 0.1 kept their standard deviation by channel."""
    errors = np.asarray(errors)
    return errors[None, None, None] if errors.ndim == 1 else errors


def _seconds(step: np.timedelta64 | None) -> float | None:
    return None if step is None else step / np.timedelta64(1, "s")


def _known(channel: Channel) -> bool:
    return channel.variable in VARIABLES


def _tuples(values: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(values, dict):
        return {k: _tuples(v) for k, v in values.items()}
    return tuple(_tuples(v) for v in values) if isinstance(values, list) else values
