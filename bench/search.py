"""Search: how long it takes and how good it is.

``python bench/search.py`` searches made-up titles of four to eight words out of 20,000, as they are and with a letter
missing. ``python bench/search.py --shop SHOP`` asks a shop of household gifts, trained on ``uci-online-retail`` with an
encoder installed, the questions of ``search_queries.tsv`` and counts how many of the first five titles suit them.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from penchant import Engine
from penchant.engine._search_index import SearchIndex, check_query  # noqa: PLC2701

QUERIES = Path(__file__).with_name("search_queries.tsv")


def costs(items: int) -> None:
    """Milliseconds of a query, and how often the item that was meant is among the first ten."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    chance = 1 / np.arange(1, 20_001)
    words = np.array(["".join(draw.choice(letters, draw.integers(3, 11))) for _ in chance])
    picked = [draw.choice(words, draw.integers(4, 9), p=chance / chance.sum()) for _ in range(items)]
    titles = [" ".join(some) for some in picked]
    started = time.perf_counter()
    index = SearchIndex(pa.table({"title": [None, *titles]}))
    print(f"{items:,} items, {len(index.words):,} words: made in {time.perf_counter() - started:.2f} s")

    right = [" ".join(draw.choice(some, 2)) for some in picked[:300]]
    wrong = [query[:1] + query[2:] for query in right]
    for name, queries in (("right", right), ("with an error", wrong)):
        took, hit = [], 0
        for query, title in zip(queries, titles, strict=False):
            started = time.perf_counter()
            found = index.find(check_query(query))
            took.append(time.perf_counter() - started)
            hit += any(titles[row - 1] == title for row in np.argsort(-found.score_N)[:10])
        p50, p99 = np.quantile(took, [0.5, 0.99]) * 1e3
        print(
            f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
            f"the item is among the first ten in {hit / len(queries):.0%}"
        )


def quality(shop: Path) -> None:
    """Share of the first five titles that suit a question, by words alone and by meaning too."""
    lines = [line for line in QUERIES.read_text().splitlines() if not line.startswith("#")]
    with Engine.open(shop) as engine:
        for semantic in ("off", "on"):
            suit = []
            for line in lines:
                query, pattern = line.split("\t")
                found = engine.search(query=query, semantic=semantic, k=5, personal=0).items
                suit.append(sum(bool(re.search(pattern, item.title or "")) for item in found) / 5)
            none = sum(share == 0 for share in suit)
            print(
                f"meaning {semantic}: precision@5 {np.mean(suit):.3f}, {none} of {len(suit)} without one that suits"
            )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("items", type=int, nargs="?", default=12_000, help="made-up titles")
parser.add_argument("--shop", type=Path, help="a trained shop; then quality is measured")
arguments = parser.parse_args()
if arguments.shop:
    quality(arguments.shop)
else:
    costs(arguments.items)
