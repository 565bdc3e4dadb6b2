"""Rows a second from a Parquet file into the event table, and peak memory."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import busy, describe

CHILD = """
import resource, sys, time
from penchant import Engine
with Engine.open(sys.argv[1]) as engine:
    engine.init()
    started = time.perf_counter()
    report = engine.ingest(files=[sys.argv[2]])
    spent = time.perf_counter() - started
    assert report.accepted == report.rows, report
    print(report.rows, spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def generate(path: Path, rows: int) -> None:
    """Purchases of rows / 30 people, written in pieces so that making them needs little memory."""
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, 500_000):
        n = min(500_000, rows - start)
        table = pa.table(
            {
                "event_id": pa.array(np.char.add("e", np.arange(start, start + n).astype(str))),
                "timestamp": pa.array(
                    1_700_000_000_000_000 + np.sort(rng.integers(0, 10**13, n)), pa.timestamp("us", "UTC")
                ),
                "user_id": pa.array(np.char.add("user", rng.integers(0, max(1, rows // 30), n).astype(str))),
                "kind": pa.array(["purchase"] * n),
                "item_id": pa.array(np.char.add("item", rng.zipf(1.2, n).clip(1, 12_000).astype(str))),
                "value": rng.integers(1, 10_000, n).astype(np.float64),
                "currency": pa.array(["EUR"] * n),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_500_000])
    arguments = parser.parse_args()
    print(describe())
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "events.parquet"
            generate(file, rows)
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(Path(folder) / "shop"), str(file)],
                check=True,
                capture_output=True,
                text=True,
                env=os.environ,
            )
            count, seconds, peak = done.stdout.split()
            rate = int(count) / float(seconds)
            print(
                f"{int(count):>12,} rows  {float(seconds):7.1f} s  {rate:>10,.0f} rows/s  peak {int(peak):,} MB"
            )
    print(busy() or f"target 300,000 rows/s: {'met' if rate >= 300_000 else 'MISSED'}")


if __name__ == "__main__":
    main()
