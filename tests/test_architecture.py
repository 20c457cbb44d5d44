"""Imports go down only, and each heavy dependency has one owner: read off the syntax trees."""

import ast
import importlib
import re
from pathlib import Path

import ml_collections
import pytest
from absl import flags

ROOT = Path(__file__).parents[1]
LIBRARY = "slams_jax"

# The table of docs/architecture.md is the only one: a row holds a layer and its rooms.
ROWS = re.findall(r"^\| (\d) \| (.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
LAYERS = {room: int(layer) for layer, rooms in ROWS for room in re.findall(r"`(\w+)/?`", rooms)}
TOP = max(LAYERS.values()) + 1  # slams_jax/__init__.py

OWNERS = {
    "xarray": {"readers", "data", "dynamics", "storage", "verify", "assimilation", "cycling"},
    "pandas": {"readers"},
    "grain": {"data", "training"},
    "diffrax": {"diffusion"},
    "lineax": {"diffusion"},
    "equinox": {"diffusion"},
    "absl": {"training"},
    "optax": {"training"},
    "orbax": {"training"},
    "tensorboardX": {"training"},
    "safetensors": {"models"},
    "flax": {"networks"},
    "dinosaur": {"dynamics"},
    "matplotlib": {"verify"},
    "jinja2": {"verify"},
    "zarr": {"readers", "storage"},
    **{name: {"readers"} for name in ("aiohttp", "cfgrib", "fsspec")},
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


def room_of(module):
    """The folder or file directly below `slams_jax` in which a library module stands."""
    return module.removeprefix(LIBRARY).removeprefix(".").partition(".")[0]


def test_the_table_names_every_room_once():
    assert len(LAYERS) == sum(len(re.findall(r"`(\w+)/?`", rooms)) for _, rooms in ROWS)
    assert set(LAYERS) == {room_of(module) for module in MODULES} - {""}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    room = room_of(module)
    for target in imports_of(MODULES[module]):
        if target.partition(".")[0] != LIBRARY or room_of(target) == room:
            continue
        assert LAYERS[room_of(target)] < LAYERS.get(room, TOP), f"{module} imports {target}"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_dependencies_have_one_owner(module):
    for name in {target.partition(".")[0] for target in imports_of(MODULES[module])}:
        if name in OWNERS:
            assert room_of(module) in OWNERS[name], f"{module} imports {name}: it has other owners"
    early = {t.partition(".")[0] for t in imports_of(MODULES[module], deferred=False)}
    assert not early & EXTRAS, f"{module} imports an extra before it is needed"


def test_rooms_are_one_folder_deep():
    assert max(name.count(".") for name in MODULES) == 2


def test_tests_mirror_the_library():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    rooms = {path.parent.name for path in (ROOT / LIBRARY).glob("*/__init__.py")}
    assert folders == {*rooms, "commands"}


def test_no_test_imports_a_test():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for target in imports_of(path):
            names = target.split(".")
            shared = names[0] != "tests" and not any(n.startswith("test_") for n in names)
            assert shared, f"{path} imports {target}: put what tests share into tests/support"


@pytest.mark.parametrize("module", modules_of("configs"))
def test_configs_import_only_each_other_and_ml_collections(module):
    path = modules_of("configs")[module]
    assert {name.partition(".")[0] for name in imports_of(path)} <= {
        "ml_collections",
        "configs",
        "typing",
    }
    imported = importlib.import_module(module)
    if path.name != "__init__.py":
        assert isinstance(imported.get_config(), ml_collections.ConfigDict)


SHARED = {"", "configuration", "process", "evaluation"}  # rooms of experiments that are no command


@pytest.mark.parametrize("module", modules_of("experiments"))
def test_a_command_imports_no_other_command(module):
    command = lambda name: name.removeprefix("experiments").removeprefix(".").partition(".")[0]
    for target in imports_of(modules_of("experiments")[module]):
        if not target.startswith("experiments"):
            continue
        assert command(target) in {*SHARED, command(module)}, f"{module} imports {target}"
        assert not target.endswith("__main__"), f"{module} imports {target}"


@pytest.mark.parametrize("module", modules_of("experiments"))
def test_experiments_can_be_imported_and_define_flags_of_their_own(module):
    importlib.import_module(module)
    assert not [m for m in flags.FLAGS.flags_by_module_dict() if m.startswith("experiments")]
