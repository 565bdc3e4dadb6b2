"""First sessions: what to show somebody of whom only the declared attributes, or the hour, are known.

Bring ``ml-1m`` or ``complete-journey``, or any other set of ``datasets.py`` for the second half alone. A fifth of the
people (of the households whose attributes are known) never enters training; of each the first ten items are asked for,
ten are shown. Attributes and hours multiply the share of what people begin with by how much more often their group
turned to an item than expected, drawn to 1 by 20 events.

Then the session itself is the context: after its first one, two, three and five items the next ten are asked for, of
counted models and of the sequence model, which is fitted as everywhere, on the people of the log that are no newcomers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import DATASETS

from penchant.core import DAY, KIND_CODES, Run, Snapshot, Vocabulary
from penchant.data import leave_one_out, sequence_batch
from penchant.evaluation import validation_metric
from penchant.models import Sequence
from penchant.testing import snapshot_from_arrays
from penchant.training import fit_model

K, DRAWN, WEIGHTS = 10, 20, (0.3, 0.6, 1.0)
SEEN = (1, 2, 3, 5)  # items of a first session that are known
COUNTED = ("transitions", "item_knn")
CHOOSING = 1500  # people who stop and blend the sequence model


def movielens(folder: Path) -> tuple[list[list[int]], np.ndarray]:
    """Sequences of items, and gender, age and occupation of each person."""
    events = (
        pq.read_table(folder / "interactions.parquet").to_pandas().sort_values(["user", "pos"], kind="stable")
    )
    users = pq.read_table(folder / "users.parquet").to_pandas().set_index("ml_user")
    people = events.groupby("user")
    told = users.loc[people.ml_user.first().to_numpy(), ["gender", "age_code", "occupation"]]
    return people.item.apply(list).tolist(), told.astype(str).to_numpy()


def journey(folder: Path) -> tuple[list[list[int]], np.ndarray]:
    """Sequences of products, and what is declared of each household beside the part of the day of its first basket."""
    columns = ["household_id", "product_id", "transaction_timestamp"]
    events = pq.read_table(folder / "transactions.parquet", columns=columns).to_pandas()
    events = events.sort_values(["household_id", "transaction_timestamp"], kind="stable")
    events["item"] = events.product_id.astype("category").cat.codes
    told = pq.read_table(folder / "demographics.parquet").to_pandas().astype(str).set_index("household_id")
    names = ["age", "income", "household_size", "household_comp", "home_ownership"]
    people = events.groupby("household_id")
    known = told.reindex([str(house) for house in people.groups])[names].fillna("").to_numpy()
    part = (people.transaction_timestamp.first().dt.hour // 4).astype(str).to_numpy()[:, None]
    return people.item.apply(list).tolist(), np.concatenate([known, part], axis=1)


def any_log(folder: Path) -> tuple[list[list[int]], np.ndarray]:
    """Sequences of items of a set of ``datasets.py``, and nothing of the people."""
    data = next(data for data in DATASETS if data.folder == folder.name)
    events = data.read(folder).events.to_pandas().sort_values("timestamp", kind="stable")
    events["item"] = events.item_id.astype("category").cat.codes
    people = events.groupby("user_id").item.apply(list).tolist()
    return people, np.zeros((len(people), 0), str)


def counted(lists: list[list[int]], width: int) -> np.ndarray:
    """How many of the lists hold each item."""
    return np.bincount([item for items in lists for item in set(items)], minlength=width).astype(float)


def main() -> None:
    """Print recall of popularity, of what people begin with, and of attributes at several weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    read = {"ml-1m": movielens, "complete-journey": journey}.get(folder.name, any_log)
    sequences, told = read(folder)
    width = max(map(max, sequences)) + 1
    rng = np.random.default_rng(0)
    asked = rng.random(len(told)) < 0.2
    if told.size:
        asked &= told[:, 0] != ""
    kept = [items for items, new in zip(sequences, asked, strict=True) if not new]
    kept_told = told[~asked]
    share = counted(kept, width) + 0.5
    share /= share.sum()
    begun = [list(dict.fromkeys(items))[:K] for items in kept]
    first = counted(begun, width) + 20 * share
    first /= first.sum()
    newcomers = [sequences[n] for n in np.flatnonzero(asked)]
    if not told.size:
        after_some(kept, newcomers, first)
        return

    def lift(column: int, value: str) -> np.ndarray:
        group = counted([s for s, t in zip(kept, kept_told[:, column], strict=True) if t == value], width)
        return np.log((group + DRAWN) / (share * group.sum() + DRAWN))

    lifts = {(c, v): lift(c, v) for c in range(told.shape[1]) for v in set(told[asked, c])}
    cases = [(told[n], list(dict.fromkeys(sequences[n]))[:K]) for n in np.flatnonzero(asked)]
    tie = rng.random(width) * 1e-9

    def recall(base: np.ndarray, weight: float) -> np.ndarray:
        found = []
        for attributes, wanted in cases:
            extra = sum(lifts[c, v] for c, v in enumerate(attributes)) if weight else 0.0
            top = np.argpartition(-(np.log(base) + weight * extra + tie), K)[:K]
            found.append(np.isin(wanted, top).mean())
        return np.array(found)

    rows = {"popularity": recall(share, 0), "what people begin with": recall(first, 0)}
    rows |= {f"and attributes at {weight}": recall(first, weight) for weight in WEIGHTS}
    print(f"{len(cases):,} newcomers, recall@{K} of their first {K} items")
    for name, found in rows.items():
        gap = found - rows["what people begin with"]
        print(f"{name:<24} {interval(found)}   against what people begin with: {interval(gap)}")
    after_some(kept, newcomers, first)


def snapshot(people: list[list[int]], width: int) -> Snapshot:
    """Items of some people, a day apart."""
    row = np.repeat(np.arange(len(people)), [len(items) for items in people])
    return snapshot_from_arrays(
        users=Vocabulary([f"{n:06d}" for n in range(len(people))]),
        items=Vocabulary([f"{n:06d}" for n in range(width)]),
        row=row,
        item=np.concatenate([np.array(items) for items in people]) + 1,
        kind=np.full(len(row), KIND_CODES["purchase"], np.uint8),
        ts=np.concatenate([np.arange(len(items)) * DAY for items in people]),
    )


def after_some(kept: list[list[int]], newcomers: list[list[int]], first: np.ndarray) -> None:
    """Print recall of the next items of people whose first ones are known, by what people begin with and by counts."""
    train, new = snapshot(kept, len(first)), snapshot(newcomers, len(first))
    models = {kind: fit_model(kind, train, {}, Run()) for kind in COUNTED}
    known, choose = leave_one_out(train, leave_out=1, target=1, max_users=CHOOSING)
    judge = validation_metric(choose, measure="NDCG@10")
    # Days are made up here, so that nothing is popular of late.
    sequence = fit_model("sequence", known, {"trend_weight": 0.0}, Run(validate=judge))
    assert isinstance(sequence, Sequence)
    models["sequence"] = sequence.recounted(train)
    for seen in SEEN:
        rows = np.array([n for n, items in enumerate(newcomers) if set(items[seen:]) - set(items[:seen])])
        wanted = [
            list(dict.fromkeys(i for i in newcomers[r][seen:] if i not in newcomers[r][:seen]))[:K]
            for r in rows
        ]
        batch = sequence_batch(new, rows, seen, end=new.ptr[rows] + seen)
        scores = {"what people begin with": np.tile(np.log(first), (len(rows), 1))}
        scores |= {kind: np.array(model.scores(batch))[:, 1:] for kind, model in models.items()}
        found = {}
        for name, score_BN in scores.items():
            np.put_along_axis(score_BN, batch.item_BT - 1, -np.inf, axis=1)
            top_BK = np.argpartition(-score_BN, K, axis=1)[:, :K]
            found[name] = np.array(
                [np.isin(want, top).mean() for want, top in zip(wanted, top_BK, strict=True)]
            )
        print(f"after {seen} of their items, {len(rows):,} newcomers, recall@{K} of the next {K}")
        for name, hits in found.items():
            gap = hits - found["what people begin with"]
            print(f"{name:<24} {interval(hits)}   against what people begin with: {interval(gap)}")


def interval(found: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval over people."""
    rng = np.random.default_rng(0)
    means = [found[rng.integers(len(found), size=len(found))].mean() for _ in range(1000)]
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{found.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    main()
