"""Training over a catalogue of a million items beside one of twelve thousand: seconds a step and peak memory.

The same made-up histories over catalogues of different sizes, popularity long-tailed. Each catalogue is learned in a
process of its own: every step of one epoch is timed, and the peak covers everything from the snapshot to the exported
model, counts included. Steps are equal in size unless ``--auto`` lets the catalogue decide.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from machine import busy, describe

STEP = 1.2  # times the step of the smallest catalogue, at most


def child(items: int, users: int, auto: bool) -> None:
    """Learn one catalogue; print one line of JSON."""
    from penchant.core import KIND_CODES, SECOND, Run, Vocabulary
    from penchant.testing import snapshot_from_arrays
    from penchant.training import fit_model

    rng = np.random.default_rng(0)
    length = rng.integers(5, 16, users)
    row = np.repeat(np.arange(users), length)
    place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    item = 1 + (items * rng.random(len(row)) ** 3).astype(np.int64)
    snapshot = snapshot_from_arrays(
        users=Vocabulary([f"{n:08d}" for n in range(users)]),
        items=Vocabulary([f"{n:08d}" for n in range(items)]),
        row=row,
        item=item,
        kind=np.full(len(row), KIND_CODES["view"], np.uint8),
        ts=1_700_000_000 * SECOND + place * SECOND,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    marks: list[tuple[int, float]] = []

    def progress(task: str, done: int, total: int | None, figures: object) -> None:
        if task == "sequence model":
            marks.append((done, time.process_time()))

    started = time.process_time()
    batch = {} if auto else {"batch": 1536}
    settings = {"size": "small", "loss": "sampled", "epochs": 1, "attributes": False, **batch}
    model = fit_model("sequence", snapshot, settings, Run(progress=progress))
    seconds = time.process_time() - started
    pace = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(marks[1:])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "items": items,
                "ms_a_step": 1e3 * statistics.median(pace),
                "seconds": seconds,
                "before_mb": before,
                "peak_mb": peak,
                "table_mb": model.item_ND.nbytes / 1e6,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 1_000_000])
    parser.add_argument("--users", type=int, default=12_000)
    parser.add_argument("--auto", action="store_true", help="let larger catalogues take larger steps")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.users, arguments.auto)
        return
    print(describe())
    rows = []
    for items in arguments.items:
        words = [sys.executable, __file__, "--child", str(items), "--users", str(arguments.users)]
        words += ["--auto"] * arguments.auto
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        row = rows[-1]
        print(
            f"{items:>9,} items: {row['ms_a_step']:.1f} ms a step, {row['seconds']:.1f} s in all (CPU); "
            f"peak {row['peak_mb']:,.0f} MB, of them {row['before_mb']:,.0f} before training; "
            f"table {row['table_mb']:.0f} MB",
            flush=True,
        )
    ratio = rows[-1]["ms_a_step"] / rows[0]["ms_a_step"]
    print(busy() or f"target {STEP} x the step of the smallest: {'met' if ratio <= STEP else 'MISSED'}")
    print(f"steps: {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
