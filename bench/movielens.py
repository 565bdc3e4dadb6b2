"""MovieLens-1M in the form of a leave-one-out judge: interactions in order, genres and decades as attributes.

The data may not be passed on (GroupLens): bring your own folder with ``interactions.parquet`` (user, item, pos,
ml_movie) and ``items.parquet`` (ml_movie, title, genres).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def convert(source: Path, out: Path) -> None:
    """Write ``interactions.parquet`` (user, item, pos) and ``item_attributes.parquet`` (item, attribute)."""
    out.mkdir(parents=True, exist_ok=True)
    events = pq.read_table(source / "interactions.parquet")
    pq.write_table(events.select(["user", "item", "pos"]), out / "interactions.parquet")
    item_of = dict(zip(events["ml_movie"].to_pylist(), events["item"].to_pylist(), strict=True))
    rows = []
    for movie in pq.read_table(source / "items.parquet").to_pylist():
        item = item_of.get(movie["ml_movie"])
        if item is None:
            continue
        year = movie["title"].rstrip()[-5:-1]
        rows += [(item, genre) for genre in movie["genres"].split("|")]
        rows += [(item, f"{year[:3]}0s")] if year.isdigit() else []
    items, attributes = zip(*rows, strict=True)
    pq.write_table(pa.table({"item": items, "attribute": list(attributes)}), out / "item_attributes.parquet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    convert(given.source, given.out)
