"""Scoring alone, without torch and without the shop around it: encoder, all items, the best hundred.

One live person at a time, and many people in batches of 256, histories of 50 events, one thread. CPU time, so that
other work on the machine counts less. "network" leaves the counts out; "whole" is the score as it serves.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe

TOP, LIVE_MS, PEOPLE_A_SECOND = 100, 1.0, 5_000


def fit(folder: Path, items: int) -> str:
    """A model of the right shape, hardly trained; the id of its artifact."""
    from penchant.core import KIND_CODES, SECOND, Run, Vocabulary
    from penchant.testing import snapshot_from_arrays
    from penchant.training import fit_model, save_artifact

    rng = np.random.default_rng(0)
    users, length = 600, 60
    snapshot = snapshot_from_arrays(
        users=Vocabulary([f"{n:05d}" for n in range(users)]),
        items=Vocabulary([f"{n:06d}" for n in range(items)]),
        row=np.repeat(np.arange(users), length),
        item=rng.integers(1, items + 1, users * length),
        kind=np.full(users * length, KIND_CODES["view"], np.uint8),
        ts=1_700_000_000 * SECOND + np.tile(np.arange(length), users) * SECOND,
    )
    settings = {"size": "small", "epochs": 1, "counts_weight": 4.0, "neighbours_weight": 1.0}
    model = fit_model("sequence", snapshot, settings, Run())
    return save_artifact(folder, model, kind="sequence", as_of=0, items=snapshot.items).id


def measure(folder: Path, artifact: str, items: int) -> None:
    """Time a restored model in a process that never loads torch."""
    import msgspec

    from penchant.core import SequenceBatch
    from penchant.training import load_artifact

    whole = load_artifact(folder, artifact).model
    network = type(whole).restore(msgspec.structs.replace(whole.config, counts=False), whole.arrays())
    rng = np.random.default_rng(1)

    def batch(rows: int) -> SequenceBatch:
        shape = (rows, 50)
        return SequenceBatch(
            item_BT=rng.integers(1, items + 1, shape),
            kind_BT=np.full(shape, 3),
            gap_BT=np.full(shape, 5, np.float32),
            value_BT=np.zeros(shape, np.float32),
            mask_BT=np.ones(shape, np.bool_),
            user_BF=np.zeros((rows, 0), np.float32),
        )

    def best(model: object, people: SequenceBatch) -> np.ndarray:
        score_BN = model.scores(people)  # type: ignore[attr-defined]
        top_BK = np.argpartition(score_BN, -TOP, axis=1)[:, -TOP:]
        order_BK = np.argsort(-np.take_along_axis(score_BN, top_BK, 1), axis=1)
        return np.take_along_axis(top_BK, order_BK, 1)

    def middle(model: object, rows: int, times: int) -> float:
        took = []
        for turn in range(times + 3):
            people = batch(rows)
            started = time.process_time()
            best(model, people)
            if turn >= 3:
                took.append(time.process_time() - started)
        return statistics.median(took)

    for name, model in (("network", network), ("whole", whole)):
        live, many = 1e3 * middle(model, 1, 200), 256 / middle(model, 256, 7)
        print(
            f"{name:8}: one person {live:.2f} ms at the median; in batches {many:,.0f} people a second",
            flush=True,
        )
        if name == "network":
            print(f"target {LIVE_MS:g} ms: {'met' if live <= LIVE_MS else 'MISSED'}")
            print(f"target {PEOPLE_A_SECOND:,} a second: {'met' if many >= PEOPLE_A_SECOND else 'MISSED'}")
    assert "torch" not in sys.modules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(Path(arguments.child[0]), arguments.child[1], arguments.items)
        return
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        artifact = fit(Path(name), arguments.items)
        words = [sys.executable, __file__, "--items", str(arguments.items), "--child", name, artifact]
        subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
