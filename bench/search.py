"""How long a search takes: python bench/search.py [ITEMS]. Made-up titles of four to eight words out of 20,000."""

import sys
import time

import numpy as np
import pyarrow as pa

from penchant.engine._search_index import SearchIndex, check_query  # noqa: PLC2701

items = int(sys.argv[1]) if len(sys.argv) > 1 else 12_000
draw = np.random.default_rng(0)
letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
chance = 1 / np.arange(1, 20_001)
words = np.array(["".join(draw.choice(letters, draw.integers(3, 11))) for _ in chance])
picked = [draw.choice(words, draw.integers(4, 9), p=chance / chance.sum()) for _ in range(items)]
table = pa.table({"title": [None, *(" ".join(some) for some in picked)]})
started = time.perf_counter()
index = SearchIndex(table)
print(f"{items:,} items, {len(index.words):,} words: made in {time.perf_counter() - started:.2f} s")

right = [" ".join(draw.choice(some, 2)) for some in picked[:300]]
wrong = [query[:1] + query[2:] for query in right]
for name, queries in (("right", right), ("with an error", wrong)):
    took, hit = [], 0
    for query, some in zip(queries, picked, strict=False):
        started = time.perf_counter()
        found = index.find(check_query(query))
        took.append(time.perf_counter() - started)
        target = " ".join(some)
        best = np.argsort(-found.score_N)[:10]
        hit += any(table["title"][int(row)].as_py() == target for row in best)
    p50, p99 = np.quantile(took, [0.5, 0.99]) * 1e3
    print(
        f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, the item is among the first ten in {hit / len(queries):.0%}"
    )
