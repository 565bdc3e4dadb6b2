"""The fully observed KuaiRec matrix as a world with known answers: candidates, rewards, features.

Bring your own folder with ``full_users_*.csv.gz``, ``full_users_*_pos.csv.gz``, ``history_pos.csv.gz`` and
``items.csv.gz`` (KuaiRec, CC BY-SA 4.0).
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        yield from csv.DictReader(file)


class World:
    """U users, N items; ``like_UN`` is the truth, the rest is what a shop could know before."""

    def __init__(self, folder: Path) -> None:
        (users,) = [p for p in folder.glob("full_users_*.csv.gz") if not p.name.endswith("_pos.csv.gz")]
        (liked,) = folder.glob("full_users_*_pos.csv.gz")
        self.users = [r["user"] for r in rows(users)]
        info = [
            (r["item"], r["tags"].split("|"), r["in_full_matrix"] == "1")
            for r in rows(folder / "items.csv.gz")
        ]
        inside = np.array([here for _, _, here in info])
        tags = sorted({tag for _, found, _ in info for tag in found})
        tag_MP = np.array([[tag in found for tag in tags] for _, found, _ in info], np.float32)  # all items
        self.tags = tags
        m_of = {item: m for m, (item, _, _) in enumerate(info)}
        self.tag_NP = tag_MP[inside]
        self.items = [item for item, _, here in info if here]
        u_of = {u: n for n, u in enumerate(self.users)}
        n_of = {i: n for n, i in enumerate(self.items)}
        self.like_UN = np.zeros((len(self.users), len(self.items)), np.float32)
        for r in rows(liked):
            self.like_UN[u_of[r["user"]], n_of[r["item"]]] = 1
        popularity_M = np.zeros(len(info))
        self.tags_of = {item: tag_MP[m] for item, m in m_of.items()}
        self.history: list[tuple[str, str]] = []  # of everybody, in order: user id, item id
        self.past: list[tuple[int, str]] = []  # what these people turned to before, in order: person, item id
        past_UP = np.zeros((len(self.users), len(tags)))
        size_U = np.zeros(len(self.users))
        for r in rows(folder / "history_pos.csv.gz"):
            self.history.append((r["user"], r["item"]))
            popularity_M[m_of[r["item"]]] += 1
            if r["user"] in u_of:
                self.past.append((u_of[r["user"]], r["item"]))
                past_UP[u_of[r["user"]]] += tag_MP[m_of[r["item"]]]
                size_U[u_of[r["user"]]] += 1
        self.popularity_N = popularity_M[inside]
        # Taste: the person's share of each tag against everybody's, smoothed by one average event.
        share_P = (popularity_M @ tag_MP + 1) / (popularity_M.sum() + 1)
        taste_UP = (past_UP + share_P) / (size_U[:, None] + 1)
        self.taste_UN = (taste_UP / share_P) @ self.tag_NP.T / np.maximum(self.tag_NP.sum(axis=1), 1)
        self.taste_UN = np.log(self.taste_UN)
        self.active_U = np.log1p(size_U)

    def cases(self, rng: np.random.Generator, count: int, size: int = 50) -> tuple[np.ndarray, np.ndarray]:
        """Random people, and for each some random different items: (C,), (C, size)."""
        user_C = rng.integers(len(self.users), size=count)
        item_CA = rng.integers(len(self.items), size=(count, size))
        while True:  # draw anew the few rows that hold an item twice
            ordered = np.sort(item_CA, axis=1)
            twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
            if not twice.any():
                return user_C, item_CA
            item_CA[twice] = rng.integers(len(self.items), size=(int(twice.sum()), size))

    def features(self, user_C: np.ndarray, item_CA: np.ndarray) -> np.ndarray:
        """What a reward model sees of each person and item: (C, A, 4)."""
        shape = item_CA.shape
        return np.stack(
            [
                np.log1p(self.popularity_N)[item_CA],
                self.taste_UN[user_C[:, None], item_CA],
                np.broadcast_to(self.active_U[user_C][:, None], shape),
                np.broadcast_to(self.tag_NP.sum(axis=1)[item_CA], shape),
            ],
            axis=2,
        )


def softmax(score: np.ndarray) -> np.ndarray:
    out = np.exp(score - score.max(axis=1, keepdims=True))
    return out / out.sum(axis=1, keepdims=True)


def greedy(score: np.ndarray) -> np.ndarray:
    out = np.zeros_like(score)
    out[np.arange(len(score)), score.argmax(axis=1)] = 1
    return out
