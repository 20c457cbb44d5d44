"""The nature run of a configuration."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.configuration.build import build, group
from slams_jax.dynamics import HeldSuarezRun, KolmogorovRun, Lorenz63Run, MoistRun, NatureRun
from slams_jax.errors import InputError

SYSTEMS: dict[str, type[NatureRun]] = {
    "held_suarez": HeldSuarezRun,
    "kolmogorov": KolmogorovRun,
    "lorenz63": Lorenz63Run,
    "moist": MoistRun,
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
    return _build(SYSTEMS[system], fields, "nature")


def _build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """As `build`; the fields of `cls` that are dataclasses are groups of fields themselves."""
    fields = dict(group(values, where))
    groups = {
        f.name: _build(f.type, fields.pop(f.name, {}), f"{where}.{f.name}")
        for f in dataclasses.fields(cls)
        if isinstance(f.type, type) and dataclasses.is_dataclass(f.type)
    }
    return build(cls, fields, where, **groups)
