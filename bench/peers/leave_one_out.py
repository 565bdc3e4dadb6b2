"""What every side of ``train_speed.py`` shares, in whatever environment it runs: the data, the clock, the score.

Needs numpy and pyarrow. A side trains on everybody's sequence without the last two items; the last but one item of
some people, asked for with the earlier ones seen and left out, gives its validation score. The last is never read.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow.parquet as pq

LENGTH, WIDTH, DEPTH, HEADS, DROPOUT = 50, 64, 2, 2, 0.2
PEOPLE = 3000  # who validates
K = 10


def arguments() -> argparse.Namespace:
    """Words that every side takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="Parquet with user, item (numbers from 1) and pos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--epochs", type=int, default=0, help="train so many epochs; 0: only time --steps steps"
    )
    parser.add_argument("--steps", type=int, default=10)
    return parser.parse_args()


@dataclass
class Data:
    """Sequences without their last two items, and the cases that validate."""

    train: list[np.ndarray]  # of everybody, item numbers from 1
    people: np.ndarray  # who validates
    target: np.ndarray  # their last but one item
    num_items: int

    @classmethod
    def read(cls, path: str) -> Data:
        """Read the file and draw who validates."""
        table = pq.read_table(path)
        user, item, pos = (np.asarray(table[name]) for name in ("user", "item", "pos"))
        order = np.lexsort((pos, user))
        user, item = user[order], item[order].astype(np.int64)
        whole = np.split(item, np.flatnonzero(np.diff(user)) + 1)
        people = np.sort(np.random.default_rng(0).permutation(len(whole))[:PEOPLE])
        target = np.array([whole[person][-2] for person in people])
        return cls([sequence[:-2] for sequence in whole], people, target, int(item.max()))

    def ndcg(self, top_PK: np.ndarray) -> float:
        """Mean NDCG of the ten best items of each person who validates, (P, 10) item numbers."""
        place = np.argmax(top_PK == self.target[:, None], axis=1)
        hit = (top_PK == self.target[:, None]).any(axis=1)
        return float(np.where(hit, 1 / np.log2(place + 2), 0).mean())

    def best_unseen(self, score_PN: np.ndarray) -> np.ndarray:
        """The ten best items of each person, (P, 10), from scores (P, N + 1); what they had is left out."""
        score_PN = score_PN.copy()
        score_PN[:, 0] = -np.inf
        for row, person in enumerate(self.people):
            score_PN[row, self.train[person]] = -np.inf
        return np.argsort(-score_PN, axis=1, kind="stable")[:, :K]


@dataclass
class Clock:
    """CPU seconds of training alone, and what was trained in them."""

    seconds: float = 0.0
    targets: int = 0
    steps: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)

    def step(self, work: Callable[[], int]) -> None:
        """Time one step; ``work`` tells its targets."""
        started = time.process_time()
        targets = work()
        self.add(time.process_time() - started, targets)

    def add(self, seconds: float, targets: int) -> None:
        """Count a step that was timed elsewhere."""
        self.seconds, self.targets, self.steps = (
            self.seconds + seconds,
            self.targets + targets,
            self.steps + 1,
        )

    def score(self, ndcg: float) -> None:
        """Note the validation score after an epoch."""
        self.curve.append({"cpu_seconds": self.seconds, "ndcg": ndcg})
        print(f"  {self.seconds:.0f} cpu-s: NDCG@{K} {ndcg:.4f}", flush=True)

    def report(self, **more: float) -> None:
        """Print one line of JSON, the last of the output."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = {"us_per_target": 1e6 * self.seconds / max(1, self.targets), "peak_mb": peak}
        print(
            json.dumps(
                {**found, "seconds": self.seconds, "targets": self.targets, "curve": self.curve, **more}
            )
        )
