"""The classic example runs, as a script and as a notebook, and says the same in both."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pyarrow as pa
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", EXAMPLES / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script_says() -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "classic_interests.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_spares_a_folder_that_is_no_demo_shop(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text('name = "My shop"\n')
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), "--shop", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no demo shop" in done.stderr
    assert (tmp_path / "shop.toml").exists()


def test_the_demo_shows_households_that_buy_much_and_neither_tobacco_nor_alcohol() -> None:
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    products = pa.table(
        {
            "product_id": [1, 2, 3],
            "department": ["PRODUCE", "DRUG GM", "SPIRITS"],
            "product_category": ["APPLES", "CIGARETTES", None],
        }
    )
    bought = {12: [1] * 300, 2: [1] * 300, 9: [1] * 300 + [2], 8: [1] * 300 + [3], 3: [1] * 299}
    pairs = [(household, product) for household, items in bought.items() for product in items]
    purchases = pa.table(dict(zip(("household_id", "product_id"), zip(*pairs, strict=True), strict=True)))
    assert demo["shown_households"](purchases, products) == ["2", "12"]
    assert demo["shown_households"](purchases, products, 1) == ["2"]


def test_the_script_cleans_and_says_what_it_removed(script_says: str) -> None:
    assert "923 rows read" in script_says
    assert "3 refused: a product or a user without an id" in script_says
    assert "20 refused: a product or a user whose id comes again" in script_says
    assert re.search(r"\d+ removed: a negative count", script_says)
    assert re.search(r"\d+ removed: the interest is 'gardening'", script_says)
    assert re.search(r"\d+ of their counts are missing", script_says)


def test_the_script_scores_a_held_out_fifth_well_above_the_base_rate(script_says: str) -> None:
    train, test = map(int, re.search(r"(\d+) people to learn from, (\d+) held out", script_says).groups())
    assert test == (train + test) // 5
    for figure in ("accuracy", "recall macro"):
        found = re.search(rf"^{figure} +([\d.]+) \[([\d.]+), ([\d.]+)\] +([\d.]+)", script_says, re.M)
        value, low, high, base = map(float, found.groups())
        assert low <= value <= high
        assert value > 0.8
        assert low > base + 0.3
    matrix = script_says.split("is, said to be")[1].splitlines()[1:4]
    assert sum(int(count) for line in matrix for count in line.split()[1:]) == test


def test_the_script_asks_about_somebody_new(script_says: str) -> None:
    answer = script_says.split("browse 10, purchase 5, review 3:")[1]
    chances = {name: float(chance) for name, chance in re.findall(r"^  (\w+) +(0\.\d+)  ", answer, re.M)}
    assert set(chances) == {"fashion", "food", "technology"}
    assert sum(chances.values()) == pytest.approx(1, abs=0.002)
    assert "than usual" in answer


def test_the_notebook_is_the_script(maker: ModuleType) -> None:
    assert not maker.stale(), "run python examples/make_notebook.py"
    book = nbformat.read(maker.NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert all(cell.outputs or "print(" not in cell.source for cell in book.cells if cell.cell_type == "code")


def test_the_notebook_runs_and_says_what_the_script_says(maker: ModuleType, script_says: str) -> None:
    book = maker.notebook_of(maker.SCRIPT.read_text("utf-8"))
    maker.run(book)
    said = "".join(out.text for cell in book.cells if cell.cell_type == "code" for out in cell.outputs)
    assert said == script_says
