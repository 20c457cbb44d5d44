"""Which variable of an open file a name of the library means."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import xarray as xr

from slams_jax.errors import InputError
from slams_jax.readers.files import Location
from slams_jax.readers.units import canonical_name
from slams_jax.schema import LATITUDE, LEVEL, LONGITUDE, VARIABLES


class SourceFile(NamedTuple):
    """An open file, or a Dataset in memory, and the role of each of its dimensions.

    Attributes:
        path: the file, or the name of the Dataset, for errors.
        dataset: as it is, times as numbers or decoded.
        roles: of its dimensions, by `coordinates.role_of`.
        dated_by_name: whether YYYYMMDD in `path` is a date.
    """

    path: Location
    dataset: xr.Dataset
    roles: dict[Hashable, str | None]
    dated_by_name: bool = True

    def coordinate(self, dim: Hashable) -> xr.Variable | None:
        """The coordinate variable of a dimension, if it has one."""
        return self.dataset.variables.get(dim)


def resolve(
    files: list[SourceFile], variables: Mapping[str, str] | Sequence[str] | None
) -> dict[str, list[tuple[SourceFile, Hashable]]]:
    """Find variables in files: library name -> the files that hold it, each with its name there.

    Args:
        files: open, searched in order.
        variables: library names or aliases of them, or library name -> name in the file; None for
            all that lie on a latitude-longitude grid.

    Raises:
        InputError: a variable that no file holds, or that could be several.
    """
    if variables is None:
        found: dict[str, list[tuple[SourceFile, Hashable]]] = {}
        for file in files:
            for key in file.dataset.data_vars:
                if {LATITUDE, LONGITUDE} <= set(_roles_of(file, key)):
                    found.setdefault(canonical_name(str(key)), []).append((file, key))
        if not found:
            raise InputError(
                f"{files[0].path}: no variable lies on a latitude-longitude grid; it has "
                f"{_listing(files)}"
            )
        return found
    if isinstance(variables, str):
        variables = [variables]
    if not variables:
        raise InputError("variables is empty: name at least one")
    mapping = variables if isinstance(variables, Mapping) else dict.fromkeys(variables)
    result = {}
    for given, key in mapping.items():
        name = canonical_name(given)
        hits = [
            (f, hit)
            for f in files
            if (hit := _find(f, name) if key is None else _exact(f, key)) is not None
        ]
        if not hits:
            looked_for = given if key is None else key
            raise InputError(
                f"{files[0].path}: no variable {looked_for!r}; it has {_listing(files)}: choose "
                "among these, or map the library's name to one of them"
            )
        result[name] = hits
    return result


def _exact(file: SourceFile, key: str) -> Hashable | None:
    return key if key in file.dataset.data_vars else None


def _find(file: SourceFile, name: str) -> Hashable | None:
    """The variable of `file` that is `name`: by name, by alias, then by its CF standard name."""
    there = file.dataset.data_vars
    known = VARIABLES.get(name)
    spellings = (name, *(known.aliases if known else ()))
    for spelling in spellings:
        if spelling in there:
            return spelling
    matches = [v for v in there if str(v).lower() in {s.lower() for s in spellings}]
    if not matches and known is not None:
        # Two variables share the name of CF: one on levels, one at 2 m.
        on_levels = known.on_levels if known.standard_name == "air_temperature" else None
        matches = [
            v
            for v in there
            if there[v].attrs.get("standard_name") == known.standard_name
            and LATITUDE in _roles_of(file, v)
            and on_levels in (None, LEVEL in _roles_of(file, v))
        ]
    if len(matches) > 1:
        raise InputError(
            f"{file.path}: {name} could be any of {', '.join(map(str, matches))}: "
            f"say which, with variables={{{name!r}: {str(matches[0])!r}}}"
        )
    return matches[0] if matches else None


def _roles_of(file: SourceFile, key: Hashable) -> tuple[str | None, ...]:
    return tuple(file.roles[d] for d in file.dataset.variables[key].dims)


def _listing(files: list[SourceFile]) -> str:
    names = list(dict.fromkeys(str(v) for f in files for v in f.dataset.data_vars))
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
