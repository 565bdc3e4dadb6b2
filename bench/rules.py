"""What rules cost: python bench/rules.py [ITEMS]. A made-up catalogue, six filters and rules, one person."""

import sys
import time

import numpy as np
import pyarrow as pa

from penchant.core import CATALOG_SCHEMA, History, Vocabulary
from penchant.engine._rules import Person, RuleBook, TableFields  # noqa: PLC2701

items = int(sys.argv[1]) if len(sys.argv) > 1 else 12_000
draw = np.random.default_rng(0)
ids = [f"i{n}" for n in range(items)]
rows = [{"id": None}] + [
    {
        "id": i,
        "price": float(price),
        "cost": float(price) / 2,
        "brand": f"b{brand}",
        "category": f"c{brand % 9} > d{brand}",
        "publish_time": 1_750_000_000_000_000,
        "labels": ["vegan"] if brand % 3 else [],
    }
    for i, price, brand in zip(ids, draw.integers(50, 9000, items), draw.integers(0, 200, items), strict=True)
]
schema = pa.schema([field.with_nullable(True) for field in CATALOG_SCHEMA])
table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)
filters = ["price <= 5000 and in_stock", "category ^= c1 or labels ~= vegan"]
rules = [
    "boost 1.5 when brand = b7 and margin > 300",
    "exclude bought",
    "bury age_days > 90 and price < 100",
    "exclude hours_since_seen < 24",
]
started = time.perf_counter()
book = RuleBook(TableFields(table).about({}), filters, rules)
print(f"{items:,} items: fitted in {(time.perf_counter() - started) * 1e3:.1f} ms")
numbers = draw.integers(0, items, 200)
history = History(
    "u1",
    np.full(200, 1_749_990_000_000_000),
    np.full(200, 11, np.uint8),
    [ids[n] for n in numbers],
    np.zeros(200, np.float32),
    [""] * 200,
)
vocabulary = Vocabulary(ids)
vocabulary.number("i0")
took = []
for _ in range(200):
    started = time.perf_counter()
    book.judge(Person(None, vocabulary, table, history, 1_750_000_000_000_000))
    took.append(time.perf_counter() - started)
p50, p99 = np.quantile(took, [0.5, 0.99]) * 1e3
print(f"one person's {len(filters) + len(rules)} filters and rules: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
