"""A made-up shop in which a product that nobody has bought yet is recommended the moment the catalogue knows it.

Run it with ``pip install 'penchant[text]'``: ``python examples/new_items.py``. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

from penchant import Engine

TOPICS = {
    "hiking": [
        "boots",
        "backpack",
        "trekking poles",
        "rain jacket",
        "merino socks",
        "gaiters",
        "water bottle",
        "map case",
    ],
    "kitchen": [
        "chef's knife",
        "cast iron pan",
        "cutting board",
        "whisk",
        "stock pot",
        "pepper mill",
        "apron",
        "scale",
    ],
    "garden": [
        "rose shears",
        "watering can",
        "potting soil",
        "tomato seeds",
        "garden gloves",
        "rake",
        "hose",
        "planter",
    ],
    "painting": [
        "sable brush",
        "watercolours",
        "easel",
        "canvas",
        "palette knife",
        "ink",
        "sketchbook",
        "charcoal",
    ],
    "baby": [
        "pram",
        "bottle warmer",
        "teething ring",
        "muslin cloth",
        "night light",
        "high chair",
        "bib",
        "play mat",
    ],
}
KINDS = ("light", "classic", "professional")
DAY = 86_400


def catalogue() -> list[tuple[str, str]]:
    """Id and title of every product."""
    titles = [
        f"{kind} {thing} for {topic}"
        for topic, things in TOPICS.items()
        for thing in things
        for kind in KINDS
    ]
    return [(f"p{n:03d}", title) for n, title in enumerate(titles)]


def purchases(people: int, seed: int) -> list[tuple[str, str, int]]:
    """Each person buys within one or two topics, thing after thing."""
    draw = np.random.default_rng(seed)
    size = len(KINDS) * 8
    rows = []
    for person in range(people):
        topics = draw.choice(len(TOPICS), 2, replace=False)
        bought: set[int] = set()
        for step in range(int(draw.integers(4, 10))):
            item = int(draw.choice(topics, p=[0.8, 0.2])) * size + int(draw.integers(size))
            if item not in bought:
                when = 1_700_000_000 + (int(draw.integers(60)) + 12 * step) * DAY
                rows.append((f"u{person:04d}", f"p{item:03d}", when))
            bought.add(item)
    return rows


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def main() -> None:
    """Train, add a product, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Engine.open(Path(name) / "shop") as engine:
        folder = Path(name)
        engine.init(name="Made-up")
        products = [*catalogue()]
        engine.catalog(files=[write(folder / "items.csv", ("id", "title"), list(products))])
        rows = [(*row, "purchase") for row in purchases(given.people, seed=0)]
        engine.ingest(files=[write(folder / "events.csv", ("user_id", "item_id", "ts", "kind"), list(rows))])
        trained = engine.train()
        print(f"promoted: {trained.promoted_kind}")
        new = [("new1", "waterproof mountaineering shoes"), ("new2", "non-stick frying skillet")]
        report = engine.catalog(files=[write(folder / "new.csv", ("id", "title"), list(new))])
        print("catalogue:", *report.files[0].notes)
        for item, title in (("p000", products[0][1]), ("p027", products[27][1])):
            engine.observe(events=[{"kind": "purchase", "user_id": f"fan of {item}", "item_id": item}])
            slate = engine.recommend(explore="off", user_id=f"fan of {item}", k=len(products) + 2)
            place = {shown.item_id: n for n, shown in enumerate(slate.items, start=1)}
            print(
                f"after '{title}':",
                *(f"'{name}' at {place.get(i, '-')}" for i, name in new),
                f"of {len(place)}",
            )


if __name__ == "__main__":
    main()
