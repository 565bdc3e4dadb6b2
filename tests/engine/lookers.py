"""Events of people who look at things in turn, for tests that need a shop with a model and no more."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penchant.core import DAY

NOW = 1_750_000_000_000_000


def lookers(folder: Path, name: str = "u{}") -> str:
    """Forty people, who look at six of twelve items each until the day before ``NOW``; the path of the file."""
    rows = [
        {
            "event_id": f"{u}-{s}",
            "user_id": name.format(u),
            "kind": "view",
            "item_id": f"i{(u + s) % 12}",
            "ts": NOW - (10 - s) * DAY - u,
        }
        for u in range(40)
        for s in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "events.parquet")
    return str(folder / "events.parquet")
