"""What is known of items before any outcome: how often people turned to them, in whose company, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import TARGET_KINDS, Bools, Floats, Ints, Vocabulary
from penchant.data import numbered_labels
from penchant.engine._answer_ids import plain_history
from penchant.models import company_vectors

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_MOST_PAIRS = 2_000_000  # pairs of person and item that item vectors are made from
_WIDTH = 4  # of item vectors
_MOST_LABELS = 8  # of an item; the rarest stay


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of items before any outcome: shared features, their priors, labels, who is fresh."""

    feature_NF: Floats  # (N + 1, F); the last one is filled in for each request: the model's score
    prior_F: Floats
    spread_F: Floats
    label_NL: Ints
    fresh_N: Bools
    category_N: list[str | None]


def gather_facts(
    shop: Shop,
    items: Vocabulary,
    catalog: pa.Table,
    *,
    vectors: bool,
    up_to: int | None = None,
    as_of: int | None = None,
) -> Facts:
    """Read what is known of items: how often people turned to them, in whose company, and their labels.

    Events that name an answer of ours are left out: what they say is learned as an outcome. With ``up_to`` only events
    up to this number of the log are read, with ``as_of`` only those before that moment.
    """
    person_M, item_M = _pairs(shop, items, up_to, as_of)
    rows = len(items) + 1
    count_N = np.bincount(item_M, minlength=rows).astype(np.float64)
    fresh_N = count_N == 0
    columns, prior, spread = [np.ones(rows)], [-1.7], [0.5]
    if vectors and len(item_M):
        log_N = np.log1p(count_N)
        z_N = np.where(fresh_N, 0, (log_N - log_N[~fresh_N].mean()) / max(float(log_N[~fresh_N].std()), 1e-9))
        # Hermite polynomials: popularity may count for more or less than in proportion.
        columns += [
            z_N,
            np.where(fresh_N, 0, z_N**2 - 1),
            np.where(fresh_N, 0, z_N**3 - 3 * z_N),
            fresh_N * 1.0,
        ]
        prior += [0.0] * 4
        spread += [0.2, 0.2, 0.05, 0.5]
        shape = int(person_M.max()) + 1, rows
        vector_ND = company_vectors(person_M, item_M, shape, _WIDTH, np.random.default_rng(0), count_N)
        if vector_ND.shape[1]:
            vector_ND /= max(float(vector_ND[~fresh_N].std()), 1e-9)
        columns += list(vector_ND.T)
        prior += [0.0] * vector_ND.shape[1]
        spread += [0.2] * vector_ND.shape[1]
    columns.append(np.zeros(rows))
    prior.append(0.4)
    spread.append(0.2)
    labels, categories = label_numbers(items, catalog), categories_of(items, catalog)
    return Facts(np.stack(columns, 1), np.array(prior), np.array(spread), labels, fresh_N, categories)


def _pairs(shop: Shop, items: Vocabulary, up_to: int | None, as_of: int | None) -> tuple[Ints, Ints]:
    """Who turned to what, at most ``_MOST_PAIRS``: person numbers and item numbers, unattributed events only."""
    kinds = pa.array(sorted(str(kind) for kind in TARGET_KINDS))
    persons, found, base, total = [], [], 0, 0
    for bucket in range(shop.store.num_buckets):
        columns = ["subject", "kind", "item_id", "recommendation_id"]
        table = shop.store.scan(bucket=bucket, columns=columns, up_to=up_to, as_of=as_of)
        keep = pc.and_(pc.is_in(table["kind"], value_set=kinds), plain_history(table["recommendation_id"]))
        table = table.filter(keep)
        if not table.num_rows:
            continue
        item_M = items.numbers_in(table["item_id"])
        subject = table["subject"].combine_chunks().dictionary_encode()
        persons.append(np.asarray(subject.indices, np.int64)[item_M > 0] + base)
        found.append(item_M[item_M > 0])
        base += len(subject.dictionary)
        total += len(found[-1])
        if total >= _MOST_PAIRS:
            break
    none = np.zeros(0, np.int64)
    return (np.concatenate(persons), np.concatenate(found)) if persons else (none, none)


def categories_of(items: Vocabulary, catalog: pa.Table) -> list[str | None]:
    """Category path of every item number: N + 1, None where there is none."""
    found = dict(zip(catalog["id"].to_pylist(), catalog["category"].to_pylist(), strict=True))
    return [None, *(found.get(item) for item in items.array.to_pylist())]


def label_numbers(items: Vocabulary, catalog: pa.Table) -> Ints:
    """Labels, brand and category of every item as numbers: (N + 1, L), 0 = none; the rarest of each item stay."""
    rows = catalog.select(["id", "labels", "brand", "category"]).to_pylist() if catalog.num_rows else []
    pairs = [
        (number, text)
        for row in rows
        if (number := items.number(row["id"]))
        for text in (
            *(f"label {label}" for label in row["labels"] or ()),
            *(f"{name} {row[name]}" for name in ("brand", "category") if row[name]),
        )
    ]
    item_P = np.array([number for number, _ in pairs], np.int64)
    text_P = np.array([text for _, text in pairs], object)
    return numbered_labels(item_P, text_P, len(items), limit=_MOST_LABELS, most=len(items))
