"""The networks of a configuration, and the trained model that belongs to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.configuration.inputs import STATE, Inputs
from experiments.configuration.settings import Settings
from slams_jax.errors import InputError
from slams_jax.models.model import Model, Networks
from slams_jax.models.saved import load_model
from slams_jax.models.train import networks_for


def network_settings(settings: Settings, data: Inputs) -> Networks:
    """The networks that `settings` ask for on the grid and the channels of `data`.

    Raises:
        InputError: an unknown field, or a value out of range.
    """
    return networks_for(
        data,
        score=_without_padding(settings.score),
        autoencoder=None
        if settings.autoencoder is None
        else _without_padding(settings.autoencoder),
        schedule=settings.schedule,
    )


def _without_padding(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a network; a padding "" is left to the grid."""
    return {name: value for name, value in values.items() if (name, value) != ("padding", "")}


def open_model(settings: Settings, data: Inputs, source: str | None = None) -> Model:
    """The trained model of this configuration, from its work directory or from `source`.

    Args:
        settings: the configuration.
        data: its data.
        source: a saved model, the directory of a run, or a URL (`load_model`), in place of the
            work directory.

    Raises:
        InputError: no model, or one of another grid, time step, other channels or other networks.
    """
    option = "--config.workdir" if source is None else "--model"
    source = settings.workdir if source is None else source
    model = load_model(source)
    networks = network_settings(settings, data)
    pairs: list[tuple[str, Any, Any]] = [
        ("grid", model.grid, data.archive.grid),
        ("channels", model.channels, data.archive.fields[STATE].channels),
        ("transforms", model.transforms, data.transforms),
        ("time step", model.time_step or data.time_step, data.time_step),  # None in old runs
    ]
    for part in ("schedule", "score", "autoencoder"):
        theirs, ours = (_fields(getattr(n, part)) for n in (model.networks, networks))
        pairs += [
            (f"{part}.{n}" if n else part, theirs.get(n), ours.get(n)) for n in {**theirs, **ours}
        ]
    for name, theirs, ours in pairs:
        if theirs != ours:
            detail = ""
            if name not in ("grid", "channels"):
                detail = f" ({_told(theirs)}, not {_told(ours)})"
            raise InputError(
                f"the model in {source} is of another configuration: it has another "
                f"{name}{detail} than this one and its data; set {option} to the model of this "
                "configuration"
            )
    return model


def _told(value: Any) -> str:
    if isinstance(value, np.timedelta64):
        return f"{value / np.timedelta64(1, 'h'):g} h"
    return repr(value)


def _fields(config: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, after a nameless one: whether there is one at all."""
    return {"": "none"} if config is None else {"": "one", **dataclasses.asdict(config)}
