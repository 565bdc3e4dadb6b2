"""Is more earned when answers are ranked by value? A year of a gift shop's invoices (UCI Online Retail), with prices.

Models learn from the first nine tenths of the purchases. One half of the people chooses, and tells how likely what
stands at a rank is to be bought; the other half is measured on what it bought afterwards, full ranking, repeats
allowed. What an item brings is its median price: the log knows no costs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from kinds import halves

from penchant.core import (
    CATALOG_SCHEMA,
    KIND_CODES,
    Catalog,
    Floats,
    Ints,
    Run,
    Scorer,
    SequenceBatch,
    Snapshot,
    Vocabulary,
)
from penchant.data import item_values, time_split
from penchant.evaluation import paired_difference, rank_metrics, target_ranks, validation_metric
from penchant.models import RankChance, expected_value
from penchant.testing import snapshot_from_arrays
from penchant.training import fit_model

MODELS = ["popularity", "item_knn", "transitions", "frequency", "habits"]


def uci(folder: Path) -> Snapshot:
    """Purchases of known customers; postage and the like have codes without five digits and are left out."""
    raw = pd.read_parquet(folder / "transactions.parquet")
    good = raw["CustomerID"].notna() & (raw["Quantity"] > 0) & (raw["UnitPrice"] > 0)
    raw = raw[good & raw["StockCode"].astype(str).str.match(r"\d{5}")]
    person, item = raw["CustomerID"].astype(str), raw["StockCode"].astype(str)
    users, items = Vocabulary(sorted(person.unique())), Vocabulary(sorted(item.unique()))
    made = snapshot_from_arrays(
        users=users,
        items=items,
        row=users.numbers(person.tolist()) - 1,
        item=items.numbers(item.tolist()),
        kind=np.full(len(raw), KIND_CODES["purchase"], np.uint8),
        ts=pd.to_datetime(raw["InvoiceDate"]).astype("datetime64[us]").astype(np.int64).to_numpy(),
    )
    price = (raw.groupby(item)["UnitPrice"].median() * 100).round()
    rows = [
        dict.fromkeys(CATALOG_SCHEMA.names) | {"id": i, "price": price[i], "currency": "GBP"}
        for i in items.ids
    ]
    return replace(made, catalog=Catalog(pa.Table.from_pylist(rows, CATALOG_SCHEMA)))


class ByValue:
    """A scorer whose items are ranked by what they are expected to bring."""

    def __init__(self, scorer: Scorer, value_N: Floats, law: RankChance) -> None:
        self.scorer, self.value_N, self.law = scorer, value_N, law
        self.config: msgspec.Struct = scorer.config

    def scores(self, batch: SequenceBatch) -> Floats:
        """Expected value of every item, (B, N + 1)."""
        return np.stack(
            [expected_value(row_N, self.value_N, self.law) for row_N in self.scorer.scores(batch)]
        )

    def related(self, items_Q: Ints) -> Floats:
        """Not a matter of value."""
        return self.scorer.related(items_Q)

    def affinity(self, history_T: Ints, items_K: Ints) -> Floats:
        """Not a matter of value."""
        return self.scorer.affinity(history_T, items_K)


def main(folder: Path, models: list[str]) -> None:
    """One row a model: hits and pounds, by interest and by value."""
    snapshot = uci(folder)
    train, cases = time_split(snapshot, share=0.1)
    choose, test = halves(replace(cases, history=replace(train, catalog=snapshot.catalog)))
    value_N = item_values(snapshot.catalog.table, snapshot.items)
    assert value_N is not None
    run = Run(validate=validation_metric(choose, seen="allow"))
    usual = np.median(value_N[1:]) / 100
    print(f"{snapshot.num_events:,} purchases, {snapshot.num_items:,} items, median price {usual:.2f} GBP")
    print(f"{len(test):,} people measured; value in pence")
    for name in models:
        model = fit_model(name, train, {}, run)
        law = RankChance.fit(target_ranks(model, choose, seen="allow"), snapshot.num_items)
        plain, dear = (
            rank_metrics(scorer, test, name=name, ks=(10,), seen="allow", groups=[])
            for scorer in (model, ByValue(model, value_N, law))
        )
        gap = paired_difference(dear, plain)
        for metric in ("value@10", "HR@10", "NDCG@10"):
            one, two = plain.metrics[metric], dear.metrics[metric]
            print(f"{name:<12} {metric:<9} by interest {one}  by value {two}  {gap[metric].signed}")
        print(f"{'':<12} {law}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="*", default=MODELS)
    given = parser.parse_args()
    main(given.folder, given.models)
