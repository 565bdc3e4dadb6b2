"""New items: a fifth of the items is hidden from training and must be found among all of them by what they say.

Bring one of the folders ``amazon18-text``, ``uci-online-retail`` or ``complete-journey``. Models learn from what
happened before the test, without any event of a hidden item; what is open is found on what people turned to next, as
in any training. Then everybody who turned to hidden items in the test is asked about, over the full catalogue and over
the hidden items alone, and everybody about the others.
"""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from penchant.core import CATALOG_SCHEMA, DAY, KIND_CODES, Catalog, Run, SequenceBatch, Snapshot, Vocabulary
from penchant.data import Cases, ContentStore, item_texts
from penchant.evaluation import Evaluation, paired_difference, rank_metrics, validation_metric
from penchant.models import load_encoder
from penchant.testing import snapshot_from_arrays
from penchant.training import fit_model

START = 1_700_000_000_000_000
HIDDEN = 0.2  # share of the items
TOPICS = 64  # where the catalogue has no categories, groups of like texts stand in for them
CHOOSING = 1500  # people who stop and blend
EVERY = (5, 2)  # which places a shop might keep for items that nobody has met


@dataclass(eq=False)
class Log:
    """Who turned to what, in order, each item once; from ``cut`` on it is the test."""

    person: list[str]
    items: list[list[str]]
    ts: list[list[int]]
    cut: list[int]
    catalog: pa.Table
    validation_ts: int | None = None  # None where there are no times: then a person's last item is asked for

    def validation_start(self, row: int) -> int:
        """Where a person's validation begins."""
        if self.validation_ts is None:
            return self.cut[row] - 1
        return bisect_left(self.ts[row], self.validation_ts, hi=self.cut[row])


def amazon(folder: Path, part: str) -> Log:
    """Review histories of at most ten items and the next one; the later ones are the test."""
    histories: dict[str, tuple[list[int], int]] = {}
    for name in ("valid", "test"):
        for row in pq.read_table(folder / f"{part}_{name}.parquet").to_pylist():
            known, _ = histories.get(row["user"], ([], 0))
            joined = _joined(known, row["history"])
            histories[row["user"]] = ([*joined, row["target"]], len(joined) + (name == "valid"))
    table = pq.read_table(folder / f"{part}_items.parquet").to_pylist()
    rows = [{"id": str(row["item"]), "title": row["title"], "brand": row["brand"]} for row in table]
    once = {user: (list(dict.fromkeys(items)), cut) for user, (items, cut) in sorted(histories.items())}
    return Log(
        person=list(once),
        items=[[str(item) for item in items] for items, _ in once.values()],
        ts=[[START + n * DAY for n in range(len(items))] for items, _ in once.values()],
        cut=[min(cut, len(items)) for items, cut in once.values()],
        catalog=catalog_table(rows),
    )


def _joined(known: list[int], history: list[int]) -> list[int]:
    """Two overlapping pieces of one history as one."""
    for length in range(min(len(known), len(history)), 0, -1):
        if known[-length:] == history[:length]:
            return known + history[length:]
    return known + [item for item in history if item not in known]


def uci(folder: Path) -> Log:
    """Invoices of a gift shop; an item's description is the one that it bears most often."""
    frame = pq.read_table(folder / "transactions.parquet").to_pandas()
    named = frame.dropna(subset=["Description"]).groupby("StockCode")["Description"]
    title = named.agg(lambda texts: texts.mode().iloc[0])
    frame = frame[frame.CustomerID.notna() & (frame.Quantity > 0) & frame.StockCode.isin(title.index)]
    rows = [{"id": str(item), "title": text} for item, text in title.items()]
    return from_frame(frame.CustomerID, frame.StockCode, frame.InvoiceDate, rows)


def journey(folder: Path) -> Log:
    """Groceries; an item's text is its type, brand, category and department."""
    columns = ["household_id", "product_id", "transaction_timestamp"]
    frame = pq.read_table(folder / "transactions.parquet", columns=columns).to_pandas()
    count = frame.product_id.value_counts()
    frame = frame[frame.product_id.isin(count.index[count >= 20])]
    products = pq.read_table(folder / "products.parquet").to_pandas().fillna("")
    products = products[products.product_id.isin(frame.product_id)]
    rows = [
        {
            "id": str(row.product_id),
            "title": f"{row.product_type}, {row.brand}",
            "category": f"{row.department} > {row.product_category}",
        }
        for row in products.itertuples()
    ]
    return from_frame(frame.household_id, frame.product_id, frame.transaction_timestamp, rows)


def from_frame(person: Any, item: Any, when: Any, rows: list[dict[str, Any]]) -> Log:
    """Rows of a log, the last tenth of the time span as the test."""
    import pandas as pd

    ts = pd.to_datetime(when).astype("datetime64[us]").astype("int64")
    frame = pd.DataFrame({"person": person.astype(str), "item": item.astype(str), "ts": ts})
    frame = frame.sort_values(["person", "ts"], kind="stable").drop_duplicates(["person", "item"])
    test = frame.ts.quantile(0.9)
    groups = [(str(name), group) for name, group in frame.groupby("person")]
    return Log(
        person=[name for name, _ in groups],
        items=[group.item.tolist() for _, group in groups],
        ts=[group.ts.tolist() for _, group in groups],
        cut=[int((group.ts < test).sum()) for _, group in groups],
        catalog=catalog_table(rows),
        validation_ts=int(frame.ts.quantile(0.8)),
    )


def catalog_table(rows: list[dict[str, Any]]) -> pa.Table:
    """A catalogue of some columns, by id."""
    full = [dict.fromkeys(CATALOG_SCHEMA.names) | row for row in rows]
    return pa.Table.from_pylist(full, schema=CATALOG_SCHEMA).sort_by("id")


class Split:
    """The log with some items hidden: what is learned from, and who is asked."""

    def __init__(
        self, log: Log, vectors: dict[str, np.ndarray], hidden: set[str], people: int, seed: int
    ) -> None:
        self.log, self.hidden = log, hidden
        self.catalog = Catalog(log.catalog, vectors)
        self.items = Vocabulary(log.catalog["id"].combine_chunks())
        rng = np.random.default_rng(seed)
        self.rows = np.sort(rng.permutation(len(log.person))[:people])

    def snapshot(self, end: dict[int, int]) -> Snapshot:
        """Events of each person before position ``end``, without hidden items."""
        log = self.log
        kept = [[n for n in range(end[r]) if log.items[r][n] not in self.hidden] for r in self.rows]
        row = np.repeat(np.arange(len(self.rows)), [len(places) for places in kept])
        found = snapshot_from_arrays(
            users=Vocabulary([log.person[r] for r in self.rows]),
            items=self.items,
            row=row,
            item=self.items.numbers(
                [log.items[r][n] for r, at in zip(self.rows, kept, strict=True) for n in at]
            ),
            kind=np.full(len(row), KIND_CODES["purchase"], np.uint8),
            ts=[log.ts[r][n] for r, at in zip(self.rows, kept, strict=True) for n in at],
        )
        return replace(found, catalog=self.catalog)

    def cases(
        self, snapshot: Snapshot, start: dict[int, int], end: dict[int, int], wanted: set[str] | None
    ) -> Cases:
        """Who turned to wanted items (None = all that are not hidden) from ``start`` to ``end``, and has a history."""
        targets = []
        for place, r in enumerate(self.rows):
            later = self.log.items[r][start[r] : end[r]]
            chosen = [i for i in later if (i not in self.hidden if wanted is None else i in wanted)]
            if chosen and snapshot.ptr[place + 1] > snapshot.ptr[place]:
                targets.append((place, self.items.numbers(chosen)))
        user_C = np.array([place for place, _ in targets], np.int64)
        length_C = np.array([len(items) for _, items in targets])
        return Cases(
            history=snapshot,
            user_C=user_C,
            end_C=snapshot.ptr[user_C + 1],
            target_ptr=np.r_[0, np.cumsum(length_C)],
            target_item=np.concatenate([items for _, items in targets]).astype(np.int32),
        )


@dataclass(frozen=True, eq=False)
class Asked:
    """A scorer as a function of a batch; ``among`` (N + 1,) limits the answers."""

    function: Any
    among: np.ndarray | None = None
    config: Any = None

    def scores(self, batch: SequenceBatch) -> np.ndarray:
        score_BN = np.array(self.function(batch), np.float32)
        if self.among is not None:
            score_BN[:, ~self.among] = -np.inf
        score_BN[:, 0] = -np.inf
        return score_BN


def baselines(train: Snapshot) -> Iterator[tuple[str, Any]]:
    """Random, what is popular in the categories of the history, and the texts nearest to the mean of the history's."""
    width = train.num_items + 1
    rng = np.random.default_rng(0)
    yield "random", lambda batch: rng.random((len(batch.item_BT), width))
    vector_ND = np.concatenate([[np.zeros(384)], next(iter(train.catalog.vectors.values()))]).astype(
        np.float32
    )
    topic_N = topics(train, vector_ND)
    count_K = np.bincount(topic_N[train.item], minlength=topic_N.max() + 1)

    def in_category(batch: SequenceBatch) -> np.ndarray:
        share_BK = np.stack(
            [np.bincount(topic_N[row], minlength=len(count_K)) / max(1, len(row)) for row in batch.item_BT]
        )
        return share_BK[:, topic_N] * count_K[topic_N] + rng.random((len(batch.item_BT), width)) * 1e-6

    yield "popularity in category", in_category

    def text_knn(batch: SequenceBatch) -> np.ndarray:
        mean_BD = (vector_ND[batch.item_BT] * batch.mask_BT[..., None]).sum(1)
        return (mean_BD / np.linalg.norm(mean_BD, axis=1, keepdims=True).clip(1e-9)) @ vector_ND.T

    yield "text-kNN", text_knn


def shared(model: Any, every: int) -> Any:
    """A model that keeps every so many-th place for items that nobody has met, whatever the scores say."""
    unmet_N = ~model.met_N
    unmet_N[0] = False

    def function(batch: SequenceBatch) -> np.ndarray:
        score_BN = model.scores(batch)
        np.put_along_axis(score_BN, batch.item_BT, -np.inf, axis=1)  # what a person had is not shown
        place_BN = np.empty(score_BN.shape)
        for part_N, place in (
            (unmet_N, lambda rank: every * (rank + 1)),
            (~unmet_N, lambda rank: rank + rank // (every - 1) + 1),
        ):
            item_K = np.flatnonzero(part_N)
            order_BK = item_K[np.argsort(-score_BN[:, item_K], axis=1, kind="stable")]
            np.put_along_axis(place_BN, order_BK, place(np.arange(len(item_K)))[None].astype(float), axis=1)
        return -place_BN

    return function


def topics(train: Snapshot, vector_ND: np.ndarray) -> np.ndarray:
    """Category of every item by number, or a group of like texts."""
    paths = train.catalog.table["category"].to_pylist()
    if any(paths):
        return np.r_[0, np.unique([path or "" for path in paths], return_inverse=True)[1] + 1]
    from sklearn.cluster import KMeans

    return np.r_[0, KMeans(TOPICS, n_init=1, random_state=0).fit_predict(vector_ND[1:]) + 1]


def main() -> None:
    """Print recall of hidden items, and of the others, for every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", default="industrial", help="of amazon18-text: industrial or office")
    parser.add_argument("--people", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache", type=Path, default=Path("content-cache"), help="keeps the vectors of the texts"
    )
    given = parser.parse_args()
    name = given.folder.name
    log = (
        amazon(given.folder, given.part)
        if name.startswith("amazon")
        else (uci if "uci" in name else journey)(given.folder)
    )
    encoder = load_encoder("minilm", "text")
    vectors = {
        "text": ContentStore(given.cache / encoder.id).encode(encoder, item_texts(log.catalog)).vector_ND
    }
    rng = np.random.default_rng(given.seed)
    ids = log.catalog["id"].to_pylist()
    fold = rng.random(len(ids))
    hidden = {item for item, at in zip(ids, fold, strict=True) if at < HIDDEN}
    split = Split(log, vectors, hidden, given.people, given.seed)
    cut, end = dict(enumerate(log.cut)), {r: len(items) for r, items in enumerate(log.items)}
    train = split.snapshot(cut)

    # Validation: what some people turned to last before the test.
    chosen = set(rng.permutation([r for r in split.rows if cut[r] >= 3])[:CHOOSING].tolist())
    before = {r: log.validation_start(r) if r in chosen else at for r, at in cut.items()}
    fitted_on = split.snapshot(before)
    validation = split.cases(fitted_on, before, cut, None)
    judge = validation_metric(validation, measure="NDCG@10", seen="exclude")

    hidden_N = np.r_[False, np.isin(ids, list(hidden))]
    new = split.cases(train, cut, end, hidden)
    others = split.cases(train, cut, end, None)
    console = Console(width=150)
    console.print(
        f"{train.num_users:,} people, {train.num_events:,} events, {train.num_items:,} items, {len(hidden):,} hidden; "
        f"asked about hidden items: {len(new):,} people, about others: {len(others):,}"
    )
    functions = list(baselines(train))
    # Without content the same network and blend are found: what content adds is decided after them.
    found = fit_model("sequence", fitted_on, {}, Run(validate=judge)).config
    console.print(
        f"epochs {found.epochs:.0f}, counts {found.counts_weight}, content {found.content_weight}, "
        f"{found.unmet_content_weight} (unmet), lending {found.lending}, fading {found.content_decay}"
    )
    plain = fit_model("sequence", train, msgspec.structs.replace(found, content=False), Run())
    model = fit_model("sequence", train, found, Run())
    functions += [("sequence, no content", plain.scores), ("sequence", model.scores)]
    for every in EVERY:
        functions.append((f"sequence, place {every}, {2 * every} ... new", shared(model, every)))
    table = Table(
        "model",
        *(f"hidden: recall@{k} among {w}" for w in ("all", "hidden") for k in (10, 50)),
        "others: NDCG@10",
    )
    rows: dict[str, list[Evaluation]] = {}
    for title, function in functions:
        rows[title] = [
            rank_metrics(Asked(function, among), cases, name=title, ks=(10, 50), groups=())
            for cases, among in ((new, None), (new, hidden_N), (others, None))
        ]
        every, alone, rest = (row.metrics for row in rows[title])
        table.add_row(
            title,
            *(str(found[f"recall@{k}"]) for found in (every, alone) for k in (10, 50)),
            str(rest["NDCG@10"]),
        )
    console.print(table)
    for title in [title for title in rows if title.startswith("sequence") and "no content" not in title]:
        for place, what in enumerate(("all", "hidden")):
            gap = paired_difference(rows[title][place], rows["text-kNN"][place])["recall@10"]
            console.print(f"{title} - text-kNN, recall@10 among {what}: {gap.signed}")
        gap = paired_difference(rows[title][2], rows["sequence, no content"][2])["NDCG@10"]
        console.print(f"{title} - without content, NDCG@10 of others: {gap.signed}")


if __name__ == "__main__":
    main()
