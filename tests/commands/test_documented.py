"""Every command of the README, the docs and the examples of configurations and commands parses."""

import ast
import importlib
import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from experiments.configuration.build import plain
from experiments.process import cli
from support.small_world import forget

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.name != "errors.md"),
    *sorted((ROOT / "docs" / "tutorials").glob("*.py")),
    *sorted((ROOT / "configs").glob("*.py")),
    *sorted((ROOT / "experiments").rglob("*.py")),
]
COMMAND = re.compile(r"python -m (?:experiments\.launch .*?)?(experiments\.\w+)([^`\n]*)")


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Modules and their arguments, of all commands with a flag; `[--flag]` may be left out."""
    found = []
    for module, rest in COMMAND.findall(re.sub(r"\s*\\\n[#\s]*", " ", text)):
        rest = re.sub(r"\[(--.*?)\]", r"\1", rest)
        try:
            words = shlex.split(rest, comments=True)
        except ValueError:  # the end of a quotation
            words = shlex.split(rest.rstrip("'\""), comments=True)
        if any(w.startswith("--") for w in words) and "..." not in words[-1]:
            found.append((module, words))
    return found


def said(page: Path) -> str:
    """What a page says, or a file of code in its docstring."""
    text = page.read_text()
    if page.suffix == ".md" or page.parent.name == "tutorials":
        return text
    return ast.get_docstring(ast.parse(text)) or ""


FOUND = [c for page in PAGES for c in commands(said(page))]


def test_commands_are_found():
    text = "`python -m experiments.launch --processes=2 \\\n    experiments.train --config=c.py`, x"
    assert commands(text) == [("experiments.train", ["--config=c.py"])]
    assert commands("python -m experiments.cost [--utilisation=0.3]\n--no") == [
        ("experiments.cost", ["--utilisation=0.3"])
    ]
    assert commands("with `python -m experiments.benchmark`, alone") == []
    modules = {module.removeprefix("experiments.") for module, _ in FOUND}
    assert {"ablation", "assimilate", "calibrate", "compare", "cycle", "generate"} <= modules
    assert len(FOUND) > 80


@pytest.mark.parametrize(
    ("module", "words"),
    dict.fromkeys((module, tuple(words)) for module, words in FOUND),
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_documented_command_is_accepted(module, words, monkeypatch):
    if any("mine.py" in word for word in words):
        pytest.skip("a configuration of the reader's own")
    package = ROOT / module.replace(".", "/")
    values = importlib.import_module(module + ".__main__" * package.is_dir()).FLAGS
    forget(values)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        assert cli._parse(values, sys.argv) == ["command"]
    if module == "experiments.generate":
        assert plain(values.config)["nature"] is not None
