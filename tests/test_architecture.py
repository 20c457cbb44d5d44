"""Imports go down only, and each heavy dependency has one owner: read off the syntax trees."""

import ast
import importlib
from pathlib import Path

import ml_collections
import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = "slams_jax"

# The layer of a room or file; a file's own entry goes before that of its room.
LAYERS = {
    "errors": 0, "aliases": 0, "grid": 0, "schema": 0, "mesh": 0, "lock": 1,
    "diffusion.schedule": 1, "networks": 1, "observe": 1, "dynamics": 1,
    "verify.points": 1, "verify.deterministic": 1, "verify.probabilistic": 1, "verify.regions": 1,
    "verify.reliability": 1, "verify.distances": 1, "verify.spectra": 1, "verify.significance": 1,
    "verify.metrics": 1,
    "data": 2, "autoencoder": 2, "score": 2, "diffusion.guidance": 2, "baselines": 2,
    "diffusion": 3, "training": 3, "verify": 3,
    "model": 4, "estimate": 4, "presets": 4, "diagnostics": 4, "inflation": 4, "assimilation": 4,
    "ensemble": 4, "cost": 4, "calibration": 5,
    "": 6,  # slams_jax/__init__.py
}  # fmt: skip

OWNERS = {
    "xarray": {"data", "verify.report", "assimilation"},
    "pandas": {"data"},
    "grain": {"data", "training"},
    "diffrax": {"diffusion"},
    "lineax": {"diffusion"},
    "equinox": {"diffusion"},
    "optax": {"training", "data"},
    "orbax": {"training", "data"},
    "tensorboardX": {"training"},
    "flax": {"networks", "autoencoder", "score"},
    "dinosaur": {"dynamics"},
    "matplotlib": {"verify"},
    "jinja2": {"verify.report"},
    **{name: {"data"} for name in ("aiohttp", "cfgrib", "fsspec", "zarr")},
    **{never: set() for never in ("ml_collections", "configs", "experiments", "tests")},
}
EXTRAS = {
    "aiohttp",
    "cfgrib",
    "dinosaur",
    "matplotlib",
    "jinja2",
}  # not installed with the library: imported where needed only


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(package):
    return {module_name(path): path for path in sorted((ROOT / package).rglob("*.py"))}


MODULES = modules_of(LIBRARY)


def imports_of(path, *, deferred=True):
    """Names of the modules that a file imports, also inside functions where `deferred`.

    What is imported for the type checker alone does not count.
    """
    found, queue = set(), [ast.parse(path.read_text())]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            queue += node.orelse
            continue
        if isinstance(node, ast.FunctionDef) and not deferred:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import: write it in full"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in full}
        queue += ast.iter_child_nodes(node)
    return found


def place_of(module):
    """A library module as it is named in the tables: without `slams_jax`."""
    return module.removeprefix(LIBRARY).removeprefix(".")


def entry_of(module, table):
    place = place_of(module)
    return next((p for p in (place, place.partition(".")[0]) if p in table), None)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    entry = entry_of(module, LAYERS)
    assert entry is not None, f"{module} has no layer: give it one in LAYERS"
    for target in imports_of(MODULES[module]):
        if target.partition(".")[0] != LIBRARY:
            continue
        below = entry_of(target, LAYERS)
        assert below is not None, f"{module} imports {target}, which is not there"
        same_folder = MODULES[target].parent == MODULES[module].parent
        allowed = LAYERS[entry] - (0 if same_folder else 1)
        assert LAYERS[below] <= allowed, f"{module} imports {target}, which is not below it"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_dependencies_have_one_owner(module):
    for name in {target.partition(".")[0] for target in imports_of(MODULES[module])}:
        if name in OWNERS:
            assert entry_of(module, OWNERS[name]), f"{module} imports {name}: it has other owners"
    early = {t.partition(".")[0] for t in imports_of(MODULES[module], deferred=False)}
    assert not early & EXTRAS, f"{module} imports an extra before it is needed"


def test_rooms_are_one_folder_deep():
    assert max(name.count(".") for name in MODULES) == 2


@pytest.mark.parametrize("module", modules_of("configs"))
def test_configs_import_only_ml_collections(module):
    path = modules_of("configs")[module]
    assert {name.partition(".")[0] for name in imports_of(path)} <= {"ml_collections"}
    imported = importlib.import_module(module)
    if path.name != "__init__.py":
        assert isinstance(imported.get_config(), ml_collections.ConfigDict)


@pytest.mark.parametrize("module", modules_of("experiments"))
def test_experiments_can_be_imported(module):
    importlib.import_module(module)
