"""The nature run of a configuration."""

from collections.abc import Mapping
from typing import Any

from experiments.configuration.build import build, group
from slams_jax.dynamics import (
    HeldSuarezConfig,
    HeldSuarezRun,
    Lorenz63,
    Lorenz63Run,
    NatureRun,
    SounderConfig,
    StationsConfig,
)
from slams_jax.errors import InputError

# Of each system: the settings of a run, and the groups of fields among them.
SYSTEMS: dict[str, tuple[type[NatureRun], dict[str, type]]] = {
    "held_suarez": (
        HeldSuarezRun,
        {"model": HeldSuarezConfig, "stations": StationsConfig, "sounder": SounderConfig},
    ),
    "lorenz63": (Lorenz63Run, {"model": Lorenz63}),
}


def read_nature(values: Mapping[str, Any]) -> NatureRun:
    """The checked settings of a nature run; `system` says of which kind.

    Raises:
        InputError: an unknown system or field, or a value out of range.
    """
    fields = dict(group(values, "nature"))
    system = fields.pop("system", None)
    if system not in SYSTEMS:
        raise InputError(f"nature.system must be one of {sorted(SYSTEMS)}, got {system!r}")
    cls, groups = SYSTEMS[system]
    built = {
        name: build(part, fields.pop(name, {}), f"nature.{name}") for name, part in groups.items()
    }
    return build(cls, fields, "nature", **built)
