"""What reranking costs and buys: accuracy against diversity, calibration, novelty and serendipity, dial by dial.

Bring the folder ``ml-100k`` (GroupLens; it may not be passed on). A shop gets the first four fifths of everybody's
ratings, a model is trained, and everybody is asked for ten films at each strength; what they rated afterwards is what
was right. The split is by person, so it compares strengths with one another and says nothing of accuracy in time.

    python bench/rerank.py DATA/ml-100k --plot docs/rerank.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import movielens_100k
from rich.console import Console
from rich.table import Table

from penchant import Engine
from penchant.evaluation import bootstrap_means

DIALS = {
    "mmr": (0.1, 0.2, 0.3, 0.5, 0.7),
    "dpp": (0.02, 0.05, 0.1, 0.2, 0.4),
    "calibration": (0.1, 0.2, 0.4, 0.6, 0.8),
}
MEASURES = ("NDCG@10", "diversity", "calibration error", "novelty", "serendipity")
K = 10


def split(events: pa.Table) -> tuple[pa.Table, dict[str, set[str]]]:
    """Everybody's first four fifths, and the items of the rest."""
    events = events.sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    user = np.array(events["user_id"].to_pylist())
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    length = np.diff(np.r_[starts, len(user)])
    place = np.arange(len(user)) - np.repeat(starts, length)
    early = place < np.repeat((length * 0.8).astype(int), length)
    later: dict[str, set[str]] = {}
    for row in events.filter(pa.array(~early)).select(["user_id", "item_id"]).to_pylist():
        later.setdefault(row["user_id"], set()).add(row["item_id"])
    return events.filter(pa.array(early)), later


class Judge:
    """Measures lists by the shop's own map of interests."""

    def __init__(self, engine: Engine, history: pa.Table, later: dict[str, set[str]]) -> None:
        self.engine, self.later = engine, later
        self.guide = engine.serving.ranker.guide
        self.items = engine.serving.ranker.items
        self.had: dict[str, list[str]] = {}
        for row in history.select(["user_id", "item_id"]).to_pylist():
            self.had.setdefault(row["user_id"], []).append(row["item_id"])
        people_N = np.bincount(
            self.items.numbers(history["item_id"].to_pylist()), minlength=len(self.items) + 1
        )
        self.bits_N = -np.log2((people_N + 1) / (len(self.had) + 1))

    def measure(self, **dials: float) -> np.ndarray:
        """One row a person: the measures of the list they get."""
        return np.array([self.of(user, dials) for user in sorted(self.later)])

    def of(self, user: str, dials: dict[str, float]) -> list[float]:
        slate = self.engine.recommend(user_id=user, k=K, explore="off", seen="exclude", **dials)
        number_K = self.items.numbers(slate.item_ids)
        right_K = np.array([item in self.later[user] for item in slate.item_ids])
        discount_K = 1 / np.log2(np.arange(K) + 2)
        ideal = discount_K[: len(self.later[user])].sum()
        vec_KD = self.guide.vec_ND[number_K]
        alike = (vec_KD @ vec_KD.T)[np.triu_indices(len(number_K), 1)].mean()
        own_NC = self.guide.shares(self.items.numbers(self.had[user]))
        list_NC = self.guide.shares(number_K)
        person_C = own_NC.sum(0) / max(own_NC.sum(), 1e-9)
        mixed_C = 0.99 * list_NC.sum(0) / max(list_NC.sum(), 1e-9) + 0.01 * person_C
        used = person_C > 0
        error = float((person_C[used] * np.log(person_C[used] / mixed_C[used])).sum())
        # Interests of less than a hundredth of what the person turned to are as good as new to them.
        new_K = (list_NC[:, person_C < 0.01] > 0).any(1)
        return [
            float((right_K * discount_K[: len(right_K)]).sum() / ideal),
            1 - float(alike),
            error,
            float(self.bits_N[number_K].mean()),
            1000 * float((right_K & new_K).mean()),
        ]


def run(folder: Path, model: str) -> list[tuple[str, float, list]]:
    log = movielens_100k(folder)
    history, later = split(log.events)
    with tempfile.TemporaryDirectory() as place:
        pq.write_table(history, f"{place}/events.parquet")
        pq.write_table(log.items, f"{place}/items.parquet")
        with Engine.open(f"{place}/shop") as engine:
            engine.init()
            engine.catalog(files=[f"{place}/items.parquet"])
            engine.ingest(files=[f"{place}/events.parquet"])
            engine.train(models=[model])
            judge = Judge(engine, history, later)
            plain = judge.measure()
            rows = [("none", 0.0, bootstrap_means(plain))]
            for dial, strengths in DIALS.items():
                for strength in strengths:
                    found = judge.measure(**{dial: strength})
                    change = bootstrap_means(found[:, :1] - plain[:, :1])
                    rows.append((dial, strength, [*bootstrap_means(found), *change]))
    return rows


def plot(rows: list, out: Path) -> None:
    """Accuracy against each of the others; one line a dial, from its weakest to its strongest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), sharey=True)
    for axis, (column, name) in zip(axes, list(enumerate(MEASURES))[1:], strict=True):
        start = rows[0][2]
        for dial, marker in zip(DIALS, "osD", strict=True):
            points = [start, *(found for which, _, found in rows if which == dial)]
            axis.plot(
                [p[column].value for p in points],
                [p[0].value for p in points],
                marker=marker,
                ms=4,
                label=dial,
            )
        axis.plot(start[column].value, start[0].value, "k*", ms=10, label="no reranking")
        axis.set_xlabel(f"{name}{' per 1,000' if name == 'serendipity' else ''}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("NDCG@10")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="ease")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    rows = run(given.folder, given.model)
    table = Table("dial", "strength", *MEASURES, "NDCG@10, change")
    for dial, strength, found in rows:
        table.add_row(
            dial, f"{strength:g}", *(f"{e.value:.4g}" for e in found[:5]), *(e.signed for e in found[5:])
        )
    Console(width=150).print(table)
    if given.plot:
        plot(rows, given.plot)
