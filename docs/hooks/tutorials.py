"""Tutorials: Python files in jupytext's percent format, executed into pages and notebooks.

A tutorial is one file, `docs/tutorials/<name>.py`. It runs in a fresh process; the page shows its
text, code, printed output and figures, and links to the notebook. Cells tagged `check` assert what
the text claims: they run but are not shown. A cell that raises fails the build, and so does one
that writes to stderr, unless its tag `warns` declares the warning part of the lesson.

Executed tutorials are cached in `build/tutorials`, under a digest of the tutorial and of the
library.
"""

import copy
import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "docs" / "tutorials"
CHECK, WARNS = "check", "warns"  # tags of cells
TIMEOUT = 600  # seconds per cell


class Tutorial(File):
    """A Python file that is a page."""

    def is_documentation_page(self) -> bool:
        """True: its content is the Markdown of the executed tutorial."""
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the sources of tutorials by the executed pages, their figures and notebooks."""
    sources = sorted(SOURCES.glob("*.py"))
    # Each runs in a process of its own, most of the time on one core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        notebooks = list(pool.map(executed, sources))
    for source, notebook in zip(sources, notebooks, strict=True):
        text, pictures = rendered(notebook, source.stem)
        uri = source.relative_to(ROOT / "docs").as_posix()
        shown = nbformat.writes(without_checks(notebook))
        generated = [
            Tutorial.generated(config, uri, content=text),
            File.generated(config, uri.removesuffix(".py") + ".ipynb", content=shown),
            *(File.generated(config, f"tutorials/{n}", content=data) for n, data in pictures),
        ]
        if (old := files.get_file_from_path(uri)) is not None:
            files.remove(old)
        for file in generated:
            files.append(file)
    return files


def executed(source: Path) -> nbformat.NotebookNode:
    """The notebook of a tutorial with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
        RuntimeError: a cell without the tag `warns` wrote to stderr, or one with it did not.
    """
    kept = ROOT / "build" / "tutorials" / f"{source.stem}-{digest(source)}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    # One CPU device and the library of this checkout. Most programs run once: compiling them takes
    # most of the time, and half of it with fewer optimisations.
    fast = {"XLA_FLAGS": "--xla_backend_optimization_level=1", "JAX_PLATFORMS": "cpu"}
    slow = ("JAX_DISABLE_MOST_OPTIMIZATIONS",)  # slower than it saves
    inherited = {k: v for k, v in os.environ.items() if k not in slow}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        settings = Config()
        settings.KernelManager.transport = "ipc"  # sockets in a private folder
        settings.KernelManager.ip = f"{folder}/kernel"
        where = {"metadata": {"path": str(ROOT)}}
        client = NotebookClient(notebook, timeout=TIMEOUT, resources=where, config=settings)
        client.execute(env=inherited | fast | {"PYTHONPATH": path})
    for cell in notebook.cells:
        written = "".join(o["text"] for o in cell.get("outputs", ()) if o.get("name") == "stderr")
        if bool(written) != (WARNS in cell.metadata.get("tags", ())):
            raise RuntimeError(f"{source}: the stderr of\n{cell.source}\nis\n{written or 'empty'}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    for older in kept.parent.glob(f"{source.stem}-*"):
        older.unlink(missing_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    nbformat.write(notebook, partial)
    partial.replace(kept)
    return notebook


def digest(source: Path) -> str:
    """Digest of a tutorial, the library and the versions of its main dependencies."""
    parts = [source, *sorted((ROOT / "slams_jax").rglob("*.py"))]
    text = "".join(p.read_text() for p in parts)
    versions = " ".join(f"{name} {version(name)}" for name in ("jax", "flax", "diffrax", "numpy"))
    return hashlib.sha256((text + versions).encode()).hexdigest()[:16]


def without_checks(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without the cells that check its text."""
    shown = copy.deepcopy(notebook)
    shown.cells = [c for c in shown.cells if CHECK not in c.metadata.get("tags", ())]
    return shown


def rendered(notebook: nbformat.NotebookNode, name: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The Markdown of an executed tutorial, and its figures by file name."""
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    # Datasets as plain text: their HTML brings its own styles.
    kinds = ["image/png", "text/markdown", "text/plain"]
    settings = Config({"NbConvertBase": {"display_data_priority": kinds}})
    body, resources = MarkdownExporter(config=settings).from_notebook_node(
        without_checks(notebook), resources
    )
    title, _, rest = body.lstrip().partition("\n")
    links = (
        f"*Executed when this site was built. [Download the notebook]({name}.ipynb), "
        f"or run its source, `docs/tutorials/{name}.py`.*"
    )
    rest = rest.replace("![png](", f"![Figure of {title.lstrip('# ')}](")
    return f"{title}\n\n{links}\n{rest}", sorted(resources["outputs"].items())
