"""Exact against approximate search of item vectors, and what the blended answers make of it, by catalogue size.

Vectors are made: a power law over the directions, groups, and unequal lengths, as trained tables have. What a person
wants lies near what they had. Some items sell more of late, some less. Every item has 20 counted successors and 30
neighbours. One item in ten may not be shown.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
from machine import describe
from rich.console import Console
from rich.table import Table
from scipy import sparse

from penchant.core import KIND_CODES, Run, SequenceBatch
from penchant.models import (
    ExactIndex,
    Habits,
    HabitsConfig,
    ItemKNN,
    ItemKNNConfig,
    QuantizedIndex,
    Sequence,
    Transitions,
    TransitionsConfig,
    best_of,
    choose_index,
)
from penchant.testing import markov_snapshot
from penchant.training import fit_model

WIDTH, HISTORY, LIMIT = 64, 30, 500


def vectors(items: int, draw: np.random.Generator) -> Any:
    """(N + 1, D) item vectors."""
    spectrum_D = np.arange(1, WIDTH + 1) ** -0.5
    centre_GD = draw.normal(size=(max(50, items // 200), WIDTH))
    vec_ND = 0.7 * centre_GD[draw.integers(len(centre_GD), size=items + 1)]
    vec_ND += draw.normal(size=vec_ND.shape)
    vec_ND *= spectrum_D
    vec_ND *= np.exp(0.25 * draw.normal(size=(items + 1, 1))) / np.linalg.norm(vec_ND, axis=1, keepdims=True)
    vec_ND[0] = 0
    return vec_ND.astype(np.float32)


def pairs(items: int, each: int, draw: np.random.Generator) -> sparse.csr_array:
    """A counted matrix with some successors of every item; popular ones are drawn more often."""
    row_P = np.repeat(np.arange(1, items + 1), each)
    column_P = 1 + (items * draw.random(len(row_P)) ** 2).astype(np.int64)
    value_P = draw.random(len(row_P)).astype(np.float32)
    return sparse.coo_array((value_P, (row_P, column_P)), shape=(items + 1, items + 1)).tocsr()


class Made(Sequence):
    """The encoder is run for its cost; what it would have learned is put in its place."""

    def interests(self, batch: SequenceBatch) -> Any:
        mean_BRD, spread_BR = super().interests(batch)
        near_BD = 4 * self.item_ND[batch.item_BT[:, -3:]].mean(axis=1)
        return near_BD[:, None] + 0 * mean_BRD, spread_BR


def made_model(items: int, like: Sequence, draw: np.random.Generator) -> Made:
    """A model of many items with the encoder of another."""
    popular_N = draw.random(items + 1).astype(np.float32)
    made = {
        "transitions": Transitions.from_matrix(
            TransitionsConfig(decay=0.7), pairs(items, 20, draw), popular_N
        ),
        "neighbours": ItemKNN.from_matrix(ItemKNNConfig(decay=0.9), pairs(items, 30, draw), popular_N),
        "habits": Habits(HabitsConfig(weights=like.habits.weights), popular_N, popular_N),
        "prior_N": np.log(popular_N + 1e-3),
        "trend_N": draw.standard_t(4, size=items + 1).astype(np.float32),
        "item_ND": vectors(items, draw),
    }
    return Made(**{part.name: getattr(like, part.name) for part in fields(like)} | made)


def histories(items: int, people: int, draw: np.random.Generator) -> list[SequenceBatch]:
    made = []
    for _ in range(people):
        item_BT = draw.integers(1, items + 1, size=(1, HISTORY))
        shape = item_BT.shape
        made.append(
            SequenceBatch(
                item_BT=item_BT,
                kind_BT=np.full(shape, KIND_CODES["purchase"], np.int64),
                gap_BT=np.ones(shape, np.float32),
                value_BT=np.zeros(shape, np.float32),
                mask_BT=np.ones(shape, np.bool_),
                user_BF=np.zeros((1, 0), np.float32),
            )
        )
    return made


def timed(calls: Any) -> tuple[list[Any], float, float]:
    """Answers, and the median and 99th percentile of their CPU milliseconds; the first call warms up."""
    answers, seconds = [], []
    for call in calls:
        begun = time.thread_time()
        answers.append(call())
        seconds.append(time.thread_time() - begun)
    return answers, *(1000 * np.percentile(seconds[1:], [50, 99]))


def overlap(wanted: list[Any], found: list[Any], k: int) -> float:
    """Share of each one's true best k that was found."""
    shares = []
    for (item_K, score_K), (other_K, _) in zip(wanted, found, strict=True):
        shares.append(np.isin(item_K[np.argsort(-score_K, kind="stable")[:k]], other_K).mean())
    return float(np.mean(shares))


def main() -> None:
    """One row a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 200_000, 1_000_000])
    parser.add_argument("--people", type=int, default=200)
    given = parser.parse_args()
    console = Console(width=150)
    console.print(describe())
    table = Table(
        "items", "search", "depth", "build s", "MB beside vectors", "search p50 / p99 ms", "recall@100",
        "best 500, blended: p50 / p99 ms", "blend recall@10 / @100 / @500", "every score: p50 ms",
    )  # fmt: skip
    rows = []
    settings = {
        "size": "small",
        "epochs": 1.0,
        "counts_weight": 1.0,
        "neighbours_weight": 0.5,
        "repeats_weight": 1.0,
        "trend_weight": 0.5,
    }
    like = fit_model("sequence", markov_snapshot(), settings, Run())
    assert isinstance(like, Sequence)
    for items in given.items:
        draw = np.random.default_rng(0)
        model = made_model(items, like, draw)
        batches = histories(items, given.people, draw)
        allowed_N = draw.random(items + 1) < 0.9
        allowed_N[0] = False
        query_QRD = np.concatenate([model.interests(batch)[0] for batch in batches])
        _, report = choose_index(model.item_ND, query_QRD, model.bias_N)
        begun = time.process_time()
        codes = QuantizedIndex.build(model.item_ND, model.bias_N)
        build = time.process_time() - begun
        depth = report.depth or 2000
        few = batches[:20]

        def by_scores(batch: SequenceBatch, model: Sequence = model, allowed_N: Any = allowed_N) -> Any:
            score_N = model.scores(batch)[0]
            item_N = np.flatnonzero(allowed_N)
            return best_of(item_N, score_N[item_N], LIMIT)

        truth, every_ms, _ = timed([lambda b=batch: by_scores(b) for batch in few])
        exact_truth: list[Any] = []
        for name, index in (
            ("exact", ExactIndex(model.item_ND, model.bias_N)),
            ("quantized", codes.at(depth)),
        ):
            served = replace(model, approximate=None if name == "exact" else index)
            searched, p50, p99 = timed(
                [lambda q=query_RD, i=index, a=allowed_N: i.search(q, 100, a) for query_RD in query_QRD]
            )
            exact_truth = exact_truth or searched
            blended, best50, best99 = timed(
                [lambda b=batch, m=served, a=allowed_N: m.best(b, a, LIMIT) for batch in batches]
            )
            row = {
                "items": items,
                "search": name + (" *" if name == report.kind else ""),
                "depth": depth if name == "quantized" else 0,
                "build_s": build if name == "quantized" else 0.0,
                "mb": codes.stored().nbytes / 1e6 if name == "quantized" else 0.0,
                "search_ms": [p50, p99],
                "recall@100": overlap(exact_truth, searched, 100),
                "best_ms": [best50, best99],
                "blend": [overlap(truth, blended[: len(few)], k) for k in (10, 100, 500)],
                "every_score_ms": every_ms,
            }
            rows.append(row)
            table.add_row(
                f"{items:,}", row["search"], f"{row['depth']:,}", f"{row['build_s']:.1f}", f"{row['mb']:.1f}",
                f"{p50:.2f} / {p99:.2f}", f"{row['recall@100']:.4f}", f"{best50:.2f} / {best99:.2f}",
                " / ".join(f"{share:.4f}" for share in row["blend"]), f"{every_ms:.1f}",
            )  # fmt: skip
        console.print(f"{items:,} items: {report.note}; {msgspec.json.encode(report).decode()}")
    console.print(table)
    console.print("* what choose_index took")
    console.print(json.dumps(rows))


if __name__ == "__main__":
    main()
