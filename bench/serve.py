"""One person's recommendation inside the process, with fresh events and the decision log on."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import busy, describe

PEER = """
import sys, time
import pyarrow.parquet as pq
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
frame = pq.read_table(sys.argv[1]).to_pandas()
frame = frame.rename(columns={"user_id": Columns.User, "item_id": Columns.Item, "timestamp": Columns.Datetime})
frame[Columns.Weight] = 1.0
data = Dataset.construct(frame[[Columns.User, Columns.Item, Columns.Datetime, Columns.Weight]])
model = SASRecModel(n_factors=64, n_blocks=1, n_heads=1, session_max_len=50, epochs=1, verbose=0, loss="BCE")
model.fit(data)
users = frame[Columns.User].unique()[:20]
model.recommend(users[:1], data, k=10, filter_viewed=False)
took = []
for user in users:
    start = time.perf_counter()
    model.recommend([user], data, k=10, filter_viewed=False)
    took.append(time.perf_counter() - start)
took.sort()
print("p50", 1000 * took[len(took) // 2])
"""


def generate(path: Path, users: int, items: int) -> None:
    """Walks over a catalogue in which items close in number follow each other."""
    rng = np.random.default_rng(0)
    length = rng.integers(5, 30, users)
    user = np.repeat(np.arange(users), length)
    step = np.concatenate([np.arange(n) for n in length])
    item = (rng.integers(0, items, users)[user] + step * 7 + rng.integers(0, 40, len(user))) % items
    table = pa.table(
        {
            "event_id": [f"e{n}" for n in range(len(user))],
            "timestamp": pa.array(1_700_000_000_000_000 + step * 86_400_000_000, pa.timestamp("us", "UTC")),
            "user_id": [f"u{n}" for n in user],
            "kind": ["view"] * len(user),
            "item_id": [f"i{n}" for n in item],
        }
    )
    pq.write_table(table, path)


def ours(folder: Path, file: Path, items: int, requests: int) -> list[float]:
    """Milliseconds of each request: one event observed, then ten items asked for."""
    from penchant import Engine

    catalog = folder / "items.parquet"
    pq.write_table(pa.table({"id": [f"i{n}" for n in range(items)]}), catalog)
    with Engine.open(folder / "shop") as engine:
        engine.init()
        engine.catalog(files=[str(catalog)])
        engine.ingest(files=[str(file)])
        report = engine.train(models=["sequence"])
        engine.promote(artifact=report.artifacts.get("sequence", report.promoted))
    took = []
    with Engine.open(folder / "shop") as engine:
        engine.warm()
        for number in range(requests + 20):
            user = f"u{number % 2000}"
            engine.observe(events=[{"kind": "view", "user_id": user, "item_id": f"i{number % items}"}])
            started = time.perf_counter()
            slate = engine.recommend(user_id=user, k=10)
            took.append(1000 * (time.perf_counter() - started))
            assert len(slate.items) == 10
            assert not slate.degraded
    return took[20:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--users", type=int, default=8_000)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--peer", help="python of an environment with bench/peers/rectools.txt installed")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "events.parquet"
        generate(file, arguments.users, arguments.items)
        took = sorted(ours(folder, file, arguments.items, arguments.requests))
        middle = statistics.median(took)
        slow = took[int(len(took) * 0.99)]
        print(f"penchant recommend, {arguments.items:,} items: p50 {middle:.2f} ms, p99 {slow:.2f} ms")
        if arguments.peer:
            done = subprocess.run(
                [arguments.peer, "-W", "ignore", "-c", PEER, str(file)],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
            peer = float(done.stdout.split()[-1])
            print(f"RecTools recommend, one user: p50 {peer:.1f} ms; ratio {peer / middle:.1f}")
    print(busy() or f"target 3 ms: {'met' if middle < 3 else 'MISSED'}")


if __name__ == "__main__":
    main()
