"""What several servers of one shop cost: events taken in by one and by two processes, answers, and how soon both know.

    python bench/replicas.py --journal postgresql://... --live redis://...

Each process is an engine of its own that stores batches of 100 events for a few seconds; a batch counts when it is
acknowledged. Beside them stands the same with the files of one machine (SQLite and LMDB).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from penchant import Engine

SECONDS, BATCH = 5.0, 100


def make(folder: Path, journal: str, live: str) -> Path:
    """A shop on servers, or in files where there are none."""
    with Engine.open(folder) as engine:
        engine.init(name="bench")
    config = folder / "shop.toml"
    text = config.read_text().replace('journal = ""', f'journal = "{journal}"')
    config.write_text(text.replace('live = ""', f'live = "{live}"'))
    return folder


def batch(name: str, number: int) -> list[dict[str, object]]:
    """Events of many people."""
    return [
        {
            "kind": "view",
            "event_id": f"{name}-{number}-{place}",
            "user_id": f"u{(number * BATCH + place) % 5000}",
            "item_id": f"i{place % 50}",
        }
        for place in range(BATCH)
    ]


def store(
    folder: Path, name: str, start: multiprocessing.synchronize.Barrier, told: multiprocessing.Queue
) -> None:
    """Store batches for a while, and tell how many events were acknowledged and how long each batch took."""
    with Engine.open(folder) as engine:
        engine.warm()
        engine.keep()
        engine.observe(events=batch(name + "-warm", 0))
        start.wait()
        began, taken, number = time.perf_counter(), [], 0
        while time.perf_counter() - began < SECONDS:
            before = time.perf_counter()
            assert engine.observe(events=batch(name, number)).stored == BATCH
            taken.append(time.perf_counter() - before)
            number += 1
        told.put((number * BATCH / (time.perf_counter() - began), sorted(taken)))


def together(folder: Path, processes: int) -> None:
    """Let some processes store at once, and print what they reached."""
    start, told = multiprocessing.Barrier(processes), multiprocessing.Queue()
    running = [
        multiprocessing.Process(target=store, args=(folder, f"{processes}p{n}", start, told))
        for n in range(processes)
    ]
    for process in running:
        process.start()
    found = [told.get() for _ in running]
    for process in running:
        process.join()
    taken = sorted(moment for _, moments in found for moment in moments)
    p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
    print(f"  {processes} process(es): {sum(rate for rate, _ in found):,.0f} events/s, a batch {p50 * 1e3:.1f} ms,"
          f" p99 {p99 * 1e3:.1f} ms")  # fmt: skip


def news(folder: Path) -> None:
    """How long an answer takes, and until a wish told to one process is known to another."""
    with Engine.open(folder) as one, Engine.open(folder) as other:
        for engine in (one, other):
            engine.warm()
            engine.keep()
        seconds, waits = [], []
        for number in range(200):
            before = time.perf_counter()
            one.recommend(user_id=f"u{number}", k=10)
            seconds.append(time.perf_counter() - before)
        for number in range(30):
            user = f"w{number}"
            one.observe(events=[{"kind": "not_interested", "user_id": user, "item_id": "i1"}])
            before = time.perf_counter()
            while "i1" not in other.serving.ranker.guide.person(user).items:
                time.sleep(0.002)
            waits.append(time.perf_counter() - before)
        print(f"  an answer {statistics.median(seconds) * 1e3:.2f} ms; a wish is known to the other after"
              f" {statistics.median(waits) * 1e3:.0f} ms, at most {max(waits) * 1e3:.0f} ms")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--live", required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("files of one machine")
        together(make(Path(folder) / "files", "", ""), 1)
        print("PostgreSQL and Valkey or Redis")
        shared = make(Path(folder) / "servers", given.journal, given.live)
        together(shared, 1)
        together(shared, 2)
        news(shared)


if __name__ == "__main__":
    main()
