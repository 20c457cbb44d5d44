"""From mappings to checked dataclasses: every field that does not fit is named in one line."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from slams_jax.errors import InputError

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str, **derived: Any) -> T:
    """`cls(**values, **derived)`.

    Args:
        cls: a dataclass that checks its own values.
        values: its fields, as the configuration gives them.
        where: their place in the configuration, for messages.
        **derived: fields that the configuration cannot set.

    Raises:
        InputError: an unknown or missing field, or a value that `cls` refuses.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    check_names(values, {f.name for f in fields} - set(derived), where)
    needed = {
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    require(values, needed - set(derived), where)
    try:
        return cls(**values, **derived)
    except InputError as error:
        raise InputError(_placed(where, str(error))) from None
    except TypeError as error:
        raise InputError(f"{where}: a value has the wrong type ({error})") from None


def _placed(where: str, message: str) -> str:
    """A message of a dataclass, with its place in front; what it says of its place, said once."""
    if message.startswith(f"{where}."):
        return message
    return f"{where}: {message.removeprefix(where.rpartition('.')[-1] + ' ')}"


def non_defaults(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass whose value is not their default."""
    fields = {f.name: f.default for f in dataclasses.fields(settings)}
    return {n: getattr(settings, n) for n in fields if getattr(settings, n) != fields[n]}


def plain(config: Any) -> Any:
    """A ConfigDict as plain dictionaries, lists as tuples."""
    if isinstance(config, ConfigDict | Mapping):
        return {key: plain(value) for key, value in config.items()}
    return tuple(plain(v) for v in config) if isinstance(config, list | tuple) else config


def group(values: Any, where: str) -> Mapping[str, Any]:
    """`values`, if they are a group of fields.

    Raises:
        InputError: a single value.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where} must be a group of fields, got {values!r}")
    return values


def check_names(values: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse a field that is not among `known`, and suggest the nearest one.

    Raises:
        InputError: an unknown field.
    """
    for name in group(values, where):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {sorted(known)}"
            raise InputError(f"{where} has no field {name!r}: {hint}")


def require(values: Mapping[str, Any], needed: Collection[str], where: str) -> None:
    """Refuse a group that lacks a field.

    Raises:
        InputError: a missing field.
    """
    missing = sorted(set(needed) - set(values))
    if missing:
        raise InputError(f"{where} lacks {missing[0]!r}: set it")
