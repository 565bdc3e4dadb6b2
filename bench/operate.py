"""What operating a shop costs: room, memory, restart, backup, restore, keys, sealing.

    python bench/operate.py --events 1000000

Every figure is of this machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import base64
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe

from penchant.core import now
from penchant.engine import Engine, Keyring

START = 1_700_000_000_000_000


def log_file(folder: Path, events: int) -> Path:
    draw = np.random.default_rng(0)
    people, items = max(1000, events // 20), 12_000
    table = pa.table(
        {
            "event_id": [f"e{n}" for n in range(events)],
            "ts": START + np.sort(draw.integers(0, 90 * 86_400_000_000, events)),
            "user_id": [f"person-{n}" for n in draw.integers(0, people, events)],
            "kind": ["view"] * events,
            "item_id": [f"item-{n}" for n in (items * draw.random(events) ** 2).astype(int)],
        }
    )
    pq.write_table(table, folder / "events.parquet")
    return folder / "events.parquet"


def timed(call: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def observe_rate(folder: Path, *, sealed: bool, batches: int = 150) -> float:
    """Events a second acknowledged, batches of 100 of 50 people, each with a text of 200 letters."""
    os.environ["PENCHANT_KEK"] = base64.b64encode(b"k" * 32).decode()
    with Engine.open(folder) as engine:
        engine.init()
    if sealed:
        file = folder / "shop.toml"
        file.write_text(file.read_text().replace("encrypt = false", "encrypt = true"))
    with Engine.open(folder) as engine:

        def batch(number: int) -> None:
            events = [
                {
                    "kind": "review", "user_id": f"p{n % 50}", "item_id": f"i{n}", "text": "x" * 200,
                    "event_id": f"{number}-{n}", "ts": START,
                }
                for n in range(100)
            ]  # fmt: skip
            engine.observe(events=events)

        for number in range(20):
            batch(number)
        cpu = time.process_time()
        for number in range(20, 20 + batches):
            batch(number)
        return batches * 100 / (time.process_time() - cpu)


def serving(shop: Path) -> tuple[float, float, list[float]]:
    """Seconds to the first answer of a new process, its memory, and milliseconds of 500 answers with a key."""
    secret = Keyring(shop, now).create("bench", ["serve"], rate=1e6)[1]
    command = [sys.executable, "-m", "penchant", "serve", "--shop", str(shop), "--port", "0"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}) as client:
            client.post("/v1/recommend", json={"user_id": "person-1"})
            first = time.perf_counter() - started
            taken = [
                timed(lambda n=n: client.post("/v1/recommend", json={"user_id": f"person-{n}"}))[0] * 1000
                for n in range(500)
            ]
            memory = psutil.Process(process.pid).memory_info().rss / 1e6
        process.terminate()
    return first, memory, taken


def main() -> None:
    print(describe())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop = folder / "shop"
        with Engine.open(shop) as engine:
            engine.init()
            seconds, _ = timed(lambda: engine.ingest(files=[str(log_file(folder, events))]))
            print(f"ingest {events:,} events: {seconds:.1f} s")
        first, memory, taken = serving(shop)
        print(f"start to first answer, histories made: {first:.1f} s; again: {serving(shop)[0]:.1f} s")
        print(f"memory of the serving process: {memory:.0f} MB")
        print(
            f"recommend with a key by httpx: p50 {np.median(taken):.2f} ms, p99 {np.percentile(taken, 99):.2f} ms"
        )
        print(f"room at rest: {size(shop) / events:.0f} bytes an event, live histories included")
        with Engine.open(shop) as engine:
            made = engine.backup(out=str(folder / "b.tar"))
            drill = engine.drill(file=str(folder / "b.tar"))
        print(
            f"backup: {made.seconds:.1f} s, {made.bytes / 1e6:.0f} MB; restore: {drill.restore_seconds:.1f} s"
        )
        ring = Keyring(shop, now)
        secret = ring.create("bench", ["serve"])[1]
        cpu = time.process_time()
        for _ in range(20_000):
            ring.find(secret)
        print(f"a key is checked in {(time.process_time() - cpu) / 20_000 * 1e6:.1f} us of CPU")
        plain = observe_rate(folder / "plain", sealed=False)
        sealed = observe_rate(folder / "sealed", sealed=True)
        loss = f"{1 - sealed / plain:.0%} less"
        print(f"events with texts, a CPU second: {plain:,.0f} plain, {sealed:,.0f} sealed ({loss})")


if __name__ == "__main__":
    main()
