"""Tutorials become pages, formulas MathML, and pages fetch nothing from other servers.

That every page is in the navigation, every link leads somewhere and every tutorial runs is for
`make docs` to check: it executes them, and builds the site with warnings as errors.
"""

import importlib.util
import re
from pathlib import Path

import jupytext
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]


def hook(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tutorials, pages = hook("tutorials"), hook("pages")


def write_tutorial(path, *cells):
    path.write_text("# %% [markdown]\n# # Title\n" + "".join(f"\n# %%{cell}\n" for cell in cells))
    return path


@pytest.mark.slow
def test_tutorial_that_raises_or_warns_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(tutorials, "ROOT", tmp_path)
    (tmp_path / "slams_jax").mkdir()
    warning = "\nimport sys\nprint('beware', file=sys.stderr)"
    with pytest.raises(RuntimeError, match="beware"):
        tutorials.executed(write_tutorial(tmp_path / "warns.py", warning))
    with pytest.raises(CellExecutionError, match="assert 1 == 2"):
        tutorials.executed(write_tutorial(tmp_path / "raises.py", "\nassert 1 == 2"))
    drawn = "\nfrom IPython.display import Image\nImage(data=b'PNG', format='png')"
    hidden = ' tags=["check"]\nassert 5 == 5'
    cells = (f' tags=["warns"]{warning}', "\n2 + 3", drawn, hidden)
    source = write_tutorial(tmp_path / "told.py", *cells)
    text, pictures = tutorials.rendered(tutorials.executed(source), "told")
    assert text.startswith("# Title")
    assert "assert" not in text
    ((picture, data),) = pictures
    assert f"]({picture})" in text
    assert data == b"PNG"
    assert "beware" in text
    assert "5" in text
    # The second time it is read, until the library changes.
    assert tutorials.executed(source) == tutorials.executed(source)
    before = tutorials.digest(source)
    (tmp_path / "slams_jax" / "new.py").write_text("x = 1\n")
    assert tutorials.digest(source) != before


def test_tutorials_are_notebooks_in_percent_format():
    for source in tutorials.SOURCES.glob("*.py"):
        notebook = jupytext.read(source)
        assert notebook.cells[0].cell_type == "markdown"
        assert notebook.cells[0].source.startswith("# ")
        # Each holds what its text says, in cells that its page does not show.
        shown = tutorials.without_checks(notebook)
        assert len(shown.cells) < len(notebook.cells)
        assert not any("assert " in cell.source for cell in shown.cells)


def test_every_room_has_its_reference():
    text = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    named = {line.split(".")[1] for line in text.splitlines() if line.startswith("::: slams_jax.")}
    rooms = {p.stem for p in (ROOT / "slams_jax").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert rooms - {"__init__", "__pycache__"} == named


def test_formulas_become_mathml():
    content = (
        r'a <span class="arithmatex">\(x &lt; y\)</span> b <div class="arithmatex">\[z^2\]</div>'
    )
    found = pages.with_mathml(content, "page.md")
    assert "arithmatex" not in found
    assert found.count("<math") == 2
    assert 'display="block"' in found
    assert re.search("<mi>x</mi><mo>&#x0003C;</mo><mi>y</mi>", found)


def test_formula_that_cannot_be_drawn_is_a_warning(caplog):
    pages.with_mathml(r'<span class="arithmatex">\(\left( x\)</span>', "page.md")
    assert r"page.md: no formula: \left( x" in caplog.text
    pages.with_mathml(r'<span class="arithmatex">\(\unheard x\)</span>', "page.md")
    assert r"page.md: \unheard is unknown" in caplog.text


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('<a href="https://x.org">x</a>', []),
        ('<img src="images/a.png"><link rel="stylesheet" href="a.css">', []),
        ('<script src="https://x.org/a.js"></script>', ["https://x.org/a.js"]),
        ('<link rel="stylesheet" href="//x.org/a.css">', ["//x.org/a.css"]),
        ("<style>@import url(https://x.org/f.css)</style>", ["https://x.org/f.css"]),
    ],
)
def test_what_a_page_fetches(output, expected):
    assert pages.fetched(output) == expected


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_of_the_readme_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text())
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
