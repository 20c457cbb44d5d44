"""Score-based latent data assimilation in JAX.

The front door is `assimilate`; the rooms behind it (`data`, `observe`, `diffusion`, `training`,
`verify`, ...) are for use on their own. Each name is imported when it is first used; `__init__.pyi`
says from where.
"""

import ast
import importlib
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    alias.name: node.module or ""
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text()).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOMES[name] == __name__:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
