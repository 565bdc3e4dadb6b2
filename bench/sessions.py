"""Next click of a session, in the form of SR-GNN: every prefix of a test session, full ranking, repeats allowed.

Bring a folder with ``train_sessions.parquet`` (one list of items a row) and ``test_cases.parquet`` (prefix, target). A
share of the training sessions is held out for stopping and blending; nothing is chosen on the test cases.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from penchant.core import KIND_CODES, SECOND, Run, Scorer, Snapshot, Vocabulary
from penchant.data import sequence_batch
from penchant.testing import snapshot_from_arrays
from penchant.training import fit_model

START = 1_700_000_000 * SECOND
CHOOSING = 4000  # sessions that stop and blend
K = 20


class Sessions:
    """Lists of items as snapshots over one vocabulary."""

    def __init__(self, *lists: list[list[int]]) -> None:
        self.items = Vocabulary(
            sorted({str(item) for sessions in lists for items in sessions for item in items})
        )

    def snapshot(self, sessions: list[list[int]]) -> Snapshot:
        """One session a user, one click a second."""
        length = np.array([len(items) for items in sessions])
        row = np.repeat(np.arange(len(sessions)), length)
        place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        return snapshot_from_arrays(
            users=Vocabulary([f"{n:08d}" for n in range(len(sessions))]),
            items=self.items,
            row=row,
            item=self.items.numbers([str(item) for items in sessions for item in items]),
            kind=np.full(len(row), KIND_CODES["click"], np.uint8),
            ts=START + place * SECOND,
        )

    def numbers(self, items: list[int]) -> np.ndarray:
        """Item numbers."""
        return self.items.numbers([str(item) for item in items])


def ranks(model: Scorer, prefixes: Snapshot, target_C: np.ndarray, block: int = 400) -> np.ndarray:
    """Mid-rank of each target among all items."""
    found = []
    for start in range(0, len(target_C), block):
        rows = np.arange(start, min(start + block, len(target_C)))
        score_BN = model.scores(sequence_batch(prefixes, rows, 200))[:, 1:]
        hit_B1 = score_BN[np.arange(len(rows)), target_C[rows] - 1][:, None]
        found.append((score_BN > hit_B1).sum(1) + ((score_BN == hit_B1).sum(1) - 1) / 2 + 1)
    return np.concatenate(found)


def figures(rank_C: np.ndarray) -> str:
    """P@20 and MRR@20 in percent."""
    hit_C = rank_C <= K
    return f"P@{K} {100 * hit_C.mean():.2f}  MRR@{K} {100 * np.where(hit_C, 1 / rank_C, 0).mean():.2f}"


def main(folder: Path) -> None:
    """Fit counted transitions and the sequence model with their defaults and print both rows."""
    train = pq.read_table(folder / "train_sessions.parquet").column(0).to_pylist()
    test = pq.read_table(folder / "test_cases.parquet")
    prefixes, targets = test["prefix"].to_pylist(), test["target"].to_pylist()
    shop = Sessions(train, prefixes, [[target] for target in targets])
    order = np.random.default_rng(0).permutation(len(train))
    chosen = [train[n] for n in order[:CHOOSING] if len(train[n]) > 1]
    rest = shop.snapshot([train[n] for n in np.sort(order[CHOOSING:])])
    begun = shop.snapshot([items[:-1] for items in chosen])
    wanted = shop.numbers([items[-1] for items in chosen])
    asked, target_C = shop.snapshot(prefixes), shop.numbers(targets)

    def validate(model: Scorer) -> float:
        rank_C = ranks(model, begun, wanted)
        return float(np.where(rank_C <= 10, 1 / np.log2(1 + rank_C), 0).mean())

    for kind in ("transitions", "sequence"):
        started = time.perf_counter()
        model = fit_model(kind, rest, {}, Run(validate=validate))
        spent = time.perf_counter() - started
        print(f"{kind:<12} {figures(ranks(model, asked, target_C))}  fitted in {spent:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
