"""Makes ``classic_interests.ipynb`` out of ``classic_interests.py``, cell by cell: they cannot differ.

In the script a cell begins with ``# %%`` (code) or ``# %% [markdown]`` (text, each line behind ``# ``).

    python examples/make_notebook.py            write the notebook, with its results
    python examples/make_notebook.py --check    fail if its cells differ from the script
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

SCRIPT = Path(__file__).parent / "classic_interests.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")


def cells_of(script: str) -> list[tuple[str, str]]:
    """The cells of a script, in order: ("code" | "markdown", source)."""
    parts = re.split(r"^# %%( \[markdown\])?\n", script, flags=re.M)[1:]
    cells = []
    for mark, source in zip(parts[::2], parts[1::2], strict=True):
        if mark:
            source = re.sub(r"^# ?", "", source, flags=re.M)
        cells.append(("markdown" if mark else "code", source.strip()))
    return cells


def notebook_of(script: str) -> nbformat.NotebookNode:
    """The notebook of a script, not yet run."""
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, (kind, source) in enumerate(cells_of(script)):
        book.cells.append(make[kind](source, id=f"cell-{number:02d}"))
    return book


def run(book: nbformat.NotebookNode) -> None:
    """Run all cells in order, in a fresh kernel; raises ``CellExecutionError`` where one fails."""
    with tempfile.TemporaryDirectory() as folder:  # its sockets: a stopped run leaves them behind
        place = str(Path(folder) / "kernel")
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=place)  # no network ports
        NotebookClient(book, km=kernel, timeout=300, record_timing=False).execute()


def stale() -> bool:
    """Tell whether the notebook's cells differ from the script's."""
    there = nbformat.read(NOTEBOOK, as_version=4)
    return [(cell.cell_type, cell.source) for cell in there.cells] != cells_of(SCRIPT.read_text("utf-8"))


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(f"{NOTEBOOK.name} differs from {SCRIPT.name}: run {sys.argv[0]}" if stale() else 0)
    notebook = notebook_of(SCRIPT.read_text("utf-8"))
    run(notebook)
    notebook.metadata.pop("language_info", None)  # holds the version of the machine's Python
    nbformat.write(notebook, NOTEBOOK)
    print(f"wrote {NOTEBOOK}")
