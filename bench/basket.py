"""The next basket of people who come back: habits and the sequence model beside published next-basket baselines.

Bring a shop (``penchant init``, ``catalog``, ``ingest``). All learn from the events before one moment. Half of the
people who bought later choose the baselines' settings (and the blend of the sequence model); the others are measured,
on their next basket and on everything they bought later, over the full catalogue, repeats allowed.

Letters: B people in a batch, T events, N items, U people of the training snapshot.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

from penchant import Engine
from penchant.core import HISTORY_EVENTS, Run, SequenceBatch, Snapshot, rng
from penchant.data import (
    VISIT,
    Cases,
    basket_size,
    is_target,
    make_snapshot,
    next_baskets,
    sequence_batch,
    time_split,
)
from penchant.evaluation import Evaluation, paired_difference, rank_metrics, validation_metric
from penchant.training import fit_model

MEASURE = "NDCG@10"
SHOWN = (
    "recall@10",
    "NDCG@10",
    "recall@20",
    "NDCG@20",
    "repeat_recall@10",
    "new_recall@10",
    "repeat_share@10",
)
CHOOSE = 500  # people at most who choose
WeightOf = Callable[[Any, Any], Any]  # (baskets newer than each event, baskets in all) -> weight


def own_vectors(batch: SequenceBatch, num_items: int, weight: WeightOf) -> sparse.csr_array:
    """What each person bought, each basket weighed once by its age: (B, N + 1)."""
    counted_BT = is_target(batch.kind_BT.astype(np.uint8), batch.item_BT) & batch.mask_BT
    visit_BT = (np.expm1(batch.gap_BT.astype(np.float64)) >= VISIT / 1e6).cumsum(axis=1)
    row, place = np.nonzero(counted_BT)
    visits_B = visit_BT.max(axis=1) + 1
    key = np.stack([row, batch.item_BT[row, place], visit_BT[row, place]])
    row, item, visit = np.unique(key, axis=1)
    newer = visits_B[row] - 1 - visit
    amount = weight(newer, visits_B[row])
    shape = (len(batch.item_BT), num_items + 1)
    return sparse.csr_array((amount.astype(np.float64), (row, item)), shape=shape)


def up_cf(recent: int) -> WeightOf:
    """User-wise popularity: the share of the last ``recent`` baskets that held the item (Faggioli et al. 2020)."""
    return lambda newer, total: (newer < recent) / np.minimum(total, recent)


def tifu(size: int, within: float, between: float) -> WeightOf:
    """Baskets fade within groups of ``size`` and between groups (TIFU-KNN, Hu et al. 2020)."""
    return lambda newer, total: within ** (newer % size) * between ** (newer // size) / total


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Own vector, and those of the people most like it: ``share * own + (1 - share) * mean of neighbours``."""

    train: sparse.csr_array  # (U, N + 1)
    weight: WeightOf
    count: int
    share: float
    locality: float
    config: Any = None

    def scores(self, batch: SequenceBatch) -> Any:
        """Score every item: (B, N + 1)."""
        own = own_vectors(batch, self.train.shape[1] - 1, self.weight)
        alike_BU = (unit(own) @ unit(self.train).T).toarray()
        alike_BU[alike_BU > 1 - 1e-9] = 0.0  # the person in the training snapshot
        count = min(self.count, alike_BU.shape[1] - 1)
        least_B = -np.partition(-alike_BU, count, axis=1)[:, count]
        near_BU = np.where(alike_BU > least_B[:, None], alike_BU, 0.0) ** self.locality
        near_BU[alike_BU <= least_B[:, None]] = 0.0
        near_BU /= np.maximum(near_BU.sum(axis=1, keepdims=True), 1e-12)
        found_BN = self.share * own + (1 - self.share) * (sparse.csr_array(near_BU) @ self.train)
        score_BN = np.asarray(found_BN.todense(), np.float32)
        score_BN[:, 0] = -np.inf
        return score_BN


def unit(rows: sparse.csr_array) -> sparse.csr_array:
    """Rows of length one."""
    length = np.sqrt(np.asarray((rows * rows).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(length, 1e-12)) @ rows)


def grids() -> Iterator[tuple[str, WeightOf, dict[str, Any]]]:
    """The settings tried for each baseline: those of the papers, thinned."""
    for recent, count, share in product((5, 25, 100), (300,), (0.9, 0.7)):
        yield "UP-CF", up_cf(recent), {"count": count, "share": share, "locality": 5.0}
    for size, within, between, share in product((3, 7), (0.9,), (0.7, 0.9), (0.9, 0.7)):
        yield "TIFU-kNN", tifu(size, within, between), {"count": 300, "share": share, "locality": 0.0}


def baselines(train: Snapshot, judge: Callable[[Any], float]) -> dict[str, Any]:
    """The best setting of each published baseline on the people who choose."""
    best: dict[str, tuple[float, Any]] = {}
    everybody = sequence_batch(train, np.arange(train.num_users), HISTORY_EVENTS)
    known: dict[int, sparse.csr_array] = {}
    for name, weight, settings in grids():
        vectors = known.setdefault(id(weight), own_vectors(everybody, train.num_items, weight))
        model = Neighbours(vectors, weight, **settings)
        figure = judge(model)
        if name not in best or figure > best[name][0]:
            best[name] = (figure, model)
    return {name: model for name, (_, model) in best.items()}


def main() -> None:
    """Print both protocols, and the difference of every baseline from the last model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shop", type=Path)
    parser.add_argument("--share", type=float, default=0.1, help="of the purchases after the split")
    parser.add_argument("--size", default="", help="also fit the sequence model, of this size")
    given = parser.parse_args()
    with Engine.open(given.shop, readonly=True) as engine:
        store = engine.shop.store
        last = store.last_ts()
        assert last is not None, "ingest events first"
        whole = make_snapshot(store, last + 1, engine.shop.snapshots)
    train, cases = time_split(whole, share=given.share)
    order = rng(0, "halves").permutation(len(cases))
    half = len(cases) // 2
    chosen = cases.take(np.sort(order[:half][:CHOOSE]))
    held_out = cases.take(np.sort(order[half:]))
    judge = validation_metric(chosen, measure=MEASURE, seen="allow")
    baskets = next_baskets(whole, held_out)
    console = Console(width=150)
    console.print(
        f"{train.num_events:,} events, {train.num_items:,} items, {basket_size(train):.1f} items a basket; "
        f"{len(chosen):,} people choose, {len(held_out):,} are measured, {len(baskets):,} of them on baskets"
    )
    models: dict[str, Any] = {
        "popularity": fit_model("popularity", train, {}, Run()),
        "frequency": fit_model("frequency", train, {"decay": 1.0}, Run()),
        "frequency, fading": fit_model("frequency", train, {}, Run(validate=judge)),
        **baselines(train, judge),
    }
    if given.size:
        models["sequence"] = fit_model("sequence", train, {"size": given.size}, Run(validate=judge))
    models["habits"] = fit_model("habits", train, {}, Run())
    for title, asked in (("next basket", baskets), ("all after the split", held_out)):
        report(console, title, {name: measured(model, asked) for name, model in models.items()})


def measured(model: Any, cases: Cases) -> Evaluation:
    """One model under one protocol."""
    return rank_metrics(model, cases, ks=(10, 20), seen="allow", groups=(), repeats=True)


def report(console: Console, title: str, found: dict[str, Evaluation]) -> None:
    """Figures of all models, and what the last ones have over the others."""
    table = Table(title, *SHOWN)
    for name, evaluation in found.items():
        table.add_row(name, *(f"{evaluation.metrics[m].value:.4f}" for m in SHOWN))
    console.print(table)
    for winner in ("habits", "sequence"):
        if winner not in found:
            continue
        gaps = Table(f"{winner} against", *SHOWN[:3])
        for name, evaluation in found.items():
            if name != winner:
                gap = paired_difference(found[winner], evaluation)
                gaps.add_row(name, *(gap[m].signed for m in SHOWN[:3]))
        console.print(gaps)


if __name__ == "__main__":
    main()
