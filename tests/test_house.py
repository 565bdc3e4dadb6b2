"""The house itself: sizes that can be read, doors that are documented, and what may never be loaded or used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1] / "penchant"
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = sorted(folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists())
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}
FUNCTIONS = [
    (path, node)
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def size(node: ast.AST) -> int:
    """Lines of a definition without its docstring."""
    body = node.body
    first = body[0]
    text = isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if text else 0
    return node.end_lineno - node.lineno + 1 - docstring


def test_files_stay_readable():
    lengths = [len(path.read_text("utf-8").splitlines()) for path in FILES]
    assert np.percentile(lengths, 95) <= 450
    assert max(lengths) <= 700


def test_functions_stay_short():
    sizes = {f"{path.relative_to(ROOT)}:{node.name}": size(node) for path, node in FUNCTIONS}
    assert np.percentile(list(sizes.values()), 95) <= 45
    assert {name: lines for name, lines in sizes.items() if lines > 100} == {}


def test_every_function_says_what_it_returns():
    silent = [f"{path.relative_to(ROOT)}:{node.name}" for path, node in FUNCTIONS if node.returns is None]
    assert silent == []


@pytest.mark.parametrize("room", ROOMS)
def test_the_door_of_a_room_is_complete_and_documented(room):
    module = importlib.import_module(f"penchant.{room}")
    names = list(module.__all__)
    assert len(names) == len(set(names))
    for name in names:
        thing = getattr(module, name)  # every name on the door leads somewhere
        if callable(thing) and getattr(thing, "__module__", "").startswith("penchant"):
            assert thing.__doc__, f"{room}.{name} says nothing of itself"


def test_nothing_is_pickled():
    used = [
        path.name
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [*(alias.name for alias in node.names), getattr(node, "module", None) or ""]
        if name.split(".")[0] in {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    ]
    assert used == []
    assert [path.name for path in FILES if "allow_pickle=True" in path.read_text("utf-8")] == []
    assert [path.name for path in FILES if "torch.load(" in path.read_text("utf-8")] == []


@pytest.mark.parametrize(
    ("what", "never"),
    [
        ("import penchant", {"torch", "duckdb", "ibis", "pandas", "sklearn", "onnxruntime", "numpy"}),
        ("import penchant.engine, penchant.surfaces.http", {"torch", "duckdb", "ibis", "sklearn"}),
        ("import penchant.evaluation", {"torch", "duckdb", "ibis"}),
        ("import penchant.data, penchant.store, penchant.models", {"torch", "ibis", "sklearn"}),
    ],
)
def test_imports_stay_cheap(what, never):
    code = f"{what}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert never & set(done.stdout.split()) == set()
